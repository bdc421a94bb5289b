"""What do more experts buy at the same active FLOPs, and does it wear off with size?

Question    How does held-out loss depend on the number of experts of which each token passes one?
Method      Switch layers (one active expert, dropless) in both layers of a transformer, 1 (a plain SwiGLU) to 32
            experts at three widths, each for the same executed FLOPs as its dense twin: the router's products are paid
            for with a few steps. Bytes of the embedded corpus; three learning rates each. The losses at the best rates
            are fitted with the law of routed models (Clark 2022, arXiv 2202.01169, equation 1 with saturation).
Prediction  Written before the first run: loss falls with every doubling of experts at each width, by less at 16 to 32
            than at 1 to 2; b of the law is negative, and its interval excludes zero.
Command     isoflop run experiments/moe_sparsity.py
Result      not run yet
"""

from research.config import CheckpointConfig, DataConfig, EvaluationConfig, LoggingConfig, RunConfig, TrainingConfig
from research.grid import Family, Grid
from research.model_config import AttentionConfig, MlpConfig, ModelConfig
from research.moe_config import MoeConfig

EXPERT_COUNTS = (2, 4, 8, 16, 32)

EXPERIMENT = Grid(
    name="moe_sparsity",
    question="What do more experts buy at the same active FLOPs, and does it wear off with size?",
    base=RunConfig(
        model=ModelConfig(
            vocab_size=272,  # 259 byte ids, rounded up to whole vectors of 16
            width=64,
            depth=2,
            attention=AttentionConfig(heads=4, kv_heads=4, head_dim=16),
            mlp=MlpConfig(hidden=168),
            moe=MoeConfig(active=1, hidden=168, renormalize=False),
            tied_embeddings=True,
        ),
        data=DataConfig(vocab_size=272, train_tokens=16_000_000),
        training=TrainingConfig(batch_size=16, sequence_length=128),
        evaluation=EvaluationConfig(tokens=65_536, batch_size=64),
        checkpoint=CheckpointConfig(every=1000),
        logging=LoggingConfig(every=20),
    ),
    families=(
        Family("1"),
        *(
            Family(str(experts), ("model.pattern=attention:moe", f"model.moe.experts={experts}"))
            for experts in EXPERT_COUNTS
        ),
    ),
    budgets=(9e10, 2.4e11, 4.5e11),  # 400 steps of the dense model at each width
    sizes=((16, 2), (32, 2), (48, 2)),
    learning_rates=(4e-3, 1e-2, 2.5e-2),
    law="routed",
)

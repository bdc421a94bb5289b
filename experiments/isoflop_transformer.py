"""How should compute be split between size and data for a Llama-style transformer on documentation and code?

Question    Which size is best at each compute budget, what law do the losses follow, and does it hold at 4x?
Method      IsoFLOP grids (approach 2) and the parametric law (approach 3) of Hoffmann 2022, arXiv 2203.15556, on bytes
            of the embedded corpus (70 % docstrings, 30 % code). One run at 4x the largest budget is predicted, then
            trained.
Prediction  Written before the first run: each budget's losses form a valley whose optimum moves to larger sizes with
            compute; loss at 4x is predicted within 3 % and inside the stated 90 % interval.
Command     isoflop run experiments/isoflop_transformer.py          (`make demo`)
At scale    isoflop run experiments/isoflop_transformer.py --set 'budgets=[1e18,6e18,3.6e19]' \
                'sizes=[[512,6],[640,8],[768,10],[1024,12],[1280,16],[1536,20]]' base.model.attention.head_dim=64 \
                base.data.tokenizer=sentencepiece base.data.vocab_size=32768 base.model.vocab_size=32768 ...
"""

from research.config import (
    AttentionConfig,
    CheckpointConfig,
    DataConfig,
    EvaluationConfig,
    LoggingConfig,
    MlpConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    TrainingConfig,
)
from research.plan import IsoFlop

EXPERIMENT = IsoFlop(
    name="isoflop_transformer",
    question="How should compute be split between size and data for a Llama-style transformer?",
    base=RunConfig(
        model=ModelConfig(
            vocab_size=272,  # 259 byte ids, rounded up to whole vectors of 16
            width=64,
            attention=AttentionConfig(heads=4, kv_heads=4, head_dim=16),
            mlp=MlpConfig(hidden=168),
            tied_embeddings=True,
        ),
        data=DataConfig(vocab_size=272, train_tokens=16_000_000),
        optimizer=OptimizerConfig(learning_rate=6.5e-3),
        training=TrainingConfig(batch_size=4, sequence_length=128),
        evaluation=EvaluationConfig(tokens=65_536, batch_size=64),
        checkpoint=CheckpointConfig(every=500),
        logging=LoggingConfig(every=20),
    ),
    budgets=(5e10, 2.8e11, 1.6e12),
    sizes=(
        (16, 1),
        (16, 2),
        (32, 1),
        (32, 2),
        (32, 3),
        (48, 2),
        (48, 3),
        (64, 3),
        (64, 4),
        (80, 4),
        (96, 4),
        (96, 5),
    ),
    tokens_per_param=(2.0, 150.0),
    learning_rate_exponent=-1.0,
    held_out_factor=4.0,
)

"""Does the best learning rate of a narrow model serve a wide one, and under which parametrisation?

Question    How does the peak rate of the lowest held-out loss move with the width, under the standard parametrisation
            and under muP (Yang 2022, arXiv:2203.03466)?
Method      A Llama-style transformer of two layers at widths 64 to 512, on bytes of the embedded corpus (70 %
            docstrings, 30 % code), for 120 steps of 256 tokens. Each width sweeps peak rates by factors of 2 under both
            parametrisations, which are one at width 64, with three seeds, and goes on where the best lies at an end.
            Under mup decay is independent of the rate's scale. The best rate of a width is the bottom of a parabola in
            log rate, its drift a power law of the width.
Prediction  Written before the first run: from width 64 to 512 the best rate falls by more than 3 times under standard
            (as 1 / width: 8 times) and moves by less than 1.5 times under mup; at width 512 the best mup loss is no
            worse than the best standard one.
Command     isoflop run experiments/lr_transfer.py --together 4, then for each family
            isoflop bowls runs/lr_transfer/*/runs.parquet --only family=mup --cell width --axes learning_rate
Cost        TO BE FILLED
Result      Not run yet.
"""

from research.config import (
    AdamWConfig,
    AttentionConfig,
    CheckpointConfig,
    DataConfig,
    EvaluationConfig,
    LoggingConfig,
    MlpConfig,
    ModelConfig,
    RunConfig,
    TrainingConfig,
)
from research.plan import Family, Grid

EXPERIMENT = Grid(
    name="lr_transfer",
    question="Does the best learning rate of a narrow model serve a wide one?",
    base=RunConfig(
        model=ModelConfig(
            vocab_size=272,  # 259 byte ids, rounded up to whole vectors of 16
            width=64,
            depth=2,
            attention=AttentionConfig(heads=4, kv_heads=4, head_dim=16),
            mlp=MlpConfig(hidden=168),
        ),
        data=DataConfig(vocab_size=272, train_tokens=16_000_000),
        optimizer=AdamWConfig(),
        training=TrainingConfig(steps=120, batch_size=4, sequence_length=64),
        evaluation=EvaluationConfig(tokens=8192, batch_size=64),
        checkpoint=CheckpointConfig(every=1000),
        logging=LoggingConfig(every=20),
    ),
    families=(
        Family("standard"),
        Family(
            "mup",
            ("model.parametrisation.name=mup", "model.parametrisation.base_width=64"),
            learning_rates=(2e-3, 4e-3, 8e-3, 1.6e-2),
        ),
    ),
    learning_rates=(1e-3, 2e-3, 4e-3, 8e-3),
    sizes=((64, 2), (128, 2), (256, 2), (512, 2)),
    seeds=(0, 1, 2),
    extend=3,
)

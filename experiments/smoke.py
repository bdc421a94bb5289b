"""Does the pipeline run end to end? Six runs of seconds on bytes of the embedded corpus.

Question    Not a scientific one: this file is for the tests and for a first look.
Prediction  Loss falls below ln(256) = 5.55 nats per byte in every run.
Cost        9e9 training FLOPs in all (`isoflop plan experiments/smoke.py`).
Command     isoflop run experiments/smoke.py
"""

from research.config import (
    AdamWConfig,
    AttentionConfig,
    DataConfig,
    EvaluationConfig,
    MlpConfig,
    ModelConfig,
    RunConfig,
    TrainingConfig,
)
from research.plan import IsoFlop

EXPERIMENT = IsoFlop(
    name="smoke",
    question="Does the pipeline run end to end?",
    base=RunConfig(
        model=ModelConfig(width=16, depth=2, attention=AttentionConfig(2, 2, 8), mlp=MlpConfig(hidden=40)),
        data=DataConfig(train_tokens=500_000, validation_tokens=8_192),
        optimizer=AdamWConfig(learning_rate=1e-2),
        training=TrainingConfig(batch_size=8, sequence_length=32),
        evaluation=EvaluationConfig(tokens=2_048),
    ),
    budgets=(1e9, 2e9),
    sizes=((8, 1), (16, 1), (16, 2)),
    tokens_per_param=(0.1, 100.0),
    min_sizes=3,
    min_steps=10,
)

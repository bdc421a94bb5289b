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
Command     isoflop run experiments/lr_transfer.py --together 4, and for each family
            isoflop bowls runs/lr_transfer/plans/*/runs.parquet --where family=mup --cell params --axes learning_rate
Cost        4.25e13 training FLOPs in 102 runs, the extensions among them: 33 minutes of CPU time, and 31 by the clock
            of a 2-core AMD EPYC that had as much other work.
Result      Three seeds, jax 0.10.2. Best peak rate with its 90 % interval, and the loss there in nats per token, by the
            bowl of each width:

                width       standard                           mup
                   64   6.13e-3 [5.61e-3, 6.69e-3] 2.880   6.11e-3 [5.57e-3, 6.71e-3] 2.880
                  128   3.04e-3 [2.75e-3, 3.35e-3] 2.830   5.58e-3 [4.76e-3, 6.54e-3] 2.823
                  256   1.54e-3 [1.11e-3, 2.14e-3] 2.779   5.21e-3 [4.43e-3, 6.13e-3] 2.773
                  512   0.70e-3 [0.49e-3, 0.99e-3] 2.745   5.50e-3 [4.85e-3, 6.24e-3] 2.746

            As predicted: from width 64 to 512 the best rate falls 8.8 times under standard, by 0.48 a doubling, as
            1 / width would, and 1.11 times under mup, by 0.97 a doubling, where the intervals at the two ends overlap.
            By the bowl of all widths it goes as params^-0.549 [-0.573, -0.525] under standard, params^-0.030 [-0.135,
            0.075] under mup. Neither reaches a lower loss: at width 512 the best ones differ by less than the seeds
            (0.05). Both are one at width 64; their best rates differ there as a rate of 1.6e-2 was tried in another
            round of the one. Runs of 120 steps say nothing of the best rate of long ones.
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

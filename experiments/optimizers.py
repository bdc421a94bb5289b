"""Which optimizer makes most of a training budget, each at its own best rate?

Question    How does held-out loss fall with training FLOPs under each optimizer, and how much less compute does one
            need than AdamW for the same loss?
Method      A Llama-style transformer at three sizes, a budget each, on bytes of the embedded corpus (70 % docstrings,
            30 % code); runs differ in the optimizer alone, whose other settings are its defaults. Each has peak rates
            of its own by factors of 2 (Lion's are a tenth of AdamW's, SGD's ten times), extended where the best lies at
            an end, and two seeds. The law of each is loss = (scale / flops)^alpha over its best rates; the speed-up is
            what AdamW needs for an optimizer's loss at the largest budget, by AdamW's alpha, over that budget. FLOPs
            are the model's: those of the updates are not in it.
Prediction  Written before the first run: Muon and SOAP need fewer FLOPs than AdamW, by 1.2 to 1.5 times; SGD is last by
            far; the others are within the seeds of AdamW.
Command     isoflop run experiments/optimizers.py
Cost        1.19e13 training FLOPs in 192 runs, 66 of them extensions: 68 minutes of one worker, on 2 cores of an AMD
            EPYC that had more other work than they could do.
Result      Two seeds, jax 0.10.2. Loss in nats per token at each budget at the best rate, which lies within the rates
            tried in every cell; alpha with its 90 % interval; the speed-up at 1.6e11 FLOPs, in brackets from the better
            seed of AdamW against the worse of the other to the reverse:

                optimizer        1e10    4e10   1.6e11   alpha                    speed-up
                soap            2.716   2.356   1.990   0.112 [0.105, 0.120]   1.72 [1.22, 2.42]
                muon            2.712   2.358   2.011   0.108 [0.104, 0.116]   1.55 [1.18, 2.01]
                schedule_free   2.641   2.348   2.020   0.097 [0.088, 0.106]   1.48 [1.09, 2.00]
                adafactor       2.718   2.448   2.084   0.096 [0.077, 0.114]   1.06 [0.81, 1.39]
                adamw           2.736   2.411   2.097   0.096 [0.087, 0.107]   1
                lion            2.778   2.529   2.234   0.079 [0.068, 0.092]   0.52 [0.34, 0.79]
                sgd             3.103   2.919   2.610   0.062 [0.050, 0.081]   0.10 [0.08, 0.13]

            Muon and SOAP do need less, by more than predicted, and fall faster with compute than AdamW, by intervals
            that just overlap. Schedule-free AdamW was not expected beside them: it is best at the smallest budget,
            where all runs are short. Lion is worse than AdamW at every budget, with its defaults, of which nothing but
            the rate was tuned. Two seeds of AdamW differ by 0.09 nats at the largest budget, so that the order of the
            first three is not settled.
"""

from research.config import (
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

RATES = {
    "adamw": (4e-3, 8e-3, 1.6e-2),
    "adafactor": (4e-3, 8e-3, 1.6e-2),
    "lion": (5e-4, 1e-3, 2e-3),
    "muon": (4e-3, 8e-3, 1.6e-2),
    "soap": (4e-3, 8e-3, 1.6e-2),
    "schedule_free": (8e-3, 1.6e-2, 3.2e-2),
    "sgd": (5e-2, 1e-1, 2e-1),
}

EXPERIMENT = Grid(
    name="optimizers",
    question="Which optimizer makes most of a training budget?",
    base=RunConfig(
        model=ModelConfig(
            vocab_size=272,  # 259 byte ids, rounded up to whole vectors of 16
            width=32,
            depth=2,
            attention=AttentionConfig(heads=4, kv_heads=4, head_dim=8),
            mlp=MlpConfig(hidden=84),
            tied_embeddings=True,
        ),
        data=DataConfig(vocab_size=272, train_tokens=16_000_000),
        training=TrainingConfig(batch_size=8, sequence_length=64),
        evaluation=EvaluationConfig(tokens=32_768, batch_size=128),
        checkpoint=CheckpointConfig(every=5000),
        logging=LoggingConfig(every=50),
    ),
    families=tuple(
        Family(name, () if name == "adamw" else (f"optimizer.name={name}",), rates) for name, rates in RATES.items()
    ),
    learning_rates=(),
    budgets=(1e10, 4e10, 1.6e11),
    sizes=((16, 2), (24, 2), (40, 2)),
    seeds=(0, 1),
    extend=3,
)

"""Which batch is best, which is critical, and does the gradients' noise foretell either?

Question    How do the best batch at a number of tokens, and the critical batch at a loss, move as the loss falls, and
            is the critical batch where the gradient noise scale of the runs says?
Method      One transformer on docstrings of the embedded corpus as bytes, in batches of 256 to 4,096 tokens. A budget
            fixes the tokens, since one model has one cost per token: batches of one budget differ in their steps, and
            each run has a cosine schedule of its own to its end. Three learning rates for each batch, a factor of 2
            apart, around a centre that grows about as the square root of the batch, and further ones beyond an end at
            which the best lies. What a batch takes to a loss is read between the budgets at the best rates, and
            tokens = tokens_min (1 + batch_tokens / critical_batch) fitted to it (McCandlish et al. 2018, arXiv
            1812.06162). Four microbatches a step measure the noise scale tr(Sigma) / |G|^2 over the last quarter of
            each run, in which the learning rate falls. The text is one source, so that no mixture keeps time with the
            microbatches.
Prediction  Written before the run, but after smoke runs of earlier designs at one or two rates, whose noise scales were
            1,800 to 8,600 tokens at losses of 3.07 to 1.81, and one of which, of three batches at a rate of 1.6e-2,
            had critical batches of 830 to 1,100 tokens at losses of 2.33 to 2.21. At the best rates the critical batch
            grows as the loss falls, and lies between 1,024 and 4,096 tokens at the middle loss. The noise scale is
            above it, by less than a factor of 5 at every loss: it is of the plain gradient, and the optimizer is Adam.
            The best batch at each budget is 256 or 512 tokens.
Command     isoflop run experiments/batch_size.py, and then on the plan's runs.csv
            isoflop critical-batch RUNS.csv
            isoflop bowls RUNS.csv --column flops=budget_flops --cell params flops --axes learning_rate batch_tokens
Cost        1.19e13 training FLOPs in 89 runs, 14 of them extensions of sweeps: 39 minutes of one worker, on 2 cores of
            an AMD EPYC that had more other work than they could do.
Result      One seed, jax 0.10.2. Critical batch with its 90 % interval, and the noise scale at the same loss, the
            median over batches, which lie between 3,500 and 7,000 tokens and show no trend with the batch:

                loss (nats)   critical batch (tokens)   noise scale (tokens)   ratio
                     2.328       942 [881, 1,007]              4,034            4.3
                     2.195     1,229 [1,105, 1,368]            4,400            3.6
                     2.070     1,619 [1,511, 1,736]            4,800            3.0

            As predicted: the critical batch grows as the loss falls, by 1.7 times where the noise scale grows by 1.2,
            and the noise scale is above it by less than a factor of 5, ever less. The best batch is 256 tokens, the
            least that was tried, at the first four budgets and 512 at the last; by the bottom of the bowls, where there
            is one, it grows from 277 [157, 489] tokens at 9e10 FLOPs to 593 [474, 743] at 3.6e11, as flops^0.64 [0.14,
            1.13], and lies below the critical batch. The best rate is between 0.0096 and 0.0139 and shows no trend
            beyond its interval (flops^0.24 [-0.13, 0.61]). Of one seed: settings next to each other may change places
            under another.
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
    SourceConfig,
    TrainingConfig,
)
from research.plan import Family, Grid

EXPERIMENT = Grid(
    name="batch_size",
    question="Which batch is best, which is critical, and does the gradients' noise foretell either?",
    base=RunConfig(
        model=ModelConfig(
            vocab_size=272,  # 259 byte ids, rounded up to whole vectors of 16
            width=32,
            depth=2,
            attention=AttentionConfig(heads=2, kv_heads=2, head_dim=16),
            mlp=MlpConfig(hidden=88),
            tied_embeddings=True,
        ),
        data=DataConfig(
            sources=(SourceConfig("prose", "embedded_corpus/prose"),), vocab_size=272, train_tokens=8_000_000
        ),
        training=TrainingConfig(sequence_length=64, microbatches=4),
        evaluation=EvaluationConfig(tokens=65_536, batch_size=64),
        checkpoint=CheckpointConfig(every=5000),
        logging=LoggingConfig(every=50, noise_scale=True),
    ),
    families=(
        Family("batch 256", ("training.batch_size=4",), learning_rates=(4e-3, 8e-3, 1.6e-2)),
        Family("batch 512", ("training.batch_size=8",), learning_rates=(4e-3, 8e-3, 1.6e-2)),
        Family("batch 1024", ("training.batch_size=16",)),
        Family("batch 2048", ("training.batch_size=32",), learning_rates=(1.6e-2, 3.2e-2, 6.4e-2)),
        Family("batch 4096", ("training.batch_size=64",), learning_rates=(1.6e-2, 3.2e-2, 6.4e-2)),
    ),
    learning_rates=(8e-3, 1.6e-2, 3.2e-2),
    budgets=(2.25e10, 4.5e10, 9e10, 1.8e11, 3.6e11),
    extend=2,
)

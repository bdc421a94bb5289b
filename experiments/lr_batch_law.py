"""Do laws of the best learning rate and batch, fitted to small runs, say what is best at eight times the compute?

Question    How do the best peak rate and the best batch change with params and tokens, and what does it cost to follow
            those laws at a scale that they have not seen?
Method      A Llama-style transformer on bytes of the embedded corpus (70 % docstrings, 30 % code). Nine cells, three
            sizes by three numbers of tokens; in each, peak rates by factors of 2 and batches of 128 to 1,024 tokens at
            equal tokens, extended where the best lies at an end. One bowl is fitted through all cells, with laws of its
            optimum in params and tokens (isoflop bowls). The held-out cell has eight times the compute of the largest
            of the nine and a sweep of its own, which no fit sees.
Prediction  Written before the first run, but after 15 runs of one cell that showed where the best lies: the best rate
            falls with params and the best batch grows with tokens, both with intervals off zero; the run at the
            held-out cell nearest to what the laws say is within 0.5 % of its best.
Command     isoflop run experiments/lr_batch_law.py, and on the plan's runs.csv
            isoflop bowls RUNS.csv --axes learning_rate batch_tokens --at params=67800 tokens=2097152
            The held-out cell: the same file with --set name=lr_batch_law_held_out 'sizes=[[40,3]]' tokens=2097152
            'axes=[{"field":"optimizer.learning_rate","low":4e-3,"high":1.6e-2,"in_grid":3},
                   {"field":"training.batch_size","low":4,"high":16,"scale":"power_of_two"}]', and on its runs.csv
            isoflop recipes RUNS.csv --fitted bowls.json, which isoflop bowls --json has written of the nine cells.
            Three seeds of two settings: with seeds=[0,1,2], extend=0, base.training.batch_size=7 (or 16) and 'axes=[
            {"field":"optimizer.learning_rate","scale":"choices","choices":[0.00603,0.00853]}]' (or [0.008,0.016]).
Cost        5.71e12 training FLOPs in 117 runs, 9 of them extensions, and 2.3e13 in 22 of the held-out cell: 62 and 54
            minutes of one worker, on 2 cores of an AMD EPYC that had more other work than they could do.
Result      jax 0.10.2, one seed but where it says three. By the bowl of all nine cells, with 90 % intervals,

                learning_rate ~ params^-0.46 [-0.72, -0.19]  tokens^-0.01 [-0.11, 0.10]
                batch_tokens  ~ params^0.04 [-0.16, 0.23]    tokens^0.43 [0.27, 0.58]

            as predicted. Each cell followed by the laws of the other eight: the nearest run is 0.23 % above the cell's
            best on average, 0.80 % at worst; following the nearest cell's best run costs 1.49 %, laws of the cells' own
            optima 0.65 %. At the held-out cell (67,800 params, 2.1e6 tokens, 1.04e12 FLOPs) the laws say a rate of
            0.0060 [0.0047, 0.0077] and a batch of 431 [300, 619] tokens. Held-out loss there, by batch and rate:

                batch (tokens)    0.004    0.008    0.016    0.032
                           256   1.7338   1.7589   1.8525
                           512   1.7442   1.7136   1.7351
                         1,024   1.7653   1.7454   1.7099   1.7374
                         2,048                     1.7452

            The run nearest to what the laws say, 0.008 at 512 tokens, is 0.22 % above the best, as predicted; that of
            Porian's and of Step Law's recipe is 1.6 % above it, Kaplan's and DeepSeek's 2.1 %. But the setting itself,
            0.00603 at 448 tokens, costs more than that 0.5 %: 1.7336 over three seeds against 1.7210 of the
            best, 0.73 %, and 1.1 to 1.3 hundredths of a nat in each seed. The bowl of the cell has its bottom at 0.013
            [0.003, 0.048] and 856 [327, 2,240] tokens: both laws fall short by a factor of two, along the valley in
            which a larger batch takes a larger rate, at four times the tokens of any cell that they saw.
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
from research.plan import Axis, Search

EXPERIMENT = Search(
    name="lr_batch_law",
    question="Do laws of the best learning rate and batch hold at eight times the compute?",
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
        training=TrainingConfig(batch_size=16, sequence_length=64),
        evaluation=EvaluationConfig(tokens=65_536, batch_size=128),
        checkpoint=CheckpointConfig(every=5000),
        logging=LoggingConfig(every=50),
    ),
    axes=(
        Axis("optimizer.learning_rate", 4e-3, 1.6e-2, in_grid=3),
        Axis("training.batch_size", 2, 16, scale="power_of_two"),
    ),
    method="grid",
    sizes=((16, 2), (24, 2), (32, 2)),
    tokens=(2**17, 2**18, 2**19),
    extend=2,
)

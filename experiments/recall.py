"""Which mixers can look up what they read, and what does it take of their width?

Question    How many key-value pairs does a model recall, by its sequence mixer and its width?
Method      Multi-query associative recall (Arora 2023, arXiv 2312.04927, sections 3 and 4): pairs of keys and values,
            then each key again at a gap from a power law, to be answered with its value. Sequences of 64 tokens, 2 to
            16 pairs in training, held-out accuracy by the number of pairs. Two layers of the mixer alone, no channel
            mixer; three learning rates for each.
Prediction  Written before the first run: attention, Mamba and Mamba-2 recall all 16 pairs at either width; S4, H3
            and LSTM do not, and gain more from width than from anything else.
Command     isoflop run experiments/recall.py
Cost        6.9e12 training FLOPs (6.3e12 as they were counted then); 10 minutes on 2 cores of an AMD EPYC (19 of CPU
            time).
Result      One seed, jax 0.10.2. Share of values recalled, by pairs, each at its best rate (*: the sweep's largest, so
            that it may do better beyond it); 1 in 32 is chance:

                pairs              2      4      8     16
                rwkv7 16       1.000   .999   .979   .794
                rwkv7 32       1.000  1.000   .999   .982
                mamba2 16 *     .953   .825   .659   .402
                mamba2 32 *     .996   .976   .917   .749
                attention 16 *  .533   .296   .201   .151
                attention 32    .957   .936   .897   .777
                h3 16 *         .717   .437   .265   .177
                h3 32           .789   .641   .471   .281
                mamba 16        .486   .285   .186   .122
                mamba 32        .551   .312   .213   .153
                lstm 16 *       .555   .291   .189   .121
                lstm 32 *       .541   .293   .208   .139
                s4 16 *         .428   .244   .172   .112
                s4 32 *         .508   .300   .194   .140

            In 1,000 steps RWKV-7 alone recalls nearly all 16 pairs, and it does best at either width: predicted were
            attention, Mamba and Mamba-2. Width matters most where recall has begun: attention goes from the level of
            LSTM to .78 at 16 pairs, Mamba-2 from .40 to .75, while LSTM, S4 and Mamba gain next to nothing. These are
            speeds of learning more than limits: attention at width 32 broke through at the end (mean training loss 2.24
            nats in steps 601 to 800, 1.20 in the last 200), where RWKV-7 had done so before step 400.
"""

from research.config import (
    AttentionConfig,
    CheckpointConfig,
    EvaluationConfig,
    H3Config,
    LoggingConfig,
    Mamba2Config,
    ModelConfig,
    RunConfig,
    Rwkv7Config,
    S4Config,
    TaskConfig,
    TrainingConfig,
)
from research.plan import Family, Grid

TASK = TaskConfig("recall", lengths=(2, 16), evaluated=(2, 4, 8, 16), symbols=64, recall_length=64)
MIXERS = {
    "attention": "attention",
    "mamba": "mamba",
    "mamba2": "mamba2",
    "rwkv7": "rwkv7_first | rwkv7_time",
    "s4": "s4",
    "h3": "h3",
    "lstm": "lstm",
}
WIDTHS = (16, 32)

EXPERIMENT = Grid(
    name="recall",
    question="Which mixers can look up what they read, and what does it take of their width?",
    base=RunConfig(
        model=ModelConfig(
            vocab_size=TASK.vocab_size,
            width=32,
            depth=2,
            attention=AttentionConfig(heads=1, kv_heads=1, head_dim=32),
            mamba2=Mamba2Config(state_size=16, head_dim=16, chunk=32),
            rwkv7=Rwkv7Config(head_dim=16, decay_rank=8, rate_rank=8, value_rank=8, gate_rank=8),
            s4=S4Config(state_size=16, kernel_length=64),
            h3=H3Config(state_size=16, head_dim=8),
        ),
        task=TASK,
        training=TrainingConfig(steps=1000, batch_size=32, sequence_length=64),
        evaluation=EvaluationConfig(tokens=16_384, batch_size=64),
        checkpoint=CheckpointConfig(every=1000),
        logging=LoggingConfig(every=20),
    ),
    families=tuple(
        Family(
            f"{name} {width}", (f"model.pattern={pattern}", f"model.width={width}", f"model.attention.head_dim={width}")
        )
        for name, pattern in MIXERS.items()
        for width in WIDTHS
    ),
    learning_rates=(2e-3, 6e-3, 2e-2),
)

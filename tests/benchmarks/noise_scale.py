"""What the gradient noise scale costs a training step, and what splitting its batch costs, in turn in one process.

    .venv/bin/python tests/benchmarks/noise_scale.py

Width 64, 4 layers, batches of 16 x 128 tokens in 1, 4 and 16 microbatches. Printed: the median CPU time of a step, of
all threads, since it depends less than the clock on what else the machine does; its ratio to the undivided step; that
of measuring to the same step without; and the measure's share of the step's FLOPs by its closed form, 2 for each
parameter and microbatch.
"""

import statistics
import time
from dataclasses import replace

import jax
import numpy as np

from research.config import AttentionConfig, LoggingConfig, MlpConfig, ModelConfig, RunConfig, TrainingConfig
from research.plan import run_cost
from research.sharding import make_mesh
from research.training.objective import language_modelling
from research.training.runtime import configure
from research.training.step import make_program

BATCH, LENGTH, ROUNDS, STEPS_PER_ROUND = 16, 128, 15, 2
MICROBATCHES = (1, 4, 16)


def stepper(config: RunConfig):
    """A function that takes some training steps and waits for them; it is compiled on return."""
    program = make_program(config, make_mesh(config.mesh), language_modelling(config))
    stream = np.random.default_rng(0).integers(0, 259, (BATCH, LENGTH + 1)).astype(np.int32)
    batch = {"inputs": stream[:, :-1], "targets": stream[:, 1:], "weights": np.ones((BATCH, LENGTH), np.float32)}
    state = program.init()

    def run() -> None:
        nonlocal state
        for _ in range(STEPS_PER_ROUND):
            state, metrics = program.train(state, batch, program.numbers)
        jax.block_until_ready(metrics)

    run()
    return run


def main() -> None:
    configure()
    base = RunConfig(
        model=ModelConfig(width=64, depth=4, attention=AttentionConfig(4, 4, 16), mlp=MlpConfig(168)),
        training=TrainingConfig(batch_size=BATCH, sequence_length=LENGTH),
    )
    steps = {}
    for parts in MICROBATCHES:
        config = replace(base, training=replace(base.training, microbatches=parts))
        for measures in (False, True) if parts > 1 else (False,):
            steps[parts, measures] = stepper(replace(config, logging=LoggingConfig(noise_scale=measures)))
    seconds = {key: [] for key in steps}
    for _ in range(ROUNDS):
        for key, run in steps.items():
            began = time.process_time()
            run()
            seconds[key].append((time.process_time() - began) / STEPS_PER_ROUND)
    took = {key: statistics.median(found) for key, found in seconds.items()}
    cost = run_cost(base)
    for parts in MICROBATCHES[1:]:
        print(
            f"{parts} microbatches: {took[parts, False] * 1e3:.1f} ms, {took[parts, False] / took[1, False]:.3f} times "
            f"the undivided step; with the noise scale {took[parts, True] * 1e3:.1f} ms, "
            f"{took[parts, True] / took[parts, False]:.3f} times the same without; "
            f"{2 * cost.params * parts / cost.flops_per_step:.2%} of the step's FLOPs"
        )


if __name__ == "__main__":
    main()

"""Runs of one program trained together, against each by itself: throughput of a sweep, compiling included.

    python tests/benchmarks/runs_together.py [--widths 64 128] [--runs 8] [--steps 300] [--batch 8] [--workers N]

A sweep of learning rates and seeds over one small transformer, on a synthetic task: the local engine with its workers,
each time from an empty cache of compiled programs, apart and together in turn. Printed are the seconds of the sweep
from its start to its end, those of all runs by phase, and the ratio.

Printed on 2 cores of an AMD EPYC with --steps 200, apart and together: 34.7 and 35.6 s at width 64, 53.8 and 52.6 s at
width 128; with --batch 1 at width 64 24.5 and 30.4 s. A CPU's step is bound by arithmetic and not by dispatch, so that
nothing is gained; of the 35 s, 13 are training on both cores and the rest starts and compiles, once in each worker.
Before runs of one program shared it in a worker, the same sweeps took 41.4 and 59.8 s apart.
"""

import argparse
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from research.config import (
    AttentionConfig,
    EvaluationConfig,
    LoggingConfig,
    MlpConfig,
    ModelConfig,
    RunConfig,
    TaskConfig,
    TrainingConfig,
)
from research.execution.drive import drive
from research.execution.local import LocalEngine
from research.runs import PHASES, folder_of


def sweep(width: int, runs: int, steps: int, batch: int) -> list[RunConfig]:
    task = TaskConfig(name="copy", lengths=(31, 31), evaluated=(31,))
    heads = width // 32
    base = RunConfig(
        experiment="together",
        model=ModelConfig(
            vocab_size=272,
            width=width,
            depth=2,
            attention=AttentionConfig(heads, heads, 32),
            mlp=MlpConfig(width * 8 // 3),
        ),
        task=task,
        training=TrainingConfig(steps=steps, batch_size=batch, sequence_length=task.sequence_length(False)),
        evaluation=EvaluationConfig(tokens=4096, batch_size=32),
        logging=LoggingConfig(every=20),
    )
    return [
        replace(
            base,
            optimizer=replace(base.optimizer, learning_rate=1e-3 * 2 ** (index % 4)),
            training=replace(base.training, seed=index // 4),
        )
        for index in range(runs)
    ]


def seconds_of(configs: list[RunConfig], workers: int | None, together: int) -> tuple[float, dict[str, float]]:
    """Wall seconds of the sweep, and the runs' own seconds by phase, summed."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ISOFLOP_CACHE"] = str(Path(folder, "cache"))  # which the workers read: nothing is compiled yet
        runs_dir = Path(folder, "runs")
        began = time.perf_counter()
        engine = LocalEngine(runs_dir / "together", len(configs), workers, together)
        outcome = drive(engine, configs, runs_dir, lambda event: None)
        wall = time.perf_counter() - began
        if outcome.errors or outcome.fault:
            sys.exit(f"a run failed: {outcome}")
        results = [folder_of(runs_dir, config).result() for config in configs]
    return wall, {phase: sum(result[f"{phase}_seconds"] for result in results) for phase in PHASES}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--runs", type=int, default=8)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--workers", type=int, default=None)
    options = parser.parse_args()
    for width in options.widths:
        configs = sweep(width, options.runs, options.steps, options.batch)
        walls = {}
        for together in (1, options.runs):
            walls[together], phases = seconds_of(configs, options.workers, together)
            spent = ", ".join(f"{phase} {seconds:.1f}" for phase, seconds in phases.items())
            print(
                f"width {width}, {options.runs} runs, together {together}: {walls[together]:.1f} s ({spent})",
                flush=True,
            )
        print(f"width {width}: together {walls[1] / walls[options.runs]:.2f} times the throughput of apart", flush=True)


if __name__ == "__main__":
    main()

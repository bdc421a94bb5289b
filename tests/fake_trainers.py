"""Trainers that train nothing, for tests of everything around training.

They keep the contract of training/loop.py: resume from the newest checkpoint, report, stop when asked with a checkpoint
saved, leave a result or a failure.
"""

import errno
import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from research.config import DataConfig, RunConfig
from research.execution.drive import drive
from research.execution.events import Started
from research.execution.local import LocalEngine
from research.runs import RunFolder, Status

STEP_SECONDS = 0.004
BEST_RATE, BEST_BATCH = 0.01, 12  # of `bowl_loss` at width 16


def each(train_one: Callable) -> Callable:
    """A worker's trainer that takes the runs of a job one after the other: on_progress is then of one run, and an
    exception of the job."""

    def train_runs(runs: Sequence, on_progress: Callable, should_stop: Callable) -> list[Status]:
        return [train_one(config, folder, partial(on_progress, folder), should_stop) for config, folder in runs]

    return train_runs


def planted_loss(config: RunConfig) -> float:
    """Falls with size and tokens as losses do; the size is a rough one, since an exact one takes importing jax."""
    params = 12 * config.model.depth * config.model.width**2
    return 1.5 + 20 / params**0.3 + 100 / config.training.tokens**0.35


def bowl_loss(config: RunConfig) -> float:
    """A bowl over the logarithms of learning rate and batch, whose bottom moves with the width; above that law."""
    rate, batch = BEST_RATE * 16 / config.model.width, BEST_BATCH
    away = math.log(config.optimizer.learning_rate / rate), math.log(config.training.batch_size / batch)
    return planted_loss(config) * math.exp(0.02 * (away[0] ** 2 + 0.3 * away[0] * away[1] + 0.5 * away[1] ** 2))


def _train(
    config: RunConfig,
    folder: RunFolder,
    on_progress: Callable,
    should_stop: Callable,
    loss_of: Callable[[RunConfig], float] = planted_loss,
) -> Status:
    """Steps that sleep; the loss is a law's, so that a sweep of such runs can be fitted."""
    loss = loss_of(config)
    step = folder.checkpoint_step()
    with open(folder.metrics_path, "a") as metrics:
        metrics.write(json.dumps({"kind": "session", "step": step, "process": os.getpid()}) + "\n")
        while step < config.training.steps and not should_stop():
            time.sleep(STEP_SECONDS)
            step += 1
            metrics.write(json.dumps({"kind": "train", "step": step, "loss_nats": loss}) + "\n")
            metrics.flush()
            on_progress(step, loss)
    (folder.checkpoints_path / str(step)).mkdir(parents=True, exist_ok=True)
    if step < config.training.steps:
        return Status.PARTIAL
    seconds = step * STEP_SECONDS
    folder.write_result(
        {
            "loss_nats": loss,
            "bits_per_byte": loss,
            "loss_nats_prose": loss,
            "train_loss_nats": loss,
            "start_seconds": 0.1,
            "compile_seconds": 0.2,
            "train_seconds": seconds,
            "data_seconds": 0.05,
            "evaluation_seconds": 0.04,
            "checkpoint_seconds": 0.03,
            "wall_seconds": seconds + 0.42,
            "executed_flops": 1e9,
            "matmul_flops_per_second": 1e11,
            "backend": "cpu",
            "devices": len(os.sched_getaffinity(0)),
        }
    )
    return Status.DONE


train = each(_train)


@each
def train_in_bowl(config: RunConfig, folder: RunFolder, on_progress: Callable, should_stop: Callable) -> Status:
    """Steps that sleep; the loss is a bowl's, so that a search finds its best settings."""
    return _train(config, folder, on_progress, should_stop, bowl_loss)


def _comes_up(config: RunConfig, folder: RunFolder) -> bool:
    """Whether it goes wrong: every time, or for a family "... once" the first time."""
    seen = folder.path / "seen"
    again = seen.exists()
    seen.touch()
    return not again or not config.family.endswith("once")


@each
def train_or_fail(config: RunConfig, folder: RunFolder, on_progress: Callable, should_stop: Callable) -> Status:
    """What goes wrong is written in the run's family; one that "meets" waits for a second worker."""
    if config.family == "raises":
        raise ValueError("a bug in the trainer\nwith a second line")
    if config.family == "diverges":
        folder.write_failure(3, "loss_nats = nan at step 3")
        return Status.FAILED
    if config.family in ("killed", "killed once") and _comes_up(config, folder):
        folder.checkpoints_path.mkdir(exist_ok=True)
        os.kill(os.getpid(), signal.SIGKILL)
    if config.family == "meets":
        (folder.path.parent / f"here-{os.getpid()}").touch()
        deadline = time.monotonic() + 60
        while len(list(folder.path.parent.glob("here-*"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
    if config.family in ("refused", "refused once") and _comes_up(config, folder):
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    if config.family in ("hangs", "hangs once") and _comes_up(config, folder):
        time.sleep(1000)
    if config.family == "disk_full":
        raise RuntimeError("could not save") from OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return _train(config, folder, on_progress, should_stop)


@each
def train_unless_broken(config: RunConfig, folder: RunFolder, on_progress: Callable, should_stop: Callable) -> Status:
    """Raises while there is a file `broken` beside the runs."""
    if (folder.path.parent / "broken").exists():
        raise ValueError("broken")
    return _train(config, folder, on_progress, should_stop)


@each
def train_stubbornly(config: RunConfig, folder: RunFolder, on_progress: Callable, should_stop: Callable) -> Status:
    """Never looks whether it should stop."""
    return _train(config, folder, on_progress, lambda: False)


def drive_three(runs_dir: Path, steps: int) -> None:
    """Train three runs with two workers, printing a line as each starts and the outcome at the end."""
    base = RunConfig(experiment="exp", family="ok", data=DataConfig(train_tokens=100_000_000))
    configs = [replace(base, training=replace(base.training, steps=steps, seed=seed)) for seed in range(3)]
    trainer = "train_stubbornly" if runs_dir.name == "stubborn" else "train"
    engine = LocalEngine(runs_dir / "exp", runs=3, workers=2, trainer=f"fake_trainers:{trainer}")
    outcome = drive(
        engine, configs, runs_dir, lambda event: print("started", flush=True) if isinstance(event, Started) else None
    )
    print(outcome)


if __name__ == "__main__":
    drive_three(Path(sys.argv[1]), int(sys.argv[2]))

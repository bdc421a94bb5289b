"""The life of one run: restore or start, step, evaluate, save, and write the result atomically."""

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import jax
import numpy as np

from research.config import RunConfig
from research.data.batches import Examples
from research.models.algorithms import names
from research.plan.cost import executed_cost
from research.runs import PHASES, RunFolder, Status
from research.sharding import make_mesh, platform, replicated
from research.training import metrics
from research.training.checkpoint import Checkpoints
from research.training.feed import global_batch
from research.training.objective import Objective
from research.training.runtime import matmul_flops_per_second
from research.training.step import Program, TrainState, make_program

Evaluate = Callable[[Program, Any, Examples], dict[str, float]]  # (program, params, examples) -> measured columns


@dataclass(frozen=True)
class _Session:
    """What one call of `train` works with; `seconds` is the run's account of time, filled as it goes."""

    config: RunConfig
    program: Program
    numbers: dict[str, jax.Array]
    examples: Examples
    evaluate: Evaluate
    checkpoints: Checkpoints
    log: metrics.MetricsLog
    seconds: Counter[str]


def train(
    config: RunConfig,
    folder: RunFolder,
    *,
    objective: Objective,
    examples: Examples,
    evaluate: Evaluate,
    on_progress: Callable[[int, float], None],
    should_stop: Callable[[], bool],
) -> Status:
    """Train `config` to its last step, going on from the newest checkpoint in `folder`; returns the run's new status.

    DONE: result.json holds the measured columns of the runs table. FAILED: a training or held-out loss became NaN or
    infinite; failure.json holds the step. PARTIAL: `should_stop()` turned true; the state is saved. `evaluate` measures
    held-out examples; `on_progress(steps done, loss)` is called at every flush of the metrics. Resumed and
    uninterrupted runs have bit-identical parameters.

    Raises ConfigError for a mesh that does not fit, CorruptCheckpointError if no checkpoint of the folder can be read,
    OSError for a full disk.
    """
    seconds: Counter[str] = Counter()
    began = time.perf_counter()
    mesh = make_mesh(config.mesh)
    with jax.set_mesh(mesh), Checkpoints(folder.checkpoints_path, config.checkpoint) as checkpoints:
        program = make_program(config, mesh, objective)
        state, first = _start(program, checkpoints, seconds)
        tensorboard = folder.tensorboard_path if config.logging.tensorboard else None
        with metrics.MetricsLog(folder.metrics_path, first, tensorboard) as log:
            log.add("session", first, _machine(config))
            seconds["start_seconds"] += time.perf_counter() - began
            numbers = jax.device_put(program.numbers, replicated(mesh))  # once, and not in every step
            session = _Session(config, program, numbers, examples, evaluate, checkpoints, log, seconds)
            try:
                state, step = _steps(session, state, first, on_progress, should_stop)
                finished = step == config.training.steps
                measured = _evaluate(session, state, step) if finished else {}
            except metrics.NonFiniteLossError as error:
                folder.write_failure(error.step, str(error))
                return Status.FAILED
        with _timed(seconds, "checkpoint_seconds"):
            checkpoints.save(step, state, seconds)
            checkpoints.wait()
    if not finished:
        return Status.PARTIAL
    folder.write_result(
        {
            **measured,
            **_recent_loss(folder, config.training.steps),
            **_machine(config),
            **asdict(executed_cost(config, jax.default_backend())),
            **{f"{phase}_seconds": seconds[f"{phase}_seconds"] for phase in PHASES},
            "wall_seconds": sum(seconds[f"{phase}_seconds"] for phase in PHASES),
        }
    )
    return Status.DONE


def _start(program: Program, checkpoints: Checkpoints, seconds: Counter[str]) -> tuple[TrainState, int]:
    """A new state, or the newest readable checkpoint's, whose notes bring the seconds spent before it."""
    if checkpoints.latest() is None:
        return program.init(), 0
    with _timed(seconds, "checkpoint_seconds"):
        state, earlier_seconds = checkpoints.restore(program.abstract_state)
    seconds.update(earlier_seconds)
    return state, int(state.step)


def _steps(
    session: _Session,
    state: TrainState,
    first: int,
    on_progress: Callable[[int, float], None],
    should_stop: Callable[[], bool],
) -> tuple[TrainState, int]:
    """Step until the end or until asked to stop; returns the state and the steps it has done."""
    config, program, log, seconds = session.config, session.program, session.log, session.seconds
    step, last = first, config.training.steps
    began, aside = time.perf_counter(), sum(seconds.values())
    while step < last and not should_stop():
        with _timed(seconds, "data_seconds"):
            placed = global_batch(config, session.examples, step, program.batch_sharding)
        with _timed(seconds, "compile_seconds") if step == first else contextlib.nullcontext():
            state, measured = program.train(state, placed, session.numbers)
            if step == first:  # the first call compiles; waiting for it here keeps that time apart from the steps'
                jax.block_until_ready(measured)
        step += 1
        log.add("train", step, measured)
        if step % config.logging.every == 0 or step == last:
            on_progress(step, log.flush())
        if step < last and config.evaluation.every and step % config.evaluation.every == 0:
            _evaluate(session, state, step)
        if step < last and session.checkpoints.due(step):
            log.flush(to_disk=True)  # first, so that no checkpoint is ever ahead of its metrics
            with _timed(seconds, "checkpoint_seconds"):
                session.checkpoints.save(step, state, seconds)
    log.flush(to_disk=True)
    seconds["train_seconds"] += time.perf_counter() - began - (sum(seconds.values()) - aside)
    return state, step


def _evaluate(session: _Session, state: TrainState, step: int) -> dict[str, float]:
    """Held-out measures after `step` steps, logged. Raises NonFiniteLossError if the loss is not finite.

    The last update's parameters are seen here alone: its training loss was computed before it.
    """
    session.log.flush()  # waits for the steps before, whose time is not evaluation's
    with _timed(session.seconds, "evaluation_seconds"):
        measured = session.evaluate(session.program, session.program.evaluated(state), session.examples)
    session.log.add("evaluation", step, measured)
    session.log.flush()
    return measured


def _machine(config: RunConfig) -> dict[str, Any]:
    """What this process runs on, and which of equal programs: columns of the runs table."""
    return {
        "algorithms": names(config.model, platform(), config.training.sequence_length),
        "backend": jax.default_backend(),
        "devices": jax.device_count(),
        "matmul_flops_per_second": matmul_flops_per_second(config.model.compute_dtype),
    }


def _recent_loss(folder: RunFolder, steps: int) -> dict[str, float]:
    """Mean training loss of the last twentieth of the run, in nats; nothing if the file has lost those lines."""
    lines = [line for line in metrics.read(folder.metrics_path) if line["kind"] == "train"]
    recent = [line["loss_nats"] for line in lines if line["step"] > steps - max(1, steps // 20)]
    return {"train_loss_nats": float(np.mean(recent))} if recent else {}


@contextlib.contextmanager
def _timed(seconds: Counter[str], phase: str) -> Iterator[None]:
    began = time.perf_counter()
    try:
        yield
    finally:
        seconds[phase] += time.perf_counter() - began

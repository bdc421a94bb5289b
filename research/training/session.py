"""Runs that step together, a lane each, from one step to the end: what they log, measure, save, and where time goes."""

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax

from research.config import RunConfig
from research.data.batches import Examples
from research.runs import RunFolder
from research.sharding import replicated
from research.training import metrics
from research.training.checkpoint import Checkpoints
from research.training.feed import global_batch
from research.training.lanes import Lanes
from research.training.step import Program, TrainState

Evaluate = Callable[[Program, Any, Examples], dict[str, float]]  # (program, params, examples) -> measured columns
OnProgress = Callable[[RunFolder, int, float], None]


@dataclass(frozen=True)
class Run:
    """What is trained: a config, where it leaves its files, and what it reads."""

    config: RunConfig
    folder: RunFolder
    examples: Examples


@dataclass(frozen=True)
class Member:
    """A run at work, what it writes to, and its account of time before its first step of this session."""

    run: Run
    checkpoints: Checkpoints
    log: metrics.MetricsLog
    seconds: Mapping[str, float]


@dataclass(frozen=True)
class Session:
    """Runs that step together, a lane each, and what builds up as they go: the time of all of them, what is measured
    and not yet logged, and the lanes whose loss is not finite, which go on unseen."""

    program: Program
    lanes: Lanes
    members: tuple[Member, ...]
    evaluate: Evaluate
    on_progress: OnProgress
    should_stop: Callable[[], bool]
    spent: Counter[str] = field(default_factory=Counter)
    pending: list[tuple[int, Any]] = field(default_factory=list)
    failed: set[int] = field(default_factory=set)

    @property
    def config(self) -> RunConfig:
        """Of any of them: they differ in what the program takes as arguments."""
        return self.members[0].run.config

    def live(self) -> list[tuple[int, Member]]:
        return [(lane, member) for lane, member in enumerate(self.members) if lane not in self.failed]

    def account(self, member: Member) -> Counter[str]:
        """Seconds by phase of a run's whole life; of what several runs do together each has an equal share."""
        return plus_share(member.seconds, self.spent, len(self.members))


def take_steps(session: Session, state: TrainState, first: int) -> tuple[TrainState, int]:
    """Step until the end, or until asked to stop or no run is left; returns the state and the steps it has done."""
    config, program, lanes, spent = session.config, session.program, session.lanes, session.spent
    runs = [member.run for member in session.members]
    # Once, and not in every step.
    numbers = jax.device_put(
        lanes.stack_host([run.config.optimizer.numbers(config.training.steps) for run in runs]),
        replicated(program.batch_sharding.mesh),
    )
    step, last = first, config.training.steps
    began, aside = time.perf_counter(), sum(spent.values())
    while step < last and session.live() and not session.should_stop():
        with timed(spent, "data_seconds"):
            batches = [global_batch(run.config, run.examples, step, program.batch_sharding) for run in runs]
            batch = lanes.stack_host(batches)
        with timed(spent, "compile_seconds") if step == first else contextlib.nullcontext():
            state, measured = lanes.train(state, batch, numbers)
            if step == first:  # the first call compiles; waiting for it here keeps that time apart from the steps'
                jax.block_until_ready(measured)
        step += 1
        session.pending.append((step, measured))
        if step % config.logging.every == 0 or step == last:
            for lane, loss_nats in _log(session).items():
                session.on_progress(runs[lane].folder, step, loss_nats)
        if step < last and config.evaluation.every and step % config.evaluation.every == 0:
            measure(session, state, step)
        if step < last and config.checkpoint.due(step):
            _log(session, to_disk=True)  # first, so that no checkpoint is ever ahead of its metrics
            with timed(spent, "checkpoint_seconds"):
                save(session, state, step)
    _log(session, to_disk=True)
    spent["train_seconds"] += time.perf_counter() - began - (sum(spent.values()) - aside)
    return state, step


def _log(session: Session, to_disk: bool = False) -> dict[int, float]:
    """Write what has been measured to each run's log; the last training loss by lane, in nats."""
    measured = jax.device_get(session.pending)
    session.pending.clear()
    losses = {}
    for lane, member in session.live():
        for step, values in measured:
            member.log.add("train", step, session.lanes.host_lane(values, lane))
        with _failing(session, lane):
            losses[lane] = member.log.flush(to_disk)
    return losses


def measure(session: Session, state: TrainState, step: int) -> dict[int, dict[str, float]]:
    """Held-out measures of each run after `step` steps, logged, by lane.

    The last update's parameters are seen here alone: its training loss was computed before it.
    """
    _log(session)  # waits for the steps before, whose time is not evaluation's
    found = {}
    for lane, member in session.live():
        with timed(session.spent, "evaluation_seconds"):
            params = session.program.evaluated(session.lanes.lane(state, lane))
            found[lane] = session.evaluate(session.program, params, member.run.examples)
        member.log.add("evaluation", step, found[lane])
        with _failing(session, lane):
            member.log.flush()
    return found


def save(session: Session, state: TrainState, step: int) -> None:
    for lane, member in session.live():
        member.checkpoints.save(step, session.lanes.lane(state, lane), session.account(member))


@contextlib.contextmanager
def _failing(session: Session, lane: int) -> Iterator[None]:
    """A loss that is not finite ends its run, and no other."""
    try:
        yield
    except metrics.NonFiniteLossError as error:
        session.members[lane].run.folder.write_failure(error.step, str(error))
        session.failed.add(lane)


def plus_share(seconds: Mapping[str, float], spent: Mapping[str, float], runs: int) -> Counter[str]:
    total = Counter(seconds)
    total.update({phase: value / runs for phase, value in spent.items()})
    return total


@contextlib.contextmanager
def timed(seconds: Counter[str], phase: str) -> Iterator[None]:
    began = time.perf_counter()
    try:
        yield
    finally:
        seconds[phase] += time.perf_counter() - began

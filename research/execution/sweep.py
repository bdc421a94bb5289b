"""Where a sweep stands: an immutable value, a function from one event to the next value, and the time that is left."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from research.config import RunConfig, run_name
from research.execution.events import Ended, Event, Progressed, Started, Stopping
from research.plan import model_cost, run_cost
from research.runs import Status, folder_of

SMOOTHING = 0.3  # weight of the newest report in the speed that is shown


@dataclass(frozen=True)
class Report:
    """A step count and when it was reported, in seconds of a monotonic clock."""

    seconds: float
    step: int


@dataclass(frozen=True)
class RunState:
    """What the parent process knows of one run. FLOPs of evaluation are forward passes and counted apart."""

    steps: int
    tokens_per_step: int
    flops_per_step: float
    evaluation_flops: float
    status: Status
    step: int = 0
    loss_nats: float | None = None
    tokens_per_second: float | None = None
    started: Report | None = None  # taken up by a worker in this sweep
    first: Report | None = None  # progress since then
    last: Report | None = None
    ended_seconds: float | None = None
    first_step: int = 0  # steps that another run has done for it

    @property
    def is_active(self) -> bool:
        return self.started is not None and self.ended_seconds is None

    @property
    def flops_done(self) -> float:
        """Training FLOPs of its own steps, those of earlier sweeps included."""
        return (self.step - self.first_step) * self.flops_per_step

    @property
    def own_flops(self) -> float:
        """Training FLOPs of all its own steps."""
        return (self.steps - self.first_step) * self.flops_per_step

    @property
    def flops_left(self) -> float:
        """FLOPs of the steps that are left and of the evaluation after the last."""
        return (self.steps - self.step) * self.flops_per_step + self.evaluation_flops


@dataclass(frozen=True)
class Sweep:
    """All runs of the plan by name, those that are not trained this time included."""

    runs: Mapping[str, RunState]
    selected: tuple[str, ...]  # trained in this sweep
    workers: int
    stopping: bool = False


def new_sweep(configs: Iterable[RunConfig], selected: Iterable[RunConfig], runs_dir: Path, workers: int) -> Sweep:
    """The sweep before its first event, from the plan and the run folders."""
    return Sweep(
        runs={run_name(config): _run_state(config, runs_dir) for config in configs},
        selected=tuple(run_name(config) for config in selected),
        workers=workers,
    )


def _run_state(config: RunConfig, runs_dir: Path) -> RunState:
    folder = folder_of(runs_dir, config)
    status = folder.status()
    return RunState(
        steps=config.training.steps,
        tokens_per_step=config.training.batch_tokens,
        flops_per_step=run_cost(config).flops_per_step,
        evaluation_flops=evaluation_flops(config),
        status=status,
        step=config.training.steps if status == Status.DONE else max(folder.checkpoint_step(), config.first_step),
        first_step=config.first_step,
    )


def evaluation_flops(config: RunConfig) -> float:
    """FLOPs of one held-out evaluation over all domains."""
    cost = model_cost(config.model, config.training.sequence_length, config.objective.heads)
    return cost.forward_flops_per_token * config.evaluation.tokens * len(config.domains)


def advance(sweep: Sweep, event: Event, now: float) -> Sweep:
    """The sweep after `event`, heard of at `now` (seconds of a monotonic clock)."""
    if isinstance(event, Stopping):
        return replace(sweep, stopping=True)
    if not isinstance(event, Started | Progressed | Ended):
        return sweep
    run = sweep.runs[event.run]
    if isinstance(event, Started):  # again, perhaps, by another worker
        run = replace(run, status=Status.RUNNING, step=event.step, started=Report(now, event.step))
        run = replace(run, first=None, last=None, ended_seconds=None)
    elif isinstance(event, Progressed):
        run = _progressed(run, event, now)
    else:
        step = run.steps if event.status == Status.DONE else run.step
        run = replace(run, status=event.status, step=step, ended_seconds=now)
    return replace(sweep, runs={**sweep.runs, event.run: run})


def _progressed(run: RunState, event: Progressed, now: float) -> RunState:
    report = Report(now, event.step)
    speed = run.tokens_per_second
    if run.last is not None and now > run.last.seconds:
        newest = (event.step - run.last.step) * run.tokens_per_step / (now - run.last.seconds)
        speed = newest if speed is None else (1 - SMOOTHING) * speed + SMOOTHING * newest
    return replace(
        run, step=event.step, loss_nats=event.loss_nats, tokens_per_second=speed, first=run.first or report, last=report
    )


def seconds_left(sweep: Sweep, now: float) -> float | None:
    """Estimated seconds until the sweep ends; None before there is anything to estimate them from.

    A run takes the time to its first report of progress, as in the mean run so far, and then its FLOPs at its own rate
    or, before it has one, at the rate of all. The sweep ends when its work, shared evenly, is done, and not before its
    longest run. Right within a factor of 2 where arithmetic is what takes the time.
    """
    runs = [sweep.runs[name] for name in sweep.selected]
    begun = [run for run in runs if run.first is not None]
    seconds = sum(run.last.seconds - run.first.seconds for run in begun)
    flops = sum((run.last.step - run.first.step) * run.flops_per_step for run in begun)
    if not flops or not seconds:
        return None
    start_seconds = sum(run.first.seconds - run.started.seconds for run in begun) / len(begun)
    left = [_seconds_left(run, flops / seconds, start_seconds, now) for run in runs if run.ended_seconds is None]
    at_once = max(sweep.workers, sum(run.is_active for run in runs))  # a worker may train several together
    return max(sum(left) / at_once, max(left, default=0.0))


def _seconds_left(run: RunState, flops_per_second: float, start_seconds: float, now: float) -> float:
    """Of a run that has not ended, on its worker."""
    if run.started is None:
        return start_seconds + run.flops_left / flops_per_second
    if run.first is None:
        return max(0.0, start_seconds + run.flops_left / flops_per_second - (now - run.started.seconds))
    if run.last.step > run.first.step and run.last.seconds > run.first.seconds:
        own_seconds = run.last.seconds - run.first.seconds
        flops_per_second = (run.last.step - run.first.step) * run.flops_per_step / own_seconds
    return max(0.0, run.flops_left / flops_per_second - (now - run.last.seconds))

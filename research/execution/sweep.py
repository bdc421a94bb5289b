"""Where a sweep stands: an immutable value, a function from one event to the next value, and what follows from it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from research.config import RunConfig, run_name
from research.execution.estimate import Rates, Work, fit_rates, sweep_seconds, work_seconds
from research.execution.events import Ended, Event, Progressed, Started, Stopping
from research.plan import model_cost, run_cost
from research.runs import Status, folder_of

SMOOTHING = 0.3  # weight of the newest report in the speed that is shown


@dataclass(frozen=True)
class Report:
    """A step count and when it was heard of, in seconds of one monotonic clock."""

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
    first: Report | None = None  # progress in this sweep
    last: Report | None = None
    ended_seconds: float | None = None

    @property
    def is_active(self) -> bool:
        return self.started is not None and self.ended_seconds is None

    @property
    def flops_done(self) -> float:
        """Training FLOPs, those of earlier sweeps included."""
        return self.step * self.flops_per_step

    def work(self, first_step: int, last_step: int, starts: int) -> Work:
        """The steps in between; to the last one belongs the final evaluation."""
        evaluation = self.evaluation_flops if last_step == self.steps else 0.0
        return Work(starts, last_step - first_step, (last_step - first_step) * self.flops_per_step + evaluation)


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
        step=config.training.steps if status == Status.DONE else folder.checkpoint_step(),
    )


def evaluation_flops(config: RunConfig) -> float:
    """FLOPs of one held-out evaluation over all domains."""
    per_token = model_cost(config.model, config.training.sequence_length).forward_flops_per_token
    return per_token * config.evaluation.tokens * len(config.domains)


def run_work(config: RunConfig) -> Work:
    """A whole run, from its start to its last evaluation; the ones before that are not counted."""
    return Work(1, config.training.steps, run_cost(config).flops + evaluation_flops(config))


def advance(sweep: Sweep, event: Event, now: float) -> Sweep:
    """The sweep after `event`, heard of at `now` (seconds of a monotonic clock)."""
    if isinstance(event, Stopping):
        return replace(sweep, stopping=True)
    if not isinstance(event, Started | Progressed | Ended):
        return sweep
    run = sweep.runs[event.run]
    if isinstance(event, Started):
        run = replace(run, status=Status.RUNNING, step=event.step, started=Report(now, event.step))
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


def measurements(sweep: Sweep) -> list[tuple[Work, float]]:
    """(work, seconds) of everything timed in this sweep: for each run its steps, and apart from them its two ends.

    Kept apart because the ends are nearly the same in all runs, and a long run's steps would drown them.
    """
    measured = []
    for run in sweep.runs.values():
        if run.first is None:
            continue
        first_steps = run.first.step - run.started.step
        ends = Work(1, first_steps, first_steps * run.flops_per_step)
        ends_seconds = run.first.seconds - run.started.seconds
        if run.status == Status.DONE:
            ends = replace(ends, flops=ends.flops + run.evaluation_flops)
            ends_seconds += run.ended_seconds - run.last.seconds
        measured.append((ends, ends_seconds))
        if run.last.step > run.first.step:
            steps = run.last.step - run.first.step
            measured.append((Work(0, steps, steps * run.flops_per_step), run.last.seconds - run.first.seconds))
    return measured


def seconds_left(sweep: Sweep, now: float) -> float:
    """Estimated seconds until the sweep ends; within a factor of 2 once a tenth of it has passed."""
    rates = fit_rates(measurements(sweep))
    runs = [sweep.runs[name] for name in sweep.selected]
    active = [_seconds_left(run, rates, now) for run in runs if run.is_active]
    pending = [
        work_seconds(rates, run.work(run.step, run.steps, starts=1))
        for run in runs
        if run.started is None and run.ended_seconds is None
    ]
    return sweep_seconds(active, pending, sweep.workers)


def _seconds_left(run: RunState, rates: Rates, now: float) -> float:
    since = run.last or run.started
    left = work_seconds(rates, run.work(since.step, run.steps, starts=0 if run.last else 1))
    return max(0.0, left - (now - since.seconds))

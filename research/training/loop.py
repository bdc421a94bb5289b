"""The life of a run, or of several that train together: restore or start, step, evaluate, save, write the result."""

import contextlib
import functools
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import jax
import numpy as np

from research.config import RunConfig, check, program_of
from research.data.batches import Examples
from research.models.algorithms import names
from research.plan.cost import executed_cost
from research.runs import PHASES, RunFolder, Status
from research.sharding import make_mesh, platform, replicated
from research.training import metrics, noise_scale
from research.training.branching import state_of_another
from research.training.checkpoint import Checkpoints
from research.training.feed import global_batch
from research.training.lanes import Lanes, make_lanes
from research.training.objective import Objective
from research.training.runtime import matmul_flops_per_second
from research.training.step import Program, TrainState, make_program

Evaluate = Callable[[Program, Any, Examples], dict[str, float]]  # (program, params, examples) -> measured columns
MakeObjective = Callable[[RunConfig], Objective]
OnProgress = Callable[[RunFolder, int, float], None]


@dataclass(frozen=True)
class Run:
    """What is trained: a config, where it leaves its files, and what it reads."""

    config: RunConfig
    folder: RunFolder
    examples: Examples


@dataclass(frozen=True)
class _Member:
    """A run at work, what it writes to, and its account of time before its first step of this session."""

    run: Run
    checkpoints: Checkpoints
    log: metrics.MetricsLog
    seconds: Mapping[str, float]


@dataclass(frozen=True)
class _Session:
    """Runs that step together, a lane each, and what builds up as they go: the time of all of them, what is measured
    and not yet logged, and the lanes whose loss is not finite, which go on unseen."""

    program: Program
    lanes: Lanes
    members: tuple[_Member, ...]
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

    def live(self) -> list[tuple[int, _Member]]:
        return [(lane, member) for lane, member in enumerate(self.members) if lane not in self.failed]

    def account(self, member: _Member) -> Counter[str]:
        """Seconds by phase of a run's whole life; of what several runs do together each has an equal share."""
        return _plus_share(member.seconds, self.spent, len(self.members))


def train(
    runs: Sequence[Run],
    *,
    objective: MakeObjective,
    evaluate: Evaluate,
    on_progress: OnProgress,
    should_stop: Callable[[], bool],
) -> list[Status]:
    """Train every run to its last step, going on from the newest checkpoint in its folder; returns their new statuses.

    DONE: result.json holds the measured columns of the runs table. FAILED: a training or held-out loss became NaN or
    infinite; failure.json holds the step. PARTIAL: `should_stop()` turned true; the state is saved. `evaluate` measures
    held-out examples; `on_progress(folder, steps done, loss)` is called at every flush of the metrics. Resumed and
    uninterrupted runs have bit-identical parameters.

    Several runs must have one `config.program_of`. On one device they step together (lanes.py), as far as they start
    from one step: each with its own log, checkpoints and failure, and with the numbers it has alone up to the rounding
    of sums, which XLA may order otherwise for another number of runs (tests/test_together.py). Several devices train
    one run after the other. The objective is that of `program_of`, without the run's seed and its optimizer's numbers.

    Raises ConfigError for runs of several programs, a mesh that does not fit, or a run to start from that is no
    beginning of this one, CorruptCheckpointError if no checkpoint of a folder can be read, OSError for a full disk.
    """
    config = runs[0].config
    for other in runs[1:]:
        check(
            program_of(other.config) == program_of(config),
            "runs",
            f"{runs[0].folder.name}, {other.folder.name}",
            "train together only if they differ in no more than seed and the optimizer's numbers",
            "train them apart",
        )
    began, spent = time.perf_counter(), Counter()
    mesh = make_mesh(config.mesh)
    is_alone = mesh.size > 1  # of virtual devices, many steps with collectives in one program have stopped each other
    with jax.set_mesh(mesh), contextlib.ExitStack() as opened:
        program = _program(program_of(config), objective)
        groups = _groups(program, runs, opened, spent, is_alone)
        spent["start_seconds"] += time.perf_counter() - began - spent["checkpoint_seconds"]
        statuses: dict[str, Status] = {}
        for first, name in sorted(groups):
            states, members = map(list, zip(*groups.pop((first, name)), strict=True))
            members = tuple(replace(m, seconds=_plus_share(m.seconds, spent, len(runs))) for m in members)
            lanes = _lanes(program_of(config), objective, len(members))
            session = _Session(program, lanes, members, evaluate, on_progress, should_stop)
            statuses |= _train_together(session, states, first)
    return [statuses[run.folder.name] for run in runs]


@functools.lru_cache(maxsize=1)
def _program(config: RunConfig, objective: MakeObjective) -> Program:
    """The program of `config`; the next run of this process that shares it finds it compiled."""
    jax.clear_caches()  # what was compiled for the one before would only fill memory
    return make_program(config, make_mesh(config.mesh), objective(config))


@functools.lru_cache(maxsize=4)  # the last jobs of a sweep may be of fewer runs
def _lanes(config: RunConfig, objective: MakeObjective, runs: int) -> Lanes:
    return make_lanes(_program(config, objective), runs)


def _start(
    program: Program, run: Run, opened: contextlib.ExitStack, spent: Counter[str], together: int
) -> tuple[TrainState, _Member]:
    """A new state, that of the run to start from, or the newest readable checkpoint's, whose notes bring the seconds
    spent before it."""
    config, folder = run.config, run.folder
    checkpoints = opened.enter_context(Checkpoints(folder.checkpoints_path, config.checkpoint))
    earlier: Mapping[str, float] = {}
    if checkpoints.latest() is None and config.start is None:
        state = program.init(config.training.seed)
    else:
        with _timed(spent, "checkpoint_seconds"):
            if checkpoints.latest() is None:
                state = state_of_another(config, folder, program.abstract_state)
            else:
                state, earlier = checkpoints.restore(program.abstract_state)
    first = int(state.step)
    tensorboard = folder.tensorboard_path if config.logging.tensorboard else None
    log = opened.enter_context(metrics.MetricsLog(folder.metrics_path, first, tensorboard))
    log.add("session", first, _machine(config, together))
    return state, _Member(run, checkpoints, log, earlier)


def _groups(
    program: Program, runs: Sequence[Run], opened: contextlib.ExitStack, spent: Counter[str], is_alone: bool
) -> dict[tuple[int, str], list[tuple[TrainState, _Member]]]:
    """The runs that step together, by their first step, and by name where each is alone."""
    groups = defaultdict(list)
    for run in runs:
        state, member = _start(program, run, opened, spent, 1 if is_alone else len(runs))
        groups[int(state.step), run.folder.name if is_alone else ""].append((state, member))
    return groups


def _train_together(session: _Session, states: list[TrainState], first: int) -> dict[str, Status]:
    """From step `first` to the end, or until asked to stop; the status of each run by its folder's name. Takes the
    states out of the list, since beside their lanes they would be kept twice."""
    config, spent = session.config, session.spent
    state = session.lanes.stack(states)
    states.clear()
    state, step = _steps(session, state, first)
    finished = step == config.training.steps
    measured = _evaluate(session, state, step) if finished else {}
    with _timed(spent, "checkpoint_seconds"):
        _save(session, state, step)
        for _, member in session.live():
            member.checkpoints.wait()
    for lane, member in session.live() if finished else ():
        seconds = session.account(member)
        member.run.folder.write_result(
            {
                **measured[lane],
                **_of_steps(member.run),
                **_machine(config, len(session.members)),
                **asdict(executed_cost(config, jax.default_backend())),
                **{f"{phase}_seconds": seconds[f"{phase}_seconds"] for phase in PHASES},
                "wall_seconds": sum(seconds[f"{phase}_seconds"] for phase in PHASES),
            }
        )
    ended = Status.DONE if finished else Status.PARTIAL
    return {
        member.run.folder.name: Status.FAILED if lane in session.failed else ended
        for lane, member in enumerate(session.members)
    }


def _steps(session: _Session, state: TrainState, first: int) -> tuple[TrainState, int]:
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
        with _timed(spent, "data_seconds"):
            batches = [global_batch(run.config, run.examples, step, program.batch_sharding) for run in runs]
            batch = lanes.stack_host(batches)
        with _timed(spent, "compile_seconds") if step == first else contextlib.nullcontext():
            state, measured = lanes.train(state, batch, numbers)
            if step == first:  # the first call compiles; waiting for it here keeps that time apart from the steps'
                jax.block_until_ready(measured)
        step += 1
        session.pending.append((step, measured))
        if step % config.logging.every == 0 or step == last:
            for lane, loss_nats in _log(session).items():
                session.on_progress(runs[lane].folder, step, loss_nats)
        if step < last and config.evaluation.every and step % config.evaluation.every == 0:
            _evaluate(session, state, step)
        if step < last and config.checkpoint.due(step):
            _log(session, to_disk=True)  # first, so that no checkpoint is ever ahead of its metrics
            with _timed(spent, "checkpoint_seconds"):
                _save(session, state, step)
    _log(session, to_disk=True)
    spent["train_seconds"] += time.perf_counter() - began - (sum(spent.values()) - aside)
    return state, step


def _log(session: _Session, to_disk: bool = False) -> dict[int, float]:
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


def _evaluate(session: _Session, state: TrainState, step: int) -> dict[int, dict[str, float]]:
    """Held-out measures of each run after `step` steps, logged, by lane.

    The last update's parameters are seen here alone: its training loss was computed before it.
    """
    _log(session)  # waits for the steps before, whose time is not evaluation's
    found = {}
    for lane, member in session.live():
        with _timed(session.spent, "evaluation_seconds"):
            params = session.program.evaluated(session.lanes.lane(state, lane))
            found[lane] = session.evaluate(session.program, params, member.run.examples)
        member.log.add("evaluation", step, found[lane])
        with _failing(session, lane):
            member.log.flush()
    return found


def _save(session: _Session, state: TrainState, step: int) -> None:
    for lane, member in session.live():
        member.checkpoints.save(step, session.lanes.lane(state, lane), session.account(member))


@contextlib.contextmanager
def _failing(session: _Session, lane: int) -> Iterator[None]:
    """A loss that is not finite ends its run, and no other."""
    try:
        yield
    except metrics.NonFiniteLossError as error:
        session.members[lane].run.folder.write_failure(error.step, str(error))
        session.failed.add(lane)


def _machine(config: RunConfig, together: int) -> dict[str, Any]:
    """What this process runs on, which of equal programs, and for how many runs at once: columns of the runs table."""
    return {
        "algorithms": names(config.model, platform(), config.training.sequence_length),
        "backend": jax.default_backend(),
        "devices": jax.device_count(),
        "trained_together": together,
        "matmul_flops_per_second": matmul_flops_per_second(config.model.compute_dtype),
    }


def _of_steps(run: Run) -> dict[str, float]:
    """What the steps have measured: the mean training loss of the last twentieth of the run, in nats, and the noise
    scale where it is logged. Nothing of what the file has lost the lines of."""
    config, lines = run.config, metrics.read(run.folder.metrics_path)
    steps = config.training.steps
    first = steps - max(1, steps // 20)
    recent = [line["loss_nats"] for line in lines if line["kind"] == "train" and line["step"] > first]
    return {
        **({"train_loss_nats": float(np.mean(recent))} if recent else {}),
        **(noise_scale.of_run(lines) if config.logging.noise_scale else {}),
    }


def _plus_share(seconds: Mapping[str, float], spent: Mapping[str, float], runs: int) -> Counter[str]:
    total = Counter(seconds)
    total.update({phase: value / runs for phase, value in spent.items()})
    return total


@contextlib.contextmanager
def _timed(seconds: Counter[str], phase: str) -> Iterator[None]:
    began = time.perf_counter()
    try:
        yield
    finally:
        seconds[phase] += time.perf_counter() - began

"""The life of a run, or of several that train together: restore or start, go on to the end, write the result."""

import contextlib
import functools
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import jax
import numpy as np

from research.config import RunConfig, check, program_of
from research.models.algorithms import names
from research.plan.cost import executed_cost
from research.runs import PHASES, Status
from research.sharding import make_mesh, platform
from research.training import metrics, noise_scale
from research.training.branching import state_of_another
from research.training.checkpoint import Checkpoints
from research.training.lanes import Lanes, make_lanes
from research.training.objectives.base import MakeObjective
from research.training.parents import parameters_of_parent
from research.training.runtime import matmul_flops_per_second
from research.training.session import (
    Evaluate,
    Member,
    OnProgress,
    Run,
    Session,
    measure,
    plus_share,
    save,
    take_steps,
    timed,
)
from research.training.step import Program, TrainState, make_program


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
            members = tuple(replace(m, seconds=plus_share(m.seconds, spent, len(runs))) for m in members)
            lanes = _lanes(program_of(config), objective, len(members))
            session = Session(program, lanes, members, evaluate, on_progress, should_stop)
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
) -> tuple[TrainState, Member]:
    """A new state, perhaps of a parent's parameters, that of the run to start from, or the newest readable
    checkpoint's, whose notes bring the seconds spent before it."""
    config, folder = run.config, run.folder
    checkpoints = opened.enter_context(Checkpoints(folder.checkpoints_path, config.checkpoint))
    earlier: Mapping[str, float] = {}
    state, inherited = None, {}
    with timed(spent, "checkpoint_seconds"):
        if checkpoints.latest() is not None:
            state, earlier = checkpoints.restore(program.abstract_state)
        elif config.start is not None:
            state = state_of_another(config, folder, program.abstract_state)
        elif config.parent is not None:
            inherited = parameters_of_parent(config, folder, program.batch_sharding.mesh)
    state = program.init(config.training.seed, inherited) if state is None else state
    first = int(state.step)
    tensorboard = folder.tensorboard_path if config.logging.tensorboard else None
    log = opened.enter_context(metrics.MetricsLog(folder.metrics_path, first, tensorboard))
    log.add("session", first, _machine(config, together))
    return state, Member(run, checkpoints, log, earlier)


def _groups(
    program: Program, runs: Sequence[Run], opened: contextlib.ExitStack, spent: Counter[str], is_alone: bool
) -> dict[tuple[int, str], list[tuple[TrainState, Member]]]:
    """The runs that step together, by their first step, and by name where each is alone."""
    groups = defaultdict(list)
    for run in runs:
        state, member = _start(program, run, opened, spent, 1 if is_alone else len(runs))
        groups[int(state.step), run.folder.name if is_alone else ""].append((state, member))
    return groups


def _train_together(session: Session, states: list[TrainState], first: int) -> dict[str, Status]:
    """From step `first` to the end, or until asked to stop; the status of each run by its folder's name. Takes the
    states out of the list, since beside their lanes they would be kept twice."""
    config, spent = session.config, session.spent
    state = session.lanes.stack(states)
    states.clear()
    state, step = take_steps(session, state, first)
    finished = step == config.training.steps
    measured = measure(session, state, step) if finished else {}
    with timed(spent, "checkpoint_seconds"):
        save(session, state, step)
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

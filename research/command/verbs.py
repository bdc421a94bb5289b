"""The verbs on an experiment file: plan, run, status, report. Each prints to a console and returns an exit code."""

import errno
import os
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Protocol

from rich.console import Console

from research.command.progress import show
from research.command.tables import plan_table, status_table
from research.command.text_table import print_table
from research.config import RunConfig, run_name
from research.execution.drive import drive
from research.execution.engine import Engine
from research.execution.faults import MachineError
from research.execution.sweep import new_sweep
from research.plan import Experiment, load, run_cost, select
from research.runs import (
    NotWritableError,
    PlanFolder,
    Status,
    check_locks,
    folder_of,
    make_folder,
    one_at_a_time,
    prediction,
    rounds_of,
)
from research.runs.text import check_text
from research.runs.timings import phase


class Request(Protocol):
    """The fields of research.command.cli.Request that the verbs read."""

    file: Path
    only: str | None
    runs_dir: Path
    assignments: list[str]


def plan(request: Request, console: Console, prior: str | None = None, noise_nats: float | None = None) -> int:
    """Print the runs and their cost, and under a prior law what they could tell; trains nothing and writes nothing."""
    planned = _plan_of(request)
    _check_held_out(planned)
    held_out_flops = planned.experiment.held_out_flops if request.only is None else None
    chosen = select(planned.configs, request.only)
    searched = planned.experiment.searched
    print_table(plan_table(chosen, _title(planned.experiment), held_out_flops, searched), console)
    for remark in planned.experiment.remarks(chosen):
        console.print(remark, style="yellow", markup=False, soft_wrap=True, highlight=False)
    if prior is not None:
        from research.command import planned_design  # brings jax and the analysis

        planned_design.show_judgement(chosen, held_out_flops, prior, noise_nats, console)
    return 0


def status(request: Request, console: Console) -> int:
    """Print every run's status, step and loss, the held-out run's included once it has been predicted."""
    print_table(status_table(select(_known_runs(_plan_of(request)), request.only), request.runs_dir), console)
    return 0


def report(request: Request, console: Console, out: Path | None = None) -> int:
    """Write table, law, figures and report from the files of the runs; `--only` narrows what is printed of the runs.

    They go to `out`, or to the plan's folder. Returns 1 if that cannot be written to: then everything is printed only.
    """
    from research.command import conclusion

    planned = _plan_of(request)
    print_table(status_table(select(_known_runs(planned), request.only), request.runs_dir), console)
    folder, refused = out or planned.path, None
    try:
        make_folder(folder, "--out")
    except NotWritableError as error:
        folder, refused = None, error
    conclusion.write_report(planned, conclusion.fit(planned), console, folder)
    if refused is not None:
        console.print(
            f"Nothing was written. {refused}", style="bold red", markup=False, soft_wrap=True, highlight=False
        )
    return 0 if refused is None else 1


MakeEngine = Callable[[Path, int], Engine]  # of the experiment's folder and the number of its runs


def run(request: Request, console: Console, make_engine: MakeEngine, retry_failed: bool = False) -> int:
    """Everything: data, plan, sweep, the rounds that follow from it, table, fit, prediction, held-out run, report.

    What is on disk already is used: a second call trains only what the first did not finish. Returns 0 if everything
    asked for is done, a loss that became infinite being a result too, else 1. Raises KeyboardInterrupt when a signal
    stopped it, OSError for a full disk, MachineError for any other fault of the machine that came back.
    """
    from research.command import conclusion  # brings jax and the analysis, which the other verbs do without

    planned = _plan_of(request)
    conclusion.check_law(planned.experiment)
    _check_held_out(planned)
    chosen = planned.configs if request.only is None else select(_known_runs(planned), request.only)
    planned.make()
    check_locks(planned.experiment_dir)
    sweep = [config for config in chosen if not config.held_out]
    held_out_flops = planned.experiment.held_out_flops if request.only is None else None
    searched = planned.experiment.searched
    print_table(plan_table(sweep, _title(planned.experiment), held_out_flops, searched), console)

    def train(phase_name: str, configs: Sequence[RunConfig]) -> bool:
        if todo := _to_train(configs, request.runs_dir, retry_failed, console):
            _train(phase_name, todo, configs, planned, make_engine, console)
        return all(folder_of(request.runs_dir, config).loss_nats() is not None for config in configs)

    finished = [train("sweep", sweep)]
    if request.only is None:
        finished += _train_following(planned, train, console)
    with phase(planned.timings_path, "fit"):
        fitted = conclusion.fit(planned)
    if request.only is None:
        with one_at_a_time(planned.path):  # the next process finds the prediction and keeps it
            held_out = conclusion.predict_held_out(planned, fitted, console)
        finished.append(held_out is not None or planned.experiment.held_out_flops is None)
        finished.append(train("held_out", [held_out.config] if held_out else []))
    else:
        finished.append(train("held_out", [config for config in chosen if config.held_out]))
    with one_at_a_time(planned.path), phase(planned.timings_path, "report"):
        conclusion.write_report(planned, fitted, console, planned.path)
    return 0 if all(finished) else 1


def _train_following(
    planned: PlanFolder, train: Callable[[str, Sequence[RunConfig]], bool], console: Console
) -> list[bool]:
    """Train each round after the sweep as it follows from those before; whether each of them is finished."""
    finished = []
    for number, configs in enumerate(rounds_of(planned)):
        if number == 0:
            continue
        if any(folder_of(planned.runs_dir, config).loss_nats() is None for config in configs):
            title = f"{planned.experiment.name}: round {number} after the sweep"
            print_table(plan_table(configs, title, None, planned.experiment.searched), console)
        finished.append(train(f"round_{number}", configs))
    return finished


def _to_train(configs: Sequence[RunConfig], runs_dir: Path, retry_failed: bool, console: Console) -> list[RunConfig]:
    """What of `configs` is not done, longest first; failed runs only if they are to be tried again."""
    folders = {config: folder_of(runs_dir, config) for config in configs}
    failed = [folder for folder in folders.values() if folder.status() == Status.FAILED]
    if retry_failed:
        for folder in failed:
            folder.forget_failure()
    elif failed:
        console.print(f"{len(failed)} failed before and stay so; --retry-failed trains them again", style="yellow")
    todo = [config for config, folder in folders.items() if folder.status() not in (Status.DONE, Status.FAILED)]
    return sorted(todo, key=lambda config: run_cost(config).flops, reverse=True)


def _train(
    phase_name: str,
    todo: Sequence[RunConfig],
    configs: Sequence[RunConfig],
    planned: PlanFolder,
    make_engine: MakeEngine,
    console: Console,
) -> None:
    """Prepare the data of `todo` and train it, showing it as part of `configs`; records what both took."""
    runs_dir = planned.runs_dir
    engine = make_engine(planned.experiment_dir, len(configs))
    with phase(planned.timings_path, "prepare"):
        _prepare(todo, runs_dir, console)
    with (
        phase(planned.timings_path, phase_name) as notes,
        show(console, new_sweep(configs, todo, runs_dir, engine.workers)) as watch,
    ):
        notes.update(workers=engine.workers, together=engine.together, runs=[run_name(config) for config in todo])
        outcome = drive(engine, todo, runs_dir, watch)
        notes["worker_start_seconds"] = outcome.worker_start_seconds
    if outcome.is_disk_full:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(runs_dir))
    if outcome.fault:
        raise MachineError(
            f"the sweep stopped, since the machine refused twice: {outcome.fault}. No run is marked failed for it. "
            "Fix: mend that and repeat the command; what is done is kept."
        )
    if outcome.interrupted:
        raise KeyboardInterrupt


def _prepare(configs: Sequence[RunConfig], runs_dir: Path, console: Console) -> None:
    """Build the token files that are missing, and check examples, and that no run was begun on other text.

    Says what the files hold, since the first time takes minutes.
    """
    from research.data.batches import text_digests
    from research.data.example_rows import example_batches, example_digests
    from research.data.prepare import prepare  # imports tensorflow, when it has anything to build

    files = {}
    for data in dict.fromkeys(config.data for config in configs if config.needs_token_files):
        with console.status("preparing data"):
            files[data] = prepare(
                data, report=lambda line: console.print(line, style="dim", markup=False, soft_wrap=True)
            )
    for config in configs:
        if config.reads_text:
            check_text(folder_of(runs_dir, config), text_digests(config, files[config.data]))
        elif config.examples is not None:
            example_batches(config)  # what is wrong with the file is said now, and not by every run
            check_text(folder_of(runs_dir, config), example_digests(config))


def _plan_of(request: Request) -> PlanFolder:
    """The plan that is asked about. Raises ConfigError for a bad file or override."""
    assignments = tuple(request.assignments)
    return PlanFolder(load(request.file, assignments), request.runs_dir, assignments)


def _known_runs(planned: PlanFolder) -> list[RunConfig]:
    """The runs of every round that is known and, once its size has been chosen, the held-out one."""
    held_out = prediction.of_plan(planned)
    return [*chain.from_iterable(rounds_of(planned)), *([held_out.config] if held_out else [])]


def _check_held_out(planned: PlanFolder) -> None:
    """Raise ConfigError now if the held-out run could not be trained, and not when all the others have been.

    Its size is not known yet; the middle one of the largest budget stands for it.
    """
    if planned.experiment.held_out_flops is not None:
        largest = max(config.budget_flops for config in planned.configs)
        sizes = sorted(run_cost(config).params for config in planned.configs if config.budget_flops == largest)
        planned.experiment.held_out_run(sizes[len(sizes) // 2])


def _title(experiment: Experiment) -> str:
    return f"{experiment.name}: {experiment.question}"

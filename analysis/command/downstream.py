"""`isoflop downstream`: accuracy on tasks of runs that no fit has seen, in two steps."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from analysis.command.outputs import check_file, standard_output, write_json
from analysis.command.request import Assignments, Merged, Source, numbers, pairs
from analysis.sampling import SEVERAL_FITS, Sampling
from analysis.tables.smoothing import AS_PUBLISHED, Smoothing


def downstream(
    source: Annotated[Source, Merged],
    *,
    task: Annotated[tuple[str, ...], tyro.conf.arg(metavar="TASK")] = (),
    smoothing: Annotated[Smoothing, Merged] = AS_PUBLISHED,
    held_out: Annotated[tuple[str, ...], tyro.conf.arg(metavar="RUN")] = (),
    at: Annotated[Assignments, tyro.conf.arg(metavar="INPUT=VALUE")] = (),
    ideal_point: tyro.conf.FlagCreatePairsOff[bool] = False,
    json: Path | None = None,
    sampling: Annotated[Sampling, Merged] = SEVERAL_FITS,
    far_factor: float = 10.0,
) -> None:
    """Predict accuracy on tasks: task loss from params and tokens, then accuracy from task loss (Bhagia et al. 2024).

    The table has one row per checkpoint (or per run) with params, tokens, task_loss_TASK (bits per byte of the right
    answers) and accuracy_TASK. Runs that are held out are predicted, and scored where they were measured. No figures
    are drawn: --json has every number.

    Args:
        source: the table.
        task: tasks to predict; all that the table has both columns of, if not given.
        smoothing: the checkpoints.
        held_out: runs (values of the column `by`) to keep out of the fit, besides rows whose held_out is true.
        at: params and tokens of a run that was not made, as params=7e9 tokens=4e12.
        ideal_point: add the ideal model, of task loss 0 and accuracy 1, to the points of step 2.
        json: file that gets everything that was found, as JSON.
        sampling: the resamples, of the runs.
        far_factor: predictions further than this many times beyond the fitted runs are flagged.
    """
    from analysis import backend
    from analysis.report import forecast_sections, show
    from analysis.studies import forecast_tasks

    backend.configure_command()
    console = standard_output()
    check_file("--json", json)
    tasks = task or _tasks(source)
    columns = [f"{kind}_{name}" for name in tasks for kind in ("task_loss", "accuracy")]
    own = [name for name in (smoothing.by, smoothing.order) if name != "run"]
    found = forecast_tasks(
        source.read(tuple(dict.fromkeys(("params", "tokens", *own, *columns)))),
        tasks,
        smoothing=smoothing,
        held_out=held_out,
        at=numbers("--at", at) or None,
        ideal_point=ideal_point,
        sampling=sampling,
        far_factor=far_factor,
    )
    show(console, *forecast_sections(found))
    write_json(console, json, found)


def _tasks(source: Source) -> Sequence[str]:
    """The tasks that the file, as it stands or by --column, has both columns of, in its order."""
    from analysis.fit import FitError
    from analysis.runs_table import read_file

    reading = source.reading
    names = [*map(str, read_file(source.table, reading.decimal).columns), *pairs("--column", reading.column)]
    tasks = [name.removeprefix("accuracy_") for name in names if name.startswith("accuracy_")]
    found = [task for task in dict.fromkeys(tasks) if f"task_loss_{task}" in names]
    if not found:
        raise FitError(
            "task: no task_loss_TASK and accuracy_TASK in the table. Fix: name yours, as --column task_loss_quiz=BPB "
            "accuracy_quiz=ACC."
        )
    return found

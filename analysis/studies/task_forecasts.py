"""Accuracy of runs that no fit has seen, task by task, by the two steps of `downstream`, and how far off it was."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.compute import Reach
from analysis.fit import FitError, LeftOut, left_out, reasons_left_out, select
from analysis.intervals import Resampling, by_run
from analysis.laws import find
from analysis.runs_table import complete
from analysis.sampling import SEVERAL_FITS, Sampling
from analysis.studies.downstream import TaskPrediction, TwoSteps, fit_two_steps, predict_task, smoothed
from analysis.studies.reach import furthest_outside
from analysis.tables.columns import some_of
from analysis.tables.files import notes_of
from analysis.tables.smoothing import AS_PUBLISHED, Smoothing
from analysis.tables.units import check_counts, check_shares, check_stated_counts


@dataclass(frozen=True)
class Forecast:
    """One run's task: what the laws say, how far out it lies, and what was measured; None where nothing was."""

    task: str
    run: str
    inputs: dict[str, float]
    predicted: TaskPrediction
    reach: Reach
    task_loss: float | None
    accuracy: float | None

    @property
    def error(self) -> float:
        """Predicted minus measured accuracy, a share of 1; NaN where it was not measured."""
        return float("nan") if self.accuracy is None else self.predicted.accuracy.value - self.accuracy


@dataclass(frozen=True)
class RunError:
    """One held-out run over its measured tasks: means of |predicted - measured| accuracy, and of that over measured."""

    run: str
    tasks: int
    absolute: float
    relative: float
    inside: float


@dataclass(frozen=True)
class TaskForecasts:
    """What `forecast_tasks` found: both steps by task, forecasts by task and run, errors by run.

    window, skip: as in `smoothed`. without: each task that could not be fitted, with the reason. left_out: rows that
    were not read, or not for a task whose column the reason names. table_notes: as in a `Study`.
    """

    level: float
    ideal_point: bool
    window: int
    skip: float
    steps: dict[str, TwoSteps]
    forecasts: tuple[Forecast, ...]
    errors: tuple[RunError, ...]
    without: tuple[tuple[str, str], ...]
    left_out: tuple[LeftOut, ...]
    table_notes: tuple[str, ...]


def forecast_tasks(
    table: pd.DataFrame,
    tasks: Sequence[str],
    *,
    smoothing: Smoothing = AS_PUBLISHED,
    held_out: Sequence[str] = (),
    at: Mapping[str, float] | None = None,
    ideal_point: bool = False,
    sampling: Sampling = SEVERAL_FITS,
    far_factor: float = 10.0,
) -> TaskForecasts:
    """Fit both steps of each task without the held-out runs, and predict those runs, and a run of one's own.

    table: one row per checkpoint, with params, tokens, task_loss_<task> and accuracy_<task>. held_out: names in the
    column that says which run a checkpoint is of, besides the rows whose held_out is true. at: params and tokens of a
    run that was not made. Raises FitError for a run that is not there, an `at` that lacks one of the two, or where no
    task can be fitted; TableError for params or tokens that are no counts, and accuracies that are no shares of 1.
    """
    by, order = smoothing.by, smoothing.order
    columns = [name for task in tasks for name in _columns(task) if name in table.columns]
    table = _with_held_out(complete(table, ("params", "tokens", *columns)), by, held_out)
    check_shares(table, columns)
    table, dropped = _without_copies(table)
    wanted = _wanted(at)
    steps, forecasts, without = {}, [], []
    for task in tasks:
        try:
            rows, unused = _checkpoints(table, task, smoothing)
            dropped += unused
            seen = rows[~rows["held_out"]]
            steps[task] = fit_two_steps(seen, by=by, ideal_point=ideal_point, sampling=sampling)
        except FitError as error:
            without.append((task, str(error)))
            continue
        ranges = _ranges(seen)
        check_stated_counts(at or {}, ranges)
        runs = [*_ends(rows[rows["held_out"] & rows["last"]], by), *wanted]
        forecasts += [_forecast(task, steps[task], ranges, far_factor, *run) for run in runs]
    if not steps:
        raise FitError(f"tasks: none can be fitted. The first, {without[0][0]}: {without[0][1]}")
    return TaskForecasts(
        level=sampling.level,
        ideal_point=ideal_point,
        window=smoothing.window,
        skip=smoothing.skip,
        steps=steps,
        forecasts=tuple(forecasts),
        errors=_errors(forecasts),
        without=tuple(without),
        left_out=tuple(dict.fromkeys(dropped)),
        table_notes=(
            *_single_notes(table, by, order),
            *notes_of(table),
            *by_run(Resampling(by=by), table.loc[~table["held_out"], by].astype(str).tolist())[1],
        ),
    )


def _checkpoints(table: pd.DataFrame, task: str, smoothing: Smoothing) -> tuple[pd.DataFrame, list[LeftOut]]:
    """The smoothed checkpoints of a task, and those that a step cannot use or that are left away."""
    rows = smoothed(table, task, **vars(smoothing))
    check_counts(rows[rows["last"]], ("params", "tokens"))
    unused = _dropped(rows, task, smoothing.by, smoothing.order)
    return rows, unused + _early(table, rows, smoothing.by, smoothing.order, smoothing.skip)


def _columns(task: str) -> tuple[str, str]:
    return f"task_loss_{task}", f"accuracy_{task}"


def _without_copies(table: pd.DataFrame) -> tuple[pd.DataFrame, list[LeftOut]]:
    """The rows that are not exact copies of an earlier one, which no mean over checkpoints may count twice."""
    statuses = table["status"].where(~table["held_out"], "done").fillna("unknown")
    reasons = reasons_left_out(table.assign(held_out=False, status=statuses), {})
    reasons[statuses.ne("done").to_numpy(bool)] = ""  # these keep their place in their run, and `_dropped` names them
    return table[reasons == ""], list(left_out(table, reasons))


def _dropped(rows: pd.DataFrame, task: str, by: str, order: str) -> list[LeftOut]:
    """Checkpoints that a step of a task cannot use, with the reason; what a held-out run has not measured is none."""
    is_last, is_held_out = rows["last"].to_numpy(bool), rows["held_out"].to_numpy(bool)
    rows = rows.assign(held_out=False, status=rows["status"].where(~is_held_out, "done"))
    measures = dict(zip(_columns(task), ("positive and finite", "finite and at least zero"), strict=True))
    for name in measures:
        rows[name] = rows[name].mask(is_held_out & rows[name].isna().to_numpy(), 1.0)
    places = [f"{run} at {order} {place:g}" for run, place in zip(rows[by], rows[order], strict=True)]
    rows["run"] = rows[by].astype(str).where(~rows[by].duplicated(keep=False), places)
    ends = {**dict.fromkeys(("params", "tokens"), "positive and finite"), **measures}
    parts = ((rows[is_last], ends), (rows[~is_last], measures))
    return [item for part, rules in parts for item in left_out(part, reasons_left_out(part, rules))]


def _early(table: pd.DataFrame, rows: pd.DataFrame, by: str, order: str, skip: float) -> list[LeftOut]:
    """The checkpoints of the first `skip` of each run, which `smoothed` has left away."""
    early = table.loc[table.index.difference(rows.index), by].astype(str).value_counts(sort=False)
    return [
        LeftOut(
            run, f"its first {skip:.0%} by {order} ({count} {'row' if count == 1 else 'rows'}) is left away (--skip)"
        )
        for run, count in early.items()
    ]


def _with_held_out(table: pd.DataFrame, by: str, held_out: Sequence[str]) -> pd.DataFrame:
    if by not in table.columns:
        raise FitError(f"by = {by!r}: no such column; present: {some_of(table.columns, by)}. Fix: name one.")
    names = table[by].astype(str)
    absent = [name for name in held_out if not names.eq(name).any()]
    if absent:
        some = ", ".join(sorted(set(names))[:5])
        raise FitError(f"held-out {absent[0]!r}: no such {by}; the first are {some}. Fix: name one of the column's.")
    return table.assign(held_out=table["held_out"] | names.isin(list(held_out)))


def _wanted(at: Mapping[str, float] | None) -> list[tuple[str, dict[str, float], None, None]]:
    if at is None:
        return []
    inputs = {name: float(value) for name, value in at.items()}
    if set(inputs) != {"params", "tokens"} or not all(np.isfinite(v) and v > 0 for v in inputs.values()):
        raise FitError(f"at = {inputs}: must be positive params and tokens. Fix: give both, as params=7e9 tokens=4e12.")
    return [(f"params={inputs['params']:g} tokens={inputs['tokens']:g}", inputs, None, None)]


def _ends(rows: pd.DataFrame, by: str) -> list[tuple[str, dict[str, float], float | None, float | None]]:
    """Name, inputs, task loss and accuracy of the last checkpoint of each run."""
    found = []
    for _, row in rows.iterrows():
        inputs = {name: float(row[name]) for name in ("params", "tokens")}
        if not all(np.isfinite(value) and value > 0 for value in inputs.values()):
            continue  # it is among those left out
        measured = [None if pd.isna(row[name]) else float(row[name]) for name in ("task_loss", "accuracy")]
        found.append((str(row[by]), inputs, *measured))
    return found


def _single_notes(table: pd.DataFrame, by: str, order: str) -> tuple[str, ...]:
    """Whether rows that each are a run of their own look like checkpoints of runs that another column names.

    Such a column groups rows of one size that had come differently far, and has more names than there are sizes.
    """
    if table[by].duplicated().any():
        return ()
    for name in table.columns:
        values = table[name] if isinstance(name, str) and name != by else None
        if not isinstance(values, pd.Series) or not (values.dtype == object or pd.api.types.is_string_dtype(values)):
            continue
        groups = table.groupby(values.astype(str), sort=False)
        if groups["params"].nunique().max() > 1 or not groups.ngroups > table["params"].nunique():
            continue
        if groups.size().median() >= 2 and (groups[order].nunique() == groups.size()).all():
            return (
                f"every {by} has one row, and rows of equal {name} have one size at different {order}: are they "
                f"checkpoints of a run? Each is taken for the end of a run of its own. Name the runs, as --by {name}",
            )
    return ()


def _ranges(seen: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """Smallest and largest params and tokens of step 1, and task loss of step 2: measured ones, without the ideal."""
    first = select(find("task_loss"), seen[seen["last"]])[0].inputs
    inputs = {**first, **select(find("task_accuracy"), seen)[0].inputs}
    return {name: (float(values.min()), float(values.max())) for name, values in inputs.items()}


def _forecast(
    task: str,
    steps: TwoSteps,
    ranges: Mapping[str, tuple[float, float]],
    far_factor: float,
    run: str,
    inputs: dict[str, float],
    task_loss: float | None,
    accuracy: float | None,
) -> Forecast:
    predicted = predict_task(steps, inputs)
    reach = furthest_outside({**inputs, "task_loss": predicted.task_loss.value}, ranges, far_factor)
    return Forecast(task, run, inputs, predicted, reach, task_loss, accuracy)


def _errors(forecasts: Sequence[Forecast]) -> tuple[RunError, ...]:
    found = []
    for run in dict.fromkeys(one.run for one in forecasts if one.accuracy is not None):
        mine = [one for one in forecasts if one.run == run and one.accuracy is not None]
        error = np.abs([one.error for one in mine])
        measured = np.array([one.accuracy for one in mine])
        inside = [one.predicted.accuracy.contains(one.accuracy) for one in mine]
        with np.errstate(divide="ignore", invalid="ignore"):
            relative = float(np.mean(error / measured))
        found.append(RunError(run, len(mine), float(error.mean()), relative, float(np.mean(inside))))
    return tuple(found)

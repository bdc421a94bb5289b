"""Accuracy on a task before the model exists, in two steps (Bhagia et al. 2024, arXiv:2412.04403).

Step 1 fits the task's loss at the end of each run as a law of params and tokens; step 2 fits accuracy as a sigmoid in
task loss on every checkpoint. The second has far more points, and the first is smooth where accuracy is not. Far below
the task losses that were seen the sigmoid's upper end is open; one more point, the ideal model of no task loss and full
accuracy, closes it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.fit import HUBER, LEAST_SQUARES, FitError, Objective
from analysis.intervals import Estimate, Interval, Resampling, estimate_rows, percentile_interval
from analysis.laws import evaluate, find
from analysis.sampling import ONE_FIT, Sampling

IDEAL = "the ideal model"
KIND = "kind of point (measured or ideal)"
ROUNDING = 1e-9  # of a value: checkpoints that differ by less do not vary


@dataclass(frozen=True)
class TwoSteps:
    """Both steps with their bootstraps: task_loss of params and tokens, accuracy of task_loss."""

    task_loss: Estimate
    accuracy: Estimate
    level: float


@dataclass(frozen=True)
class TaskPrediction:
    """Task loss and accuracy of one run that was not made; the intervals are of the laws, without a run's own noise."""

    task_loss: Interval
    accuracy: Interval


def smoothed(
    table: pd.DataFrame, task: str, *, by: str = "run", order: str = "steps", window: int = 5, skip: float = 0.1
) -> pd.DataFrame:
    """Checkpoints of one task: `task_loss` and `accuracy` as means over the last `window` checkpoints of each run.

    table: complete, one row per checkpoint, with columns task_loss_<task> and accuracy_<task>; `by` names the run a
    checkpoint belongs to and `order` how far it had come. The first `skip` of each run is left away, and `last` marks
    its end. A task loss that is not positive and an accuracy that is negative count as not measured; a checkpoint
    without a measurement keeps its place in its run, and no mean stands for it.
    A run of one row needs no `order`. Raises FitError for a missing column, a checkpoint whose place in its run is
    unknown, or a window or skip outside its range.
    """
    names = (by, order, f"task_loss_{task}", f"accuracy_{task}")
    for name in names:
        if name not in table.columns:
            raise FitError(f"table: missing column {name!r} for task {task!r}. Fix: add it.")
    if window < 1 or not 0 <= skip < 1:
        raise FitError(f"window = {window}, skip = {skip:g}: must be at least 1 and in [0, 1). Fix: use 5 and 0.1.")
    rows = table.sort_values([by, order], kind="stable")
    place = rows[order].where(rows.groupby(by, sort=False)[order].transform("size") > 1, 1.0)
    if place.isna().any():
        raise FitError(
            f"{order} of {by} {rows[by][place.isna()].iloc[0]!r}: is missing, and the run has several checkpoints. "
            "Fix: fill it in."
        )
    for name, column in (("task_loss", names[2]), ("accuracy", names[3])):
        numbers = pd.to_numeric(rows[column], errors="coerce").astype("float64")
        is_measured = np.isfinite(numbers) & (numbers > 0 if name == "task_loss" else numbers >= 0)
        by_run = numbers.where(is_measured).groupby(rows[by], sort=False)
        rows[name] = by_run.transform(lambda values: values.rolling(window, min_periods=1).mean()).where(is_measured)
    end = place.groupby(rows[by], sort=False).transform("max")
    rows["last"] = place == end
    return rows[place > skip * end]


def fit_two_steps(
    checkpoints: pd.DataFrame,
    *,
    by: str = "run",
    ideal_point: bool = False,
    objective: Objective = HUBER,
    sampling: Sampling = ONE_FIT,
) -> TwoSteps:
    """Fit both steps to what `smoothed` gives: step 1 to the last checkpoint of each run by `objective`, step 2 to all
    of them by least squares on accuracy. Runs, named by the column `by`, are drawn as a whole in the bootstraps, since
    checkpoints of one run are not independent. ideal_point: whether step 2 has one more point, task_loss 0 and accuracy
    1, which every resample holds once. Raises FitError as `intervals.estimate` does, and for a task loss or an accuracy
    that does not vary."""
    for name in ("task_loss", "accuracy"):
        _check_varies(name, checkpoints[name].dropna().to_numpy(np.float64))
    last, resampling = checkpoints[checkpoints["last"]], Resampling(by=by)
    first = estimate_rows(find("task_loss"), last, objective, sampling, resampling)
    if ideal_point:
        checkpoints, resampling = _with_ideal_point(checkpoints, by), Resampling(by=by, within=KIND)
    second = estimate_rows(find("task_accuracy"), checkpoints, LEAST_SQUARES, sampling, resampling)
    return TwoSteps(first, second, sampling.level)


def _check_varies(name: str, values: np.ndarray) -> None:
    if len(values) and np.ptp(values) <= ROUNDING * np.max(np.abs(values)):
        raise FitError(
            f"{name} = {values[0]:g} in all {len(values)} checkpoints that measured it: nothing changes with size. "
            "Fix: check the column, or leave the task out."
        )


def predict_task(steps: TwoSteps, run: Mapping[str, float]) -> TaskPrediction:
    """Task loss and accuracy at `run`'s params and tokens; the draws of both steps are chained one to one."""
    first, second = (part.fit.law for part in (steps.task_loss, steps.accuracy))
    loss = evaluate(first, steps.task_loss.fit.array(), run).item()
    losses_B = evaluate(first, steps.task_loss.draws, run)[:, 0]
    accuracy = evaluate(second, steps.accuracy.fit.array(), {"task_loss": loss}).item()
    draws_B = np.diagonal(evaluate(second, steps.accuracy.draws, {"task_loss": losses_B}))
    return TaskPrediction(
        percentile_interval(loss, losses_B, steps.level), percentile_interval(accuracy, draws_B, steps.level)
    )


def _with_ideal_point(checkpoints: pd.DataFrame, by: str) -> pd.DataFrame:
    """The checkpoints and the ideal model, a stratum of its own in the column KIND."""
    ideal = pd.DataFrame({"task_loss": [0.0], "accuracy": [1.0], "status": ["done"], "held_out": [False]})
    ideal[by] = ideal["run"] = IDEAL
    return pd.concat([checkpoints.assign(**{KIND: 0}), ideal.assign(**{KIND: 1})], ignore_index=True)

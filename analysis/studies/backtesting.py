"""Back-tests: fit below a cut, score above it, for a series of cuts. What an extrapolation was worth in the past.

A law that predicts the runs it was not shown, from cuts as far below them as the target is above the table, has earned
some trust; one whose intervals miss more runs than they promise has not.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from analysis.fit import HUBER, FitError, LeftOut, Objective, Points, fit_points, select, those_left_out
from analysis.intervals import check_sampling, predictive, predictive_intervals
from analysis.laws import Law
from analysis.runs_table import complete, unit_of
from analysis.sampling import SEVERAL_FITS, Sampling
from analysis.studies.caveats import RUNS, SINGLE
from analysis.studies.study import Study
from analysis.tables.columns import some_of
from analysis.tables.files import notes_of
from analysis.tables.runs import with_runs
from analysis.tables.units import check_units, unit_notes

DEFAULT_SHARES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)  # of the points, fitted below each cut
SAME_CLUSTER = 1.1  # times its neighbour: runs nearer than that are not parted by a default cut


@dataclass(frozen=True)
class Cut:
    """One fit of the runs below `below`, scored on the others.

    fitted: rows, of `fitted_runs`. runs: of each scored row. at: where it lies; measured, predicted, low, high: its
    output and `level` predictive interval; all (scored,). mean_absolute_error and bias (predicted minus measured, mean)
    are in the output's unit, hit_rate is the share of scored rows inside their interval, furthest is the largest `at`
    over the largest fitted one. reason: why there is no fit, or nothing; without a fit the numbers are NaN.
    """

    below: float
    fitted: int
    fitted_runs: int
    reason: str
    values: dict[str, float]
    runs: tuple[str, ...]
    at: np.ndarray
    measured: np.ndarray
    predicted: np.ndarray
    low: np.ndarray
    high: np.ndarray
    mean_absolute_error: float
    mean_relative_error: float
    bias: float
    hit_rate: float
    furthest: float

    @property
    def unit(self) -> str:
        """What is independent among the fitted: runs of several rows, or points."""
        return RUNS if self.fitted_runs < self.fitted else SINGLE


@dataclass(frozen=True)
class Backtest:
    """A law's cuts, from the lowest to the highest.

    by: the column that is cut. left_out, table_notes: as in a `Study`.
    """

    law: Law
    objective: Objective
    by: str
    output: str
    unit: str
    level: float
    bootstraps: int
    seed: int
    cuts: tuple[Cut, ...]
    left_out: tuple[LeftOut, ...]
    table_notes: tuple[str, ...]


def backtest(
    law: Law,
    table: pd.DataFrame,
    *,
    by: str = "flops",
    cuts: Sequence[float] = (),
    objective: Objective = HUBER,
    sampling: Sampling = SEVERAL_FITS,
) -> Backtest:
    """Fit `law` to the runs whose `by` is below each cut and score it on the others.

    by: `flops` or any column of numbers. cuts: values of it. By default they lie between stated budgets (for flops), or
    between clusters of runs, at the geometric mean of the runs on either side, never inside a budget; of those gaps the
    ones that leave nearest to 30, 40, ... 90 % of the points below. A run with several rows lies where its last one
    does: with one at or above the cut the whole run is in the future, and its rows below are neither fitted nor scored.
    A cut that leaves too few points for a fit is kept with the reason. Raises FitError when no cut leaves a fit and
    something to score, TableError as `fit_table` does.
    """
    check_sampling(sampling)
    table = with_runs(complete(table))
    points, left_out = select(law, table)
    rows = table.iloc[points.rows]
    check_units(law, rows)
    at = _positions(rows, by)
    ends = pd.Series(at).groupby(np.asarray(points.runs, object)).transform("max").to_numpy()
    cuts = sorted({float(cut) for cut in cuts} or _default_cuts(rows, ends, by))
    if not cuts:
        raise FitError(f"cuts: budgets overlap in {by}, and none is wholly below another. Fix: give --cuts.")
    found = []
    for cut in cuts:
        below = ends < cut
        if not below.any() or below.all():
            runs = len(set(np.asarray(points.runs, object)[below]))
            raise FitError(
                f"cut = {cut:g}: {runs} of {len(set(points.runs))} runs lie below it in {by}, which spans "
                f"{ends.min():g} to {ends.max():g}. Fix: cut inside."
            )
        found.append(_cut(law, points, at, below, cut, objective, sampling))
    if all(cut.reason for cut in found):
        those = those_left_out(left_out, len(points.runs))
        raise FitError(f"cuts: none leaves a fit. The first: {found[0].reason}{those}")
    notes = (*notes_of(table), *unit_notes(law, rows), *_run_note(points))
    return Backtest(
        law, objective, by, law.output, unit_of(law.output), **vars(sampling), cuts=tuple(found), left_out=left_out,
        table_notes=notes,
    )  # fmt: skip


def backtest_of(study: Study, table: pd.DataFrame) -> Backtest | None:
    """The back-test of a study's law on its own table, by compute (or by its first input); None if no cut has a fit."""
    law = study.law.fit.law
    by = "flops" if study.flop_rule is not None or "flops" in law.inputs else law.inputs[0]
    sampling = replace(SEVERAL_FITS, level=study.level, seed=study.seed)
    try:
        return backtest(law, table, by=by, objective=study.law.fit.objective, sampling=sampling)
    except FitError:
        return None  # few or equal runs: there is nothing below a cut that could be fitted


def _cut(
    law: Law,
    points: Points,
    at: np.ndarray,
    below: np.ndarray,
    cut: float,
    objective: Objective,
    sampling: Sampling,
) -> Cut:
    above = at >= cut
    shown, unseen = points.where(below), points.where(above)
    counts = int(below.sum()), len(set(shown.runs))
    empty = np.array([])
    try:
        result = fit_points(law, shown, (), objective)
    except FitError as error:
        nothing = {name: float("nan") for name in ("mean_absolute_error", "mean_relative_error", "bias", "hit_rate")}
        return Cut(cut, *counts, str(error), {}, (), *[empty] * 5, **nothing, furthest=_furthest(at, below))
    spread = predictive(result, shown, sampling)
    predicted, low, high = predictive_intervals(law, result, spread, unseen.inputs, sampling.level, sampling.seed)
    error = predicted - unseen.output
    with np.errstate(divide="ignore"):
        relative = np.abs(error) / np.abs(unseen.output)
    return Cut(
        cut,
        *counts,
        reason="",
        values=result.values,
        runs=unseen.runs,
        at=at[above],
        measured=unseen.output,
        predicted=predicted,
        low=low,
        high=high,
        mean_absolute_error=float(np.mean(np.abs(error))),
        mean_relative_error=float(np.mean(relative)),
        bias=float(np.mean(error)),
        hit_rate=float(np.mean((low <= unseen.output) & (unseen.output <= high))),
        furthest=_furthest(at, below),
    )


def _run_note(points: Points) -> tuple[str, ...]:
    count = len(set(points.runs))
    if count == len(points.runs):
        return ()
    return (
        f"{len(points.runs)} rows of {count} runs: a run is fitted below the cut where all its rows are, and scored "
        "where its rows are above",
    )


def _default_cuts(rows: pd.DataFrame, at: np.ndarray, by: str) -> set[float]:
    """Cuts in the middle of gaps between clusters of runs, those that come nearest to DEFAULT_SHARES of the points."""
    cluster, gaps = _clusters(rows, at, by), {}
    for first in range(1, cluster.max() + 1):
        low, high = at[cluster < first].max(), at[cluster >= first].min()
        if low < high:  # budgets may overlap in flops: no cut parts those
            gaps[int(np.sum(cluster < first))] = float(np.sqrt(low) * np.sqrt(high) if low > 0 else (low + high) / 2)
    counts = np.array(list(gaps))
    return {gaps[int(counts[np.argmin(np.abs(counts - share * len(at)))])] for share in DEFAULT_SHARES if gaps}


def _clusters(rows: pd.DataFrame, at: np.ndarray, by: str) -> np.ndarray:
    """The number of each run's cluster (points,), ascending in `at`: its stated budget, or who its neighbours are.

    Runs of one budget differ a little in flops, and a cut among them would tell nothing. Where no budget is stated,
    neighbours within SAME_CLUSTER are one cluster, unless that makes fewer than three.
    """
    budgets = rows["budget_flops"].to_numpy(np.float64)
    if by == "flops" and np.isfinite(budgets).all() and len(np.unique(budgets)) > 1:
        return np.unique(budgets, return_inverse=True)[1]
    values, which = np.unique(at, return_inverse=True)
    if values[0] > 0:
        cluster = np.concatenate([[0], np.cumsum(np.diff(np.log(values)) > np.log(SAME_CLUSTER))])
        if cluster[-1] >= 2:
            return cluster[which]
    return which


def _positions(rows: pd.DataFrame, by: str) -> np.ndarray:
    if by not in rows.columns:
        raise FitError(f"by = {by!r}: no such column; present: {some_of(rows.columns, by)}. Fix: name one.")
    at = pd.to_numeric(rows[by], errors="coerce").to_numpy(np.float64, na_value=np.nan)
    if not np.isfinite(at).all():
        run = rows["run"].iloc[int(np.flatnonzero(~np.isfinite(at))[0])]
        raise FitError(f"{by} of run {run!r}: must be a number. Fix: fill it in, or cut by another column.")
    if len(np.unique(at)) < 2:
        raise FitError(f"{by} = {at[0]:g} in every run: there is nothing to cut. Fix: cut by another column.")
    return at


def _furthest(at: np.ndarray, below: np.ndarray) -> float:
    largest = float(at[below].max())
    return float(at.max()) / largest if largest > 0 else float("nan")

"""What is left over by a fitted law: runs that lie apart, seeds against the law's shape, columns it does not read.

Three questions of the residuals, none of which changes the fit: which runs are outliers, and which rows among those of
their run; whether the law misses runs of equal inputs by more than they scatter among themselves (the F test of lack of
fit, Draper and Smith 1998, section 2.1); and whether a column of the table that the law does not read explains what it
leaves over.
tests/benchmarks/residual_alarms.py measures how often each says so where there is nothing.
"""

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.special

from analysis.fit import LEAST_SQUARES, Fit, Outliers, Points, outliers, outliers_by_run, pure_error
from analysis.fit.batched import Problems, solve
from analysis.fit.residual_tests import groups_of_equals
from analysis.fit.starts import off_bounds
from analysis.intervals import RunNoise
from analysis.laws import evaluate
from analysis.quantities import GRAIN

SURE = 0.01  # probability of naming any column of a table whose residuals are mere noise
MOST_VALUES = 8  # of a column that is read as groups
LEAST_LEFT = 0.01  # share of a column's variance that the law's inputs must leave, or it says nothing of its own
TRACKS = 0.98  # rank correlation with the output from which a column is the output by another name
# What a run measured, or how long it took: it follows from the loss, or with it, and sets nothing.
OUTCOME = re.compile(
    r"loss|bits_per_byte|bpb|perplexity|ppl|accuracy|exact_match|brier|score|seconds|matmul_flops|failure_|fingerprint"
)


@dataclass(frozen=True)
class Outlier:
    """A fitted row whose residual lies apart; within its run, where that has several rows.

    inputs: of the law, which tell the row from others of its run. residual: measured minus fitted, on the law's
    residual scale (the log of the output, for most), less the middle one of its run where that has several rows.
    factor: its size over the robust scale of all residuals.
    """

    run: str
    inputs: dict[str, float]
    measured: float
    fitted: float
    residual: float
    factor: float


@dataclass(frozen=True)
class OutlyingRun:
    """A fitted run that lies apart from the other runs. residual: the middle one of its `rows`; factor as above."""

    run: str
    rows: int
    residual: float
    factor: float


@dataclass(frozen=True)
class LackOfFit:
    """Runs of equal inputs, and whether the law meets their means as well as their scatter allows.

    noise: standard deviation among them, in the output's unit, and noise_residual on the law's residual scale; freedom:
    its degrees of freedom. ratio: F, the mean square of the law's misses of the groups over that of the noise, of
    lack_freedom and freedom; p_value: of an F as large were the law right; both None where it is not tested. differ_in:
    few-valued columns that differ among runs of equal inputs.
    """

    groups: int
    noise: float
    noise_residual: float
    freedom: int
    lack_freedom: int
    ratio: float | None
    p_value: float | None
    differ_in: tuple[str, ...]


@dataclass(frozen=True)
class Explained:
    """A column that the law does not read and that explains its residuals.

    share: of the variance of the residuals' normal scores; p_value: already multiplied by the columns that were tested.
    """

    column: str
    share: float
    p_value: float


@dataclass(frozen=True)
class ResidualChecks:
    """What the residuals of a fit say.

    outlying_runs: the furthest first; run_factor: beyond it a run is one, and furthest_run: how far the furthest lies;
    none and None where each run has one row. outliers: rows, the furthest first; outlier_factor: beyond it a row is
    one; furthest: how far the furthest lies, NaN where there are too few to tell. robust_scale: standard deviation of
    the residuals by their median size (of those within runs, where these have several rows).
    lack_of_fit: None without runs of equal inputs. explained: columns, the surest first; tested: how many were looked
    at.
    """

    outlying_runs: tuple[OutlyingRun, ...]
    run_factor: float | None
    furthest_run: float | None
    outliers: tuple[Outlier, ...]
    outlier_factor: float
    furthest: float
    robust_scale: float
    lack_of_fit: LackOfFit | None
    explained: tuple[Explained, ...]
    tested: int


def residual_checks(result: Fit, points: Points, rows: pd.DataFrame) -> ResidualChecks:
    """All checks of a fit; points: those fitted, rows: their rows of the complete table, in the same order."""
    law = result.law
    fitted = evaluate(law, result.array(), points.inputs)
    residuals = law.target(points.output) - law.target(fitted)
    grain = GRAIN * (1.0 if law.residual == "log" else float(np.max(np.abs(points.output))))
    if len(set(points.runs)) < len(points.runs):
        return _checks_by_run(result, points, rows, fitted, residuals, grain)
    apart = outliers(residuals, len(law.parameters), grain=grain)
    kept, noisy = ~apart.which, apart.scale > grain
    explained, tested = _explained(law.output, points, rows, residuals, kept) if noisy else ((), 0)
    lack = lack_of_fit(result, points.where(kept), rows[kept], grain)
    named = _named(points, fitted, residuals, apart)
    return ResidualChecks((), None, None, named, *_limits(apart), apart.scale, lack, explained, tested)


def _checks_by_run(
    result: Fit, points: Points, rows: pd.DataFrame, fitted: np.ndarray, residuals: np.ndarray, grain: float
) -> ResidualChecks:
    """All checks where runs have several rows, which share the noise of their run and are no evidence of their own.

    Runs are held to runs, and rows to the other rows of their run. Columns that say one thing of a whole run may
    explain the middle residuals of runs. The scatter of runs of equal inputs is that of their last rows.
    """
    noise = RunNoise.of(result, points)
    units, between_within = noise.units, tuple(int(np.ceil(spent)) for spent in noise.spent)
    middles, runs, apart = outliers_by_run(residuals, units, between_within, grain=grain)
    within = residuals - middles[units]
    first = np.unique(units, return_index=True)[1]
    named = tuple(
        OutlyingRun(points.runs[first[i]], int(np.sum(units == i)), float(middles[i]), float(runs.factors[i]))
        for i in np.argsort(-runs.factors)[: int(runs.which.sum())]
    )
    kept = ~runs.which
    explained, tested = (), 0
    if runs.scale > grain:
        one_each = np.isin(np.arange(len(units)), first)
        order = units[one_each]
        columns = rows.loc[one_each, _said_of_runs(rows, units)]
        explained, tested = _explained(result.law.output, points.where(one_each), columns, middles[order], kept[order])
    sizes = pd.Series(np.sum([np.log1p(np.abs(x)) for x in points.inputs.values()], axis=0))
    last = np.isin(np.arange(len(units)), sizes.groupby(units).idxmax()) & kept[units] & ~apart.which
    lack = lack_of_fit(result, points.where(last), rows[last], grain, tested=False)
    outlying = _named(points, fitted, within, apart)
    return ResidualChecks(named, *_limits(runs), outlying, *_limits(apart), apart.scale, lack, explained, tested)


def _limits(apart: Outliers) -> tuple[float, float]:
    """Beyond how many scales one lies apart, and how many the furthest measures."""
    known = apart.factors[np.isfinite(apart.factors)]
    return apart.threshold, float(known.max()) if len(known) else float("nan")


def _named(points: Points, fitted: np.ndarray, residuals: np.ndarray, apart: Outliers) -> tuple[Outlier, ...]:
    """The rows that lie apart, the furthest first."""
    return tuple(
        Outlier(
            points.runs[i],
            {name: float(values[i]) for name, values in points.inputs.items()},
            *(float(x[i]) for x in (points.output, fitted, residuals, apart.factors)),
        )
        for i in np.argsort(-apart.factors)[: int(apart.which.sum())]
    )


def _said_of_runs(rows: pd.DataFrame, units: np.ndarray) -> list[str]:
    """Columns that have one value in all rows of each run."""
    found = []
    for name in rows.columns:
        values = rows[name]
        if isinstance(values, pd.Series):  # no column that is there twice
            codes = pd.factorize(values.map(repr) if values.dtype == object else values, use_na_sentinel=False)[0]
            if len(np.unique(np.stack([units, codes]), axis=1).T) == units.max() + 1:
                found.append(name)
    return found


def lack_of_fit(
    result: Fit, points: Points, rows: pd.DataFrame, grain: float = 0.0, *, tested: bool = True
) -> LackOfFit | None:
    """The scatter of runs with equal inputs, and the F test of the law against it; None without such runs.

    The law is fitted once more by least squares, on which the F test rests. grain: a noise below it is rounding, and
    nothing is tested against it. tested: False where the points are not those of the fit, so that it is not tested.
    """
    law, group = result.law, groups_of_equals(points.inputs)
    target = law.target(points.output)
    noise, plain = pure_error(points.inputs, target), pure_error(points.inputs, points.output)
    if noise is None or plain is None:
        return None
    scale, freedom = noise
    lack_freedom = int(group.max()) + 1 - len(law.parameters)
    ratio = p_value = None
    if tested and lack_freedom > 0 and scale > grain:
        start_P = off_bounds(law, law.pack(result.array()), points.inputs, result.residual_scale)
        problem = Problems(target[None], np.ones((1, len(target))), start_P[None])
        best = solve(law, points.inputs, problem, LEAST_SQUARES, near=True).theta[0]
        left = target - law.target(evaluate(law, law.natural(best), points.inputs))
        lack = max(float(np.sum(left**2)) - scale**2 * freedom, 0.0)
        ratio = lack / lack_freedom / scale**2
        p_value = float(scipy.special.fdtrc(lack_freedom, freedom, ratio))
    repeated = np.bincount(group)[group] > 1
    return LackOfFit(
        groups=len(np.unique(group[repeated])),
        noise=plain[0],
        noise_residual=scale,
        freedom=freedom,
        lack_freedom=max(lack_freedom, 0),
        ratio=ratio,
        p_value=p_value,
        differ_in=_differing(rows, group, law.output, tuple(law.inputs)),
    )


def _differing(rows: pd.DataFrame, group: np.ndarray, output: str, inputs: tuple[str, ...]) -> tuple[str, ...]:
    found = []
    for name in _unread(rows, output, inputs):
        values = rows[name]
        if values.nunique(dropna=False) <= MOST_VALUES and (values.groupby(group).nunique(dropna=False) > 1).any():
            found.append(str(name))
    return tuple(found)


def _unread(rows: pd.DataFrame, output: str, inputs: tuple[str, ...]) -> list[str]:
    """Columns that the law does not read and that were set, not measured."""
    taken = {"run", "experiment", "status", "held_out", output, *inputs}
    names = [name for name in rows.columns if isinstance(name, str) and name not in taken]
    return [name for name in names if names.count(name) == 1 and not OUTCOME.search(name.lower())]


def _explained(
    output: str, points: Points, rows: pd.DataFrame, residuals: np.ndarray, kept: np.ndarray
) -> tuple[tuple[Explained, ...], int]:
    """Columns that explain the residuals, by an F test on the residuals' normal scores, corrected by Bonferroni."""
    scores = normal_scores(residuals)
    logs = np.stack([np.log1p(x) if (x <= 0).any() else np.log(x) for x in points.inputs.values()], axis=1)
    tests = []
    for name in _unread(rows, output, tuple(points.inputs)):
        known, design = _design(rows[name], logs, points.output)
        chosen = kept & known
        if design is None or chosen.sum() < design.shape[1] + 4:
            continue
        tests.append((name, *_f_test(scores[chosen], design[chosen])))
    found = [Explained(name, share, min(1.0, p * len(tests))) for name, share, p in tests]
    sure = sorted((one for one in found if one.p_value < SURE), key=lambda one: (one.p_value, -one.share))
    return tuple(sure), len(tests)


def _design(column: pd.Series, logs: np.ndarray, output: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """What a column may explain the residuals by: (points,) where it is known, and its terms (points, terms), or None.

    A column of few values: a level each. One of many numbers: a line and a parabola in the ranks of what the law's
    inputs do not say of it (in its logarithm, where it has one).
    """
    known = column.notna().to_numpy()
    values = column[known].map(repr) if column.dtype == object else column[known]
    count = values.nunique()
    if count < 2:
        return known, None
    if count <= min(MOST_VALUES, int(known.sum()) // 3):
        levels, _ = pd.factorize(column.where(pd.Series(known, column.index)).astype(str))
        return known, np.eye(levels.max() + 1)[levels][:, 1:]
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    known = np.isfinite(numbers)
    if known.sum() < 8 or np.ptp(numbers[known]) == 0.0 or not pd.api.types.is_numeric_dtype(column):
        return known, None
    x = np.log(numbers[known]) if (numbers[known] > 0).all() else numbers[known]
    if abs(np.corrcoef(np.argsort(np.argsort(x)), np.argsort(np.argsort(output[known])))[0, 1]) > TRACKS:
        return known, None
    inputs = np.column_stack([np.ones(len(x)), logs[known]])
    own = x - inputs @ np.linalg.lstsq(inputs, x, rcond=None)[0]
    if np.sum(own**2) < LEAST_LEFT * np.sum((x - x.mean()) ** 2):
        return known, None
    terms = np.zeros((len(numbers), 2))
    terms[known, 0] = normal_scores(own)
    return known, np.column_stack([terms[:, 0], terms[:, 0] ** 2])


def _f_test(scores: np.ndarray, terms: np.ndarray) -> tuple[float, float]:
    """Share of the scores' variance that the terms explain, and the p value of so large a one."""
    design = np.column_stack([np.ones(len(scores)), terms])
    rank = int(np.linalg.matrix_rank(design))
    left = scores - design @ np.linalg.lstsq(design, scores, rcond=None)[0]
    total, rest = float(np.sum((scores - scores.mean()) ** 2)), float(np.sum(left**2))
    if rank < 2 or total == 0.0:
        return 0.0, 1.0
    freedom = len(scores) - rank
    ratio = (total - rest) / (rank - 1) / max(rest / freedom, 1e-300)
    return 1 - rest / total, float(scipy.special.fdtrc(rank - 1, freedom, ratio))


def normal_scores(values: np.ndarray) -> np.ndarray:
    """Each value's rank as a normal quantile: what outliers cannot move (van der Waerden's scores)."""
    ranks = pd.Series(values).rank().to_numpy()
    return scipy.special.ndtri(ranks / (len(values) + 1))

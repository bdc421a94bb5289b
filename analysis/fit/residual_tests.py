"""What residuals say by themselves: which points lie apart, and how far runs of equal inputs scatter."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.special

FALSE_ALARMS = 0.01  # share of tables of normal residuals in which any point is called an outlier
MAD_OF_NORMAL = 0.6744897501960817  # median absolute deviation of a normal variable of unit standard deviation
MAD_EFFICIENCY = 0.37  # a scale by the median is as sure as a standard deviation of so large a share of the points
FEWEST_ROWS = 3  # of a run in which one row can be told from the others
DIGITS = 12  # to which equal inputs agree: CSV and Parquet of the same runs may differ in the last one


@dataclass(frozen=True)
class Outliers:
    """Which points lie apart.

    scale: robust standard deviation of the residuals. factors: (points,) how many of it each residual measures.
    threshold: the factor beyond which a point is an outlier; which: (points,) whether it is.
    """

    scale: float
    factors: np.ndarray
    threshold: float
    which: np.ndarray


def outliers(residuals: np.ndarray, parameters: int = 0, *, grain: float = 0.0) -> Outliers:
    """The points whose residual is too large for the number of points, by the median size of all.

    residuals: (points,), measured minus fitted, of a fit that outliers do not move (Huber's, say). parameters: of that
    fit, which can pass through so many points: they are no measure of the scale (Maronna, Martin and Yohai 2006,
    section 4.4). grain: a scale below it is taken for rounding and raised to it. The threshold is the two-sided
    quantile of Student's t, with as many degrees of freedom as the scale is worth, that the largest of so many normal
    residuals exceeds in 1 of 100 tables; tests/benchmarks/residual_alarms.py measures how often it does. With so few
    points that nothing can be said, none is an outlier.
    """
    sizes, freedom = np.abs(np.asarray(residuals, np.float64)), len(residuals) - parameters
    if freedom < 2:
        return Outliers(float("nan"), np.full(len(sizes), np.nan), float("inf"), np.zeros(len(sizes), bool))
    scale = max(float(np.median(np.sort(sizes)[parameters:])) / MAD_OF_NORMAL, grain)
    with np.errstate(divide="ignore", invalid="ignore"):
        factors = np.where(sizes == 0.0, 0.0, sizes / scale)
    worth = max(MAD_EFFICIENCY * freedom, 1.0)
    threshold = float(-scipy.special.stdtrit(worth, FALSE_ALARMS / (2 * len(sizes))))
    return Outliers(scale, factors, threshold, factors > threshold)


def outliers_by_run(
    residuals: np.ndarray, units: np.ndarray, parameters: tuple[int, int], *, grain: float = 0.0
) -> tuple[np.ndarray, Outliers, Outliers]:
    """The runs that lie apart by the middle residual of their rows, and the rows that lie apart within their run.

    What the rows of a run share is noise of the run: 20 rows of one that is two standard deviations off are one run
    that is, and no 20 outliers. residuals, grain: as in `outliers`. units: (points,) the number of each point's run.
    parameters: how many the fit spends on what differs between runs, and on what differs within them. Returns the
    middle residuals (runs,), which one row that is far off does not move, what `outliers` says of them, and what it
    says of each row less the middle of its run, (points,); a row of a run of less than 3 is never apart. A run of few
    rows is held to the noise of its rows, too: scale is that of a run of the average number of rows.
    """
    residuals, counts = np.asarray(residuals, np.float64), np.bincount(units)
    middles = pd.Series(residuals).groupby(units).median().to_numpy()
    between, within = parameters
    told = counts[units] >= FEWEST_ROWS
    own = outliers((residuals - middles[units])[told], within + int(np.sum(counts >= FEWEST_ROWS)), grain=grain)
    factors, which = np.zeros(len(units)), np.zeros(len(units), bool)
    factors[told], which[told] = own.factors, own.which
    alike = outliers(middles, between, grain=grain).scale
    of_rows = np.nan_to_num(own.scale) ** 2 / counts
    widths = np.sqrt(max(np.nan_to_num(alike) ** 2 - of_rows.mean(), 0.0) + of_rows)
    runs = outliers(middles / (widths / widths.mean()) if widths.all() else middles, between, grain=grain)
    return middles, runs, Outliers(own.scale, factors, own.threshold, which)


def groups_of_equals(inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """The number of the group of points that agree in every input, for each point: (points,)."""
    rounded = [np.array([f"{value:.{DIGITS}g}" for value in np.ravel(values)]) for values in inputs.values()]
    return np.unique(np.stack(rounded, axis=1), axis=0, return_inverse=True)[1].ravel()


def pure_error(inputs: Mapping[str, np.ndarray], target: np.ndarray) -> tuple[float, int] | None:
    """Standard deviation of `target` among points of equal inputs, and its degrees of freedom; None without any.

    inputs: each (points,). target: (points,), on the scale that residuals are taken on, or the output itself. Holds
    whatever the law is: it is the noise that no law of these inputs can explain (Draper and Smith 1998, section 2.1).
    """
    group, target = groups_of_equals(inputs), np.asarray(target, np.float64)
    count = np.bincount(group)
    freedom = int(len(target) - len(count))
    if freedom == 0:
        return None
    centred = target - (np.bincount(group, target) / count)[group]
    return float(np.sqrt(np.sum(centred**2) / freedom)), freedom

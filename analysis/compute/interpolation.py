"""Approach 2 without a parabola: the minimum of each valley by interpolation (Porian et al. 2024, arXiv:2406.19146).

Far from the optimum a valley is no parabola, and a parabola fitted to all of it puts the minimum elsewhere. Here the
logarithm of the loss is interpolated between sizes by Akima's method, and the noise of a run between seeds, given and
not estimated, is what makes the minimum uncertain. Their code does the same.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.fit import FitError, LeftOut, select
from analysis.intervals import Interval, check_resampling, percentile_interval
from analysis.laws import CHINCHILLA
from analysis.runs_table import complete

FEWEST_SIZES = 3
FEWEST_VALLEYS = 3
POINTS_PER_GAP = 25  # where the minimum is looked for, between neighbouring sizes
LEAST_SPREAD_GAPS = 0.33  # the least standard deviation of a minimum, in gaps between sizes


@dataclass(frozen=True)
class ValleyMinimum:
    """The compute-optimal params of one budget: the median over draws of the noise, and their central interval.

    inside: share of the draws whose minimum is neither the smallest nor the largest size. spread: standard deviation of
    log(params) that the budget is weighted by.
    """

    budget_flops: float
    sizes: int
    params: Interval
    spread: float
    inside: float


@dataclass(frozen=True)
class InterpolatedFrontier:
    """params = scale * flops^exponent through the minima, and the budgets that gave none, with the reason.

    draws: (draws, 2) of scale and exponent, one for each draw of the noise.
    """

    minima: tuple[ValleyMinimum, ...]
    left_out: tuple[LeftOut, ...]
    scale: Interval
    exponent: Interval
    draws: np.ndarray


def fit_interpolated(
    table: pd.DataFrame, *, noise_nats: float = 0.002, level: float = 0.95, draws: int = 1000, seed: int = 0
) -> InterpolatedFrontier:
    """Fit the frontier of params to the usable rows of a runs table with a `budget_flops` column.

    noise_nats: standard deviation of the loss between seeds (0.002 is what Porian et al. use for RefinedWeb). Of
    several runs of one size at one budget the lowest loss counts. A budget is left out when its minimum lies at the
    smallest or largest size, without noise or in half of the draws. Raises FitError when fewer than three are left.
    """
    check_resampling(level, draws)
    if not noise_nats > 0:
        raise FitError(f"noise_nats = {noise_nats:g}: must be positive. Fix: give the spread of loss between seeds.")
    generator = np.random.default_rng(seed)
    minima, drawn, left_out = [], [], []
    for flops, params, loss in _valleys(table):
        name = f"budget {flops:.3g} FLOP"
        if len(params) < FEWEST_SIZES:
            left_out.append(LeftOut(name, f"{len(params)} sizes; interpolation needs {FEWEST_SIZES}"))
            continue
        found, reason = _minima(params, loss, noise_nats * generator.standard_normal((draws, len(loss))))
        if reason:
            left_out.append(LeftOut(name, reason))
            continue
        spread = max(np.std(found), LEAST_SPREAD_GAPS * np.log(params[-1] / params[0]) / (len(params) - 1))
        median = Interval(*np.exp(np.quantile(found, [0.5, (1 - level) / 2, (1 + level) / 2])).tolist())
        inside = len(found) / draws
        minima.append(ValleyMinimum(float(flops), len(params), median, float(spread / inside), inside))
        drawn.append(found)
    if len(minima) < FEWEST_VALLEYS:
        reasons = "; ".join(f"{item.run}: {item.reason}" for item in left_out)
        raise FitError(
            f"budget_flops: {len(minima)} budgets give a minimum of loss over params, a frontier needs at least "
            f"{FEWEST_VALLEYS}. Fix: add budgets or sizes{f' (left out: {reasons})' if reasons else ''}."
        )
    return _frontier(minima, drawn, left_out, level)


def _valleys(table: pd.DataFrame) -> list[tuple[float, np.ndarray, np.ndarray]]:
    """flops, params in ascending order and the lowest loss of each, budget by budget."""
    table = complete(table)
    if table["budget_flops"].isna().all():
        raise FitError("budget_flops: no run states its budget. Fix: fill the column, or name yours.")
    points, _ = select(CHINCHILLA, table)
    used = {"budget_flops": table["budget_flops"].iloc[points.rows].to_numpy(), "params": points.inputs["params"]}
    best = pd.DataFrame(used).assign(loss_nats=points.output).groupby(["budget_flops", "params"])["loss_nats"].min()
    return [
        (flops, group.index.get_level_values("params").to_numpy(np.float64), group.to_numpy(np.float64))
        for flops, group in best.groupby(level="budget_flops")
    ]


def _minima(params: np.ndarray, loss: np.ndarray, noise_DN: np.ndarray) -> tuple[np.ndarray, str]:
    """log(params) of the minimum in each draw that has one inside, or why the valley is of no use."""
    from scipy.interpolate import Akima1DInterpolator  # half a second that most commands do not need

    logs = np.log(params)
    grid = np.linspace(logs[0], logs[-1], (len(logs) - 1) * POINTS_PER_GAP)
    losses_N = np.vstack([loss, loss + noise_DN])  # without noise first
    lowest = np.argmin(Akima1DInterpolator(logs, np.log(losses_N.T))(grid), axis=0)
    inside = (lowest > 0) & (lowest < len(grid) - 1)
    if not inside[0]:
        return grid[:0], f"the lowest loss is that of the {'smallest' if lowest[0] == 0 else 'largest'} size"
    if np.mean(inside[1:]) < 0.5:
        return grid[:0], "noise puts the lowest loss at the smallest or largest size in more than half of the draws"
    return grid[lowest[1:][inside[1:]]], ""


def _frontier(
    minima: list[ValleyMinimum], drawn: list[np.ndarray], left_out: list[LeftOut], level: float
) -> InterpolatedFrontier:
    log_flops = np.log([minimum.budget_flops for minimum in minima])
    weights = np.array([1 / minimum.spread**2 for minimum in minima])
    medians = np.log([minimum.params.value for minimum in minima])
    draws_DG = np.stack([found[: min(map(len, drawn))] for found in drawn], axis=1)
    centre = np.average(log_flops, weights=weights)
    slope_weights = weights * (log_flops - centre) / np.sum(weights * (log_flops - centre) ** 2)

    def line(logs_G: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        exponent = logs_G @ slope_weights
        return np.exp(logs_G @ weights / np.sum(weights) - exponent * centre), exponent

    scale, exponent = line(medians)
    draws = np.stack(line(draws_DG), axis=1)
    return InterpolatedFrontier(
        minima=tuple(minima),
        left_out=tuple(left_out),
        scale=percentile_interval(scale, draws[:, 0], level),
        exponent=percentile_interval(exponent, draws[:, 1], level),
        draws=draws,
    )

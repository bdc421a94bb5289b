"""Profile likelihoods: how much worse the best fit gets when one constant is held away from its optimum.

All held values of all constants are solved at once. The rise of the objective becomes a deviance that is compared with
the F distribution of 1 and (points - parameters) degrees of freedom: twice the rise, times E[psi'] / E[psi^2] for the
objective's psi under normal residuals of the fitted size (Schrader and Hettmansperger 1980). For least squares that is
the rise over the residual variance, which is exact for a law that is linear in its constants. In a table of tens of
thousands of points the other constants are not solved for but follow the local linear law.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.stats

from analysis.fitting import Fit, select, solve, target_jacobian, values_at
from analysis.laws import evaluate
from analysis.one_step import MOST_REFITTED_POINTS

STEPS = np.array([0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, 6.0, 10.0])  # in standard errors
FARTHEST = 12.0  # e-folds of a positive constant, either way: a factor of 160,000


@dataclass(frozen=True)
class Profile:
    """One constant held at `values` (ascending, its optimum among them), and the deviance of the best fit at each.

    low and high: where the deviance crosses `threshold`; closed_below and closed_above: whether it does within what
    was tried. An end that is not closed is the last value tried, and the interval goes on beyond it.
    """

    values: np.ndarray
    deviance: np.ndarray
    threshold: float
    low: float
    high: float
    closed_below: bool
    closed_above: bool

    @property
    def closed(self) -> bool:
        """Whether the points bound the constant on both sides."""
        return self.closed_below and self.closed_above


def profile(result: Fit, table: pd.DataFrame, level: float = 0.9) -> dict[str, Profile]:
    """The profile of each fitted constant, with its interval at `level`; `table` is the one that was fitted."""
    law = result.law
    points, _ = select(law, table)
    best_P, count = law.pack(result.array()), len(law.parameters)
    target = law.target(points.output)
    residuals = target - law.target(evaluate(law, result.array(), points.inputs))
    freedom = len(residuals) - count
    spread = _spread(result, residuals, freedom)
    offsets, moves = _directions(target_jacobian(law, best_P, points.inputs), spread)
    steps = np.concatenate([-STEPS[::-1], STEPS])
    starts = best_P + np.clip((steps[:, None] * offsets)[..., None] * moves, -FARTHEST, FARTHEST)  # (steps, P, P)
    lanes = starts.reshape(-1, count)
    if len(target) > MOST_REFITTED_POINTS:
        value = values_at(law, points, lanes, result.objective, result.scale)
    else:
        free, shape = np.tile(1.0 - np.eye(count), (len(steps), 1)), (len(lanes), len(target))
        targets, weights = np.broadcast_to(target, shape), np.broadcast_to(1.0, shape)
        value = solve(law, points.inputs, targets, weights, lanes, result.objective, free).value
    rise = np.maximum(value.reshape(len(steps), count) - result.objective_value, 0.0)
    deviance = 2 * rise * _deviance_per_rise(result, spread)
    held = law.natural(starts[:, np.arange(count), np.arange(count)])
    threshold = float(scipy.stats.f.ppf(level, 1, freedom))
    return {
        name: _profile(held[:, i], deviance[:, i], result.values[name], threshold) for i, name in enumerate(law.names)
    }


def _spread(result: Fit, residuals: np.ndarray, freedom: int) -> float:
    """Standard deviation of the residuals; by their mean size where the objective is robust, so that it is too."""
    if result.objective.delta is None:
        return max(result.residual_scale, 1e-300)
    return max(float(np.sqrt(np.pi / 2) * np.mean(np.abs(residuals))) * len(residuals) / freedom, 1e-300)


def _directions(jacobian: np.ndarray, spread: float) -> tuple[np.ndarray, np.ndarray]:
    """Standard errors (P,) by the local linear law, and how all variables move when one moves by 1: (P, P)."""
    size = np.linalg.norm(jacobian, axis=0).clip(1e-100)  # a constant at its bound may move nothing; its square counts
    _, singular, right = np.linalg.svd(jacobian / size, full_matrices=False)
    singular = np.maximum(singular, 1e-7 * singular[0])
    covariance = (right.T / singular**2) @ right / np.outer(size, size)
    return spread * np.sqrt(np.diag(covariance)), covariance / np.diag(covariance)[:, None]


def _deviance_per_rise(result: Fit, spread: float) -> float:
    """E[psi'] / E[psi^2] of the objective's psi, for normal residuals of standard deviation `spread`."""
    scale = 1.0 if result.scale is None else result.scale
    if result.objective.delta is None:
        return 1.0 / spread**2
    width = result.objective.delta * scale / spread  # where psi turns flat, in standard deviations
    inside = 2 * scipy.stats.norm.cdf(width) - 1
    square = inside - 2 * width * scipy.stats.norm.pdf(width) + width**2 * (1 - inside)
    return inside / square * (scale / spread) ** 2


def _profile(held: np.ndarray, deviance: np.ndarray, best: float, threshold: float) -> Profile:
    order = np.argsort(held)
    values, deviance = held[order], deviance[order]
    middle = np.searchsorted(values, best)
    low, closed_below = _crossing(best, values[:middle][::-1], deviance[:middle][::-1], threshold)
    high, closed_above = _crossing(best, values[middle:], deviance[middle:], threshold)
    values, deviance = np.insert(values, middle, best), np.insert(deviance, middle, 0.0)
    return Profile(values, deviance, threshold, low, high, closed_below, closed_above)


def _crossing(best: float, values: np.ndarray, deviance: np.ndarray, threshold: float) -> tuple[float, bool]:
    """The first value, going away from the optimum, whose deviance is the threshold; its root is nearly linear."""
    roots, values = np.sqrt(np.concatenate([[0.0], deviance])), np.concatenate([[best], values])
    beyond = np.flatnonzero(roots >= np.sqrt(threshold))
    if len(beyond) == 0:
        return float(values[-1]), False
    i = beyond[0]
    share = (np.sqrt(threshold) - roots[i - 1]) / (roots[i] - roots[i - 1])
    return float(values[i - 1] + share * (values[i] - values[i - 1])), True

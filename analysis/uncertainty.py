"""Intervals for fitted constants, and for the loss of a run that has not been made.

Constants get percentile intervals from a bootstrap of points (Efron and Tibshirani 1993, chapter 13): with the few
points of an isoFLOP experiment these err on the wide side. An unseen run gets a predictive interval from a bootstrap of
studentised residuals (Davison and Hinkley 1997, section 7.2): it holds both the uncertainty of the constants and the
noise of one run, with the scale of the noise re-estimated in every resample, as Student's t does for the normal mean.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.fitting import HUBER, Fit, FitError, Objective, fit, law_of, select, solve, target_jacobian
from analysis.laws import Law, evaluate

WEAK_RATIO = 10.0  # a positive constant whose interval spans more than this factor is called weakly identified
WEAK_CONDITION = 1e8


@dataclass(frozen=True)
class Interval:
    """A value between the two ends of an interval; the level stands with whoever holds it."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"

    def contains(self, value: float) -> bool:
        """Whether `value` lies inside, ends included."""
        return self.low <= value <= self.high


@dataclass(frozen=True)
class Estimate:
    """A fit with its bootstrap: draws (bootstraps, parameters) of the constants, and an interval for each.

    weakly_identified: for each constant that the points do not pin down, a sentence that says why.
    """

    fit: Fit
    intervals: dict[str, Interval]
    weakly_identified: dict[str, str]
    draws: np.ndarray

    def at(self, inputs: Mapping[str, float], level: float) -> Interval:
        """The law's value at one point of its inputs, with the percentile interval that the draws give."""
        law = law_of(self.fit)
        value = evaluate(law, self.fit.array(), inputs).item()
        return percentile_interval(value, evaluate(law, self.draws, inputs)[:, 0], level)


@dataclass(frozen=True)
class Predictive:
    """What a predictive interval is made from.

    residuals: (points,) studentised log residuals, centred, with standard deviation `scale`. draws: (bootstraps,
    parameters) constants refitted to the law plus resampled residuals; scales: (bootstraps,) residual scale of each.
    """

    residuals: np.ndarray
    scale: float
    draws: np.ndarray
    scales: np.ndarray


def percentile_interval(value: float, draws: np.ndarray, level: float) -> Interval:
    """The central `level` share of the draws, e.g. level = 0.9 from the 5th to the 95th percentile."""
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(value), float(low), float(high))


def resample_points(generator: np.random.Generator, groups: np.ndarray, bootstraps: int) -> np.ndarray:
    """How often each point occurs in each resample: (bootstraps, points).

    Points are drawn with replacement within their group; give one group for all points, or budgets to stratify.
    """
    weights = np.zeros((bootstraps, len(groups)))
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        share = np.full(len(members), 1 / len(members))
        weights[:, members] = generator.multinomial(len(members), share, size=bootstraps)
    return weights


def estimate(
    law: Law,
    table: pd.DataFrame,
    *,
    objective: Objective = HUBER,
    level: float = 0.9,
    bootstraps: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Fit `law` and bootstrap the points; all resamples are solved together, each from the fitted optimum.

    Raises FitError as `fitting.fit` does, or for a level outside (0, 1) or fewer than 20 bootstraps.
    """
    check_resampling(level, bootstraps)
    result = fit(law, table, objective)
    points, _ = select(law, table)
    weights = resample_points(np.random.default_rng(seed), np.zeros(len(points.runs)), bootstraps)
    draws = _refit(law, result, points.inputs, np.tile(law.target(points.output), (bootstraps, 1)), weights)
    return with_intervals(result, draws, level)


def with_intervals(result: Fit, draws: np.ndarray, level: float) -> Estimate:
    """The Estimate that belongs to a fit and its draws (bootstraps, parameters)."""
    law = law_of(result)
    intervals = {
        p.name: percentile_interval(result.values[p.name], draws[:, i], level) for i, p in enumerate(law.parameters)
    }
    weak = {}
    for parameter in law.parameters:
        interval = intervals[parameter.name]
        if parameter.low >= 0 and interval.high > WEAK_RATIO * interval.low:
            weak[parameter.name] = (
                f"its {level:.0%} interval, {interval.low:.3g} to {interval.high:.3g}, spans more "
                f"than a factor of {WEAK_RATIO:g}"
            )
        elif result.condition_number > WEAK_CONDITION:
            weak[parameter.name] = f"the fit is near singular (condition number {result.condition_number:.1e})"
    return Estimate(result, intervals, weak, draws)


def predictive(law: Law, table: pd.DataFrame, result: Fit, *, bootstraps: int = 1000, seed: int = 0) -> Predictive:
    """Refit `law` to its own prediction plus resampled studentised residuals, `bootstraps` times."""
    points, _ = select(law, table)
    fitted = law.target(evaluate(law, result.array(), points.inputs))
    residuals = law.target(points.output) - fitted
    jacobian = target_jacobian(law, law.pack(result.array()), points.inputs)
    left, singular, _ = np.linalg.svd(jacobian / np.linalg.norm(jacobian, axis=0).clip(1e-300), full_matrices=False)
    leverage = np.sum(left[:, singular > 1e-10 * singular[0]] ** 2, axis=1)
    # 0.05 keeps a point that alone decides a constant from being blown up without bound.
    studentised = residuals / np.sqrt(np.maximum(1 - leverage, 0.05))
    studentised -= studentised.mean()
    spread = np.sqrt(np.mean(studentised**2))
    studentised *= result.residual_scale / spread if spread > 0 else 0.0
    generator = np.random.default_rng(seed)
    outputs = fitted + generator.choice(studentised, (bootstraps, len(fitted)))
    draws = _refit(law, result, points.inputs, outputs, np.ones_like(outputs))
    errors = outputs - law.target(evaluate(law, draws, points.inputs))
    scales = np.sqrt(np.sum(errors**2, axis=1) / (len(fitted) - len(law.parameters)))
    return Predictive(studentised, result.residual_scale, draws, scales)


def predictive_interval(
    law: Law, result: Fit, spread: Predictive, inputs: Mapping[str, float], level: float, seed: int = 0
) -> Interval:
    """Where the output of ONE new run at `inputs` lies with probability `level`.

    The pivot is (log of a new resampled output - log of its own refit) / (scale of that refit).
    """
    check_resampling(level, len(spread.scales))
    centre = float(law.target(evaluate(law, result.array(), inputs)).item())
    refitted = law.target(evaluate(law, spread.draws, inputs)[:, 0])
    noise = np.random.default_rng([seed, 1]).choice(spread.residuals, len(refitted))
    if spread.scale == 0.0:
        return Interval(*(float(law.output_of(centre)),) * 3)
    pivots = (centre + noise - refitted) / np.maximum(spread.scales, 1e-3 * spread.scale)
    ends = np.quantile(pivots, [(1 - level) / 2, (1 + level) / 2])
    low, high = law.output_of(centre + spread.scale * ends)
    return Interval(float(law.output_of(centre)), float(low), float(high))


def check_resampling(level: float, bootstraps: int) -> None:
    """Raise FitError unless the level lies inside (0, 1) and there are at least 20 bootstraps."""
    if not 0 < level < 1:
        raise FitError(f"level = {level:g}: must lie between 0 and 1. Fix: use 0.9 for 90 % intervals.")
    if bootstraps < 20:
        raise FitError(f"bootstraps = {bootstraps}: must be at least 20 for an interval to have ends. Fix: use 1000.")


def _refit(law: Law, result: Fit, inputs: dict, outputs: np.ndarray, weights: np.ndarray) -> np.ndarray:
    starts = np.tile(law.pack(result.array()), (len(outputs), 1))
    return law.natural(solve(law, inputs, outputs, weights, starts, result.objective, near=True).theta)

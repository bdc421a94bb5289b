"""Intervals for fitted constants, and for the loss of a run that has not been made.

Constants, and whatever follows from them, get bias-corrected and accelerated intervals (BCa, Efron 1987; Efron and
Tibshirani 1993, chapter 14) from a bootstrap of points, which is what covered in simulation:
tests/benchmarks/interval_coverage.py prints how many of 400 tables of 15 or 18 points have the planted E, A, B, alpha
and beta inside their 90 % interval. Under the Huber objective and normal noise it printed: percentiles of the same
bootstrap 95.5 to 96.5 %, BCa 90.5 to 92.8 %, percentiles of a bootstrap of studentised residuals 82.2 to 85.0 %,
profiles (profile.py) 91.2 to 92.0 %. With Student's t noise of 4 degrees of freedom BCa gave 90.8 to 95.0 %. BCa is the
default: it covers, follows whatever resampling the data need, and holds for anything computed from the constants.

Where rows are drawn in groups, such as the checkpoints of a run, intervals are plain percentiles. Robust objectives
pass through whole runs, and what one run's absence moves says nothing of the skewness there: BCa covered B and beta in
71 to 81 % of tables of 6 to 20 runs, percentiles in 90 to 99 % (tests/benchmarks/few_runs.py).

An unseen run gets a predictive interval from a bootstrap of studentised residuals (Davison and Hinkley 1997, section
7.2): it holds both the uncertainty of the constants and the noise of one run, with the scale of the noise re-estimated
in every resample, as Student's t does for the normal mean.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from analysis.fit import HUBER, Fit, FitError, Objective, Points, fit_points, select
from analysis.fit.batched import Problems, solve
from analysis.fit.starts import off_bounds
from analysis.intervals.interval import (
    AT_BOUND,
    NOT_DETERMINED,
    OPEN_ABOVE,
    OPEN_BELOW,
    Interval,
    bca_interval,
    holding,
)
from analysis.intervals.one_step import MOST_REFITTED_POINTS, one_step_draws
from analysis.intervals.profile_likelihood import Profile, profile
from analysis.intervals.resampling import POINTS, Resampling, bootstrap_weights, jackknife_weights
from analysis.intervals.run_noise import RunNoise, directions
from analysis.laws import Law, evaluate
from analysis.runs_table import complete
from analysis.sampling import ONE_FIT, Sampling

WEAK_RATIO = 10.0  # a positive constant whose interval spans more than this factor is called weakly identified
WEAK_CONDITION = 1e8
POINTS_AT_ONCE = 2**12  # runs whose predictive intervals are worked out together, for every draw


@dataclass(frozen=True)
class Estimate:
    """A fit with its bootstrap.

    intervals: of each constant, at the level asked for; open where its profile likelihood is. weakly_identified: for
    each constant that the points do not pin down, a sentence that says why. method: how resamples were drawn and
    intervals made. draws: (bootstraps, parameters) the constants of each resample; jackknife: (parts, parameters) those
    with one part left out, empty where intervals are plain percentiles.
    """

    fit: Fit
    intervals: dict[str, Interval]
    weakly_identified: dict[str, str]
    method: str
    draws: np.ndarray
    jackknife: np.ndarray

    def interval_of(self, quantity: Callable[[np.ndarray], np.ndarray], level: float) -> Interval:
        """The interval of anything that follows from the constants.

        quantity: takes arrays (many, parameters) of constants, in the law's order, and returns (many,).
        """
        jackknife = quantity(self.jackknife) if len(self.jackknife) else np.zeros(0)
        return bca_interval(quantity(self.fit.array()[None])[0], quantity(self.draws), jackknife, level)

    def at(self, inputs: Mapping[str, float], level: float) -> Interval:
        """The law's value at one point of its inputs, with its interval."""
        law = self.fit.law
        return self.interval_of(lambda values: evaluate(law, values, inputs)[:, 0], level)


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


def estimate(
    law: Law,
    table: pd.DataFrame,
    *,
    objective: Objective = HUBER,
    sampling: Sampling = ONE_FIT,
    resampling: Resampling = POINTS,
) -> Estimate:
    """Fit `law` to any table and bootstrap the points; all resamples are solved together, each from the optimum.

    Raises FitError as `fitting.fit` does, for a level outside (0, 1), fewer than 20 bootstraps, or a resampling that
    the table does not allow.
    """
    return estimate_rows(law, complete(table), objective, sampling, resampling)


def estimate_rows(
    law: Law, table: pd.DataFrame, objective: Objective, sampling: Sampling, resampling: Resampling = POINTS
) -> Estimate:
    """`estimate` for a table that is complete already."""
    check_sampling(sampling)
    points, left_out = select(law, table)
    result = fit_points(law, points, left_out, objective)
    return bootstrapped(result, points, table, sampling, resampling)


def bootstrapped(
    result: Fit,
    points: Points,
    table: pd.DataFrame,
    sampling: Sampling,
    resampling: Resampling,
    profiles: Mapping[str, Profile] | None = None,
) -> Estimate:
    """`estimate` for a fit that is already made; `points` were selected from `table`.

    profiles: of the fit's constants, where they are known.
    """
    check_sampling(sampling)
    law, level, bootstraps, seed = result.law, sampling.level, sampling.bootstraps, sampling.seed
    profiles = profile(result, points, level) if profiles is None else profiles
    units = resampling.units(table, points)
    strata = resampling.strata(table, points, units)
    grouped = units.max() + 1 < len(units)
    method = f"{'percentiles' if grouped else 'BCa'} from {bootstraps} bootstrap resamples of {resampling}, seed {seed}"
    if len(points.runs) > MOST_REFITTED_POINTS:
        draws, jackknife = one_step_draws(law, result, points, units, strata, bootstraps, seed)
        method, jackknife = f"{method}, each by one Newton step", jackknife[: 0 if grouped else len(jackknife)]
    else:
        draws = refit(law, result, points, bootstrap_weights(np.random.default_rng(seed), units, strata, bootstraps))
        jackknife = np.zeros((0, len(law.parameters)))
        if not grouped:
            jackknife = refit(law, result, points, jackknife_weights(units))
    return _opened(with_intervals(result, draws, level, method, jackknife), points, profiles, level)


def refit(law: Law, result: Fit, points: Points, weights: np.ndarray) -> np.ndarray:
    """The constants (resamples, parameters) refitted to weights (resamples, points) that count the points of each."""
    outputs = np.broadcast_to(law.target(points.output), weights.shape)
    return refit_to(law, result, points.inputs, outputs, weights)


def _opened(found: Estimate, points: Points, profiles: Mapping[str, Profile], level: float) -> Estimate:
    """The constants' intervals where resamples alone would mislead: at a bound of zero, and where a profile is open.

    Refits start at the optimum, so along a direction that the points leave open they hardly move. A constant at its
    bound is 0, and its interval ends where the resamples do or, if the constant has no effect there either, where the
    profile does. Where a profile is open on one side, its other end is the profile's where that lies further out.
    """
    law, result = found.fit.law, found.fit
    best_P = law.pack(result.array())
    felt_P = off_bounds(law, best_P, points.inputs, result.residual_scale)
    intervals = {}
    # Compared in the solver's variables: on the way to a constant between two bounds and back it changes by rounding.
    at_bound_P = [p.low == 0 and felt > best for p, felt, best in zip(law.parameters, felt_P, best_P, strict=True)]
    loose = any(not profiles[p.name].closed for p, at in zip(law.parameters, at_bound_P, strict=True) if not at)
    for parameter, is_at_bound, felt in zip(law.parameters, at_bound_P, law.natural(felt_P), strict=True):
        interval, held = found.intervals[parameter.name], profiles[parameter.name]
        if is_at_bound:
            # Resamples count where they leave the bound, alone unless they hardly move along what is open.
            ends = [interval.high] if interval.high >= felt else []
            ends += [held.high if held.closed_above else np.inf] if loose or not ends else []
            interval = Interval(0.0, 0.0, max(ends), AT_BOUND)
        elif not held.closed:
            sides = {(False, False): NOT_DETERMINED, (False, True): OPEN_BELOW, (True, False): OPEN_ABOVE}
            # The closed end is the profile's, too: resamples that hardly move along what is open know less of it.
            low = min(held.low, interval.low) if held.closed_below else parameter.low
            high = max(held.high, interval.high) if held.closed_above else parameter.high
            interval = Interval(interval.value, low, high, sides[held.closed_below, held.closed_above])
        intervals[parameter.name] = interval
    return replace(found, intervals=intervals, weakly_identified=_weak(result, intervals, level))


def with_intervals(
    result: Fit, draws: np.ndarray, level: float, method: str, jackknife: np.ndarray | None = None
) -> Estimate:
    """The Estimate that belongs to a fit and its draws (bootstraps, parameters)."""
    law = result.law
    jackknife = np.zeros((0, len(law.parameters))) if jackknife is None else jackknife
    intervals = {
        p.name: bca_interval(result.values[p.name], draws[:, i], jackknife[:, i], level)
        for i, p in enumerate(law.parameters)
    }
    return Estimate(result, intervals, _weak(result, intervals, level), method, draws, jackknife)


def wide_constants(law: Law, intervals: Mapping[str, Interval], level: float) -> dict[str, str]:
    """For each constant that lies at its bound, or whose interval is wide for a positive number, a clause on it."""
    wide = {}
    for parameter in law.parameters:
        interval = intervals[parameter.name]
        if interval.note == AT_BOUND:
            text = f"below {interval.high:.3g}" if np.isfinite(interval.high) else "and nothing bounds it above"
            wide[parameter.name] = f"it is 0 (at its bound), {text}"
        elif parameter.low >= 0 and interval.high > WEAK_RATIO * interval.low:
            low = "0 (its bound)" if interval.low <= interval.zero else f"{interval.low:.3g}"
            high = f"{interval.high:.3g}" if np.isfinite(interval.high) else "no end"
            text = f"its {level:.0%} interval, {low} to {high}, spans more than a factor of {WEAK_RATIO:g}"
            wide[parameter.name] = text
    return wide


def _weak(result: Fit, intervals: Mapping[str, Interval], level: float) -> dict[str, str]:
    """For each constant that the points do not pin down, a sentence that says why."""
    wide = wide_constants(result.law, intervals, level)
    if result.condition_number <= WEAK_CONDITION:
        return wide
    singular = f"the fit is near singular (condition number {result.condition_number:.1e})"
    return {name: wide.get(name, singular) for name in result.law.names}


def predictive(result: Fit, points: Points, sampling: Sampling = ONE_FIT) -> Predictive:
    """Refit the law to its own prediction plus resampled studentised residuals, `sampling.bootstraps` times.

    Where runs have several points, what a run's points share is drawn for each run, and is noise of a new run. In a
    large table the constants are drawn by `one_step`, and the noise of a run is all that an interval holds.
    """
    law, bootstraps, seed = result.law, sampling.bootstraps, sampling.seed
    fitted = law.target(evaluate(law, result.array(), points.inputs))
    residuals = law.target(points.output) - fitted
    if len(set(points.runs)) < len(residuals):
        return _predictive_by_run(result, points, fitted, residuals, bootstraps, seed)
    if len(residuals) > MOST_REFITTED_POINTS:
        alone = np.arange(len(residuals))
        draws, _ = one_step_draws(law, result, points, alone, np.zeros_like(alone), bootstraps, seed)
        thinned = np.sort(residuals)[:: -(-len(residuals) // MOST_REFITTED_POINTS)]  # their distribution is what counts
        return Predictive(thinned, result.residual_scale, draws, np.full(bootstraps, result.residual_scale))
    leverage = np.sum(directions(result, points) ** 2, axis=1)
    # 0.05 keeps a point that alone decides a constant from being blown up without bound.
    studentised = residuals / np.sqrt(np.maximum(1 - leverage, 0.05))
    studentised -= studentised.mean()
    spread = np.sqrt(np.mean(studentised**2))
    studentised *= result.residual_scale / spread if spread > 0 else 0.0
    generator = np.random.default_rng(seed)
    outputs = fitted + generator.choice(studentised, (bootstraps, len(fitted)))
    draws = refit_to(law, result, points.inputs, outputs, np.ones_like(outputs))
    errors = outputs - law.target(evaluate(law, draws, points.inputs))
    scales = np.sqrt(np.sum(errors**2, axis=1) / (len(fitted) - len(law.parameters)))
    return Predictive(studentised, result.residual_scale, draws, scales)


def _predictive_by_run(
    result: Fit, points: Points, fitted: np.ndarray, residuals: np.ndarray, bootstraps: int, seed: int
) -> Predictive:
    """`predictive` for points of which several belong to one run."""
    law, generator = result.law, np.random.default_rng(seed)
    noise = RunNoise.of(result, points)
    scale = float(np.sqrt(np.sum(noise.variances(residuals))))
    new = noise.of_new_runs(residuals, generator, max(bootstraps, MOST_REFITTED_POINTS))
    if len(residuals) > MOST_REFITTED_POINTS:
        strata = np.zeros(noise.units.max() + 1, int)
        draws, _ = one_step_draws(law, result, points, noise.units, strata, bootstraps, seed)
        return Predictive(new, scale, draws, np.full(bootstraps, scale))
    outputs = fitted + noise.draws(residuals, generator, (bootstraps,))
    draws = refit_to(law, result, points.inputs, outputs, np.ones_like(outputs))
    errors = outputs - law.target(evaluate(law, draws, points.inputs))
    return Predictive(new, scale, draws, np.sqrt(np.sum(noise.variances(errors), axis=0)))


def predictive_intervals(
    law: Law, result: Fit, spread: Predictive, inputs: Mapping[str, np.ndarray], level: float, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where the output of ONE new run at each of `inputs` lies with probability `level`: values, lows, highs (points,).

    The pivot is (log of a new resampled output - log of its own refit) / (scale of that refit).
    """
    check_sampling(Sampling(len(spread.scales), level, seed))
    centre = law.target(evaluate(law, result.array(), inputs))
    if spread.scale == 0.0:
        return (law.output_of(centre),) * 3
    noise = np.random.default_rng([seed, 1]).choice(spread.residuals, len(spread.draws))
    low, high = np.empty_like(centre), np.empty_like(centre)
    for start in range(0, len(centre), POINTS_AT_ONCE):
        chosen = slice(start, start + POINTS_AT_ONCE)
        refitted = law.target(evaluate(law, spread.draws, {name: np.ravel(x)[chosen] for name, x in inputs.items()}))
        pivots = (centre[chosen] + noise[:, None] - refitted) / np.maximum(spread.scales, 1e-3 * spread.scale)[:, None]
        method = "linear" if np.isfinite(pivots).all() else "inverted_cdf"
        low[chosen], high[chosen] = np.nanquantile(pivots, [(1 - level) / 2, (1 + level) / 2], axis=0, method=method)
    return law.output_of(centre), *(law.output_of(centre + spread.scale * end) for end in (low, high))


def predictive_interval(
    law: Law, result: Fit, spread: Predictive, inputs: Mapping[str, float], level: float, seed: int = 0
) -> Interval:
    """`predictive_intervals` for one run."""
    return holding(*(float(end[0]) for end in predictive_intervals(law, result, spread, inputs, level, seed)))


def check_sampling(sampling: Sampling) -> None:
    """Raise FitError unless the level lies inside (0, 1), there are 20 bootstraps, and the seed is not negative."""
    check_level(sampling.level)
    if sampling.bootstraps < 20:
        raise FitError(
            f"bootstraps = {sampling.bootstraps}: must be at least 20 for an interval to have ends. Fix: use 1000."
        )
    if sampling.seed < 0:
        raise FitError(f"seed = {sampling.seed}: must not be negative. Fix: use 0.")


def check_level(level: float) -> None:
    """Raise FitError unless the level lies inside (0, 1)."""
    if not 0 < level < 1:
        raise FitError(f"level = {level:g}: must lie between 0 and 1. Fix: use 0.9 for 90 % intervals.")


def refit_to(law: Law, result: Fit, inputs: dict, targets: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The constants (resamples, parameters) refitted to targets (resamples, points), as `Law.target` gives them."""
    start_P = off_bounds(law, law.pack(result.array()), inputs, result.residual_scale)
    starts = np.tile(start_P, (len(targets), 1))
    return law.natural(solve(law, inputs, Problems(targets, weights, starts), result.objective, near=True).theta)

"""Laws of curves of success against samples, with problems resampled: points of one pool are not independent.

Coverage follows Brown's power law, by least squares on the curve, and Schaeffer's beta-binomial, by the likelihood of
each problem's successes; what the best by score gains follows Gao's. A curve's points are those that every problem has
samples for: otherwise the problems would change along it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.special

from analysis.answers import fit_difficulty
from analysis.fit import LEAST_SQUARES, FitError, fit_points, select
from analysis.intervals import Estimate, Interval, bca_interval, refit_to, with_intervals
from analysis.intervals.interval import OPEN_ABOVE
from analysis.laws import Law, find
from analysis.runs_table import complete
from analysis.sampling import Sampling
from analysis.studies.samples import Means, Pooled, Resampled

FEWEST_POINTS = 3  # numbers of samples, one more than each law has constants


@dataclass(frozen=True)
class CurveLaws:
    """The laws of one cell; None where the note says why.

    power: of coverage. alpha, beta: of the beta-binomial; alpha is the exponent of its tail. best: of the gain of the
    best by score, whose greatest value lies at `peak` samples, infinite where it never falls.
    """

    power: Estimate | None
    power_note: str
    alpha: Interval | None
    beta: Interval | None
    difficulty_note: str
    best: Estimate | None
    best_note: str
    peak: Interval | None


def curve_laws(one: Pooled, resampled: Resampled, sampling: Sampling) -> CurveLaws:
    """The laws of one cell's curves."""
    shared = one.shared
    inputs = {"samples": np.array(one.ks, np.float64)[shared]}
    coverage = resampled.means(one.values["coverage"][:, shared])
    power, power_note = fitted(find("coverage"), inputs, coverage, sampling)
    alpha, beta, difficulty_note = _difficulty(one, resampled, sampling.level)
    if "best" not in one.values:
        return CurveLaws(power, power_note, alpha, beta, difficulty_note, None, "no scores", None)
    scored = one.values["best"][:, shared]
    gains = resampled.means(scored - scored[:, :1])
    best, best_note = fitted(find("best_of_n"), inputs, gains, sampling)
    peak = None if best is None else best.interval_of(_peak, sampling.level)
    return CurveLaws(power, power_note, alpha, beta, difficulty_note, best, best_note, peak)


def fitted(
    law: Law, inputs: Mapping[str, np.ndarray], output: Means, sampling: Sampling
) -> tuple[Estimate | None, str]:
    """A law by least squares through means of problems, refitted in each resample of them; None and why it cannot be.

    inputs: (points,) each. A resample's point of no success has no logarithm, and is no point of that resample.
    """
    if len(output.value) < FEWEST_POINTS:
        return None, f"all problems have samples for {len(output.value)} points, and the law needs {FEWEST_POINTS}"
    points, left_out = select(law, complete(pd.DataFrame({**inputs, law.output: output.value})))
    try:
        result = fit_points(law, points, left_out, LEAST_SQUARES)
    except FitError as error:
        return None, str(error)

    def refitted(outputs: np.ndarray) -> np.ndarray:
        outputs = outputs[:, points.rows]
        usable = np.isfinite(outputs) & ((outputs > 0) | (law.residual == "linear"))
        targets = law.target(np.where(usable, outputs, 1.0))
        return refit_to(law, result, points.inputs, targets, usable.astype(np.float64))

    method = f"BCa from {sampling.bootstraps} bootstrap resamples of problems, seed {sampling.seed}"
    draws, jackknife = refitted(output.draws), refitted(output.jackknife)
    return with_intervals(result, draws, sampling.level, method, jackknife), ""


def _difficulty(one: Pooled, resampled: Resampled, level: float) -> tuple[Interval | None, Interval | None, str]:
    is_there = one.counts[:, 0] > 0
    samples, successes = one.counts[is_there].T
    if not successes.any() or (successes == samples).all():
        return None, None, f"{'every' if successes.any() else 'no'} sample is right"
    weights = np.concatenate([np.ones((1, len(samples))), resampled.weights[:, is_there]])
    weights = np.concatenate([weights, resampled.jackknife[:, is_there]])
    found = fit_difficulty(successes, samples, weights)
    if found.at_bound[0]:
        return None, None, "problems differ no more than chance makes them, or each is solved always or never"
    constants = np.where(found.at_bound[:, None] & (found.constants > 1), np.inf, found.constants)
    draws, jackknife = np.split(constants[1:], [len(resampled.weights)])
    alpha, beta = (_opened(bca_interval(constants[0, i], draws[:, i], jackknife[:, i], level)) for i in range(2))
    return alpha, beta, ""


def _opened(interval: Interval) -> Interval:
    """An interval with what its infinite end means said."""
    if np.isfinite(interval.high) or interval.note not in ("", "percentiles"):
        return interval
    return Interval(interval.value, interval.low, interval.high, OPEN_ABOVE)


def _peak(constants: np.ndarray) -> np.ndarray:
    """The samples (many,) at which Gao's gain is greatest: 1 where it only falls, infinite where it never does.

    At divergence D, log n - 1 + 1 / n = D: n = -1 / W(-exp(-1 - D)) by Lambert's W.
    """
    alpha, beta = constants.T
    with np.errstate(divide="ignore", over="ignore"):
        distance = np.maximum(alpha, 0.0) / (2 * beta)
        found = -1.0 / scipy.special.lambertw(-np.exp(-1.0 - distance**2)).real
    return np.where(distance > 0, found, 1.0)

"""An interval, and the one rule by which every interval is made from resamples.

Bias-corrected and accelerated percentiles (BCa) where the jackknife allows them, else plain percentiles; widened to
hold the value where both leave it out; and where resamples say nothing, not determined. Whatever is not made as its
neighbours are says so in its `note`, which is printed beside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.special

ZERO = 1e-9  # of the upper end of an interval that holds no negative number: below it a constant lies at its bound, 0
ROUNDING = 1e-9  # of a value: resamples that differ by less are one number
MOST_UNKNOWN = 0.5  # share of resamples without a value beyond which the others are no distribution

AT_BOUND, DEGENERATE, NOT_DETERMINED = "at its bound", "degenerate", "not determined"
OPEN_BELOW, OPEN_ABOVE, PERCENTILES, WIDENED = "open below", "open above", "percentiles", "widened"
NOTES = {
    AT_BOUND: "the best value is zero; the other end is where the resamples' upper end lies or, if none of them counts "
    "or another constant is open, the profile's",
    DEGENERATE: "every resample gives the same number: the law meets the points exactly, they do not vary, "
    "or their noise is stated to be 0",
    NOT_DETERMINED: "neither resamples nor profile likelihood bound it, or what it follows from",
    OPEN_BELOW: "the profile likelihood does not close below; the other end is no nearer than where it closes",
    OPEN_ABOVE: "the profile likelihood does not close above; the other end is no nearer than where it closes",
    PERCENTILES: "plain percentiles of the resamples instead of BCa, some refits being without a finite value",
    WIDENED: "the central resamples all lie on one side of the value, to which the interval is widened",
}  # note -> what it means


@dataclass(frozen=True)
class Interval:
    """A value between the two ends of an interval; the level stands with whoever holds it.

    note: what is special about the ends, empty for an interval that was made as its method says. An infinite end is
    one that the points leave open.
    """

    value: float
    low: float
    high: float
    note: str = ""

    @property
    def zero(self) -> float:
        """Size below which an end is nothing but how close the solver came to a bound of zero."""
        return ZERO * self.high if self.low >= 0 and np.isfinite(self.high) else 0.0

    def __str__(self) -> str:
        value, low, high = (0.0 if abs(x) < self.zero else x for x in (self.value, self.low, self.high))
        return f"{value:.4g} [{low:.4g}, {high:.4g}]{f' ({self.note})' if self.note else ''}"

    def contains(self, value: float) -> bool:
        """Whether `value` lies inside, ends included."""
        return self.low <= value <= self.high


def percentile_interval(value: float, draws: np.ndarray, level: float) -> Interval:
    """The central `level` share of the draws, e.g. level = 0.9 from the 5th to the 95th percentile.

    Widened to hold the value where it lies outside; NaN among the draws is left out.
    """
    return _settled(float(value), draws, level, (), "")


def bca_interval(value: float, draws: np.ndarray, jackknife: np.ndarray, level: float) -> Interval:
    """Bias-corrected and accelerated percentiles of the draws (Efron and Tibshirani 1993, equations 14.10 to 14.15).

    jackknife: the value with each part of the points left out; without any, `percentile_interval`, as where it or a
    draw is not finite.
    """
    if len(jackknife) == 0:
        return percentile_interval(value, draws, level)
    if not (np.isfinite(value) and np.isfinite(draws).all() and np.isfinite(jackknife).all()):
        return _settled(float(value), draws, level, (), PERCENTILES)
    below = (np.sum(draws < value) + 0.5 * np.sum(draws == value)) / len(draws)
    shift = scipy.special.ndtri(np.clip(below, 0.5 / len(draws), 1 - 0.5 / len(draws)))
    acceleration = _acceleration(jackknife)
    ends = shift + scipy.special.ndtri(_tails(level))
    shares = scipy.special.ndtr(shift + ends / np.maximum(1 - acceleration * ends, 0.1))
    return _settled(float(value), draws, level, shares, "")


def quantiles(draws: np.ndarray, shares: Sequence[float]) -> list[float]:
    """Quantiles of the draws, between two of them; draws themselves where some are infinite."""
    method = "linear" if np.isfinite(draws).all() else "inverted_cdf"
    return np.quantile(draws, shares, method=method).tolist()


def holding(value: float, low: float, high: float, note: str = "") -> Interval:
    """The interval from `low` to `high`, widened where it leaves its own value out, which its note then says."""
    if low <= value <= high:
        return Interval(value, low, high, note)
    return Interval(value, min(low, value), max(high, value), WIDENED)


def same(value: float, others: np.ndarray) -> bool:
    """Whether all of `others` are `value` but for rounding."""
    if not np.isfinite(value):
        return bool(np.all(others == value))
    return bool(np.all(np.abs(others - value) <= ROUNDING * abs(value)))


def _settled(value: float, draws: np.ndarray, level: float, shares: Sequence[float], note: str) -> Interval:
    """The quantiles `shares` of the draws if they hold the value, else the central ones of `level`, widened."""
    draws = np.asarray(draws, np.float64)
    known = draws[~np.isnan(draws)]
    if np.isnan(value) or len(known) < (1 - MOST_UNKNOWN) * len(draws) or len(known) == 0:
        return Interval(value, -np.inf, np.inf, NOT_DETERMINED)
    if same(value, known):
        return Interval(value, *quantiles(known, _tails(level)), DEGENERATE)
    if len(shares):
        low, high = quantiles(known, shares)
        if low <= value <= high:
            return Interval(value, low, high, note)
    return holding(value, *quantiles(known, _tails(level)), note)


def _tails(level: float) -> list[float]:
    return [(1 - level) / 2, (1 + level) / 2]


def _acceleration(jackknife: np.ndarray) -> float:
    """Skewness / 6 of the jackknife's pulls, which has no unit: a constant near 1e190 or 1e-120 has one like any."""
    largest = np.max(np.abs(jackknife))
    if largest == 0.0:
        return 0.0
    share = jackknife / largest
    pull = share.mean() - share
    widest = np.max(np.abs(pull))
    if widest == 0.0:
        return 0.0
    pull = pull / widest
    return float(np.sum(pull**3) / (6 * np.sum(pull**2) ** 1.5))

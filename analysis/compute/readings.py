"""Ways to read the minimum off one isoFLOP valley: the loss of several sizes trained at one budget.

A reading is a curve through the valley's points; its lowest place inside the trained sizes is the optimum. None is best
everywhere: a parabola through a whole valley averages most noise and is biased where the valley is wide and steeper on
one side (Czech et al. 2026, arXiv:2603.22339), the curves that follow the points near the bottom are the other way
round. `analysis/compute/design.py` measures both for a table's own grid.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from analysis.fit import FitError

POINTS_PER_GAP = 25  # where a curve is looked at, between neighbouring sizes
PARABOLA = FEWEST_SIZES = 3  # coefficients
LAW = "law"  # minima of the fitted surface: no curve through one valley's points

Curve = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Reading:
    """name: as `--valleys` has it. curve: of log params (sizes,), losses (draws, sizes) and places (places,), gives
    losses (draws, places). lowest: how many of the lowest losses it is drawn through, all if 0. coefficients: of the
    curve, 0 for one through every point."""

    name: str
    curve: Curve
    lowest: int = 0
    coefficients: int = 0

    def misses(self, x_N: np.ndarray, losses_DN: np.ndarray) -> tuple[np.ndarray, int]:
        """Losses above the curve (draws, sizes), 0 at sizes that it is not drawn through, and degrees of freedom."""
        through = min(self.lowest or len(x_N), len(x_N))
        far = np.argsort(losses_DN, axis=1, kind="stable")[:, through:]
        missed = losses_DN - self.curve(x_N, losses_DN, x_N)
        np.put_along_axis(missed, far, 0.0, axis=1)
        return missed, through - self.coefficients if self.coefficients else 0


def reading(name: str) -> Reading:
    """The reading of that name: parabola, lowest:K or interpolation. Raises FitError for any other."""
    kind, _, count = name.partition(":")
    if name in _PLAIN:
        return _PLAIN[name]
    if kind == "lowest" and count.isdigit() and int(count) >= FEWEST_SIZES:
        k = int(count)
        return Reading(name, lambda x_N, losses_DN, at_M: _lowest(x_N, losses_DN, at_M, k), k, PARABOLA)
    raise FitError(
        f"valleys = {name!r}: must be auto, parabola, lowest:K with K from {FEWEST_SIZES}, interpolation or {LAW}. "
        "Fix: use auto, which says what it chose and why."
    )


def minima(how: Reading, x_N: np.ndarray, losses_DN: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """log params and loss (draws,) at the lowest place of each curve, and where it lies: -1, 0 or 1 (draws,).

    x_N: log params in ascending order. 0 is inside; -1 and 1 are the smallest and the largest size, where there is no
    minimum and the place and the loss are NaN.
    """
    at_M = np.linspace(x_N[0], x_N[-1], (len(x_N) - 1) * POINTS_PER_GAP + 1)
    curves_DM = how.curve(x_N, losses_DN, at_M)
    lowest_D = np.argmin(curves_DM, axis=1)
    side_D = np.where(lowest_D == 0, -1, np.where(lowest_D == len(at_M) - 1, 1, 0))
    rows, middle_D = np.arange(len(curves_DM)), np.clip(lowest_D, 1, len(at_M) - 2)
    left, bottom, right = (curves_DM[rows, middle_D + step] for step in (-1, 0, 1))
    # Between the places, the parabola through three of them: exact for a parabola, and far below a place otherwise.
    bend = left - 2 * bottom + right
    shift = np.where(bend > 0, 0.5 * (left - right) / np.where(bend > 0, bend, 1.0), 0.0)
    place = at_M[middle_D] + shift * (at_M[1] - at_M[0])
    loss = bottom - 0.25 * (left - right) * shift
    return np.where(side_D == 0, place, np.nan), np.where(side_D == 0, loss, np.nan), side_D


def _parabola(x_N: np.ndarray, losses_DN: np.ndarray, at_M: np.ndarray) -> np.ndarray:
    """Least squares through all points (Hoffmann et al. 2022, section 3.2)."""
    centre, half_width = x_N.mean(), 0.5 * np.ptp(x_N)
    powers_N3, powers_M3 = (np.vander((x - centre) / half_width, 3) for x in (x_N, at_M))
    return losses_DN @ (powers_M3 @ np.linalg.pinv(powers_N3)).T


def _lowest(x_N: np.ndarray, losses_DN: np.ndarray, at_M: np.ndarray, k: int) -> np.ndarray:
    """The parabola through the `k` lowest losses of each draw."""
    if k >= len(x_N):
        return _parabola(x_N, losses_DN, at_M)
    chosen_DK = np.sort(np.argsort(losses_DN, axis=1, kind="stable")[:, :k], axis=1)
    curves = np.empty((len(losses_DN), len(at_M)))
    subsets, which_D = np.unique(chosen_DK, axis=0, return_inverse=True)
    for i, subset in enumerate(subsets):  # few, since near a bottom the same sizes are lowest in most draws
        rows = np.flatnonzero(which_D.ravel() == i)
        curves[rows] = _parabola(x_N[subset], losses_DN[np.ix_(rows, subset)], at_M)
    return curves


def _interpolation(x_N: np.ndarray, losses_DN: np.ndarray, at_M: np.ndarray) -> np.ndarray:
    """Akima's cubics (1970, Journal of the ACM 17) through the logarithms of the losses of three or more sizes, as in
    Porian et al. 2024 (arXiv:2406.19146) and their code.

    As scipy.interpolate.Akima1DInterpolator, whose import takes half a second, and which the tests hold this to.
    """
    logs_DN, gap_G = np.log(losses_DN), np.diff(x_N)
    slope_DG = np.diff(logs_DN) / gap_G
    first, second, last_but_one, last = (slope_DG[:, [i]] for i in (0, 1, -2, -1))
    before, after = (3 * first - 2 * second, 2 * first - second), (2 * last - last_but_one, 3 * last - 2 * last_but_one)
    slope = np.hstack([*before, slope_DG, *after])
    bend = np.abs(np.diff(slope))
    left, right = bend[:, :-2], bend[:, 2:]
    straight = left + right <= 1e-9 * np.max(left + right, axis=1, keepdims=True)
    weighed = (right * slope[:, 1:-2] + left * slope[:, 2:-1]) / np.where(straight, 1.0, left + right)
    tangent_DN = np.where(straight, 0.5 * (slope[:, 3:] + slope[:, :-3]), weighed)
    gap_M = np.clip(np.searchsorted(x_N, at_M, side="right") - 1, 0, len(gap_G) - 1)
    step_M = at_M - x_N[gap_M]
    share_M, slope_DM = step_M / gap_G[gap_M], slope_DG[:, gap_M]
    start_DM, end_DM = tangent_DN[:, gap_M], tangent_DN[:, gap_M + 1]
    curve = 3 * slope_DM - 2 * start_DM - end_DM + share_M * (start_DM + end_DM - 2 * slope_DM)
    return np.exp(logs_DN[:, gap_M] + step_M * (start_DM + share_M * curve))


_PLAIN = {
    "parabola": Reading("parabola", _parabola, coefficients=PARABOLA),
    "interpolation": Reading("interpolation", _interpolation),
}
# What a default is chosen from, the least noisy first. The three lowest alone are noisier than an interpolation.
CANDIDATES = ("parabola", "lowest:7", "lowest:5", "interpolation")

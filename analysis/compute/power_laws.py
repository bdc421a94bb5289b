"""Power laws of compute-optimal params and tokens against compute, through the minima of valleys, for many draws."""

from dataclasses import dataclass

import numpy as np

from analysis.intervals import Interval, percentile_interval


@dataclass(frozen=True)
class PowerLaw:
    """optimum = scale * flops^exponent.

    log_scale and draws' first column are logarithms at 1 FLOP: draws (draws, 2) of log scale and exponent.
    """

    scale: Interval
    exponent: Interval
    log_scale: float
    draws: np.ndarray

    def at(self, flops: float, level: float) -> Interval:
        """The optimum at a budget in FLOP, with the central interval of the draws."""
        value = np.exp(self.log_scale + self.exponent.value * np.log(flops))
        return percentile_interval(float(value), self.drawn_at(flops), level)

    def drawn_at(self, flops: float) -> np.ndarray:
        """The optimum at a budget in each draw: (draws,)."""
        return np.exp(self.draws[:, 0] + self.draws[:, 1] * np.log(flops))


def lines(log_flops_G: np.ndarray, logs_DG: np.ndarray, weights_G: np.ndarray) -> np.ndarray:
    """Intercept and slope (draws, 2) of the weighted least-squares line through each draw's minima.

    A minimum that is NaN weighs nothing; a draw with fewer than two gives NaN.
    """
    there = np.isfinite(logs_DG)
    weights = np.where(there, weights_G, 0.0)
    logs = np.where(there, logs_DG, 0.0)
    enough = there.sum(axis=1) >= 2
    total = np.where(enough, weights.sum(axis=1), 1.0)
    centre, mean = (weights * log_flops_G).sum(axis=1) / total, (weights * logs).sum(axis=1) / total
    away = log_flops_G - centre[:, None]
    spread = np.where(enough, (weights * away**2).sum(axis=1), 1.0)
    slope = (weights * away * logs).sum(axis=1) / spread
    return np.where(enough[:, None], np.stack([mean - slope * centre, slope], axis=1), np.nan)


def power_law(log_flops_G: np.ndarray, logs_DG: np.ndarray, weights_G: np.ndarray, level: float) -> PowerLaw:
    """The power law through minima; the first of the draws `logs_DG` is the value, the others its uncertainty."""
    (log_scale, exponent), *drawn = lines(log_flops_G, logs_DG, weights_G)
    draws = np.array(drawn)
    draws = draws[np.isfinite(draws[:, 0])]
    return PowerLaw(
        scale=percentile_interval(float(np.exp(log_scale)), np.exp(draws[:, 0]), level),
        exponent=percentile_interval(float(exponent), draws[:, 1], level),
        log_scale=float(log_scale),
        draws=draws,
    )

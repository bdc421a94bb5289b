"""Noise that the checkpoints of one run share, beside the noise of each: a variance of runs and one of the rest.

Residuals of a fit are too small, those of runs more than those of points: a law of five constants follows eight runs
closely. Both variances are those that make the expected sums of squares, between runs and within them, equal to the
ones found (fitting constants, Searle, Casella and McCulloch 1992, section 5.5), under the law made linear at the fit.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

LEAST_SHARE = 0.05  # of a sum of squares that is left after the fit; a smaller one would blow up a variance


@dataclass(frozen=True)
class RunNoise:
    """units: (points,) the number of each point's run. basis: (points, P) orthonormal columns that the fit removes."""

    units: np.ndarray
    basis: np.ndarray

    @staticmethod
    def of(runs: Sequence[str], basis: np.ndarray) -> "RunNoise":
        """From the name of each point's run."""
        return RunNoise(pd.factorize(np.asarray(runs, object))[0], basis)

    def means(self, residuals: np.ndarray) -> np.ndarray:
        """Mean residual of each run, (..., runs), of residuals (..., points)."""
        sums = np.stack([np.bincount(self.units, row) for row in np.atleast_2d(residuals)])
        return (sums / np.bincount(self.units)).reshape(*residuals.shape[:-1], -1)

    def variances(self, residuals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Variance of runs and of the rest, each (...), from residuals (..., points) of a fit."""
        counts = np.bincount(self.units)
        between = np.sum(counts * self.means(residuals) ** 2, axis=-1)
        within = np.sum(residuals**2, axis=-1) - between
        share = self._expected()
        found = np.linalg.solve(share, np.stack([between, within]).reshape(2, -1)).reshape(2, *np.shape(between))
        # Where one would be negative it is zero, and the other explains all that is left.
        runs = np.where(found[1] < 0, between / share[0, 0], np.maximum(found[0], 0.0))
        rest = np.where(found[0] < 0, (between + within) / share[:, 1].sum(), np.maximum(found[1], 0.0))
        return runs, rest

    def draws(self, residuals: np.ndarray, generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """New noise of the table's points, (*shape, points): each run's and each point's own drawn anew."""
        runs, rest = self._pools(residuals)
        drawn = generator.choice(runs, (*shape, len(runs)))[..., self.units]
        return drawn + generator.choice(rest, (*shape, len(rest)))

    def of_new_runs(self, residuals: np.ndarray, generator: np.random.Generator, count: int) -> np.ndarray:
        """Noise of one point of each of `count` further runs."""
        runs, rest = self._pools(residuals)
        return generator.choice(runs, count) + generator.choice(rest, count)

    def _pools(self, residuals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Noise of runs and of the rest, centred, with the variances that were found."""
        means = self.means(residuals)
        parts = means - means.mean(), residuals - means[self.units]
        return tuple(
            part * np.sqrt(variance / np.mean(part**2)) if np.any(part) else part
            for part, variance in zip(parts, self.variances(residuals), strict=True)
        )

    def _expected(self) -> np.ndarray:
        """Sums of squares between and within runs (rows) that a unit of each variance (columns) leaves in residuals."""
        counts = np.bincount(self.units)
        sums = np.stack([np.bincount(self.units, column) for column in self.basis.T], axis=1)
        means = sums / counts[:, None]
        inside = self.basis - means[self.units]
        left = np.eye(len(counts)) - means @ sums.T
        points, runs = len(self.units), len(counts)
        found = np.array(
            [
                [np.sum(counts[:, None] * left**2), runs - np.sum(counts[:, None] * means**2)],
                [np.sum(sums @ (inside.T @ inside) * sums), points - runs - np.sum(inside**2)],
            ]
        )
        whole = np.array([points, points - runs], float)
        found[[0, 1], [0, 1]] = np.maximum(found[[0, 1], [0, 1]], LEAST_SHARE * np.maximum(whole, 1.0))
        return found

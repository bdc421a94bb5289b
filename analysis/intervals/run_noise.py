"""Noise that the checkpoints of one run share, beside the noise of each: a variance of runs and one of the rest.

Residuals of a fit are too small, those of runs more than those of points: a law of five constants follows eight runs
closely. Both variances are those that make the expected sums of squares, between runs and within them, equal to the
ones found (fitting constants, Searle, Casella and McCulloch 1992, section 5.5), under the law made linear at the fit.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.fit import Fit, Points
from analysis.fit.batched import target_jacobian

LEAST_SHARE = 0.05  # of a sum of squares that is left after the fit; a smaller one would blow up a variance


def directions(result: Fit, points: Points) -> np.ndarray:
    """Orthonormal columns (points, P) along which a fit leaves no residuals, by the law made linear at it."""
    jacobian = target_jacobian(result.law, result.law.pack(result.array()), points.inputs)
    left, singular, _ = np.linalg.svd(jacobian / np.linalg.norm(jacobian, axis=0).clip(1e-300), full_matrices=False)
    return left[:, singular > 1e-10 * singular[0]]


@dataclass(frozen=True)
class RunNoise:
    """units: (points,) the number of each point's run. basis: (points, P) orthonormal columns that the fit removes."""

    units: np.ndarray
    basis: np.ndarray

    @staticmethod
    def of(result: Fit, points: Points) -> "RunNoise":
        """Of the points of a fit, whose names say which run each belongs to."""
        return RunNoise(pd.factorize(np.asarray(points.runs, object))[0], directions(result, points))

    @property
    def spent(self) -> tuple[float, float]:
        """Degrees of freedom of the residuals that the fit spends between runs and within them."""
        means = self._basis_means()
        return float(np.sum(np.bincount(self.units)[:, None] * means**2)), float(
            np.sum((self.basis - means[self.units]) ** 2)
        )

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

    def _basis_means(self) -> np.ndarray:
        """Mean of each column of the basis over each run: (runs, P)."""
        sums = np.stack([np.bincount(self.units, column) for column in self.basis.T], axis=1)
        return sums / np.bincount(self.units)[:, None]

    def _expected(self) -> np.ndarray:
        """Sums of squares between and within runs (rows) that a unit of each variance (columns) leaves in residuals."""
        counts = np.bincount(self.units)
        means = self._basis_means()
        sums = means * counts[:, None]
        inside = self.basis - means[self.units]
        left = np.eye(len(counts)) - means @ sums.T
        points, runs, (between, within) = len(self.units), len(counts), self.spent
        found = np.array(
            [
                [np.sum(counts[:, None] * left**2), runs - between],
                [np.sum(sums @ (inside.T @ inside) * sums), points - runs - within],
            ]
        )
        whole = np.array([points, points - runs], float)
        found[[0, 1], [0, 1]] = np.maximum(found[[0, 1], [0, 1]], LEAST_SHARE * np.maximum(whole, 1.0))
        return found

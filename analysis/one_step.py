"""Resamples of large tables: one Newton step from the fitted optimum instead of a fit each.

With tens of thousands of points the optimum of a resample is as good as a quadratic away, and what a step needs are
sums over points of first and second derivatives, which are computed once. Resamples weigh every unit by a Poisson
variable of mean one, which for many units is the multinomial bootstrap (Chamandy et al. 2012, section 2). Memory stays
at a few hundred megabytes for a million points.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from analysis.fitting import Fit
from analysis.laws import Law
from analysis.objectives import Objective, total
from analysis.points import Points

MOST_REFITTED_POINTS = 2**14  # above, each resample is one step
CHUNK = 2**14


def one_step_draws(
    law: Law, result: Fit, points: Points, units: np.ndarray, strata: np.ndarray, bootstraps: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Constants (bootstraps, parameters) of resampled units, and (parts, parameters) with one of 200 parts left out.

    units: (points,) the unit of each point; strata: (units,) the stratum of each unit.
    """
    sums = _unit_sums(law, result, points, units, len(strata))
    variables = sums.first.shape[1]
    # Draws within a stratum keep its size, so what all its units share does not vary.
    sizes = np.bincount(strata)[:, None]
    shared = np.stack([np.bincount(strata, column) for column in sums.first.T], axis=1) / sizes
    first = sums.first - shared[strata]
    generator = np.random.default_rng(seed)
    drawn = np.zeros((bootstraps, variables + variables**2))
    stacked = np.concatenate([first, sums.second], axis=1)
    for start in range(0, len(strata), CHUNK):
        rows = stacked[start : start + CHUNK]
        drawn += _poisson(generator, (bootstraps, len(rows))) @ rows
    part = np.arange(len(strata)) * 200 // len(strata)
    left_out = np.stack([np.bincount(part, column) for column in stacked.T], axis=1)
    return _step(law, result, drawn), _step(law, result, stacked.sum(axis=0) - left_out)


class _Sums:
    """First (units, V) and second (units, V * V) derivatives of the objective by the solver's variables."""

    def __init__(self, first: np.ndarray, second: np.ndarray):
        self.first, self.second = first, second


def _unit_sums(law: Law, result: Fit, points: Points, units: np.ndarray, count: int) -> _Sums:
    theta = _variables(law, result)
    first, second = np.zeros((count, len(theta))), np.zeros((count, len(theta) ** 2))
    target = law.target(points.output)
    with jax.enable_x64(True):
        for start in range(0, len(target), CHUNK):
            rows = slice(start, start + CHUNK)
            inputs = {name: jnp.asarray(values[rows]) for name, values in points.inputs.items()}
            found = _point_derivatives(law, result.objective, jnp.asarray(theta), inputs, jnp.asarray(target[rows]))
            for sums, part in zip((first, second), found, strict=True):
                np.add.at(sums, units[rows], np.asarray(part).reshape(len(part), -1))
    return _Sums(first, second)


@functools.partial(jax.jit, static_argnames=("law", "objective"))
def _point_derivatives(law: Law, objective: Objective, theta, inputs: dict, target_N) -> tuple[jax.Array, jax.Array]:
    delta = jnp.asarray(objective.deltas(near=True)[-1])

    def one(theta, point, target):
        variables, spread = (theta[:-1], theta[-1]) if objective.free_scale else (theta, None)
        residual = law.predict_target(variables, point) - target
        return total(residual[None], jnp.ones(1), delta, spread)

    over_points = (None, 0, 0)
    return (
        jax.vmap(jax.grad(one), over_points)(theta, inputs, target_N),
        jax.vmap(jax.hessian(one), over_points)(theta, inputs, target_N),
    )


def _variables(law: Law, result: Fit) -> np.ndarray:
    theta = law.pack(result.array())
    return theta if result.scale is None else np.append(theta, result.objective.log_spread(result.scale))


def _step(law: Law, result: Fit, sums: np.ndarray) -> np.ndarray:
    """Constants after one Newton step, from sums (resamples, V + V * V) of first and second derivatives."""
    theta = _variables(law, result)
    first, second = sums[:, : len(theta)], sums[:, len(theta) :].reshape(-1, len(theta), len(theta))
    size = np.sqrt(np.abs(np.diagonal(second, axis1=1, axis2=2)).max(axis=0)) + 1e-300
    second = second / np.outer(size, size) + 1e-12 * np.eye(len(theta))
    return law.natural(theta - np.linalg.solve(second, (first / size)[..., None])[..., 0] / size)


def _poisson(generator: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Poisson variables of mean one, by a table of 65,536 entries: a fifth of the time of numpy's own."""
    return _poisson_table()[generator.integers(0, 2**16, shape, dtype=np.uint16)]


@functools.cache
def _poisson_table() -> np.ndarray:
    probability, table = np.exp(-1.0), []
    for count in range(9):  # ten or more have probability 1e-7, below the table's grain
        table += [float(count)] * round(2**16 * probability)
        probability /= count + 1
    return np.array((table + [1.0] * 2**16)[: 2**16])

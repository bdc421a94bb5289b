"""Fit any law of `laws` to a runs table, and many resampled versions of it, in one vectorised solve.

The objective is a sum over points, in float64, as in Hoffmann et al. 2022, section 3.3. Importing this module leaves
jax's default precision alone: float64 holds inside `solve` only.
"""

import functools
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from analysis.laws import Law, evaluate
from analysis.objectives import HUBER, HUBER_LIKELIHOOD, LEAST_SQUARES, OBJECTIVES, Objective, total
from analysis.points import FitError, LeftOut, Points, select
from analysis.solver import RELATIVE_GAIN, ROUGH_GAIN, minimise
from analysis.starts import starting_points, starts_along_valley

MOST_START_POINTS = 2**12
# Laws of more parameters have long valleys with several minima in them: these are searched on from the lowest found.
MOST_PLAIN_PARAMETERS, VALLEY_STARTS, VALLEY_ROUNDS = 5, 48, 3
LANE_POINTS = 2**9  # lanes times points solved together: small enough for the cache, and finished lanes leave early


@dataclass(frozen=True)
class Fit:
    """A law fitted to points.

    law: the law, with what was held held (`Law.fix`). values: the fitted constants. objective_value: the minimised sum,
    not a mean. scale: the fitted scale of the residuals where the objective has one, else None. gradient_norm: largest
    derivative of the objective by a fitted variable (logarithm of a positive parameter). starts_at_optimum: starts that
    ended within 1e-6 relative of the best value. condition_number: ratio of the largest to the smallest singular value
    of d residual / d variable. residual_scale: standard deviation of the residuals (of log loss, for most laws), with
    (points - parameters) degrees of freedom.
    """

    law: Law
    objective: Objective
    values: dict[str, float]
    objective_value: float
    scale: float | None
    starts: int
    starts_at_optimum: int
    gradient_norm: float
    condition_number: float
    residual_scale: float
    used: tuple[str, ...]
    left_out: tuple[LeftOut, ...]

    def array(self) -> np.ndarray:
        """The fitted constants (parameters,), in the law's order."""
        return np.array([self.values[name] for name in self.law.names])


class Solution(NamedTuple):
    """Where each lane ended: theta (B, P), value (B,), gradient (B, P), scale (B,) or None where it is not free."""

    theta: np.ndarray
    value: np.ndarray
    gradient: np.ndarray
    scale: np.ndarray | None


def fit(law: Law, table: pd.DataFrame, objective: Objective = HUBER) -> Fit:
    """Fit `law` to the usable rows of `table` from many starting points; the lowest minimum is returned.

    Raises FitError when fewer points than parameters + 1 are usable, when an input is constant and its effect cannot be
    told from a constant, or when several inputs are powers of one another.
    """
    points, left_out = select(law, table)
    check_identifiable(law, points, left_out)
    found, starts, at_optimum = _solve_starts(law, points, objective)
    best = int(np.nanargmin(found.value))
    target = law.target(points.output)
    values = law.natural(found.theta[best])
    residuals = target - law.target(evaluate(law, values, points.inputs))
    singular = np.linalg.svd(target_jacobian(law, found.theta[best], points.inputs), compute_uv=False)
    return Fit(
        law=law,
        objective=objective,
        values=dict(zip(law.names, map(float, values), strict=True)),
        objective_value=float(found.value[best]),
        scale=None if found.scale is None else float(found.scale[best]),
        starts=starts,
        starts_at_optimum=at_optimum,
        gradient_norm=float(np.max(np.abs(found.gradient[best]))),
        condition_number=float(singular[0] / max(singular[-1], 1e-300)),
        residual_scale=float(np.sqrt(np.sum(residuals**2) / (len(residuals) - len(values)))),
        used=points.runs,
        left_out=left_out,
    )


def _solve_starts(law: Law, points: Points, objective: Objective) -> tuple[Solution, int, int]:
    """Minima that the starts reach, how many starts there were, and how many reached the best.

    In a large table all starts are solved on some thousands of its points, and the lowest ends on all of them.
    """
    starts_SP = starting_points(law, points)
    if objective.delta is not None:
        # From least squares down to a small delta all starts tend to one basin; at the delta alone some reach others.
        starts_SP = np.concatenate([starts_SP, starts_SP])
    sharp_S = np.arange(len(starts_SP)) >= len(starts_SP) / 2
    count = len(points.runs)
    thin = slice(None, None, -(-count // MOST_START_POINTS) if count > 4 * MOST_START_POINTS else 1)
    inputs, target_N = {name: values[thin] for name, values in points.inputs.items()}, law.target(points.output)

    def solve_from(starts, inputs, target_N, **how):
        shape = (len(starts), len(target_N))
        return solve(
            law, inputs, np.broadcast_to(target_N, shape), np.broadcast_to(1.0, shape), starts, objective, **how
        )

    found = solve_from(starts_SP, inputs, target_N[thin], sharp_B=sharp_S)
    for _ in range(VALLEY_ROUNDS if len(law.parameters) > MOST_PLAIN_PARAMETERS else 0):
        best_P = found.theta[np.nanargmin(found.value)] if np.isfinite(found.value).any() else starts_SP[0]
        residuals = target_N[thin] - law.target(evaluate(law, law.natural(best_P), inputs))
        around = starts_along_valley(best_P, target_jacobian(law, best_P, inputs), np.std(residuals), VALLEY_STARTS)
        more = solve_from(around, inputs, target_N[thin], sharp_B=np.arange(VALLEY_STARTS) % 2 == 0)
        found = Solution(*(None if a is None else np.concatenate([a, b]) for a, b in zip(found, more, strict=True)))
    if np.isnan(found.value).all():
        raise FitError(
            f"law {law.name!r}: undefined at every starting point for these inputs. Fix: check the units of "
            f"{', '.join(law.inputs)} and of {law.output}."
        )
    lowest, starts = np.nanmin(found.value), len(found.value)
    at_optimum = int(np.sum(found.value <= lowest + 1e-6 * abs(lowest) + 1e-16 * len(target_N[thin])))
    if thin.step > 1:
        finalists = np.argsort(found.value)[[0, min(at_optimum, starts - 1)]]
        found = solve_from(found.theta[finalists], points.inputs, target_N, near=True)
    return found, starts, at_optimum


def solve(
    law: Law,
    inputs: Mapping[str, np.ndarray],
    target_BN: np.ndarray,
    weights_BN: np.ndarray,
    starts_BP: np.ndarray,
    objective: Objective,
    free_BP: np.ndarray | None = None,
    near: bool = False,
    sharp_B: np.ndarray | None = None,
) -> Solution:
    """Minimise the objective in every lane at once: B lanes, each with its own targets, weights and start.

    A lane is a starting point or a resampled table. target_BN: what `law.target` gives for the measured output. A
    variable stays where it started in the lanes in which `free_BP` is zero. near: the starts are an optimum of almost
    the same problem, as in a bootstrap, and less smoothing finds the new one, whose minima need not be exact: from far
    away a search that ends early may end in a valley. sharp_B: lanes without any smoothing.
    """
    lanes, points = weights_BN.shape
    free_BP = np.ones_like(starts_BP) if free_BP is None else free_BP
    # Every call to `_solve` has the same shape for tables of similar size, whatever the number of lanes: missing points
    # weigh nothing and missing lanes copy lane 0. So a law is compiled once for its fit and all its resamples.
    padded_points = -(-points // 32) * 32
    chunk = max(LANE_POINTS // padded_points, 1)
    column = np.where(np.arange(padded_points) < points, np.arange(padded_points), 0)
    deltas_BS = np.tile(objective.deltas(near), (lanes, 1))
    gains_S = np.full(deltas_BS.shape[1], ROUGH_GAIN if near else RELATIVE_GAIN)
    gains_S[-1] = RELATIVE_GAIN
    if sharp_B is not None:
        deltas_BS[sharp_B] = deltas_BS[sharp_B, -1:]
    arrays = {name: np.asarray(inputs[name], np.float64)[column] for name in law.inputs}

    def solve_chunk(first: int) -> tuple[np.ndarray, ...]:
        lane = np.arange(first, first + chunk)
        lane[lane >= lanes] = 0
        weights = np.where(np.arange(padded_points) < points, weights_BN[lane][:, column], 0.0)
        target = target_BN[lane][:, column]
        with jax.enable_x64(True):  # holds for one thread
            lane_arguments = (starts_BP[lane], free_BP[lane], target, weights, deltas_BS[lane])
            found = _solve(law, objective.free_scale, arrays, gains_S, *lane_arguments)
            return tuple(np.asarray(part) for part in found)

    # A chunk runs on one core and lets go of the interpreter, so threads are what fills the others.
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        found = list(threads.map(solve_chunk, range(0, lanes, chunk)))
    theta, value, gradient = (np.concatenate(parts)[:lanes] for parts in zip(*found, strict=True))
    if not objective.free_scale:
        return Solution(theta, value, gradient, None)
    return Solution(theta[:, :-1], value, gradient, objective.scale(theta[:, -1]))


@functools.partial(jax.jit, static_argnames=("law", "free_scale"))
def _solve(
    law: Law, free_scale: bool, inputs: dict, gains_S, starts_BP, free_BP, target_BN, weights_BN, deltas_BS
) -> tuple:
    def one_lane(start_P, free_P, target_N, weights_N, deltas_S):
        if free_scale:
            square = weights_N * (law.predict_target(start_P, inputs) - target_N) ** 2
            spread = jnp.sqrt(jnp.sum(square) / jnp.sum(weights_N)) + 1e-12
            start_P, free_P = jnp.append(start_P, jnp.log(spread)), jnp.append(free_P, 1.0)

        def objective(theta_P, delta):
            # A held variable has zero gradient and unit curvature, so no step moves it.
            moved = jnp.where(free_P > 0, theta_P, start_P)
            residual = law.predict_target(moved[:-1] if free_scale else moved, inputs) - target_N
            held = 0.5 * jnp.sum((1.0 - free_P) * (theta_P - start_P) ** 2)
            return total(residual, weights_N, delta, moved[-1] if free_scale else None) + held

        def smooth_then_sharpen(carry, stage):
            delta, gain = stage
            found = minimise(lambda theta: objective(theta, delta), *carry, gain)
            return (found.theta, found.curvature), (found.value, found.gradient)

        start = (start_P, jnp.zeros_like(start_P))
        (theta_P, _), (values, gradients) = jax.lax.scan(smooth_then_sharpen, start, (deltas_S, gains_S))
        return theta_P, values[-1], gradients[-1]

    return jax.vmap(one_lane)(starts_BP, free_BP, target_BN, weights_BN, deltas_BS)


def values_at(law: Law, points: Points, theta_BP: np.ndarray, objective: Objective, scale: float | None) -> np.ndarray:
    """The objective (B,) at constants that are not solved for: theta_BP in the solver's variables."""
    target, delta = law.target(points.output), objective.deltas(near=True)[-1]
    spread = None if scale is None else objective.log_spread(scale)
    with jax.enable_x64(True):
        inputs = {name: jnp.asarray(values) for name, values in points.inputs.items()}
        return np.array([_value(law, jnp.asarray(theta), inputs, target, delta, spread) for theta in theta_BP])


@functools.partial(jax.jit, static_argnames=("law",))
def _value(law: Law, theta_P, inputs: dict, target_N, delta, spread) -> jax.Array:
    return total(law.predict_target(theta_P, inputs) - target_N, jnp.ones_like(target_N), delta, spread)


def target_jacobian(law: Law, theta_P: np.ndarray, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """Derivatives of the law, on the scale of its residuals, by each of the solver's variables: (points, P)."""
    with jax.enable_x64(True):
        arrays = {name: jnp.asarray(inputs[name], jnp.float64) for name in law.inputs}
        return np.asarray(_target_jacobian(law, jnp.asarray(theta_P), arrays))


@functools.partial(jax.jit, static_argnames=("law",))
def _target_jacobian(law: Law, theta_P: jax.Array, inputs: dict) -> jax.Array:
    return jax.jacfwd(lambda theta: law.predict_target(theta, inputs))(theta_P)


def check_identifiable(law: Law, points: Points, left_out: tuple[LeftOut, ...]) -> None:
    """Raise FitError for points that cannot determine the law, whatever they measured."""
    needed = len(law.parameters) + 1
    if len(points.runs) < needed:
        reasons = "; ".join(f"{item.run}: {item.reason}" for item in left_out[:5])
        raise FitError(
            f"points = {len(points.runs)}: law {law.name!r} has {len(law.parameters)} parameters and needs "
            f"at least {needed} usable points. Fix: add runs{f' (left out: {reasons})' if reasons else ''}."
        )
    if law.fixed:
        return  # what varies is then not for the inputs alone to say: conditioning tells
    logs = np.stack([np.log1p(x) if name in law.may_be_zero else np.log(x) for name, x in points.inputs.items()])
    spread = np.ptp(logs, axis=1)
    for name, width in zip(law.inputs, spread, strict=True):
        if width < 1e-6:
            raise FitError(
                f"{name} = {points.inputs[name][0]:g} in all {len(points.runs)} usable points: the effect of {name} "
                f"cannot be told from a constant. Fix: add runs that differ in {name}."
            )
    centred = (logs - logs.mean(axis=1, keepdims=True)) / spread[:, None]
    singular = np.linalg.svd(centred, compute_uv=False)
    if singular[-1] < 1e-3 * singular[0]:
        raise FitError(
            f"{' and '.join(law.inputs)}: all {len(points.runs)} usable points lie on one line in their "
            "logarithms (one compute budget only, or a fixed ratio), so their effects cannot be told apart. "
            "Fix: add runs at other budgets."
        )


__all__ = [
    "HUBER",
    "HUBER_LIKELIHOOD",
    "LEAST_SQUARES",
    "OBJECTIVES",
    "Fit",
    "FitError",
    "LeftOut",
    "Objective",
    "Points",
    "Solution",
    "fit",
    "select",
    "solve",
    "target_jacobian",
    "values_at",
]

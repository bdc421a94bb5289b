"""Minimise a law's objective for a batch of problems at once: starting points of one table, or resamples of it.

Importing this module leaves jax's default precision alone: float64 holds inside its functions only.
"""

import functools
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from analysis.backend import float64_on_cpu
from analysis.cores import usable_cores
from analysis.fit.lanes import Ends, Queue, Schedule, blocks, solve_in_lanes, sum_over, value_at
from analysis.fit.newton import RELATIVE_GAIN, ROUGH_GAIN
from analysis.fit.objectives import OBJECTIVES, Objective
from analysis.fit.points import Points
from analysis.laws import Law
from analysis.laws.definition import padded_rows

BATCH_POINTS = 2**7  # problems times points solved together: few wait for the last ones, of a thousand steps
QUEUE_POINTS = 2**14  # problems times points of one call, most of which wait until another has ended
MOST_STEPS = 1000  # of Newton's method at each delta: tens, but in narrow valleys
BFGS_GAIN, MOST_BFGS_STEPS = 1e-9, 2000  # the largest derivative it stops at, as a share of the value; its steps


class Solution(NamedTuple):
    """Where each problem ended: theta (B, P), value (B,), gradient (B, P), scale (B,) or None where it is not free."""

    theta: np.ndarray
    value: np.ndarray
    gradient: np.ndarray
    scale: np.ndarray | None


class Problems(NamedTuple):
    """B problems on the same inputs: starting points of one table, or resamples of it.

    target_BN: what `law.target` gives for the measured output. A variable stays where it started in the problems in
    which `free_BP` is zero; None: nowhere. sharp_B: problems without any smoothing; None: none of them.
    """

    target_BN: np.ndarray
    weights_BN: np.ndarray
    starts_BP: np.ndarray
    free_BP: np.ndarray | None = None
    sharp_B: np.ndarray | None = None


def solve(
    law: Law,
    inputs: Mapping[str, np.ndarray],
    problems: Problems,
    objective: Objective,
    *,
    near: bool = False,
    max_steps: int = MOST_STEPS,
) -> Solution:
    """Minimise the objective of every problem.

    near: warm start from the optimum of a nearby problem (bootstrap refit), with fewer smoothing stages and looser
    tolerance; from far away a search that ends early may end in a valley. max_steps: of Newton's method at each delta.
    """
    count, points = problems.weights_BN.shape
    column = padded_rows(points)
    # Every call has the same shapes for tables of similar size, whatever the size of the batch: padded points weigh
    # nothing, and padded problems are not solved. A law is thus compiled once for all resamples.
    lanes, queue = (max(points // len(column), 1) for points in (BATCH_POINTS, QUEUE_POINTS))
    schedule, deltas_BS = _schedule(objective, near, max_steps, problems)
    arrays = {name: np.asarray(inputs[name], np.float64)[column] for name in law.inputs}

    def solve_share(share: np.ndarray) -> list[Ends]:
        ends = []
        for first in range(0, len(share), queue):
            chosen = share[first : first + queue]
            padded = np.append(chosen, np.full(queue - len(chosen), share[0]))
            waiting = _queue(problems, padded, column, deltas_BS)
            with float64_on_cpu():  # holds for one thread
                found = solve_in_lanes(law, objective.free_scale, lanes, arrays, schedule, waiting, len(chosen))
                ends.append(Ends(*(np.asarray(part)[: len(chosen)] for part in found)))
        return ends

    # A share is solved on one core and lets go of the interpreter, so threads are what fills the others.
    several = min(len(usable_cores()), -(-count // lanes))
    shares = [np.arange(first, count, several) for first in range(several)]
    with ThreadPoolExecutor(several) as threads:
        found = [ends for share in threads.map(solve_share, shares) for ends in share]
    order = np.argsort(np.concatenate(shares))
    theta, value, gradient = (np.concatenate(parts)[order] for parts in zip(*found, strict=True))
    if not objective.free_scale:
        return Solution(theta, value, gradient, None)
    return Solution(theta[:, :-1], value, gradient, objective.scale(theta[:, -1]))


def _schedule(objective: Objective, near: bool, max_steps: int, problems: Problems) -> tuple[Schedule, np.ndarray]:
    """The stages of smoothing, and their deltas (B, S).

    S is that of the longest smoothing that objectives of this kind have, filled up with the last stage, so that near
    and far searches are one compiled program, which takes seconds to compile.
    """
    deltas = objective.deltas(near)
    most = max(len(other.deltas(False)) for other in OBJECTIVES.values() if other.free_scale == objective.free_scale)
    gains_S = np.full(most, ROUGH_GAIN if near else RELATIVE_GAIN)
    gains_S[len(deltas) - 1 :] = RELATIVE_GAIN
    filled = np.concatenate([deltas, np.full(most - len(deltas), deltas[-1])])
    deltas_BS = np.tile(filled, (len(problems.starts_BP), 1))
    if problems.sharp_B is not None:
        deltas_BS[problems.sharp_B] = deltas_BS[problems.sharp_B, -1:]
    return Schedule(len(deltas), gains_S, max_steps), deltas_BS


def _queue(problems: Problems, chosen: np.ndarray, column: np.ndarray, deltas_BS: np.ndarray) -> Queue:
    """The `chosen` problems with their points padded: `column` has the point that each place holds or copies."""
    there = np.arange(len(column)) < problems.weights_BN.shape[1]
    start_BP, free_BP = problems.starts_BP[chosen], problems.free_BP
    return Queue(
        start_BP,
        np.ones_like(start_BP) if free_BP is None else free_BP[chosen],
        problems.target_BN[chosen][:, column],
        np.where(there, problems.weights_BN[chosen][:, column], 0.0),
        deltas_BS[chosen],
    )


def values_at(law: Law, points: Points, theta_BP: np.ndarray, objective: Objective, scale: float | None) -> np.ndarray:
    """The objective (B,) at constants that are not solved for: theta_BP in the solver's variables."""
    row, delta = padded_rows(len(points.output)), objective.deltas(near=True)[-1]
    weights, target = (np.arange(len(row)) < len(points.output)).astype(float), law.target(points.output)[row]
    spread = [] if scale is None else [objective.log_spread(scale)]
    variables = np.array([np.append(theta, spread) for theta in theta_BP])
    with float64_on_cpu():
        inputs = {name: np.asarray(points.inputs[name], np.float64)[row] for name in law.inputs}
        return np.array(_values(law, objective.free_scale, variables, inputs, target, weights, delta))


def go_on_by_bfgs(
    law: Law, inputs: Mapping[str, np.ndarray], target_N: np.ndarray, objective: Objective, ends: Solution
) -> Solution:
    """`ends`, each carried on by scipy's BFGS where that lowers it.

    A Huber sum of small delta is nearly one of absolute values, and Newton's steps shrink at every kink that they
    cross; BFGS with a line search gets on there (Lewis and Overton 2013, Mathematical Programming 141).
    """
    import scipy.optimize  # half a second that few fits need

    row = padded_rows(len(target_N))
    weights, delta = (np.arange(len(row)) < len(target_N)).astype(float), objective.deltas(near=True)[-1]
    variables = ends.theta if ends.scale is None else np.column_stack([ends.theta, objective.log_spread(ends.scale)])
    variables, value, gradient = variables.copy(), ends.value.copy(), ends.gradient.copy()
    with float64_on_cpu(), np.errstate(all="ignore"):  # a step out of the law's domain is NaN, and is taken back
        arrays = {name: jnp.asarray(inputs[name][row], jnp.float64) for name in law.inputs}
        target = jnp.asarray(target_N[row])

        def value_and_gradient(variables):
            arguments = (variables, arrays, target, weights, delta)
            value, gradient = _value_and_gradient(law, objective.free_scale, *arguments)
            return float(value), np.asarray(gradient)

        for i in np.flatnonzero(np.isfinite(value)):
            options = {"gtol": BFGS_GAIN * abs(value[i]), "maxiter": MOST_BFGS_STEPS}
            end = scipy.optimize.minimize(value_and_gradient, variables[i], jac=True, method="BFGS", options=options)
            if end.fun < value[i]:
                variables[i], value[i], gradient[i] = end.x, end.fun, end.jac
    if ends.scale is None:
        return Solution(variables, value, gradient, None)
    return Solution(variables[:, :-1], value, gradient, objective.scale(variables[:, -1]))


@functools.partial(jax.jit, static_argnames=("law", "free_scale"))
def _values(law: Law, free_scale: bool, variables_BP, inputs: dict, target_N, weights_N, delta) -> jax.Array:
    def of_block(block):
        return jax.vmap(lambda variables: value_at(law, free_scale, variables, *block, delta))(variables_BP)

    return sum_over(blocks((inputs, target_N, weights_N)), of_block)


_value_and_gradient = jax.jit(jax.value_and_grad(value_at, argnums=2), static_argnames=("law", "free_scale"))


def target_jacobian(law: Law, theta_P: np.ndarray, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """Derivatives of the law, on the scale of its residuals, by each of the solver's variables: (points, P)."""
    arrays = {name: np.asarray(inputs[name], np.float64) for name in law.inputs}
    points = len(arrays[law.inputs[0]])
    row = padded_rows(points)
    with float64_on_cpu():
        return np.asarray(_target_jacobian(law, theta_P, {name: x[row] for name, x in arrays.items()}))[:points]


@functools.partial(jax.jit, static_argnames=("law",))
def _target_jacobian(law: Law, theta_P: jax.Array, inputs: dict) -> jax.Array:
    return jax.jacfwd(lambda theta: law.predict_target(theta, inputs))(theta_P)

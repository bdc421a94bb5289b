"""Problems of one law solved in a few lanes of one compiled program, by Newton's method through stages of smoothing.

A lane whose problem has ended takes up the next one that waits, since problems of one batch may need ten steps or a
thousand: in chunks that wait for their slowest, most lanes would stand still most of the time.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from analysis.fit.newton import State, derivatives_of, start, step, value_of
from analysis.fit.objectives import total
from analysis.laws import Law

BLOCK_POINTS = 2**11  # whose derivatives are taken together: a million points at once took six times as long
REFILLED = 8  # one part in so many of the lanes, at least one, ends before problems that wait take their places


class Schedule(NamedTuple):
    """How many stages of smoothing there are, the gain below which each of them stops (S,), and its most steps."""

    stages: int
    gains_S: np.ndarray
    max_steps: int


class Queue(NamedTuple):
    """The problems that are solved one after the other, or one of them where there is no B; deltas: of the stages."""

    start_BP: jax.typing.ArrayLike
    free_BP: jax.typing.ArrayLike
    target_BN: jax.typing.ArrayLike
    weights_BN: jax.typing.ArrayLike
    deltas_BS: jax.typing.ArrayLike


class Ends(NamedTuple):
    """Where problems ended: the solver's variables (B, V), the value (B,), NaN where undefined, the gradient (B, V)."""

    variables: jax.Array
    value: jax.Array
    gradient: jax.Array


class _Lane(NamedTuple):
    """What lanes are at: problem (B,), its number, or in an empty lane how many there are; stage (B,); minimisation."""

    problem: jax.Array
    stage: jax.Array
    state: State


@functools.partial(jax.jit, static_argnames=("law", "free_scale", "size"))
def solve_in_lanes(
    law: Law, free_scale: bool, size: int, inputs: dict, schedule: Schedule, problems: Queue, count
) -> Ends:
    """Where each of the first `count` of `problems` ends, solved in `size` lanes. Needs float64.

    inputs: each (N,), padded. The variables of a free scale are those of the law and, last, that of the scale.
    """
    if free_scale:
        problems = jax.vmap(functools.partial(_with_spread, law, inputs))(problems)
    none = len(problems.start_BP)

    def go_on(carry: tuple) -> tuple:
        lanes, waiting, found = carry
        ended, done_B = lanes.state.minimum, lanes.state.done
        ends = Ends(ended.theta, value_of(lanes.state), ended.gradient)
        place_B = jnp.where(done_B, lanes.problem, none)
        found = jax.tree.map(lambda kept, part: kept.at[place_B].set(part, mode="drop"), found, ends)
        next_B = waiting + jnp.cumsum(done_B, dtype=jnp.int32) - 1
        next_B = jnp.where(next_B < count, next_B, none)
        lanes = jax.vmap(_either)(done_B, _set_out(problems, next_B), lanes)
        waiting += jnp.sum(done_B, dtype=jnp.int32)
        enough = jnp.where(waiting < count, max(size // REFILLED, 1), size)
        mine = jax.tree.map(lambda part: part[lanes.problem], problems)  # an empty lane stands still
        advance = functools.partial(jax.vmap(functools.partial(_step, law, free_scale, inputs, schedule)), mine)
        return jax.lax.while_loop(lambda x: jnp.sum(x.state.done) < enough, advance, lanes), waiting, found

    start_BP = problems.start_BP
    found = Ends(jnp.zeros_like(start_BP), jnp.zeros_like(start_BP[:, 0]), jnp.zeros_like(start_BP))
    lanes = _set_out(problems, jnp.full(size, none, jnp.int32))
    end = jax.lax.while_loop(
        lambda carry: (carry[1] < count) | jnp.any(carry[0].problem < none), go_on, (lanes, jnp.int32(0), found)
    )
    return end[2]


def _set_out(problems: Queue, which_B: jax.Array) -> _Lane:
    """Lanes at the start of these problems; one that has none stands still."""
    start_BP = problems.start_BP[which_B]
    state = jax.vmap(start)(start_BP, jnp.zeros_like(start_BP))
    return _Lane(which_B, jnp.zeros_like(which_B), state._replace(done=which_B == len(problems.start_BP)))


def _step(law: Law, free_scale: bool, inputs: dict, schedule: Schedule, problem: Queue, lane: _Lane) -> _Lane:
    """One step of one lane, on to the next stage of smoothing where this one ends."""
    derivatives = functools.partial(_derivatives, law, free_scale, inputs, problem, problem.deltas_BS[lane.stage])
    state = step(derivatives, lane.state, schedule.gains_S[lane.stage], schedule.max_steps)
    sharper = _Lane(lane.problem, lane.stage + 1, start(state.minimum.theta, state.minimum.curvature))
    moved = _either(state.done & (lane.stage + 1 < schedule.stages), sharper, lane._replace(state=state))
    return _either(lane.state.done, lane, moved)


def _either(first, one: _Lane, other: _Lane) -> _Lane:
    return jax.tree.map(lambda a, b: jnp.where(first, a, b), one, other)


def _derivatives(law: Law, free_scale: bool, inputs: dict, problem: Queue, delta, theta_P):
    """Of one problem's objective at one delta."""

    def of_block(block):
        value = functools.partial(_held_value, law, free_scale, problem, block=block, delta=delta)
        return derivatives_of(value)(theta_P)

    return sum_over(blocks((inputs, problem.target_BN, problem.weights_BN)), of_block)


def _with_spread(law: Law, inputs: dict, problem: Queue) -> Queue:
    """One problem with a further variable, the logarithm of the residuals' scale, from where they are at its start."""
    square = problem.weights_BN * (law.predict_target(problem.start_BP, inputs) - problem.target_BN) ** 2
    spread = jnp.sqrt(jnp.sum(square) / jnp.sum(problem.weights_BN)) + 1e-12
    start_P, free_P = jnp.append(problem.start_BP, jnp.log(spread)), jnp.append(problem.free_BP, 1.0)
    return problem._replace(start_BP=start_P, free_BP=free_P)


def _held_value(law: Law, free_scale: bool, problem: Queue, theta_P, block: tuple, delta) -> jax.Array:
    """A block's part of the objective, with held variables where they started.

    A held variable has zero gradient and unit curvature, so no step moves it.
    """
    start_P, free_P = problem.start_BP, problem.free_BP
    moved = jnp.where(free_P > 0, theta_P, start_P)
    held = 0.5 * jnp.sum((1.0 - free_P) * (theta_P - start_P) ** 2) * len(block[1]) / len(problem.target_BN)
    return value_at(law, free_scale, moved, *block, delta) + held


def value_at(law: Law, free_scale: bool, variables, inputs: dict, target_N, weights_N, delta) -> jax.Array:
    """The objective of points (N,) at the solver's variables, of which a free scale is the last."""
    theta_P, spread = (variables[:-1], variables[-1]) if free_scale else (variables, None)
    return total(law.predict_target(theta_P, inputs) - target_N, weights_N, delta, spread)


def blocks(points: tuple) -> tuple:
    """Arrays (points,) as blocks (blocks, points of one) that divide every padded number of points."""
    return jax.tree.map(lambda x: x.reshape(-1, math.gcd(len(x), BLOCK_POINTS)), points)


def sum_over(blocks: tuple, function: Callable[[tuple], tuple]) -> tuple:
    """The sum of what `function` gives of each block."""
    return jax.tree.map(lambda parts: jnp.sum(parts, axis=0), jax.lax.map(function, blocks))

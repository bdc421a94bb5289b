"""Damped Newton's method with exact second derivatives, for functions of a few variables, to be vectorised.

A robust loss such as Huber's is quadratic only near zero, so Gauss-Newton steps converge slowly on it; the exact
Hessian is cheap here (2 to 8 variables) and ends in a few steps. Damping follows Marquardt 1963 and More 1978: the
diagonal that is added is scaled by the largest curvature met so far, so the steps do not depend on units.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

LARGEST_DAMPING = 1e10  # steps are then below rounding: the value cannot be lowered any more
RELATIVE_GAIN = 1e-15  # stop when the predicted decrease is below this share of the value
ROUGH_GAIN = 1e-2  # the same, where the minimum is only the start of the next search


class Minimum(NamedTuple):
    """Where one minimisation ended: theta (P,), value, gradient (P,), largest curvatures met (P,), steps taken."""

    theta: jax.Array
    value: jax.Array
    gradient: jax.Array
    curvature: jax.Array
    steps: jax.Array


class State(NamedTuple):
    """A minimisation on its way: the lowest point so far, the Hessian there (P, P), the damping, whether it is done."""

    minimum: Minimum
    hessian: jax.Array
    damping: jax.Array
    done: jax.Array


class Derivatives(NamedTuple):
    """Of a function of theta (P,): value, gradient (P,) and Hessian (P, P)."""

    value: jax.Array
    gradient: jax.Array
    hessian: jax.Array


def derivatives_of(function: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array], Derivatives]:
    """The value of `function` with both its derivatives, in one pass."""

    def gradient_twice(theta):
        value, gradient = jax.value_and_grad(function)(theta)
        return gradient, (value, gradient)

    def derivatives(theta):
        hessian, (value, gradient) = jax.jacfwd(gradient_twice, has_aux=True)(theta)
        return Derivatives(value, gradient, hessian)

    return derivatives


def minimise(
    derivatives: Callable[[jax.Array], Derivatives],
    theta_P: jax.Array,
    curvature_P: jax.Array,
    relative_gain: jax.Array | float = RELATIVE_GAIN,
    max_steps: int = 100,
) -> Minimum:
    """Minimise a function from `theta_P`; every step that is taken lowers it. Works under jit and vmap.

    derivatives: of the function, as `derivatives_of` gives them. curvature_P: a first scale for the damping of each
    variable, zero where nothing is known. Needs float64 to reach its tolerances. When it stops, `step` says.
    """
    state = start(theta_P, curvature_P)
    end = jax.lax.while_loop(lambda s: ~s.done, lambda s: step(derivatives, s, relative_gain, max_steps), state)
    return end.minimum._replace(value=value_of(end))


def start(theta_P: jax.Array, curvature_P: jax.Array) -> State:
    """Before the first `step`, which moves nowhere and takes the derivatives at `theta_P`.

    So these, which are most of what there is to compile, stand in a program once.
    """
    unknown = jnp.full((), jnp.inf, theta_P.dtype)
    here = Minimum(theta_P, unknown, jnp.zeros_like(theta_P), 2.0 * curvature_P, jnp.full((), -1, jnp.int32))
    identity = jnp.eye(len(theta_P), dtype=theta_P.dtype)
    return State(here, identity, jnp.full((), 5e-3, theta_P.dtype), jnp.zeros((), bool))


def step(
    derivatives: Callable[[jax.Array], Derivatives], state: State, relative_gain: jax.Array | float, max_steps: int
) -> State:
    """One step of Newton's method, taken where it lowers the value, and damped more strongly where it does not.

    No step moves a variable by more than 1, so variables should be logarithms or of order 1. It has ended when the next
    step is predicted to lower the value by less than `relative_gain` of it, or after `max_steps`.
    """
    old = state.minimum
    damped = state.hessian + jnp.diag(state.damping * old.curvature)
    factor = jnp.linalg.cholesky(damped)  # NaN where not positive definite: the step is then refused
    move = -jax.scipy.linalg.cho_solve((factor, True), old.gradient)
    predicted_gain = -jnp.dot(old.gradient, move)
    move = move * jnp.minimum(1.0, 1.0 / jnp.max(jnp.abs(move)))
    theta = old.theta + move
    value, gradient, hessian = derivatives(theta)
    # Where the value is a number and its derivatives are none any more, no later step could lead away.
    accept = (value < old.value) & jnp.isfinite(hessian).all()
    curvature = jnp.maximum(0.5 * old.curvature, jnp.abs(jnp.diag(hessian)))
    new = Minimum(theta, value, gradient, curvature, old.steps)
    kept = jax.tree.map(lambda a, b: jnp.where(accept, a, b), (new, hessian), (old, state.hessian))
    damping = jnp.where(accept, jnp.maximum(0.2 * state.damping, 1e-12), 6.0 * jnp.maximum(state.damping, 1e-10))
    minimum = kept[0]._replace(steps=old.steps + 1)
    converged = (predicted_gain <= relative_gain * jnp.abs(old.value)) & jnp.isfinite(old.value)
    done = converged | (damping > LARGEST_DAMPING) | (minimum.steps >= max_steps)
    return State(minimum, kept[1], damping, done)


def value_of(state: State) -> jax.Array:
    """The lowest value found; NaN where the function is undefined at the start."""
    return jnp.where(jnp.isinf(state.minimum.value), jnp.nan, state.minimum.value)

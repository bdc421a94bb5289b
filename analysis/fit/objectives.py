"""What a fit minimises, by name: sums over points of a loss of the residual, and never their mean.

They have different optima, so a result always names its objective.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

# Multiples of delta solved in turn: near least squares first, the stated delta last. The likelihood is near a Laplace
# one: many kinks, so it needs small steps.
SMOOTHING = {"huber": (1000.0, 10.0, 1.0), "huber_likelihood": (1000.0, 300.0, 100.0, 30.0, 10.0, 3.0, 1.0)}
MOST_SMOOTHING_NEAR = 30.0  # of a start that is another optimum already


@dataclass(frozen=True)
class Objective:
    """Sum over points of rho(r); r is the law's residual, log(law) - log(measured) for most laws.

    least_squares: rho = r^2 / 2 (delta is None). huber: rho = r^2 / 2 up to |r| = delta, then delta (|r| - delta / 2).
    huber_likelihood: the negative logarithm of the density proportional to exp(-huber(r / scale)) / scale with `scale`
    free and fitted, which is what Besiroglu et al. 2024, arXiv:2404.10102, minimise; as `delta` is in units of that
    scale, a small one makes it a Laplace likelihood.
    """

    name: str
    delta: float | None

    def __str__(self) -> str:
        return self.name if self.delta is None else f"{self.name}(delta = {self.delta:g})"

    @property
    def free_scale(self) -> bool:
        """Whether log(scale) is fitted with the law's constants, as the last of the solver's variables."""
        return self.name == "huber_likelihood"

    def deltas(self, near: bool) -> np.ndarray:
        """The deltas that are solved in turn, each from the optimum of the one before; fewer when that is `near`."""
        if self.delta is None:
            return np.array([np.inf])
        most = MOST_SMOOTHING_NEAR if near else np.inf
        return np.array([factor * self.delta for factor in SMOOTHING[self.name] if factor <= most])

    def scale(self, log_spread: np.ndarray) -> np.ndarray:
        """The fitted scale from the solver's variable for it."""
        return np.exp(log_spread + _log_scale_of_spread(self.delta, np))

    def log_spread(self, scale: np.ndarray) -> np.ndarray:
        """Inverse of `scale`."""
        return np.log(scale) - _log_scale_of_spread(self.delta, np)


HUBER = Objective("huber", 1e-3)
LEAST_SQUARES = Objective("least_squares", None)
HUBER_LIKELIHOOD = Objective("huber_likelihood", 1e-3)
OBJECTIVES = {objective.name: objective for objective in (HUBER, LEAST_SQUARES, HUBER_LIKELIHOOD)}


def total(residual_N: jax.Array, weights_N: jax.Array, delta: jax.Array, log_spread: jax.Array | None) -> jax.Array:
    """The objective at one delta; log_spread is None where the scale is not free.

    log(scale) = log_spread + a function of delta: so the spread stays near that of the residuals at every delta.
    """
    if log_spread is None:
        return jnp.sum(weights_N * _huber(residual_N, delta))
    log_scale = log_spread + _log_scale_of_spread(delta, jnp)
    density = jnp.sum(weights_N * _huber(residual_N * jnp.exp(-log_scale), delta))
    return density + jnp.sum(weights_N) * (log_scale + _log_normaliser(delta))


def _huber(residual: jax.Array, delta: jax.Array) -> jax.Array:
    size = jnp.abs(residual)
    inside = jnp.minimum(size, delta)
    return inside * (size - 0.5 * inside)  # Huber's loss, written without a branch


def _log_scale_of_spread(delta, numpy):
    """A wide delta is a normal density, whose scale is the residuals' own; a narrow one a Laplace, of scale / delta."""
    return numpy.log(delta) - 0.5 * numpy.log1p(delta**2)


def _log_normaliser(delta: jax.Array) -> jax.Array:
    """log of the integral of exp(-huber(x)): the middle of a normal density and two exponential tails."""
    middle = jnp.sqrt(2 * jnp.pi) * jax.scipy.special.erf(delta / jnp.sqrt(2.0))
    return jnp.log(middle + 2.0 * jnp.exp(-0.5 * delta**2) / delta)

"""Compute-optimal runs at a budget: the least loss a law allows, under a stated way of counting FLOPs."""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from analysis.laws import Law


@dataclass(frozen=True)
class FlopRule:
    """flops = coefficient * params^params_exponent * tokens.

    The cost of a token depends on the model alone, so tokens enter to the first power. 6 * params * tokens is
    FlopRule(6, 1); counting attention and leaving out embedding lookups moves the exponent off 1 for small models.
    largest_error: the largest relative error of the rule over the points it was fitted to.
    """

    coefficient: float
    params_exponent: float = 1.0
    largest_error: float = 0.0

    def tokens(self, flops: float, params: np.ndarray) -> np.ndarray:
        """Tokens that `flops` buys at a size."""
        return flops / (self.coefficient * params**self.params_exponent)

    def flops(self, params: float, tokens: float) -> float:
        """Training FLOPs of a run."""
        return self.coefficient * params**self.params_exponent * tokens

    def __str__(self) -> str:
        return f"flops = {self.coefficient:.4g} * params^{self.params_exponent:.4g} * tokens"


def fit_flop_rule(params: np.ndarray, tokens: np.ndarray, flops: np.ndarray) -> FlopRule:
    """The rule a table follows, by least squares in logarithms; the exponent is 1 when all runs have one size."""
    log_params, log_cost = np.log(params), np.log(flops / tokens)
    centre = log_params.mean()
    spread = np.sum((log_params - centre) ** 2)
    exponent = float(np.sum((log_params - centre) * log_cost) / spread) if spread > 1e-12 else 1.0
    log_coefficient = float(log_cost.mean() - exponent * centre)
    error = np.exp(log_coefficient + exponent * log_params - log_cost) - 1
    return FlopRule(float(np.exp(log_coefficient)), exponent, float(np.max(np.abs(error))))


def efficient_runs(law: Law, values: np.ndarray, rule: FlopRule, flops: float) -> tuple[np.ndarray, ...]:
    """params, tokens and loss, each (draws,), of the least loss at a budget; values: constants (draws, parameters).

    Works for any law of (params, tokens) whose loss at fixed flops has one minimum over params: the zero of its
    derivative is bracketed to rounding by bisection. For `chinchilla` under FlopRule(6, 1) it equals the closed form of
    Hoffmann et al. 2022, equation 4. A minimum further than e^30 from (flops / coefficient)^(1 / 2) ends at that edge.
    """
    values = np.asarray(values, np.float64)
    with jax.enable_x64(True):
        found = _bisect(law, jnp.asarray(values), rule.coefficient, rule.params_exponent, float(flops))
        return tuple(np.asarray(array) for array in found)


@functools.partial(jax.jit, static_argnames=("law",))
def _bisect(law: Law, values_BP: jax.Array, coefficient: float, exponent: float, flops: float) -> tuple:
    def tokens_of(log_params):
        return flops / coefficient * jnp.exp(-exponent * log_params)

    def loss_of(log_params, values_P):
        inputs = {"params": jnp.exp(log_params), "tokens": tokens_of(log_params)}
        return law.predict(dict(zip(law.names, values_P, strict=True)), inputs)

    def halve(_, ends):
        middle = 0.5 * (ends[0] + ends[1])
        rising = jax.vmap(jax.grad(loss_of))(middle, values_BP) > 0
        return jnp.where(rising, ends[0], middle), jnp.where(rising, middle, ends[1])

    centre = jnp.full(values_BP.shape[0], 0.5 * jnp.log(flops / coefficient))
    low, high = jax.lax.fori_loop(0, 64, halve, (centre - 30.0, centre + 30.0))
    log_params = 0.5 * (low + high)
    return jnp.exp(log_params), tokens_of(log_params), jax.vmap(loss_of)(log_params, values_BP)

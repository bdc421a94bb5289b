"""The runs a law calls best: the least loss at a budget, and what it costs to train another size.

These functions take a law and many draws of its constants at once, so intervals cost one call. They work for any law of
(params, tokens) whose loss falls with tokens and, at fixed flops, has one minimum over params.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from analysis.backend import float64_on_cpu
from analysis.compute.flops import FlopRule
from analysis.laws import Law
from analysis.laws.definition import evaluate_arrays

HALVINGS = 64  # a bracket of width 60 ends below the rounding of a float64 near 1
EDGE = 1e-6  # in the log of a size: nearer to an end of the bracket nothing is a minimum
LARGEST_LOG_TOKENS = 200.0
ROUNDING = 64 * np.finfo(np.float64).eps  # of a loss: logarithms, powers and an optimum's size went into it


@dataclass(frozen=True)
class Reach:
    """How far from the fitted runs a statement is: `factor` times the largest (or smallest) fitted `quantity`.

    Whatever prints the statement flags a factor above `far`.
    """

    factor: float
    quantity: str
    far: float

    @property
    def warning(self) -> str:
        """A sentence when the factor exceeds `far`, else nothing."""
        if not self.factor > self.far * (1 + 1e-9):  # ten times the largest is not further than ten times
            return ""
        return (
            f"extrapolates {self.factor:.3g} times beyond the fitted {self.quantity}, more than {self.far:g}: no run "
            "tests the law this far out; the interval assumes it still holds"
        )


@dataclass(frozen=True)
class _Given:
    """A law's `predict` with some inputs given: equal, and so compiled once, for equal values."""

    predict: Callable[[Mapping[str, jax.Array], Mapping[str, jax.Array]], jax.Array]
    values: tuple[tuple[str, float], ...]

    def __call__(self, parameters: Mapping[str, jax.Array], inputs: Mapping[str, jax.Array]) -> jax.Array:
        return self.predict(parameters, {**{name: jnp.asarray(value) for name, value in self.values}, **inputs})


def given_inputs(law: Law, values: Mapping[str, float]) -> Law:
    """`law` with some of its inputs given, as a law of the others."""
    if not values:
        return law
    held = _Given(law.predict, tuple((name, float(value)) for name, value in values.items()))
    return dataclasses.replace(law, inputs=tuple(name for name in law.inputs if name not in values), predict=held)


def efficient_runs(law: Law, values: np.ndarray, rule: FlopRule, flops: float) -> tuple[np.ndarray, ...]:
    """params, tokens and loss, each (draws,), of the least loss at a budget; values: constants (draws, parameters).

    The zero of the loss's derivative along the budget is bracketed to rounding by bisection. For `chinchilla` under 6 *
    params * tokens it equals the closed form of Hoffmann et al. 2022, equation 4. A minimum further than e^30 from
    (flops / coefficient)^(1 / 2), or below the rule's smallest_params, ends at that edge.
    """
    values = np.asarray(values, np.float64)
    with float64_on_cpu():
        found = _efficient(law, values, rule_terms(rule), float(flops))
        return tuple(np.asarray(array) for array in found)


def has_minimum(law: Law, values: np.ndarray, rule: FlopRule, flops: float) -> bool:
    """Whether the loss of constants (parameters,) has a minimum along a budget, or `efficient_runs` ends at an edge."""
    log_params = np.log(efficient_runs(law, values[None], rule, flops)[0][0])
    low, high = _bracket(0.5 * np.log(flops / rule.coefficient), rule_terms(rule))
    return bool(low + EDGE < log_params < high - EDGE)


def paired(law: Law, values: np.ndarray, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """The law (draws,) with each draw's constants (draws, parameters) at that draw's own inputs (draws,)."""
    with float64_on_cpu():
        constants = dict(zip(law.names, np.asarray(values, np.float64).T, strict=True))
        arrays = {name: np.asarray(inputs[name], np.float64) for name in law.inputs}
        return np.asarray(evaluate_arrays(law, constants, arrays))


def tokens_for_loss(law: Law, values: np.ndarray, params: np.ndarray, loss: np.ndarray) -> np.ndarray:
    """Tokens (draws,) that bring a size down to a loss; infinite where that size never gets there."""
    arrays = (np.asarray(array, np.float64) for array in (values, params, loss))
    with float64_on_cpu():
        return np.asarray(_tokens_for_loss(law, *arrays))


def departures(
    law: Law, values: np.ndarray, rule: FlopRule, flops: float, factors: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What it costs to train `factors` times the optimal params: two arrays (factors, draws).

    First the loss above the optimum's at the same budget, in the law's unit; then the compute for the optimum's loss
    at that size, as a multiple of the budget (infinite where no number of tokens is enough).
    """
    params, tokens, loss = efficient_runs(law, values, rule, flops)
    penalties, multiples = [], []
    for factor in factors:
        size = factor * params
        at = {"params": size, "tokens": rule.tokens(flops, size)}
        penalties.append(paired(law, values, at) - loss)
        multiples.append(rule.flops(size, tokens_for_loss(law, values, size, loss)) / flops)
    return np.stack(penalties), np.stack(multiples)


def log_per_token(terms: jax.Array, log_params: jax.Array) -> jax.Array:
    """log of a rule's training FLOPs per token, from `rule_terms` of it."""
    main = jnp.log(terms[0]) + terms[1] * log_params
    return main + jnp.log1p(terms[2] / terms[0] * jnp.exp((terms[3] - terms[1]) * log_params))


def loss_at(law: Law, values_P: jax.Array, log_params: jax.Array, log_tokens: jax.Array) -> jax.Array:
    """The law at one size and one number of tokens, as logarithms."""
    inputs = {"params": jnp.exp(log_params), "tokens": jnp.exp(log_tokens)}
    return law.predict(dict(zip(law.names, values_P, strict=True)), inputs)


def bisect(is_above: Callable[[jax.Array], jax.Array], low: jax.Array, high: jax.Array) -> jax.Array:
    """Where `is_above` turns from false to true between two ends, to rounding."""

    def halve(_, ends):
        middle = 0.5 * (ends[0] + ends[1])
        above = is_above(middle)
        return jnp.where(above, ends[0], middle), jnp.where(above, middle, ends[1])

    low, high = jax.lax.fori_loop(0, HALVINGS, halve, (low, high))
    return 0.5 * (low + high)


def log_tokens_for_loss(law: Law, values_P: jax.Array, log_params: jax.Array, loss: jax.Array) -> jax.Array:
    """log of the tokens that bring a size down to a loss, LARGEST_LOG_TOKENS where it never gets there.

    Nor does it where that loss is the one of infinitely many tokens: which of the two is lower is then rounding.
    """
    ends = jnp.full_like(log_params, -50.0), jnp.full_like(log_params, LARGEST_LOG_TOKENS)
    reached = loss_at(law, values_P, log_params, ends[1]) < loss - ROUNDING * jnp.abs(loss)
    log_tokens = bisect(lambda log_tokens: loss_at(law, values_P, log_params, log_tokens) < loss, *ends)
    return jnp.where(reached, log_tokens, ends[1])


def rule_terms(rule: FlopRule) -> np.ndarray:
    """The rule as the array that compiled code takes: its four numbers and log(smallest_params)."""
    smallest = np.log(rule.smallest_params) if rule.smallest_params > 0 else -np.inf
    terms = (rule.coefficient, rule.params_exponent, rule.correction, rule.correction_exponent, smallest)
    return np.array(terms, np.float64)


def _bracket(centre: jax.Array, terms: np.ndarray) -> tuple[jax.Array, jax.Array]:
    """Logs of the sizes between which a least loss is looked for."""
    return jnp.maximum(centre - 30.0, terms[4]), centre + 30.0


@functools.partial(jax.jit, static_argnames=("law",))
def _efficient(law: Law, values_BP: jax.Array, terms: jax.Array, flops: float) -> tuple:
    def log_tokens(log_params):
        return jnp.log(flops) - log_per_token(terms, log_params)

    def loss(log_params, values_P):
        return loss_at(law, values_P, log_params, log_tokens(log_params))

    centre = jnp.full(values_BP.shape[0], 0.5 * jnp.log(flops / terms[0]))
    ends = _bracket(centre, terms)
    log_params = bisect(lambda middle: jax.vmap(jax.grad(loss))(middle, values_BP) > 0, *ends)
    return jnp.exp(log_params), jnp.exp(log_tokens(log_params)), jax.vmap(loss)(log_params, values_BP)


@functools.partial(jax.jit, static_argnames=("law",))
def _tokens_for_loss(law: Law, values_BP: jax.Array, params_B: jax.Array, loss_B: jax.Array) -> jax.Array:
    def one_draw(values_P, params, loss):
        return log_tokens_for_loss(law, values_P, jnp.log(params), loss)

    log_tokens = jax.vmap(one_draw)(values_BP, params_B, loss_B)
    return jnp.where(log_tokens > LARGEST_LOG_TOKENS - 1, jnp.inf, jnp.exp(log_tokens))

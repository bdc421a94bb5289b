"""The run that is cheapest over its life: training plus the tokens it will serve, at a target quality.

Sardana et al. 2024, arXiv:2401.00448, section 2: minimise training FLOPs + inference FLOPs over params and tokens,
among the runs of one loss. Serving a token is one forward pass, a third of what training on it costs: 2 * params where
training takes 6 * params.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from analysis.backend import float64_on_cpu
from analysis.compute.flops import FlopRule
from analysis.compute.frontier import (
    LARGEST_LOG_TOKENS,
    bisect,
    log_per_token,
    log_tokens_for_loss,
    loss_at,
    rule_terms,
)
from analysis.laws import Law

FORWARD_SHARE = 1 / 3  # of a training step's FLOPs: the backward pass takes the other two thirds
LARGEST_LOG_PARAMS = 80.0


def cheapest_runs(
    law: Law, values: np.ndarray, rule: FlopRule, loss: float | np.ndarray, inference_tokens: float
) -> tuple[np.ndarray, ...]:
    """params, tokens, training FLOPs and total FLOPs, each (draws,), of the cheapest run of a loss.

    values: constants (draws, parameters). inference_tokens: tokens served over the model's life; 0 gives the run that
    trains to this loss with the least compute. Where no run reaches the loss all four are infinite.
    """
    values = np.asarray(values, np.float64)
    losses = np.broadcast_to(np.asarray(loss, np.float64), len(values))
    with float64_on_cpu():
        log_params, log_tokens = _cheapest(law, values, rule_terms(rule), losses, float(inference_tokens))
    params, tokens = np.exp(np.asarray(log_params)), np.exp(np.asarray(log_tokens))
    unreachable = np.asarray(log_tokens) > LARGEST_LOG_TOKENS - 1
    params, tokens = np.where(unreachable, np.inf, params), np.where(unreachable, np.inf, tokens)
    training = rule.flops(params, tokens)
    return params, tokens, training, training + FORWARD_SHARE * rule.flops(params, inference_tokens)


@functools.partial(jax.jit, static_argnames=("law",))
def _cheapest(
    law: Law, values_BP: jax.Array, terms: jax.Array, loss_B: jax.Array, inference_tokens: float
) -> tuple[jax.Array, jax.Array]:
    def one_draw(values_P, loss):
        def rises_with_size(log_params):
            """Sign of d log(total FLOPs) / d log(params) along the runs of this loss."""
            log_tokens = log_tokens_for_loss(law, values_P, log_params, loss)
            by_params, by_tokens = jax.grad(lambda u, v: loss_at(law, values_P, u, v), (0, 1))(log_params, log_tokens)
            per_token_slope = jax.grad(lambda u: log_per_token(terms, u))(log_params)
            # Serving weighs as inference_tokens / 3 more tokens that do not change with the size. Both terms of
            # d total / d log(params) are divided by the FLOPs per token and by the tokens, which may be huge.
            served = FORWARD_SHARE * inference_tokens * jnp.exp(-log_tokens)
            slope = per_token_slope * (1 + served) - by_params / by_tokens
            reached = log_tokens < LARGEST_LOG_TOKENS - 1
            return reached & (slope > 0)

        low = jnp.maximum(0.0, terms[4])
        log_params = bisect(rises_with_size, low, jnp.full_like(low, LARGEST_LOG_PARAMS))
        return log_params, log_tokens_for_loss(law, values_P, log_params, loss)

    return jax.vmap(one_draw)(values_BP, loss_B)

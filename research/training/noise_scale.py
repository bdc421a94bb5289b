"""The gradient noise scale: how large a batch must be for its gradient to be more signal than noise.

McCandlish et al. 2018, arXiv:1812.06162: the gradient of a batch of B tokens has the mean G and the covariance
Sigma / B, and B_simple = tr(Sigma) / |G|^2 (equation 2.9) foretells the critical batch. Appendix A.1 estimates both
parts, without bias, from the squared norms of gradients over a small and a large batch. Here those are a step's
microbatches, which may hold different numbers of tokens, and its whole batch. A ratio of two estimates is biased, so
every step logs both, and whoever wants the scale averages each of them over steps before dividing.

The unit is the token, in Sigma and in B. What is drawn are rows, so Sigma is a row's covariance times its length,
whatever the tokens of one row have in common; in sequences the scale is that of tokens over the sequence length.

What the estimates mix in or leave out:
- They are of the gradient before clipping and before the optimizer's own scaling, without the Hessian of B_noise.
- Microbatches take a batch's rows in turn, and a mixture deals its sources in turn, too. Where the two keep time (two
  sources of equal rates, two microbatches) each microbatch has sources of its own, whose difference counts as noise.
- The routers' penalty is a mean over rows. Where it is not zero and microbatches hold different numbers of tokens, a
  part of its gradient counts as noise.

Cost of a step with M microbatches and P parameters: 2 M P FLOPs, for each square and its sum, where the model's work is
about 6 P for each token; and reading each gradient once more, 4 M P bytes, unless the compiler fuses that with adding
it up. On a mesh every microbatch's gradient is summed over devices before its norm is taken, where the sum over all of
them would have done. Splitting the batch costs more than that: tests/benchmarks/noise_scale.py times both.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

RECENT = 0.25  # share of a run's steps, its last, over which the runs table's noise scale is averaged
SQUARE, VARIANCE = "gradient_square", "gradient_variance_tokens"  # as metrics.jsonl calls the two parts


class Spread(NamedTuple):
    """Sums over microbatches."""

    square: jax.Array  # squared norm of the gradient of the summed loss, over the microbatch's number of tokens
    parts: jax.Array  # microbatches that hold any tokens


def spread(grads: Any, tokens: jax.Array) -> Spread:
    """What one microbatch adds. grads: of its summed loss, float32; tokens: how many have a weight, which is 1."""
    any_tokens = tokens > 0
    square = optax.tree.norm(grads, squared=True) / jnp.where(any_tokens, tokens, 1.0)
    return Spread(jnp.where(any_tokens, square, 0.0), any_tokens.astype(jnp.float32))


def estimates(found: Spread | None, norm: jax.Array, tokens: jax.Array) -> dict[str, jax.Array]:
    """Unbiased estimates of |G|^2 and of tr(Sigma) of one token, (nats per token)^2 over the parameters' own units.

    found: of the batch's microbatches; None gives nothing. norm: of the whole batch's mean gradient; tokens: of the
    whole batch. With W_i tokens and the mean gradient g_i in each of M microbatches, and g over all of them, the sum of
    W_i |g_i - g|^2 has the expectation (M - 1) tr(Sigma), however many tokens each holds. NaN where fewer than two of
    them hold any.
    """
    if found is None:
        return {}
    variance = (found.square - tokens * norm**2) / jnp.where(found.parts > 1, found.parts - 1, jnp.nan)
    return {SQUARE: norm**2 - variance / tokens, VARIANCE: variance}


def of_run(lines: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """noise_scale_tokens from the lines of a finished run's metrics: each part's mean over the last quarter, divided.

    Nothing where no such step measured both, or where the mean of |G|^2 is not positive: noise then hides the gradient.
    """
    steps = [line for line in lines if line["kind"] == "train"]
    begin = (1 - RECENT) * max((line["step"] for line in steps), default=0)
    recent = [line for line in steps if line["step"] > begin and line.get(SQUARE) is not None]
    parts = [(line[SQUARE], line[VARIANCE]) for line in recent]
    square, variance = np.mean(parts, axis=0) if parts else (0.0, 0.0)
    return {"noise_scale_tokens": float(variance / square)} if square > 0 else {}

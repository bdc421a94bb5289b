"""Next-token cross-entropy that never holds the logits of a whole batch.

The head's product, the softmax and all their gradients are computed chunk by chunk in the forward pass, so that the
backward pass only scales what is already there: one (chunk, V) block of logits is alive at a time, and nothing is
computed twice.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

MAX_CHUNK_LOGITS = 16_777_216  # float32 logits alive at once (64 MiB); measured by tests/benchmarks/cross_entropy.py


class LossSums(NamedTuple):
    """Sums over tokens, each token weighted by its weight; divide by `weight` for means. The last two count rows."""

    loss: jax.Array  # nats, with the z-loss: what is differentiated
    nats: jax.Array  # cross-entropy alone
    weight: jax.Array
    correct: jax.Array  # tokens whose target has the highest logit
    exact: jax.Array  # rows in which every token of weight above zero is correct
    rows: jax.Array  # rows with such a token


def cross_entropy(
    x_BLD: jax.Array, head_DV: jax.Array, targets_BL: jax.Array, weights_BL: jax.Array, z_loss: float = 0.0
) -> LossSums:
    """Weighted sums of -log softmax(x head)[target], and of `z_loss` * logsumexp^2 (PaLM, section 5).

    x_BLD in the compute dtype, head float32 (cast to x's dtype for the product), logits and sums float32. Only `loss`
    carries gradients, to x and head. The chunks run along the length, so a batch split over devices stays split.
    """
    B, L = targets_BL.shape
    chunks = _chunks(B, L, head_DV.shape[1])
    total, nats, wrong_B = _chunked(x_BLD, head_DV, targets_BL, weights_BL, z_loss, chunks)
    weight_B = weights_BL.sum(axis=1)
    exact, rows = jnp.sum((wrong_B == 0) & (weight_B > 0)), jnp.sum(weight_B > 0)
    weight = weight_B.sum()
    return LossSums(total, nats, weight, weight - wrong_B.sum(), exact.astype(jnp.float32), rows.astype(jnp.float32))


def _chunks(B: int, L: int, V: int) -> int:
    """The smallest divisor of L that keeps a chunk's logits within MAX_CHUNK_LOGITS (or L itself)."""
    return next((c for c in range(1, L + 1) if L % c == 0 and B * (L // c) * V <= MAX_CHUNK_LOGITS), L)


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _chunked(x_BLD: Any, head_DV: Any, targets_BL: Any, weights_BL: Any, z_loss: float, chunks: int) -> Any:
    def one(sums: Any, chunk: Any) -> Any:
        x_NLD, targets_NL, weights_NL = chunk
        _, *found = _chunk_losses(x_NLD, head_DV.astype(x_NLD.dtype), targets_NL, weights_NL, z_loss)
        return tuple(map(jnp.add, sums, found)), None

    start = (jnp.float32(0), jnp.float32(0), jnp.zeros(x_BLD.shape[0], jnp.float32))
    sums, _ = jax.lax.scan(one, start, _split(chunks, x_BLD, targets_BL, weights_BL))
    return sums


def _chunk_losses(x_BLD: Any, head_DV: Any, targets_BL: Any, weights_BL: Any, z_loss: float) -> Any:
    """(what the gradient needs, sum of loss, sum of nats, weight of the wrong tokens of each row) of one chunk."""
    logits_BLV = jnp.einsum("bld,dv->blv", x_BLD, head_DV, preferred_element_type=jnp.float32)
    top_BL1 = logits_BLV.max(axis=-1, keepdims=True)
    exps_BLV = jnp.exp(logits_BLV - top_BL1)
    total_BL1 = exps_BLV.sum(axis=-1, keepdims=True)
    logsumexp_BL = (top_BL1 + jnp.log(total_BL1))[..., 0]
    target_logit_BL = jnp.take_along_axis(logits_BLV, targets_BL[..., None], axis=-1)[..., 0]
    nats_BL = logsumexp_BL - target_logit_BL
    nats = (weights_BL * nats_BL).sum()
    loss = (weights_BL * (nats_BL + z_loss * logsumexp_BL**2)).sum() if z_loss else nats
    # A tie counts as right: the target is among the most probable. A logit that is NaN is not.
    wrong_B = (weights_BL * ~(target_logit_BL >= top_BL1[..., 0])).sum(axis=1)
    return (exps_BLV, total_BL1, logsumexp_BL), loss, nats, wrong_B


def _forward(x_BLD: Any, head_DV: Any, targets_BL: Any, weights_BL: Any, z_loss: float, chunks: int) -> Any:
    head_cast_DV = head_DV.astype(x_BLD.dtype)

    def one(carry: Any, chunk: Any) -> Any:
        sums, dhead_DV = carry
        x_BLD, targets_BL, weights_BL = chunk
        kept, *found = _chunk_losses(x_BLD, head_cast_DV, targets_BL, weights_BL, z_loss)
        exps_BLV, total_BL1, logsumexp_BL = kept
        scale_BL = weights_BL * (1 + 2 * z_loss * logsumexp_BL) if z_loss else weights_BL
        is_target_BLV = targets_BL[..., None] == jnp.arange(head_DV.shape[1])[None, None, :]
        dlogits_BLV = exps_BLV * (scale_BL[..., None] / total_BL1) - jnp.where(
            is_target_BLV, weights_BL[..., None], 0.0
        )
        dlogits_BLV = dlogits_BLV.astype(x_BLD.dtype)
        dx_BLD = jnp.einsum("blv,dv->bld", dlogits_BLV, head_cast_DV)
        dhead_DV += jnp.einsum("bld,blv->dv", x_BLD, dlogits_BLV, preferred_element_type=jnp.float32)
        return (tuple(map(jnp.add, sums, found)), dhead_DV), dx_BLD

    sums = (jnp.float32(0), jnp.float32(0), jnp.zeros(x_BLD.shape[0], jnp.float32))
    start = (sums, jnp.zeros(head_DV.shape, jnp.float32))
    if chunks == 1:
        (sums, dhead_DV), dx_BLD = one(start, (x_BLD, targets_BL, weights_BL))
    else:
        (sums, dhead_DV), dx_CBLD = jax.lax.scan(one, start, _split(chunks, x_BLD, targets_BL, weights_BL))
        dx_BLD = jnp.moveaxis(dx_CBLD, 0, 1).reshape(x_BLD.shape)
    return sums, (dx_BLD, dhead_DV)


def _backward(z_loss: float, chunks: int, kept: Any, cotangents: Any) -> Any:
    dx_BLD, dhead_DV = kept
    upstream = cotangents[0]
    return upstream.astype(dx_BLD.dtype) * dx_BLD, upstream * dhead_DV, None, None


_chunked.defvjp(_forward, _backward)


def _split(chunks: int, *arrays_BL: jax.Array) -> tuple[jax.Array, ...]:
    """(B, L, ...) to (chunks, B, L / chunks, ...)."""

    def one(a: jax.Array) -> jax.Array:
        return jnp.moveaxis(a.reshape(a.shape[0], chunks, a.shape[1] // chunks, *a.shape[2:]), 1, 0)

    return tuple(one(a) for a in arrays_BL)

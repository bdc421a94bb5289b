"""Next-token cross-entropy that never holds the logits of a whole batch.

The head's product, the softmax and all their gradients are computed chunk by chunk in the forward pass, so that the
backward pass only scales what is already there: one (chunk, V) block of logits is alive at a time, and nothing is
computed twice.

On a mesh each device does so for its own tokens and its own part of the vocabulary: the head is gathered over the axis
that splits its width once, before the chunks, and its gradient is summed once, after them.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from research.per_device import max_over, on_each_device, start_of, sum_over, summed_part
from research.sharding import platform

# Float32 logits alive at once on one device. 64 MiB on a CPU: measured by tests/benchmarks/cross_entropy.py. On the
# others large enough that a chunk's products fill the device (a few hundred tokens of 128,000 words) and small beside
# its memory: 256 MiB and 1 GiB, which no accelerator has timed.
MAX_CHUNK_LOGITS = {"cpu": 2**24, "tpu": 2**26, "gpu": 2**28}


class LossSums(NamedTuple):
    """Sums over tokens, each token weighted by its weight; divide by `weight` for means. Two of them count rows."""

    loss: jax.Array  # nats, with the z-loss: what is differentiated
    nats: jax.Array  # cross-entropy alone
    weight: jax.Array
    correct: jax.Array  # tokens whose target has the highest logit
    exact: jax.Array  # rows in which every token of weight above zero is correct
    rows: jax.Array  # rows with such a token
    brier: jax.Array  # sum over the vocabulary of (probability - 1 at the target)^2 (Brier 1950)


def cross_entropy(
    x_BLD: jax.Array, head_DV: jax.Array, targets_BL: jax.Array, weights_BL: jax.Array, z_loss: float = 0.0
) -> LossSums:
    """Weighted sums of -log softmax(x head)[target], and of `z_loss` * logsumexp^2 (PaLM, section 5).

    x_BLD in the compute dtype, head float32 (cast to x's dtype for the product), logits and sums float32. Only `loss`
    carries gradients, to x and head. The chunks run along the length, so a batch split over devices stays split.
    """
    total, nats, brier, wrong_B = _summed(z_loss, x_BLD, head_DV, targets_BL, weights_BL)
    weight_B = weights_BL.sum(axis=1)
    exact, rows = jnp.sum((wrong_B == 0) & (weight_B > 0)), jnp.sum(weight_B > 0)
    weight = weight_B.sum()
    exact, rows = exact.astype(jnp.float32), rows.astype(jnp.float32)
    return LossSums(total, nats, weight, weight - wrong_B.sum(), exact, rows, brier)


INPUTS = ("batch length activation", "activation vocab", "batch length", "batch length")
SUMS = ("", "", "", "batch")


def chunks_of(B: int, L: int, V: int) -> int:
    """The smallest divisor of L that keeps a chunk's logits within MAX_CHUNK_LOGITS (or L itself)."""
    most = MAX_CHUNK_LOGITS.get(platform(), MAX_CHUNK_LOGITS["cpu"])
    return next((c for c in range(1, L + 1) if L % c == 0 and B * (L // c) * V <= most), L)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _summed(z_loss: float, x_BLD: jax.Array, head_DV: jax.Array, targets_BL: jax.Array, weights_BL: jax.Array) -> Any:
    """(sum of loss, of nats, of Brier scores, weight of the wrong tokens of each row)."""

    def of_device(x_BLD: Any, head_DV: Any, targets_BL: Any, weights_BL: Any) -> Any:
        def one(tokens: Any) -> Any:
            return _chunk_losses(z_loss, head_DV, *tokens)[1], None

        return _over_devices(_over_chunks(one, head_DV, x_BLD, targets_BL, weights_BL)[0])

    return on_each_device(of_device, INPUTS, SUMS)(x_BLD, head_DV.astype(x_BLD.dtype), targets_BL, weights_BL)


def _forward(z_loss: float, x_BLD: jax.Array, head_DV: jax.Array, targets_BL: jax.Array, weights_BL: jax.Array) -> Any:
    def of_device(x_BLD: Any, head_DV: Any, targets_BL: Any, weights_BL: Any) -> Any:
        def one(tokens: Any) -> Any:
            sums, dx_BLD, dhead_DV = _chunk_gradients(z_loss, head_DV, *tokens)
            return (sums, dhead_DV), dx_BLD

        (sums, dhead_DV), dx_BLD = _over_chunks(one, head_DV, x_BLD, targets_BL, weights_BL)
        dhead_DV = summed_part(dhead_DV, "batch length", "width")
        return _over_devices(sums), sum_over(dx_BLD, "vocab"), dhead_DV

    results = (SUMS, "batch length activation", "width vocab")
    local = on_each_device(of_device, INPUTS, results)
    sums, dx_BLD, dhead_DV = local(x_BLD, head_DV.astype(x_BLD.dtype), targets_BL, weights_BL)
    return sums, (dx_BLD, dhead_DV)


def _over_devices(sums: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    *of_tokens, wrong_B = sums
    return *(sum_over(total, "batch length") for total in of_tokens), sum_over(wrong_B, "length")


def _over_chunks(
    one: Any, head_DV: jax.Array, x_BLD: jax.Array, targets_BL: jax.Array, weights_BL: jax.Array
) -> tuple[Any, Any]:
    """(sums over chunks, arrays (B, L, ...) put together) of `one(tokens of a chunk)`, which returns one of each."""
    B, L = targets_BL.shape
    chunks = chunks_of(B, L, head_DV.shape[1])
    tokens = (x_BLD, targets_BL, weights_BL)
    if chunks == 1:
        return one(tokens)

    def add(sums: Any, tokens: Any) -> Any:
        found, pieces = one(tokens)
        return jax.tree.map(jnp.add, sums, found), pieces

    cut = tuple(jnp.moveaxis(a.reshape(B, chunks, L // chunks, *a.shape[2:]), 1, 0) for a in tokens)
    found, _ = jax.eval_shape(one, tuple(a[0] for a in cut))
    sums, pieces = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, found), cut)
    joined = jax.tree.map(lambda a: jnp.moveaxis(a, 0, 1).reshape(B, L, *a.shape[3:]), pieces)
    return sums, joined


def _chunk_losses(z_loss: float, head_DV: Any, x_BLD: Any, targets_BL: Any, weights_BL: Any) -> Any:
    """(what the gradient needs, the sums as `_summed` has them) of one chunk."""
    logits_BLV = jnp.einsum("bld,dv->blv", x_BLD, head_DV, preferred_element_type=jnp.float32)
    top_BL1 = max_over(logits_BLV.max(axis=-1, keepdims=True), "vocab")
    exps_BLV = jnp.exp(logits_BLV - top_BL1)
    total_BL1 = sum_over(exps_BLV.sum(axis=-1, keepdims=True), "vocab")
    logsumexp_BL = (top_BL1 + jnp.log(total_BL1))[..., 0]
    V = logits_BLV.shape[-1]
    target_BL1 = (targets_BL - start_of("vocab", V))[..., None]
    is_here_BL = ((target_BL1 >= 0) & (target_BL1 < V))[..., 0]
    logit_BL = jnp.take_along_axis(logits_BLV, jnp.clip(target_BL1, 0, V - 1), axis=-1)[..., 0]
    target_logit_BL = sum_over(jnp.where(is_here_BL, logit_BL, 0.0), "vocab")
    nats_BL = logsumexp_BL - target_logit_BL
    nats = (weights_BL * nats_BL).sum()
    loss = (weights_BL * (nats_BL + z_loss * logsumexp_BL**2)).sum() if z_loss else nats
    # sum of p^2 - 2 p[target] + 1; nothing of it is computed where, as in training, no one asks for it.
    squares_BL = sum_over((exps_BLV**2).sum(axis=-1), "vocab") / total_BL1[..., 0] ** 2
    brier = (weights_BL * (squares_BL - 2 * jnp.exp(-nats_BL) + 1)).sum()
    # A tie counts as right: the target is among the most probable. A logit that is NaN is not.
    wrong_B = (weights_BL * ~(target_logit_BL >= top_BL1[..., 0])).sum(axis=1)
    return (exps_BLV, total_BL1, logsumexp_BL, target_BL1), (loss, nats, brier, wrong_B)


def _chunk_gradients(z_loss: float, head_DV: Any, x_BLD: Any, targets_BL: Any, weights_BL: Any) -> Any:
    """(the sums of `_chunk_losses`, the loss's gradients of x in this device's words, and of head in its tokens)."""
    kept, sums = _chunk_losses(z_loss, head_DV, x_BLD, targets_BL, weights_BL)
    exps_BLV, total_BL1, logsumexp_BL, target_BL1 = kept
    scale_BL = weights_BL * (1 + 2 * z_loss * logsumexp_BL) if z_loss else weights_BL
    is_target_BLV = target_BL1 == jnp.arange(exps_BLV.shape[-1])[None, None, :]
    dlogits_BLV = exps_BLV * (scale_BL[..., None] / total_BL1) - jnp.where(is_target_BLV, weights_BL[..., None], 0.0)
    dlogits_BLV = dlogits_BLV.astype(x_BLD.dtype)
    dx_BLD = jnp.einsum("blv,dv->bld", dlogits_BLV, head_DV)
    dhead_DV = jnp.einsum("bld,blv->dv", x_BLD, dlogits_BLV, preferred_element_type=jnp.float32)
    return sums, dx_BLD, dhead_DV


def _backward(z_loss: float, kept: Any, cotangents: Any) -> Any:
    dx_BLD, dhead_DV = kept
    upstream = cotangents[0]
    return upstream.astype(dx_BLD.dtype) * dx_BLD, upstream * dhead_DV, None, None


_summed.defvjp(_forward, _backward)

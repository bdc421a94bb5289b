"""What the RWKV mixers share: the previous token's input, and initial values that depend on channel and layer."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from research.models.layers import along_last, products_of, project
from research.per_device import from_device_before


def before(x_BLD: jax.Array, state: Any) -> jax.Array:
    """(B, D): the state's last token, zeros at the start of a sequence."""
    return jnp.zeros_like(x_BLD[:, 0]) if state is None else state.last_BD.astype(x_BLD.dtype)


def last_token(x_BLD: jax.Array, before_BD: jax.Array, mask_BL: jax.Array | None) -> jax.Array:
    """(B, D): the token read last, `before_BD` where there was padding alone."""
    return x_BLD[:, -1] if mask_BL is None else jnp.where(mask_BL[:, -1:], x_BLD[:, -1], before_BD)


def _predecessors(x_BLD: jax.Array, before_BD: jax.Array, mask_BL: jax.Array | None) -> jax.Array:
    """Each token's, (B, L, D). Padding, which stands left of the tokens, is none: the first one follows `before_BD`."""
    if mask_BL is not None:
        x_BLD = jnp.where(mask_BL[:, :, None], x_BLD, before_BD[:, None])
    first_BD = from_device_before(x_BLD[:, -1], "length", before_BD)
    return jnp.concatenate([first_BD[:, None], x_BLD[:, :-1]], axis=1)


def interpolate(from_BLD: jax.Array, to_BLD: jax.Array, share_D: jax.Array) -> jax.Array:
    """from + (to - from) * share, channel by channel."""
    return from_BLD + along_last(jnp.multiply, to_BLD - from_BLD, share_D)


def project_mixed(
    interpolation: Callable[[jax.Array, jax.Array, jax.Array], jax.Array],
    x_BLD: jax.Array,
    before_BD: jax.Array,
    mask_BL: jax.Array | None,
    *mixed: tuple[jax.Array, jax.Array, str],
) -> tuple[jax.Array, ...]:
    """Products of interpolations of x with each token's predecessor, in x's dtype.

    interpolation: of tokens, their predecessors and a share for each channel. before_BD: what stands before the first
    token, zeros at the start of a sequence. mixed: (share_D, weight, the names of the weight's dimensions) of each.
    """
    shares, weights, axes = zip(*mixed)

    def products(
        x_BLD: jax.Array, before_BD: jax.Array, mask_BL: jax.Array | None, shares: tuple, *weights: jax.Array
    ) -> tuple[jax.Array, ...]:
        before_BLD = _predecessors(x_BLD, before_BD, mask_BL)
        return tuple(project(interpolation(x_BLD, before_BLD, share_D), own) for share_D, own in zip(shares, weights))

    inputs = ((x_BLD, "batch length"), (before_BD, "batch"), (mask_BL, "batch length"), (shares, "activation"))
    return products_of(products, inputs, tuple(zip(weights, axes)))


@dataclass(frozen=True)
class PerChannel:
    """Initialiser by a formula of (channel (D,), channels, rise, fall).

    With l the layer of `depth`, counted from zero at the bottom: rise = l / (depth - 1), from 0 to 1 (0 if there is
    one layer alone, where the published formula divides by zero), and fall = 1 - l / depth, from 1 to nearly 0.
    """

    formula: Callable[[jax.Array, int, jax.Array, jax.Array], jax.Array]
    depth: int

    def __call__(self, key: jax.Array, shape: tuple[int, ...], layer: jax.Array | int) -> jax.Array:
        channels = math.prod(shape)
        rise, fall = layer / max(1, self.depth - 1), 1 - layer / self.depth
        return self.formula(jnp.arange(channels), channels, rise, fall).reshape(shape)

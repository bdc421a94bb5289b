"""What the RWKV mixers share: the previous token's input, and initial values that depend on channel and layer."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from research.models.layers import along_last


def token_shift(
    x_BLD: jax.Array, before_BD: jax.Array | None, mask_BL: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """(each token's predecessor (B, L, D), the last token (B, D)).

    before_BD is the token read last, none at the start of a sequence, whose predecessor is zero. Padding, which stands
    left of the tokens, is no predecessor: the first token after it follows `before_BD`.
    """
    before_BD = jnp.zeros_like(x_BLD[:, 0]) if before_BD is None else before_BD.astype(x_BLD.dtype)
    if mask_BL is not None:
        x_BLD = jnp.where(mask_BL[:, :, None], x_BLD, before_BD[:, None])
    return jnp.concatenate([before_BD[:, None], x_BLD[:, :-1]], axis=1), x_BLD[:, -1]


def interpolate(from_BLD: jax.Array, to_BLD: jax.Array, share_D: jax.Array) -> jax.Array:
    """from + (to - from) * share, channel by channel."""
    return from_BLD + along_last(jnp.multiply, to_BLD - from_BLD, share_D)


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


@dataclass(frozen=True)
class Orthogonal:
    """Initialiser: orthonormal rows or columns, whichever are fewer, times `gain` (Saxe 2014).

    A weight of more dimensions is the matrix of its first one and the others.
    """

    gain: float

    def __call__(self, key: jax.Array, shape: tuple[int, ...], layer: jax.Array | int) -> jax.Array:
        matrix = jax.nn.initializers.orthogonal(self.gain)(key, (shape[0], math.prod(shape[1:])))
        return matrix.reshape(shape)

"""Causal depthwise convolution over a few taps, the short memory in front of selective and gated recurrences.

    y[t] = bias + sum_j kernel[j] * x[t - (W - 1) + j]

Each channel has its own W taps and zeros stand before the first token. Decoding carries the last W - 1 inputs.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from research.models.initialisers import Uniform
from research.models.layers import along_last, parameter


class CausalConvolution(nn.Module):
    """`taps` learned weights a channel; start as torch's Conv1d: all uniform within +-taps^-0.5, bias included.

    Called with x_BLP, the last W - 1 inputs before it (state_BWP; None: a whole sequence) and the mask of real tokens
    (None: all are); returns (y_BLP, state_BWP after x, or None). Padding reads as zeros, and y is zero there.
    """

    taps: int
    layer: int
    bias: bool = True

    @nn.compact
    def __call__(
        self, x_BLP: jax.Array, state_BWP: jax.Array | None, mask_BL: jax.Array | None
    ) -> tuple[jax.Array, jax.Array | None]:
        P, init = x_BLP.shape[-1], Uniform(self.taps**-0.5)
        kernel_WP = parameter(self, "kernel", (self.taps, P), "taps inner", init, "kernel")
        if mask_BL is not None:
            x_BLP = jnp.where(mask_BL[:, :, None], x_BLP, 0)
        y_BLP, before_BSP = convolve(x_BLP, kernel_WP, state_BWP)
        if self.bias:
            bias_P = parameter(self, "bias", (P,), "inner", init, "vector")
            y_BLP = along_last(jnp.add, y_BLP, bias_P)
        if mask_BL is not None:
            y_BLP = jnp.where(mask_BL[:, :, None], y_BLP, 0)
        return y_BLP, None if state_BWP is None else before_BSP[:, x_BLP.shape[1] :]


def convolve(x_BLP: jax.Array, kernel_WP: jax.Array, state_BWP: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """(y_BLP, the inputs read: W - 1 earlier ones and x): a sum of W shifted products, which XLA fuses into one loop.

    On CPU its grouped convolution is many times slower, forward and in both gradients.
    """
    W, L = kernel_WP.shape[0], x_BLP.shape[1]
    kernel_WP = kernel_WP.astype(x_BLP.dtype)
    if state_BWP is None:
        read_BSP = jnp.pad(x_BLP, ((0, 0), (W - 1, 0), (0, 0)))
    else:
        read_BSP = jnp.concatenate([state_BWP.astype(x_BLP.dtype), x_BLP], axis=1)
    y_BLP = sum(along_last(jnp.multiply, read_BSP[:, j : j + L], kernel_WP[j]) for j in range(W))
    return y_BLP, read_BSP


def init_state(batch: int, taps: int, channels: int, dtype: jax.typing.DTypeLike) -> jax.Array:
    """Zeros (B, W - 1, P): nothing read yet."""
    return jnp.zeros((batch, taps - 1, channels), dtype)


def params(taps: int, channels: int, bias: bool = True) -> int:
    """Parameters of one convolution."""
    return channels * (taps + bias)


def elementwise_flops(taps: int, channels: int, length: int) -> int:
    """A multiply-add per tap, channel and token."""
    return 2 * taps * channels * length


def state_bytes(taps: int, channels: int, bytes_per_value: int) -> int:
    """The last W - 1 inputs of one sequence."""
    return (taps - 1) * channels * bytes_per_value

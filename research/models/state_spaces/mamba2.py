"""Mamba-2 (Dao & Gu 2024): one decay per head, so that the recurrence is matrix products over chunks of tokens.

A block is [gate, input, B, C, dt] = x W, a short causal convolution and silu on input, B and C, the recurrence of
models/state_spaces/ssd.py, and out(norm((y + D input) * silu(gate))). B and C are made beside the input, not from it as
in Mamba.
"""

import math
from dataclasses import dataclass

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from research.config import ModelConfig
from research.models.algorithms import algorithm
from research.models.initialisers import UNIFORM, UNIFORM_OUT, ones
from research.models.layers import (
    RMSNorm,
    Shared,
    along_last,
    at_least_float32,
    parameter,
    project,
    project_each,
)
from research.models.state_spaces import convolution
from research.models.state_spaces.convolution import CausalConvolution
from research.models.state_spaces.mamba import DtBias
from research.models.state_spaces.ssd import ssd
from research.sharding import constrain


class Mamba2State(flax.struct.PyTreeNode):
    """What decoding carries, of one size at any length."""

    conv_input_BWP: jax.Array  # the last W - 1 inputs of each convolution
    conv_selection_BWC: jax.Array  # of C = 2 G N channels: B's, then C's
    scan_BGNM: jax.Array  # float32, as the recurrence


def init_state(config: ModelConfig, batch: int, max_length: int) -> Mamba2State:
    """Zeros: nothing read yet. `max_length` does not matter."""
    cfg, P = config.mamba2, config.mamba2.inner(config.width)
    G, N = cfg.groups, cfg.state_size
    conv_input, conv_selection = (
        convolution.init_state(batch, cfg.conv_width, channels, config.compute_dtype) for channels in (P, 2 * G * N)
    )
    scan_BGNM = at_least_float32(jnp.zeros((batch, G, N, P // G), config.compute_dtype))
    return Mamba2State(conv_input, conv_selection, scan_BGNM)


class Mamba2(nn.Module):
    """The block of figure 6 (right), without its norm and residual."""

    config: ModelConfig
    layer: int

    @nn.compact
    def __call__(
        self, x_BLD: jax.Array, state: Mamba2State | None, shared: Shared
    ) -> tuple[jax.Array, Mamba2State | None, Shared]:
        cfg, D = self.config.mamba2, self.config.width
        P, H = cfg.inner(D), cfg.heads(D)
        A_log_H = parameter(self, "A_log", (H,), "heads", LogUniformA(), "vector")
        skip_H = parameter(self, "skip", (H,), "heads", ones, "vector")
        gain_P = parameter(self, "gain", (P,), "inner", ones, "vector")
        out_PD = parameter(self, "out", (P, D), "inner width", UNIFORM_OUT, "hidden")

        before = init_state(self.config, x_BLD.shape[0], 0) if state is None else state
        input_BLP, selection_BLC, gate_BLP, dt_BLH = self._projected(x_BLD)
        input_BLHK, B_BLGN, C_BLGN, conv_states = self._convolved(input_BLP, selection_BLC, state, shared.mask_BL)
        dt_BLH = self._steps(dt_BLH, shared.mask_BL)
        A_H = -jnp.exp(A_log_H.astype(before.scan_BGNM.dtype))
        y_BLHK, scan_BGNM = ssd(
            algorithm(self.config, "mamba2"), cfg.chunk,
            input_BLHK, dt_BLH, A_H, B_BLGN, C_BLGN, before.scan_BGNM,
        )  # fmt: skip
        y_BLHK = y_BLHK.astype(x_BLD.dtype) + input_BLHK * skip_H.astype(x_BLD.dtype)[None, None, :, None]
        y_BLP = y_BLHK.reshape(*x_BLD.shape[:2], P) * jax.nn.silu(gate_BLP)
        by_group_BLGM = y_BLP.reshape(*x_BLD.shape[:2], cfg.groups, P // cfg.groups)
        normed_BLGM = RMSNorm(self.config.norm_epsilon, "inner", learned=False, name="norm")(by_group_BLGM)
        y_BLP = along_last(jnp.multiply, normed_BLGM.reshape(y_BLP.shape), gain_P)
        y_BLP = constrain(y_BLP, "batch length inner")
        state = None if state is None else Mamba2State(*conv_states, scan_BGNM)
        return project(y_BLP, out_PD), state, shared

    def _projected(self, x_BLD: jax.Array) -> tuple[jax.Array, ...]:
        """What the scan reads (B, L, P), B and C (B, L, 2GN), the gate (B, L, P) and the steps (B, L, H), all raw."""
        cfg, D = self.config.mamba2, self.config.width
        P, C = cfg.inner(D), 2 * cfg.groups * cfg.state_size
        sizes = {"input": (P, "width inner"), "selection": (C, "width narrow"), "gate": (P, "width inner")}
        sizes["dt"] = (cfg.heads(D), "width heads")
        roles = {"selection": "narrow"}  # as many states and groups at every width
        weights = (
            (parameter(self, name, (D, n), axes, UNIFORM, roles.get(name, "hidden")), axes)
            for name, (n, axes) in sizes.items()
        )
        return project_each(x_BLD, *weights)

    def _convolved(
        self, input_BLP: jax.Array, selection_BLC: jax.Array, state: Mamba2State | None, mask_BL: jax.Array | None
    ) -> tuple[jax.Array, jax.Array, jax.Array, tuple]:
        """(input_BLHK, B_BLGN, C_BLGN, the states of both convolutions)."""
        cfg, D = self.config.mamba2, self.config.width
        B, L, G, N = *input_BLP.shape[:2], cfg.groups, cfg.state_size
        input_BLP, conv_input = CausalConvolution(cfg.conv_width, self.layer, name="conv_input")(
            input_BLP, None if state is None else state.conv_input_BWP, mask_BL
        )
        selection_BLC, conv_selection = CausalConvolution(cfg.conv_width, self.layer, name="conv_selection")(
            selection_BLC, None if state is None else state.conv_selection_BWC, mask_BL
        )
        selection_BLC = constrain(selection_BLC, "batch length state")  # split no more: all heads of a group read them
        input_BLHK = jax.nn.silu(input_BLP).reshape(B, L, cfg.heads(D), cfg.head_dim)
        input_BLHK = constrain(input_BLHK, "batch length heads head_dim")
        selection_BLGN = jax.nn.silu(selection_BLC).reshape(B, L, 2 * G, N)
        return input_BLHK, selection_BLGN[:, :, :G], selection_BLGN[:, :, G:], (conv_input, conv_selection)

    def _steps(self, dt_BLH: jax.Array, mask_BL: jax.Array | None) -> jax.Array:
        """dt_BLH, positive, float32, and 0 at padding."""
        bias_H = parameter(self, "dt_bias", dt_BLH.shape[2:], "heads", DtBias(), "vector")
        dt_BLH = jax.nn.softplus(along_last(jnp.add, at_least_float32(dt_BLH), bias_H))
        return dt_BLH if mask_BL is None else jnp.where(mask_BL[:, :, None], dt_BLH, 0)


@dataclass(frozen=True)
class LogUniformA:
    """Initialiser: the logarithm of rates drawn evenly from [low, high], as in the published code."""

    low: float = 1.0
    high: float = 16.0

    def __call__(self, key: jax.Array, shape: tuple[int, ...], layer: jax.Array | int) -> jax.Array:
        return jnp.log(jax.random.uniform(key, shape, minval=self.low, maxval=self.high))


def params(config: ModelConfig) -> int:
    """Parameters of one layer: matrices, both convolutions, gain, and a dt bias, A and skip per head."""
    cfg, P = config.mamba2, config.mamba2.inner(config.width)
    convolved = convolution.params(cfg.conv_width, P + 2 * cfg.groups * cfg.state_size)
    return matmul_params(config) + convolved + P + 3 * cfg.heads(config.width)


def matmul_params(config: ModelConfig) -> int:
    """Parameters each token is multiplied with: gate, input, selection, dt and out."""
    cfg, D = config.mamba2, config.width
    return D * (3 * cfg.inner(D) + 2 * cfg.groups * cfg.state_size + cfg.heads(D))


def sequence_flops(config: ModelConfig, length: int) -> int:
    """4 L N P: each token is written to a state of N P numbers and read from it."""
    return 4 * length * config.mamba2.state_size * config.mamba2.inner(config.width)


def executed_flops(config: ModelConfig, length: int) -> int:
    """2 L (Q G N + Q P + 2 N P) for `chunked`: scores, mixing, writing and reading states; L rounded up to chunks.

    Every score of a chunk is counted. `recurrent` has no matrix products.
    """
    cfg, P = config.mamba2, config.mamba2.inner(config.width)
    if cfg.algorithm == "recurrent":
        return 0
    N, Q = cfg.state_size, min(cfg.chunk, length)
    return 2 * math.ceil(length / Q) * Q * (Q * cfg.groups * N + Q * P + 2 * N * P)


def elementwise_flops(config: ModelConfig, length: int) -> int:
    """The convolutions, 2 W (P + 2 G N) per token, dt * x, the skip and the recurrence outside of matrix products.

    `recurrent`: 5 N P per token (decay 1, write 2, read 2). `chunked`: 3 H Q per token for the decays between a chunk's
    tokens and their product with the scores, 3 P for decays to the chunk's end and from its start, and the states'
    own recurrence, 2 N P per chunk.
    """
    cfg, P = config.mamba2, config.mamba2.inner(config.width)
    N, Q = cfg.state_size, min(cfg.chunk, length)
    convolved = convolution.elementwise_flops(cfg.conv_width, P + 2 * cfg.groups * N, length)
    if cfg.algorithm == "recurrent":
        scan = length * 5 * N * P
    else:
        chunks = math.ceil(length / Q)
        scan = chunks * (Q * (3 * cfg.heads(config.width) * Q + 3 * P) + 2 * N * P)
    return convolved + 3 * length * P + scan


def state_bytes(config: ModelConfig, length: int, bytes_per_value: int) -> int:
    """Decode state of one layer: the convolutions' in the compute dtype, the recurrence's in at least float32."""
    cfg, P = config.mamba2, config.mamba2.inner(config.width)
    convolved = convolution.state_bytes(cfg.conv_width, P + 2 * cfg.groups * cfg.state_size, bytes_per_value)
    return convolved + P * cfg.state_size * max(4, bytes_per_value)

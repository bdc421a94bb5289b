"""Mamba (Gu & Dao 2023): a gated recurrence whose step size dt and matrices B and C depend on the token.

A block is [input, gate] = x W, a short causal convolution and silu on the input, the selective scan of it, and
out((y + D input) * silu(gate)). Jamba adds norms of dt, B and C (`inner_norms`).
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
from research.models.state_spaces.selective_scan import selective_scan
from research.sharding import constrain

FLOPS_PER_STATE_ENTRY = 7  # decay and its exponential 2, input 1, update 2, read-out 2


class MambaState(flax.struct.PyTreeNode):
    """What decoding carries, of one size at any length."""

    conv_BWP: jax.Array  # the last W - 1 inputs of the convolution
    scan_BNP: jax.Array  # float32, as the recurrence


def init_state(config: ModelConfig, batch: int, max_length: int) -> MambaState:
    """Zeros: nothing read yet. `max_length` does not matter."""
    cfg, P = config.mamba, config.mamba.inner(config.width)
    conv_BWP = convolution.init_state(batch, cfg.conv_width, P, config.compute_dtype)
    return MambaState(conv_BWP, at_least_float32(jnp.zeros((batch, cfg.state_size, P), config.compute_dtype)))


class Mamba(nn.Module):
    """The block of figure 3, without its norm and residual."""

    config: ModelConfig
    layer: int

    @nn.compact
    def __call__(
        self, x_BLD: jax.Array, state: MambaState | None, shared: Shared
    ) -> tuple[jax.Array, MambaState | None, Shared]:
        cfg, D = self.config.mamba, self.config.width
        N, P = cfg.state_size, cfg.inner(D)
        input_DP = parameter(self, "input", (D, P), "width inner", UNIFORM, "hidden")
        gate_DP = parameter(self, "gate", (D, P), "width inner", UNIFORM, "hidden")
        A_log_NP = parameter(self, "A_log", (N, P), "state inner", log_of_counts, "vector")
        skip_P = parameter(self, "skip", (P,), "inner", ones, "vector")
        out_PD = parameter(self, "out", (P, D), "inner width", UNIFORM_OUT, "hidden")

        before = init_state(self.config, x_BLD.shape[0], 0) if state is None else state
        input_BLP, gate_BLP = project_each(x_BLD, (input_DP, "width inner"), (gate_DP, "width inner"))
        convolved_BLP, conv_BWP = CausalConvolution(cfg.conv_width, self.layer, name="conv")(
            input_BLP, None if state is None else state.conv_BWP, shared.mask_BL
        )
        convolved_BLP = constrain(jax.nn.silu(convolved_BLP), "batch length inner")
        dt_BLP, B_BLN, C_BLN = self._selection(convolved_BLP, shared.mask_BL)
        A_NP = -jnp.exp(A_log_NP.astype(before.scan_BNP.dtype))
        y_BLP, scan_BNP = selective_scan(
            algorithm(self.config, "mamba"), cfg.chunk,
            convolved_BLP, dt_BLP, A_NP, B_BLN, C_BLN, before.scan_BNP,
        )  # fmt: skip
        y_BLP = y_BLP.astype(x_BLD.dtype) + along_last(jnp.multiply, convolved_BLP, skip_P)
        y_BLP = constrain(y_BLP * jax.nn.silu(gate_BLP), "batch length inner")
        state = None if state is None else MambaState(conv_BWP, scan_BNP)
        return project(y_BLP, out_PD), state, shared

    def _selection(self, convolved_BLP: jax.Array, mask_BL: jax.Array | None) -> tuple[jax.Array, jax.Array, jax.Array]:
        """(dt_BLP, B_BLN, C_BLN) of each token; dt is float32, and 0 at padding."""
        cfg = self.config.mamba
        N, P, R = cfg.state_size, convolved_BLP.shape[-1], cfg.rank(self.config.width)
        base_width = self.config.parametrisation.base_of(self.config.width)
        ratio = cfg.rank_ratio(self.config.width, base_width)
        role = "narrow" if cfg.inner_norms == "none" else "normed"
        selection_PR = parameter(self, "selection", (P, R + 2 * N), "inner selected", UNIFORM, role)
        dt_RP = parameter(self, "dt", (R, P), "rank inner", UNIFORM, "hidden", rank_ratio=ratio)
        bias_P = parameter(self, "dt_bias", (P,), "inner", DtBias(), "vector")
        low_BLR, B_BLN, C_BLN = jnp.split(project(convolved_BLP, selection_PR), (R, R + N), axis=-1)
        if cfg.inner_norms != "none":
            learned = cfg.inner_norms == "learned"
            low_BLR = RMSNorm(cfg.inner_norm_epsilon, "rank", learned, name="dt_norm")(low_BLR)
            B_BLN = RMSNorm(cfg.inner_norm_epsilon, "state", learned, name="B_norm")(B_BLN)
            C_BLN = RMSNorm(cfg.inner_norm_epsilon, "state", learned, name="C_norm")(C_BLN)
        dt_BLP = jax.nn.softplus(along_last(jnp.add, at_least_float32(project(low_BLR, dt_RP)), bias_P))
        if mask_BL is not None:
            dt_BLP = jnp.where(mask_BL[:, :, None], dt_BLP, 0)
        return dt_BLP, B_BLN, C_BLN


@dataclass(frozen=True)
class DtBias:
    """Initialiser: softplus of it is log-uniform in [low, high] (section 3.6), not below the code's floor."""

    low: float = 1e-3
    high: float = 1e-1
    floor: float = 1e-4

    def __call__(self, key: jax.Array, shape: tuple[int, ...], layer: jax.Array | int) -> jax.Array:
        logs = jax.random.uniform(key, shape, minval=math.log(self.low), maxval=math.log(self.high))
        steps = jnp.maximum(jnp.exp(logs), self.floor)
        return steps + jnp.log(-jnp.expm1(-steps))


def log_of_counts(key: jax.Array, shape: tuple[int, ...], layer: jax.Array | int) -> jax.Array:
    """Initialiser S4D-Real (section 3.6): state entry n of every channel decays at rate n, counted from 1."""
    counts_N1 = jnp.arange(1, shape[0] + 1, dtype=jnp.float32)[:, None]
    return jnp.broadcast_to(jnp.log(counts_N1), shape)


def params(config: ModelConfig) -> int:
    """Parameters of one layer: matrices, convolution, dt bias, A, skip and, if there are any, the inner norms."""
    cfg = config.mamba
    N, P, R = cfg.state_size, cfg.inner(config.width), cfg.rank(config.width)
    norms = R + 2 * N if cfg.inner_norms == "learned" else 0
    return matmul_params(config) + convolution.params(cfg.conv_width, P) + P * (N + 2) + norms


def matmul_params(config: ModelConfig) -> int:
    """Parameters each token is multiplied with: input, gate, selection, dt and out."""
    cfg, D = config.mamba, config.width
    N, P, R = cfg.state_size, cfg.inner(config.width), cfg.rank(config.width)
    return 3 * D * P + P * (R + 2 * N) + R * P


def sequence_flops(config: ModelConfig, length: int) -> int:
    """4 L N P: each token is written to a state of N P numbers and read from it. No algorithm has matrix products."""
    return 4 * length * config.mamba.state_size * config.mamba.inner(config.width)


def elementwise_flops(config: ModelConfig, length: int) -> int:
    """L * (7 N P + 3 P + 2 W P): the recurrence, dt * x and the skip, the convolution.

    It is the recurrence that is counted, as `sequential` executes it forward; the associative algorithm executes more.
    """
    cfg, P = config.mamba, config.mamba.inner(config.width)
    scan = length * P * (FLOPS_PER_STATE_ENTRY * cfg.state_size + 3)
    return scan + convolution.elementwise_flops(cfg.conv_width, P, length)


def state_bytes(config: ModelConfig, length: int, bytes_per_value: int) -> int:
    """Decode state of one layer: the convolution's in the compute dtype, the recurrence's in at least float32."""
    cfg, P = config.mamba, config.mamba.inner(config.width)
    return convolution.state_bytes(cfg.conv_width, P, bytes_per_value) + P * cfg.state_size * max(4, bytes_per_value)

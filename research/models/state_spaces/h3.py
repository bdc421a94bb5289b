"""H3: a shift state space on the keys, a diagonal one on key times value, and the query's gate (Fu 2023, section 3.1).

    y_t = q_t . diagonal(shift(k) v^T)_t        per head: the product of key and value channels is an outer one

A whole sequence is two FFT convolutions; with a state both are recurrences, token by token.
"""

import functools

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from research.config import ModelConfig
from research.models.initialisers import NORMAL, NORMAL_OUT, Normal, Uniform, zeros
from research.models.layers import (
    Shared,
    along_last,
    at_least_float32,
    parameter,
    project,
    project_each,
)
from research.models.state_spaces import ssm_kernel
from research.models.state_spaces.ssm_kernel import causal_convolution, diagonal_kernel, diagonal_step, recurrence
from research.models.state_spaces.ssm_parameters import diagonal_system
from research.per_device import on_each_device
from research.sharding import constrain


class H3State(flax.struct.PyTreeNode):
    """The shift's and the diagonal's state, in real numbers: N = `state_size`, heads of K x K products."""

    shift_BHKN: jax.Array
    diagonal_BHKKN: jax.Array


def init_state(config: ModelConfig, batch: int, max_length: int) -> H3State:
    """Nothing read yet: zeros in float32 (float64 where that is the compute dtype), whatever `max_length`."""
    cfg, kind = config.h3, jnp.promote_types(config.compute_dtype, jnp.float32)
    K, N, H = cfg.head_dim, cfg.state_size, config.width // cfg.head_dim
    return H3State(jnp.zeros((batch, H, K, N), kind), jnp.zeros((batch, H, K, K, N), kind))


def first_tap(key: jax.Array, shape: tuple[int, ...], layer: jax.Array | int) -> jax.Array:
    """Initialiser of the shift's input vector: e_1, which makes its readout the taps themselves."""
    return jnp.zeros(shape).at[..., 0].set(1.0)


class H3(nn.Module):
    """The H3 layer of HazyResearch/H3, src/models/ssm/h3.py.

    Its output projection takes heads first where that file, for head_dim above one, takes channels first.
    """

    config: ModelConfig
    layer: int

    @nn.compact
    def __call__(
        self, x_BLD: jax.Array, state: H3State | None, shared: Shared
    ) -> tuple[jax.Array, H3State | None, Shared]:
        D, K = self.config.width, self.config.h3.head_dim
        heads = D // K, K
        q_BLHK, k_BLHK, v_BLHK = self._projected(x_BLD, heads)
        if shared.mask_BL is not None:  # after the projections, whose biases padding would carry into the states
            k_BLHK, v_BLHK = (jnp.where(shared.mask_BL[:, :, None, None], x, 0) for x in (k_BLHK, v_BLHK))
        shift_BHKN, diagonal_BHKKN = (None, None) if state is None else (state.shift_BHKN, state.diagonal_BHKKN)
        # The state spaces and what stands between them in float32.
        key_BLHK, shift_BHKN = self._shifted(at_least_float32(k_BLHK), shift_BHKN, shared.mask_BL)
        pairs_BLHKK = key_BLHK[..., None] * at_least_float32(v_BLHK)[..., None, :]
        mixed_BLHKK, diagonal_BHKKN = self._remembered(pairs_BLHKK, diagonal_BHKKN, shared.mask_BL)
        y_BLHK = (at_least_float32(q_BLHK)[..., None] * mixed_BLHKK).sum(axis=-2).astype(x_BLD.dtype)
        out_HKD = parameter(self, "out", (*heads, D), "heads head_dim width", NORMAL_OUT, "hidden", contracted=2)
        bias_D = parameter(self, "out_bias", (D,), "activation", zeros, "vector")
        y_BLD = along_last(jnp.add, project(y_BLHK, out_HKD, contracted=2), bias_D)
        return y_BLD, None if state is None else H3State(shift_BHKN, diagonal_BHKKN), shared

    def _projected(self, x_BLD: jax.Array, heads: tuple[int, int]) -> list[jax.Array]:
        """Queries, keys and values, (B, L, H, K) each."""
        D, names, axes = self.config.width, ("query", "key", "value"), "width heads head_dim"
        weights = ((parameter(self, name, (D, *heads), axes, NORMAL, "hidden"), axes) for name in names)
        projected = []
        for name, of_name_BLHK in zip(names, project_each(x_BLD, *weights)):
            bias_HK = parameter(self, f"{name}_bias", heads, "heads head_dim", zeros, "vector")
            of_name_BLHK += bias_HK.astype(x_BLD.dtype)[None, None]
            projected.append(constrain(of_name_BLHK, "batch length heads head_dim"))
        return projected

    def _shifted(
        self, k_BLHK: jax.Array, state_BHKN: jax.Array | None, mask_BL: jax.Array | None
    ) -> tuple[jax.Array, jax.Array | None]:
        """(the shift state space of the keys and a share of the keys themselves, the state after them)."""
        shape = (*k_BLHK.shape[2:], self.config.h3.state_size)
        input_HKN = parameter(self, "shift_input", shape, "heads head_dim taps", first_tap, "dynamics")
        readout_init = Uniform(shape[-1] ** -0.5)
        readout_HKN = parameter(self, "shift_readout", shape, "heads head_dim taps", readout_init, "kernel")
        skip_HK = parameter(self, "shift_skip", shape[:2], "heads head_dim", Normal(1.0), "vector")
        if state_BHKN is None:
            shifted_BLHK = causal_convolution(k_BLHK, shift_taps(input_HKN, readout_HKN, k_BLHK.shape[1]))
        else:
            step = functools.partial(shift_step, input_HKN, readout_HKN)
            shifted_BLHK, state_BHKN = recurrence(step, state_BHKN, k_BLHK, mask_BL)
        return shifted_BLHK + skip_HK[None, None] * k_BLHK, state_BHKN

    def _remembered(
        self, pairs_BLHKK: jax.Array, state_BHKKN: jax.Array | None, mask_BL: jax.Array | None
    ) -> tuple[jax.Array, jax.Array | None]:
        """(the diagonal state space of the products and a share of the products themselves, the state after them)."""
        L, H = pairs_BLHKK.shape[1:3]
        system = diagonal_system(self, self.config.h3, H, "heads", learned_input=True)
        system = jax.tree.map(lambda leaf_HN: leaf_HN[:, None, None], system)
        skip_H = parameter(self, "skip", (H,), "heads", Normal(1.0), "vector")
        if state_BHKKN is None:
            mixed_BLHKK = causal_convolution(pairs_BLHKK, diagonal_kernel(system, L))
        else:
            step = functools.partial(diagonal_step, system)
            mixed_BLHKK, state_BHKKN = recurrence(step, state_BHKKN, pairs_BLHKK, mask_BL)
        return mixed_BLHKK + skip_H[None, None, :, None, None] * pairs_BLHKK, state_BHKKN


def shift_taps(input_HKN: jax.Array, readout_HKN: jax.Array, length: int) -> jax.Array:
    """taps_LHK of the shift state space, at most N of them: tap l = sum_n input_n readout_{n + l}, by real FFTs."""
    N = input_HKN.shape[-1]

    def taps(input_HKN: jax.Array, readout_HKN: jax.Array) -> jax.Array:
        spectrum = jnp.fft.rfft(input_HKN, n=2 * N).conj() * jnp.fft.rfft(readout_HKN, n=2 * N)
        return jnp.moveaxis(jnp.fft.irfft(spectrum, n=2 * N)[..., : min(N, length)], -1, 0)

    return on_each_device(taps, ("spread", "spread"), "taps spread")(input_HKN, readout_HKN)


def shift_step(
    input_HKN: jax.Array, readout_HKN: jax.Array, state_BHKN: jax.Array, k_BHK: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """(y_BHK, the state one place further on, with input * k added)."""
    moved_BHKN = jnp.pad(state_BHKN[..., :-1], ((0, 0), (0, 0), (0, 0), (1, 0)))
    state_BHKN = moved_BHKN + input_HKN[None] * k_BHK[..., None]
    return (readout_HKN[None] * state_BHKN).sum(axis=-1), state_BHKN


def params(config: ModelConfig) -> int:
    """Parameters of one layer: four projections with biases; the shift's two vectors and skip; the diagonal's six."""
    D, N = config.width, config.h3.state_size
    return 4 * D * (D + 1) + D * (2 * N + 1) + D // config.h3.head_dim * (3 * N + 2)


def matmul_params(config: ModelConfig) -> int:
    """Parameters each token is multiplied with: the four projections."""
    return 4 * config.width**2


def sequence_flops(config: ModelConfig, length: int) -> int:
    """4 L N D (1 + K): each token is written to both states and read from them, though FFTs compute it."""
    return 4 * length * config.h3.state_size * config.width * (1 + config.h3.head_dim)


def elementwise_flops(config: ModelConfig, length: int) -> int:
    """Of one sequence alone, forward: both kernels, which a batch shares, both convolutions, and the gates.

    Gates, skips and the sum over key channels: 2 per channel, 5 per pair of key and value channels.
    """
    D, K, N = config.width, config.h3.head_dim, config.h3.state_size
    shift = D * (3 * ssm_kernel.fft_flops(2 * N) + 6 * (N + 1)) + ssm_kernel.convolution_flops(D, D, length)
    diagonal = ssm_kernel.diagonal_kernel_flops(D // K, N // 2, length)
    return shift + diagonal + ssm_kernel.convolution_flops(D * K, D // K, length) + D * length * (2 + 5 * K)


def state_bytes(config: ModelConfig, length: int, bytes_per_value: int) -> int:
    """State of one layer and sequence, at least float32 whatever the compute dtype."""
    cfg = config.h3
    return config.width * cfg.state_size * (1 + cfg.head_dim) * max(4, bytes_per_value)

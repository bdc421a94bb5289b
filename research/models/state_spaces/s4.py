"""S4 and S4D: one linear state space per channel, then GELU and a gated linear layer (Gu 2022; Gu 2022b, S4D).

A whole sequence is an FFT convolution with the state space's kernel. With a state it is the recurrence, token by token:
the two agree to rounding, and the recurrence costs the same at every length of the past.
"""

import functools

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from research.config import ModelConfig
from research.models.initialisers import NORMAL_OUT, Normal, zeros
from research.models.layers import Shared, along_last, parameter, project
from research.models.state_spaces import ssm_kernel
from research.models.state_spaces.ssm_kernel import Diagonal, LowRank, causal_convolution, recurrence
from research.models.state_spaces.ssm_parameters import diagonal_system, low_rank_system
from research.sharding import constrain


class S4State(flax.struct.PyTreeNode):
    """What has been read, in real numbers: N = `state_size`.

    readout_DN: the dplr kernel's output vector, which follows from the parameters at the price of many matrix products;
    it is found when `ready` is false, and kept. Both are None with the diagonal kernel.
    """

    hidden_BDN: jax.Array
    readout_DN: jax.Array | None
    ready: jax.Array | None


def init_state(config: ModelConfig, batch: int, max_length: int) -> S4State:
    """Nothing read yet: zeros in float32 (float64 where that is the compute dtype), whatever `max_length`."""
    kind, shape = jnp.promote_types(config.compute_dtype, jnp.float32), (config.width, config.s4.state_size)
    hidden_BDN = jnp.zeros((batch, *shape), kind)
    if config.s4.kernel == "diagonal":
        return S4State(hidden_BDN, None, None)
    return S4State(hidden_BDN, jnp.zeros(shape, kind), jnp.zeros((), bool))


class S4(nn.Module):
    """GLU(gelu(ssm(x) + skip x) out + bias), as in state-spaces/s4, models/s4/s4d.py; exact GELU."""

    config: ModelConfig
    layer: int

    @nn.compact
    def __call__(
        self, x_BLD: jax.Array, state: S4State | None, shared: Shared
    ) -> tuple[jax.Array, S4State | None, Shared]:
        cfg, D = self.config.s4, self.config.width
        if cfg.kernel == "dplr":
            system = low_rank_system(self, cfg, D, "inner")
        else:
            system = diagonal_system(self, cfg, D, "inner", learned_input=False)
        skip_D = parameter(self, "skip", (D,), "inner", Normal(1.0), "vector")
        out_DF = parameter(self, "out", (D, 2 * D), "inner width", NORMAL_OUT, "hidden")
        bias_F = parameter(self, "out_bias", (2 * D,), "activation", zeros, "vector")

        u_BLD = constrain(x_BLD, "batch length inner")
        if shared.mask_BL is not None:
            u_BLD = jnp.where(shared.mask_BL[:, :, None], u_BLD, 0)
        if state is None:
            y_BLD = causal_convolution(u_BLD, _kernel(system, u_BLD.shape[1], cfg.kernel_length))
        else:
            y_BLD, state = _read(system, cfg.kernel_length, u_BLD, state, shared.mask_BL)
        y_BLD = y_BLD.astype(x_BLD.dtype) + along_last(jnp.multiply, u_BLD, skip_D)
        gated_BLF = along_last(jnp.add, project(jax.nn.gelu(y_BLD, approximate=False), out_DF), bias_F)
        halves_BL2D = constrain(gated_BLF.reshape(*x_BLD.shape[:2], 2, D), "batch length gates hidden")
        return halves_BL2D[:, :, 0] * jax.nn.sigmoid(halves_BL2D[:, :, 1]), state, shared


def _kernel(system: Diagonal | LowRank, length: int, kernel_length: int) -> jax.Array:
    """kernel_LD of `length` taps. Raises ValueError if the dplr kernel has fewer."""
    if isinstance(system, Diagonal):
        return ssm_kernel.diagonal_kernel(system, length)
    if length > kernel_length:
        raise ValueError(f"a sequence of {length} tokens is longer than model.s4.kernel_length = {kernel_length}")
    return ssm_kernel.dplr_kernel(system, kernel_length)[:length]


def _read(
    system: Diagonal | LowRank, kernel_length: int, u_BLD: jax.Array, state: S4State, mask_BL: jax.Array | None
) -> tuple[jax.Array, S4State]:
    """(y_BLD, the state after u), by the recurrence."""
    if isinstance(system, Diagonal):
        step = functools.partial(ssm_kernel.diagonal_step, system)
    else:
        readout_DN = jax.lax.cond(
            state.ready, lambda: state.readout_DN, lambda: ssm_kernel.dplr_readout(system, kernel_length)
        )
        state = state.replace(readout_DN=readout_DN, ready=jnp.ones((), bool))
        step = functools.partial(ssm_kernel.dplr_step, system, readout_DN)
    y_BLD, hidden_BDN = recurrence(step, state.hidden_BDN, u_BLD, mask_BL)
    return y_BLD, state.replace(hidden_BDN=hidden_BDN)


def params(config: ModelConfig) -> int:
    """Parameters of one layer: eigenvalues, readout, with dplr low rank and input; step, skip; the linear layer."""
    vectors = 4 if config.s4.kernel == "dplr" else 2
    return config.width * (vectors * config.s4.state_size + 2) + 2 * config.width * (config.width + 1)


def matmul_params(config: ModelConfig) -> int:
    """Parameters each token is multiplied with: the linear layer's matrix."""
    return 2 * config.width**2


def sequence_flops(config: ModelConfig, length: int) -> int:
    """4 L N D: each token is written to N numbers per channel and read from them, though FFTs compute it."""
    return 4 * length * config.s4.state_size * config.width


def elementwise_flops(config: ModelConfig, length: int) -> int:
    """Of one sequence alone, forward: the kernel, which a batch shares, and the convolution with it."""
    channels, pairs = config.width, config.s4.state_size // 2
    if config.s4.kernel == "dplr":
        kernel = ssm_kernel.dplr_kernel_flops(channels, pairs, config.s4.kernel_length)
    else:
        kernel = ssm_kernel.diagonal_kernel_flops(channels, pairs, length)
    return kernel + ssm_kernel.convolution_flops(channels, channels, length)


def state_bytes(config: ModelConfig, length: int, bytes_per_value: int) -> int:
    """State of one layer and sequence, at least float32 whatever the compute dtype; with dplr also its readout."""
    copies = 2 if config.s4.kernel == "dplr" else 1
    return copies * config.width * config.s4.state_size * max(4, bytes_per_value)

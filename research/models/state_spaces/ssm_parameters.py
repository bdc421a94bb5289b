"""The parameters of linear state spaces, how they start, and the systems they make: for S4, S4D and H3.

All are real numbers, real and imaginary parts apart. What a state moves by (eigenvalues, low rank vector, input vector,
step) has the role `dynamics`, as in state-spaces/s4: no weight decay, and a learning rate that is capped.
"""

import functools
import math
from dataclasses import dataclass
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from research.config import Eigenvalues, H3Config, S4Config
from research.models.initialisers import Initializer, Normal, ones, zeros
from research.models.layers import parameter
from research.models.state_spaces import hippo
from research.models.state_spaces.ssm_kernel import Diagonal, LowRank, discretize
from research.optim.parametrisation import Role

UNIT_COMPLEX = Normal(0.5**0.5)  # of real and imaginary part each: a complex normal of variance one


@dataclass(frozen=True)
class Start:
    """Initialiser: the same numbers in every channel, those of `hippo`.

    log_damping, frequency: log(-Re) and Im of the eigenvalues; low_rank, input: the vectors of LegS, which are real.
    """

    part: Literal["log_damping", "frequency", "low_rank", "input"]
    initialisation: Eigenvalues

    def __call__(self, key: jax.Array, shape: tuple[int, ...], layer: jax.Array | int) -> jax.Array:
        state_size = 2 * shape[-1]
        if self.part in ("low_rank", "input"):
            vector_N = hippo.diagonal_plus_low_rank(state_size)[1 if self.part == "low_rank" else 2]
        else:
            eigenvalues_N = hippo.eigenvalues(self.initialisation, state_size)
            vector_N = np.log(-eigenvalues_N.real) if self.part == "log_damping" else eigenvalues_N.imag
        return jnp.broadcast_to(jnp.asarray(vector_N, jnp.float32), shape)


@dataclass(frozen=True)
class LogUniform:
    """Initialiser: logarithms, uniform between those of `low` and `high`."""

    low: float
    high: float

    def __call__(self, key: jax.Array, shape: tuple[int, ...], layer: jax.Array | int) -> jax.Array:
        return jax.random.uniform(key, shape, minval=math.log(self.low), maxval=math.log(self.high))


def diagonal_system(
    module: nn.Module, config: S4Config | H3Config, channels: int, axis: str, learned_input: bool
) -> Diagonal:
    """Declare the diagonal state spaces of `channels` channels along the logical `axis`, and discretise them.

    Without `learned_input` B is 1: the kernel holds it only as a factor of C (state-spaces/s4, models/s4/s4d.py).
    """
    shape = (channels, config.state_size // 2)
    eigenvalue_DN, step_D = _dynamics(module, config, shape, axis)
    vector = functools.partial(_complex, module, shape=shape, axes=f"{axis} state")
    input_DN = vector("input", ones, role="dynamics") if learned_input else jnp.ones((1, 1), eigenvalue_DN.dtype)
    readout_DN = vector("readout", UNIT_COMPLEX, UNIT_COMPLEX, role="kernel")
    return discretize(eigenvalue_DN, input_DN, readout_DN, step_D, config.discretisation)


def low_rank_system(module: nn.Module, config: S4Config, channels: int, axis: str) -> LowRank:
    """Declare the diagonal-plus-low-rank state spaces of `channels` channels along the logical `axis`.

    C (I - Abar^length) itself is drawn and learned, as in srush/annotated-s4; C follows from it.
    """
    shape = (channels, config.state_size // 2)
    eigenvalue_DN, step_D = _dynamics(module, config, shape, axis)
    vector = functools.partial(_complex, module, shape=shape, axes=f"{axis} state")
    return LowRank(
        eigenvalue_DN,
        vector("low_rank", Start("low_rank", "legs"), role="dynamics"),
        vector("input", Start("input", "legs"), role="dynamics"),
        vector("readout", UNIT_COMPLEX, UNIT_COMPLEX, role="kernel"),
        step_D,
    )


def _dynamics(module: nn.Module, config: S4Config | H3Config, shape: tuple[int, int], axis: str) -> tuple:
    """(eigenvalues -exp(log_damping) + i frequency, steps): the real part is negative whatever is learned."""
    part = functools.partial(parameter, module, shape=shape, axes=f"{axis} state", role="dynamics")
    log_damping_DN = part("log_damping", init=Start("log_damping", config.initialisation))
    frequency_DN = part("frequency", init=Start("frequency", config.initialisation))
    steps = LogUniform(config.dt_min, config.dt_max)
    log_dt_D = parameter(module, "log_dt", shape[:1], axis, steps, "dynamics")
    return jax.lax.complex(-jnp.exp(log_damping_DN), frequency_DN), jnp.exp(log_dt_D)


def _complex(
    module: nn.Module,
    name: str,
    real: Initializer,
    imaginary: Initializer = zeros,
    *,
    shape: tuple[int, int],
    axes: str,
    role: Role,
) -> jax.Array:
    """A vector of complex numbers from two parameters."""
    return jax.lax.complex(
        parameter(module, f"{name}_real", shape, axes, real, role),
        parameter(module, f"{name}_imaginary", shape, axes, imaginary, role),
    )

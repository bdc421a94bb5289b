"""Position-wise feed-forward layers: gated (Shazeer 2020) and plain ones."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from research.config import ModelConfig
from research.models.layers import Normal, Shared, along_last, parameter, project, zeros
from research.sharding import constrain

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "swiglu": jax.nn.silu,
    "geglu": lambda x: jax.nn.gelu(x, approximate=True),
    "gelu": lambda x: jax.nn.gelu(x, approximate=True),
    "gelu_exact": lambda x: jax.nn.gelu(x, approximate=False),
    "relu": jax.nn.relu,
    "relu_squared": lambda x: jnp.square(jax.nn.relu(x)),
}


class Mlp(nn.Module):
    """down(activation(x gate) * (x up)) for a gated activation, down(activation(x up)) for another."""

    config: ModelConfig
    layer: int

    @nn.compact
    def __call__(self, x_BLD: jax.Array, state: None, shared: Shared) -> tuple[jax.Array, None, Shared]:
        D, F, cfg = self.config.width, self.config.mlp.hidden, self.config.mlp
        activation, into = ACTIVATIONS[cfg.activation], Normal(D**-0.5)
        hidden_BLF = self._linear(x_BLD, "up", (D, F), "width hidden", into)
        if cfg.gated:
            hidden_BLF = activation(self._linear(x_BLD, "gate", (D, F), "width hidden", into)) * hidden_BLF
        else:
            hidden_BLF = activation(hidden_BLF)
        hidden_BLF = constrain(hidden_BLF, "batch length hidden")
        out_of = Normal((F * 2 * self.config.depth) ** -0.5)
        return self._linear(hidden_BLF, "down", (F, D), "hidden width", out_of), None, shared

    def _linear(self, x: jax.Array, name: str, shape: tuple[int, int], axes: str, init: Normal) -> jax.Array:
        y = project(x, parameter(self, name, shape, axes, init, "hidden"))
        if not self.config.mlp.biases:
            return y
        return along_last(jnp.add, y, parameter(self, f"{name}_bias", shape[1:], axes.split()[1], zeros, "vector"))


def params(config: ModelConfig) -> int:
    """Parameters of one layer: its two or three matrices and their biases."""
    cfg = config.mlp
    biases = cfg.hidden * (2 if cfg.gated else 1) + config.width
    return matmul_params(config) + (biases if cfg.biases else 0)


def matmul_params(config: ModelConfig) -> int:
    """Parameters each token is multiplied with: the matrices."""
    return config.width * config.mlp.hidden * (3 if config.mlp.gated else 2)

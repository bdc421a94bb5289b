"""Position-wise feed-forward layers: gated (Shazeer 2020) and plain ones."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from research.config import ModelConfig
from research.models.initialisers import NORMAL, NORMAL_OUT, zeros
from research.models.layers import Shared, along_last, parameter, project, project_each
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
        activation, axes = ACTIVATIONS[cfg.activation], "width hidden"
        names = ("up", "gate") if cfg.gated else ("up",)
        into = [(parameter(self, name, (D, F), axes, NORMAL, "hidden"), axes) for name in names]
        down_FD = parameter(self, "down", (F, D), "hidden width", NORMAL_OUT, "hidden")
        products = zip(names, project_each(x_BLD, *into))
        up_BLF, *gate_BLF = (self._biased(name, product_BLF, "hidden") for name, product_BLF in products)
        hidden_BLF = activation(gate_BLF[0]) * up_BLF if cfg.gated else activation(up_BLF)
        hidden_BLF = constrain(hidden_BLF, "batch length hidden")
        return self._biased("down", project(hidden_BLF, down_FD), "width"), None, shared

    def _biased(self, name: str, y: jax.Array, axis: str) -> jax.Array:
        if not self.config.mlp.biases:
            return y
        return along_last(jnp.add, y, parameter(self, f"{name}_bias", y.shape[-1:], axis, zeros, "vector"))


def params(config: ModelConfig) -> int:
    """Parameters of one layer: its two or three matrices and their biases."""
    cfg = config.mlp
    biases = cfg.hidden * (2 if cfg.gated else 1) + config.width
    return matmul_params(config) + (biases if cfg.biases else 0)


def matmul_params(config: ModelConfig) -> int:
    """Parameters each token is multiplied with: the matrices."""
    return config.width * config.mlp.hidden * (3 if config.mlp.gated else 2)

"""Position-wise feed-forward layers: SwiGLU (Shazeer 2020) and GELU (Hendrycks 2016, tanh form as in GPT-2)."""

import flax.linen as nn
import jax

from research.model_config import ModelConfig
from research.models.layers import Normal, Shared, parameter, project
from research.sharding import constrain


class Mlp(nn.Module):
    """down(silu(x gate) * (x up)) or down(gelu(x up)); no biases."""

    config: ModelConfig
    layer: int

    @nn.compact
    def __call__(self, x_BLD: jax.Array, state: None, shared: Shared) -> tuple[jax.Array, None, Shared]:
        D, F = self.config.width, self.config.mlp.hidden
        up_DF = parameter(self, "up", (D, F), "width hidden", Normal(D**-0.5), "hidden")
        down_init = Normal((F * 2 * self.config.depth) ** -0.5)
        down_FD = parameter(self, "down", (F, D), "hidden width", down_init, "hidden")
        hidden_BLF = project(x_BLD, up_DF)
        if self.config.mlp.activation == "swiglu":
            gate_DF = parameter(self, "gate", (D, F), "width hidden", Normal(D**-0.5), "hidden")
            hidden_BLF = jax.nn.silu(project(x_BLD, gate_DF)) * hidden_BLF
        else:
            hidden_BLF = jax.nn.gelu(hidden_BLF, approximate=True)
        hidden_BLF = constrain(hidden_BLF, "batch length hidden")
        return project(hidden_BLF, down_FD), None, shared


def params(config: ModelConfig) -> int:
    """Parameters of one layer."""
    return config.width * config.mlp.hidden * (3 if config.mlp.activation == "swiglu" else 2)


def matmul_params(config: ModelConfig) -> int:
    """Parameters each token is multiplied with: all of them."""
    return params(config)

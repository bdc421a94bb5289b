"""Balance without a loss: the bias of each expert's selection, moved after every step against its load."""

from typing import Any

import jax.numpy as jnp

from research.config import MoeConfig
from research.models.experts.router import RouterStatistics


def balanced(config: MoeConfig, params: Any, statistics: Any) -> Any:
    """params with every router's bias moved by bias_rate * sign(mean load - load) (DeepSeek-V3, section 2.1.2).

    `statistics` are those of the step's whole batch, as training.routing.summed gives them. No gradient is involved:
    the bias decides who is selected and enters no value.
    """
    if config.bias_rate is None or not statistics:
        return params
    moved = dict(params)
    for name, found in statistics.items():
        if isinstance(found, RouterStatistics):
            load = found.load_BE
            step = config.bias_rate * jnp.sign(load.mean(axis=-1, keepdims=True) - load)
            moved["bias"] = params["bias"] + step.astype(params["bias"].dtype)
        else:
            moved[name] = balanced(config, params[name], found)
    return moved

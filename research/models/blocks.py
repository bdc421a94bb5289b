"""The names a block pattern may use: each maps to its module and the closed forms that count it.

Adding an architecture is one file in this folder and one line here.
"""

import difflib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn

from research.config import ModelConfig
from research.models import attention, mlp
from research.values import ConfigError


class SequenceMixer(NamedTuple):
    """Mixes along the sequence: `module(config)(x_BLD, state) -> (y_BLD, state)`; counts are per layer."""

    module: type[nn.Module]
    init_state: Callable[[ModelConfig, int, int], Any]  # (config, batch, max_length)
    params: Callable[[ModelConfig], int]
    matmul_params: Callable[[ModelConfig], int]  # multiplied with every token
    sequence_flops: Callable[[ModelConfig, int], int]  # forward, beyond matmul_params, whole sequence of a length
    causal_share: float  # of sequence_flops, that a causal kernel must execute
    state_bytes: Callable[[ModelConfig, int, int], int]  # (config, length, bytes per value), one sequence


class ChannelMixer(NamedTuple):
    """Mixes channels at each position: `module(config)(x_BLD) -> y_BLD`; counts are per layer."""

    module: type[nn.Module]
    params: Callable[[ModelConfig], int]
    matmul_params: Callable[[ModelConfig], int]


SEQUENCE_MIXERS = {
    "attention": SequenceMixer(
        attention.Attention,
        attention.init_state,
        attention.params,
        attention.matmul_params,
        attention.sequence_flops,
        0.5,
        attention.state_bytes,
    ),
}
CHANNEL_MIXERS = {"mlp": ChannelMixer(mlp.Mlp, mlp.params, mlp.matmul_params)}


def layer_mixers(config: ModelConfig) -> tuple[tuple[SequenceMixer, ChannelMixer | None], ...]:
    """The mixers of one period of the pattern, or ConfigError naming the nearest known names."""
    return tuple(
        (_find(SEQUENCE_MIXERS, layer[0], config), _find(CHANNEL_MIXERS, layer[1], config) if layer[1:] else None)
        for layer in config.layers
    )


def _find(known: Mapping[str, Any], name: str, config: ModelConfig) -> Any:
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.3) or list(known)
        raise ConfigError(f"model.pattern = {config.pattern!r}: unknown mixer {name!r}. Nearest: {', '.join(near)}.")
    return known[name]

"""The names a block pattern may use: each maps to its module and the closed forms that count it.

To add a mixer, write its module in the folder of its kind and register it here. Every mixer has one signature,

    module(config, layer)(x_BLD, state, shared) -> (y_BLD, state, shared)

with state None for a whole sequence. With a state it reads any number of further tokens and returns the state after
them. `shared` is handed on, changed only by a mixer whose values other layers read (layers.Shared).
"""

import difflib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn

from research.config import ConfigError, Layer, ModelConfig, check
from research.models import mlp
from research.models.attention import attention, cross_attention, latent_attention
from research.models.experts import moe
from research.models.recurrent import attended_recurrence, lstm_gru, rwkv4, rwkv7
from research.models.state_spaces import h3, mamba, mamba2, s4


class Mixer(NamedTuple):
    """A module and its counts, all of one layer; FLOPs are forward ones.

    A token is multiplied with `matmul_params` (2 FLOPs each); beyond that, over one whole sequence, `sequence_flops` is
    the model's work, whatever computes it (research/plan/cost.py states the convention), of which a causal kernel must
    execute `causal_share`; `executed_flops` are the matrix products that the section's algorithm executes, and
    `elementwise_flops` what recurrences, convolutions and FFTs execute outside of them. The last two are asked with an
    algorithm that is not "auto" (models/algorithms.py).
    """

    module: Callable[..., nn.Module]
    params: Callable[[ModelConfig], int]
    matmul_params: Callable[[ModelConfig], int]
    active_params: Callable[[ModelConfig], int] | None = None  # that one token passes through; None: all
    sequence_flops: Callable[[ModelConfig, int], int] = lambda config, length: 0
    causal_share: float = 1.0
    executed_flops: Callable[[ModelConfig, int], int] = lambda config, length: 0
    elementwise_flops: Callable[[ModelConfig, int], int] = lambda config, length: 0
    init_state: Callable[[ModelConfig, int, int], Any] = lambda config, batch, max_length: None
    state_bytes: Callable[[ModelConfig, int, int], int] = lambda config, length, bytes_per_value: 0  # one sequence
    start_from: Callable[[Any], Any] | None = None  # the encoder layer's final state -> this decoder layer's first


SEQUENCE_MIXERS = {
    "attention": Mixer(
        attention.Attention,
        attention.params,
        attention.matmul_params,
        sequence_flops=attention.sequence_flops,
        executed_flops=attention.executed_flops,
        causal_share=0.5,
        init_state=attention.init_state,
        state_bytes=attention.state_bytes,
    ),
    "latent_attention": Mixer(
        latent_attention.LatentAttention,
        latent_attention.params,
        latent_attention.matmul_params,
        sequence_flops=latent_attention.sequence_flops,
        executed_flops=latent_attention.executed_flops,
        causal_share=0.5,
        init_state=latent_attention.init_state,
        state_bytes=latent_attention.state_bytes,
    ),
    "mamba": Mixer(
        mamba.Mamba,
        mamba.params,
        mamba.matmul_params,
        sequence_flops=mamba.sequence_flops,
        elementwise_flops=mamba.elementwise_flops,
        init_state=mamba.init_state,
        state_bytes=mamba.state_bytes,
    ),
    "mamba2": Mixer(
        mamba2.Mamba2,
        mamba2.params,
        mamba2.matmul_params,
        sequence_flops=mamba2.sequence_flops,
        executed_flops=mamba2.executed_flops,
        elementwise_flops=mamba2.elementwise_flops,
        init_state=mamba2.init_state,
        state_bytes=mamba2.state_bytes,
    ),
    "lstm": Mixer(
        lstm_gru.Lstm,
        lstm_gru.lstm_params,
        lstm_gru.lstm_matmul_params,
        elementwise_flops=lstm_gru.lstm_elementwise_flops,
        init_state=lstm_gru.init_lstm,
        state_bytes=lstm_gru.lstm_state_bytes,
        start_from=lambda state: state,
    ),
    "gru": Mixer(
        lstm_gru.Gru,
        lstm_gru.gru_params,
        lstm_gru.gru_matmul_params,
        elementwise_flops=lstm_gru.gru_elementwise_flops,
        init_state=lstm_gru.init_gru,
        state_bytes=lstm_gru.gru_state_bytes,
        start_from=lambda state: state,
    ),
    "s4": Mixer(
        s4.S4,
        s4.params,
        s4.matmul_params,
        sequence_flops=s4.sequence_flops,
        elementwise_flops=s4.elementwise_flops,
        init_state=s4.init_state,
        state_bytes=s4.state_bytes,
    ),
    "h3": Mixer(
        h3.H3,
        h3.params,
        h3.matmul_params,
        sequence_flops=h3.sequence_flops,
        elementwise_flops=h3.elementwise_flops,
        init_state=h3.init_state,
        state_bytes=h3.state_bytes,
    ),
    "rwkv4_time": Mixer(
        rwkv4.TimeMix,
        rwkv4.time_params,
        rwkv4.time_matmul_params,
        sequence_flops=rwkv4.time_sequence_flops,
        elementwise_flops=rwkv4.time_elementwise_flops,
        init_state=rwkv4.init_time_state,
        state_bytes=rwkv4.time_state_bytes,
    ),
    "rwkv7_first": Mixer(
        partial(rwkv7.TimeMix, first=True),
        partial(rwkv7.time_params, first=True),
        partial(rwkv7.time_matmul_params, first=True),
        sequence_flops=rwkv7.time_sequence_flops,
        executed_flops=rwkv7.time_executed_flops,
        elementwise_flops=rwkv7.time_elementwise_flops,
        init_state=rwkv7.init_time_state,
        state_bytes=rwkv7.time_state_bytes,
    ),
    "rwkv7_time": Mixer(
        rwkv7.TimeMix,
        rwkv7.time_params,
        rwkv7.time_matmul_params,
        sequence_flops=rwkv7.time_sequence_flops,
        executed_flops=rwkv7.time_executed_flops,
        elementwise_flops=rwkv7.time_elementwise_flops,
        init_state=rwkv7.init_time_state,
        state_bytes=rwkv7.time_state_bytes,
    ),
    "cross_attention": Mixer(
        cross_attention.CrossAttention,
        cross_attention.params,
        cross_attention.matmul_params,
        sequence_flops=cross_attention.sequence_flops,
        executed_flops=cross_attention.sequence_flops,
        init_state=cross_attention.init_state,
        state_bytes=cross_attention.state_bytes,
    ),
}


def _attended(plain: Mixer, cell: lstm_gru.Cell, gates: int, score: attended_recurrence.Score) -> Mixer:
    """A recurrent decoder that attends to the source, around the cell of the `plain` mixer."""
    own = attended_recurrence
    return Mixer(
        partial(own.AttendedRecurrence, cell=cell, gates=gates, score=score),
        lambda config: own.params(config, gates, score),
        lambda config: own.matmul_params(config, gates, score),
        sequence_flops=own.sequence_flops,
        executed_flops=own.sequence_flops,
        elementwise_flops=lambda config, length: (
            plain.elementwise_flops(config, length) + own.elementwise_flops(config, length, score)
        ),
        init_state=lambda config, batch, length: own.init_state(config, batch, plain.init_state(config, batch, length)),
        state_bytes=lambda config, length, bytes_per_value: (
            plain.state_bytes(config, length, bytes_per_value) + own.state_bytes(config, bytes_per_value)
        ),
        start_from=lambda state: state,
    )


SEQUENCE_MIXERS |= {
    f"{name}_{score}": _attended(SEQUENCE_MIXERS[name], cell, gates, score)
    for name, cell, gates in (("lstm", lstm_gru.lstm_cell, 4), ("gru", lstm_gru.gru_cell, 3))
    for score in ("additive", "multiplicative")
}
CHANNEL_MIXERS = {
    "mlp": Mixer(mlp.Mlp, mlp.params, mlp.matmul_params),
    "rwkv4_channel": Mixer(
        rwkv4.ChannelMix,
        rwkv4.channel_params,
        rwkv4.channel_matmul_params,
        elementwise_flops=rwkv4.channel_elementwise_flops,
        init_state=rwkv4.init_channel_state,
        state_bytes=rwkv4.channel_state_bytes,
    ),
    "moe": Mixer(
        moe.Moe,
        moe.params,
        moe.matmul_params,
        active_params=moe.active_params,
        executed_flops=moe.executed_flops,
        init_state=moe.init_state,
    ),
    "rwkv7_channel": Mixer(
        rwkv7.ChannelMix,
        rwkv7.channel_params,
        rwkv7.channel_matmul_params,
        elementwise_flops=rwkv7.channel_elementwise_flops,
        init_state=rwkv7.init_channel_state,
        state_bytes=rwkv7.channel_state_bytes,
    ),
}


def mixers_of(layer: Layer, config: ModelConfig) -> tuple[Mixer, ...]:
    """The layer's sequence mixer and, if it has one, its channel mixer.

    Raises ConfigError naming the nearest known names.
    """
    return tuple(_find(known, name, config) for known, name in zip((SEQUENCE_MIXERS, CHANNEL_MIXERS), layer))


def check_hand_over(config: ModelConfig) -> None:
    """Raise ConfigError unless each mixer that starts from the encoder's final state has one like it at its place."""
    for i, layer in enumerate(config.layers if config.encoder else ()):
        for j, mixer in enumerate(mixers_of(layer, config)):
            facing = config.encoder.layers[i : i + 1]
            starts = [other.start_from is not None for row in facing for other in mixers_of(row, config)[j : j + 1]]
            check(
                mixer.start_from is None or starts == [True],
                "model.pattern",
                config.pattern,
                f"layer {i} of the decoder, {layer[j]!r}, starts from the final state of layer {i} of the encoder, "
                f"which is {facing[0] if facing else 'not there'}",
                "give the encoder the same recurrent layers and depth",
            )


def _find(known: Mapping[str, Mixer], name: str, config: ModelConfig) -> Mixer:
    if name in known:
        return known[name]
    if name in SEQUENCE_MIXERS or name in CHANNEL_MIXERS:
        kind, place = ("channel", "first") if known is SEQUENCE_MIXERS else ("sequence", "second")
        raise ConfigError(
            f"model.pattern = {config.pattern!r}: {name!r} is a {kind} mixer, and stands {place} in its layer. Fix: "
            "write a layer as sequence_mixer:channel_mixer, or as a sequence mixer alone."
        )
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.3) or list(known)
    raise ConfigError(f"model.pattern = {config.pattern!r}: unknown mixer {name!r}. Nearest: {', '.join(near)}.")

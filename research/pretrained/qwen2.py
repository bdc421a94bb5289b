"""Qwen2 and Qwen2.5 checkpoints (Yang 2024): Llama with biases of queries, keys and values."""

from dataclasses import replace
from typing import Any

from research.config import ModelConfig
from research.pretrained.llama import DECODER, NORMS, decoder_from_settings, decoder_settings, decoder_tensors
from research.pretrained.settings import Keys, or_null, refuse
from research.pretrained.tensors import Tensor

MODEL_TYPE = "qwen2"
IGNORED = r"rotary_emb\.inv_freq"
NO_WINDOW = "use_sliding_window is false"
WINDOWED = DECODER.but(  # what Qwen2 and Qwen3 have in common: a sliding window in the upper layers, if any
    read={
        "vocab_size": 151_936,
        "intermediate_size": 22_016,
        "num_key_value_heads": or_null(32),
        "layer_types": or_null(None, list),
    },
    only={"use_sliding_window": (False,)},
    unused={"sliding_window": NO_WINDOW, "max_window_layers": NO_WINDOW},
)
KEYS: Keys = WINDOWED.but(only={"use_mrope": (False,)})


def to_settings(model: ModelConfig) -> dict[str, Any]:
    """The config.json of a model of this family."""
    return decoder_settings(model, MODEL_TYPE, "Qwen2ForCausalLM")


def from_settings(settings: dict[str, Any]) -> ModelConfig:
    """The model that a config.json describes; `settings` are complete."""
    check_full_attention(settings)
    model = decoder_from_settings(settings)
    return replace(model, attention=replace(model.attention, biases="qkv"))


def check_full_attention(settings: dict[str, Any]) -> None:
    """Raise CheckpointError unless every layer sees all of the past."""
    kinds = settings["layer_types"]
    if kinds is not None and kinds != ["full_attention"] * settings["num_hidden_layers"]:
        rule = "must be full_attention for each of num_hidden_layers: a window in some layers alone is no model here"
        raise refuse("layer_types", kinds, rule, "use a checkpoint without windows")


def tensors(model: ModelConfig) -> list[Tensor]:
    """Every tensor of a checkpoint."""
    return decoder_tensors(model, NORMS)

"""Mistral checkpoints (Jiang 2023): Llama with a sliding window."""

from dataclasses import replace
from typing import Any

from research.config import ModelConfig
from research.pretrained.llama import DECODER, NORMS, decoder_from_settings, decoder_settings, decoder_tensors
from research.pretrained.settings import or_null
from research.pretrained.tensors import Tensor

MODEL_TYPE = "mistral"
IGNORED = r"rotary_emb\.inv_freq"
KEYS = DECODER.but(
    read={"intermediate_size": 14_336, "num_key_value_heads": or_null(8), "sliding_window": or_null(4096)},
    only={"layer_types": (None,)},  # windows that differ from layer to layer
)


def to_settings(model: ModelConfig) -> dict[str, Any]:
    """The config.json of a model of this family."""
    window = {"sliding_window": model.attention.window}
    return {**decoder_settings(model, MODEL_TYPE, "MistralForCausalLM"), **window}


def from_settings(settings: dict[str, Any]) -> ModelConfig:
    """The model that a config.json describes; `settings` are complete."""
    model = decoder_from_settings(settings)
    return replace(model, attention=replace(model.attention, window=settings["sliding_window"]))


def tensors(model: ModelConfig) -> list[Tensor]:
    """Every tensor of a checkpoint."""
    return decoder_tensors(model, NORMS)

"""Mistral checkpoints (Jiang 2023): Llama with a sliding window."""

from dataclasses import replace
from typing import Any

from research.config import ModelConfig
from research.pretrained.llama import NORMS, decoder_from_settings, decoder_settings, decoder_tensors
from research.pretrained.tensors import Tensor

MODEL_TYPE = "mistral"
IGNORED = r"lm_head\.weight"  # where it is tied


def to_settings(model: ModelConfig) -> dict[str, Any]:
    """The config.json of a model of this family."""
    window = {"sliding_window": model.attention.window}
    return {**decoder_settings(model, MODEL_TYPE, "MistralForCausalLM"), **window}


def from_settings(settings: dict[str, Any]) -> ModelConfig:
    """The model that a config.json describes; what it leaves out has MistralConfig's default."""
    model = decoder_from_settings({"num_key_value_heads": 8, **settings})
    return replace(model, attention=replace(model.attention, window=settings.get("sliding_window", 4096)))


def tensors(model: ModelConfig) -> list[Tensor]:
    """Every tensor of a checkpoint."""
    return decoder_tensors(model, NORMS)

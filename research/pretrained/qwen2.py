"""Qwen2 and Qwen2.5 checkpoints (Yang 2024): Llama with biases of queries, keys and values."""

from dataclasses import replace
from typing import Any

from research.config import ModelConfig
from research.pretrained.llama import NORMS, decoder_from_settings, decoder_settings, decoder_tensors
from research.pretrained.tensors import Tensor

MODEL_TYPE = "qwen2"
IGNORED = r"rotary_emb\.inv_freq|lm_head\.weight"


def to_settings(model: ModelConfig) -> dict[str, Any]:
    """The config.json of a model of this family."""
    return decoder_settings(model, MODEL_TYPE, "Qwen2ForCausalLM")


def from_settings(settings: dict[str, Any]) -> ModelConfig:
    """The model that a config.json describes; what it leaves out has Qwen2Config's default.

    Raises ValueError for a file that asks for the sliding window, which Qwen2 has in its upper layers alone.
    """
    if settings.get("use_sliding_window"):
        raise ValueError("use_sliding_window = True: a window in some layers only is no model of this project.")
    model = decoder_from_settings({"num_key_value_heads": 32, **settings})
    return replace(model, attention=replace(model.attention, biases="qkv"))


def tensors(model: ModelConfig) -> list[Tensor]:
    """Every tensor of a checkpoint."""
    return decoder_tensors(model, NORMS)

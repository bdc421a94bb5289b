"""Qwen3 checkpoints (Yang 2025): Llama with a norm of each head's queries and keys."""

from dataclasses import replace
from typing import Any

from research.config import ModelConfig
from research.pretrained.llama import NORMS, decoder_from_settings, decoder_settings, decoder_tensors
from research.pretrained.tensors import Tensor

MODEL_TYPE = "qwen3"
IGNORED = r"lm_head\.weight"  # where it is tied


def to_settings(model: ModelConfig) -> dict[str, Any]:
    """The config.json of a model of this family."""
    bias = {"attention_bias": model.attention.biases == "all"}
    return {**decoder_settings(model, MODEL_TYPE, "Qwen3ForCausalLM"), **bias}


def from_settings(settings: dict[str, Any]) -> ModelConfig:
    """The model that a config.json describes; what it leaves out has Qwen3Config's default.

    Raises ValueError for a file that asks for the sliding window, which Qwen3 has in its upper layers alone.
    """
    if settings.get("use_sliding_window"):
        raise ValueError("use_sliding_window = True: a window in some layers only is no model of this project.")
    model = decoder_from_settings({"head_dim": 128, **settings})
    biases = "all" if settings.get("attention_bias") else "none"
    return replace(model, attention=replace(model.attention, biases=biases, qk_norm="head"))


def tensors(model: ModelConfig) -> list[Tensor]:
    """Every tensor of a checkpoint."""
    return decoder_tensors(model, NORMS)

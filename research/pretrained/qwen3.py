"""Qwen3 checkpoints (Yang 2025): Llama with a norm of each head's queries and keys."""

from dataclasses import replace
from typing import Any

from research.config import ModelConfig
from research.pretrained.llama import NORMS, decoder_from_settings, decoder_settings, decoder_tensors
from research.pretrained.qwen2 import WINDOWED, check_full_attention
from research.pretrained.settings import or_null
from research.pretrained.tensors import Tensor

MODEL_TYPE = "qwen3"
IGNORED = r"rotary_emb\.inv_freq"
KEYS = WINDOWED.but(read={"head_dim": or_null(128), "attention_bias": False})


def to_settings(model: ModelConfig) -> dict[str, Any]:
    """The config.json of a model of this family."""
    bias = {"attention_bias": model.attention.biases == "all"}
    return {**decoder_settings(model, MODEL_TYPE, "Qwen3ForCausalLM"), **bias}


def from_settings(settings: dict[str, Any]) -> ModelConfig:
    """The model that a config.json describes; `settings` are complete."""
    check_full_attention(settings)
    model = decoder_from_settings(settings)
    biases = "all" if settings["attention_bias"] else "none"
    return replace(model, attention=replace(model.attention, biases=biases, qk_norm="head"))


def tensors(model: ModelConfig) -> list[Tensor]:
    """Every tensor of a checkpoint."""
    return decoder_tensors(model, NORMS)

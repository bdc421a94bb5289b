"""OLMo 2 checkpoints (Walsh 2024): norms after each mixer, and one norm over all queries (keys) of a token."""

from dataclasses import replace
from typing import Any

from research.config import ModelConfig
from research.pretrained.llama import DECODER, decoder_from_settings, decoder_settings, decoder_tensors
from research.pretrained.tensors import Tensor

MODEL_TYPE = "olmo2"
IGNORED = r"rotary_emb\.inv_freq"
KEYS = DECODER.but(read={"vocab_size": 50_304, "rms_norm_eps": 1e-5, "attention_bias": False})


def to_settings(model: ModelConfig) -> dict[str, Any]:
    """The config.json of a model of this family, whose heads always divide the width among them."""
    settings = decoder_settings(model, MODEL_TYPE, "Olmo2ForCausalLM")
    del settings["head_dim"]
    return {**settings, "attention_bias": model.attention.biases == "all"}


def from_settings(settings: dict[str, Any]) -> ModelConfig:
    """The model that a config.json describes; `settings` are complete."""
    model = decoder_from_settings(settings)
    biases = "all" if settings["attention_bias"] else "none"
    attention = replace(model.attention, biases=biases, qk_norm="full")
    return replace(model, attention=attention, norm_placement="post")


def tensors(model: ModelConfig) -> list[Tensor]:
    """Every tensor of a checkpoint."""
    return decoder_tensors(model, ("post_attention_layernorm", "post_feedforward_layernorm"))

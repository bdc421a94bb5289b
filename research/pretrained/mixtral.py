"""Mixtral checkpoints (Jiang 2024): Llama whose feed-forward layers are mixtures of experts."""

from dataclasses import replace
from typing import Any

from research.config import ModelConfig, MoeConfig
from research.pretrained.experts import moe_tensors
from research.pretrained.llama import NORMS, decoder_from_settings, decoder_settings, decoder_tensors
from research.pretrained.tensors import Tensor

MODEL_TYPE = "mixtral"
IGNORED = r"rotary_emb\.inv_freq|lm_head\.weight"
PARTS = {"gate": "w1", "up": "w3", "down": "w2"}


def to_settings(model: ModelConfig) -> dict[str, Any]:
    """The config.json of a model of this family."""
    return {
        **decoder_settings(model, MODEL_TYPE, "MixtralForCausalLM"),
        "intermediate_size": model.moe.hidden,
        "num_local_experts": model.moe.experts,
        "num_experts_per_tok": model.moe.active,
        "router_aux_loss_coef": model.moe.balance_loss,
        "sliding_window": model.attention.window,
    }


def from_settings(settings: dict[str, Any]) -> ModelConfig:
    """The model that a config.json describes; what it leaves out has MixtralConfig's default."""
    model = decoder_from_settings({"num_key_value_heads": 8, **settings}, epsilon=1e-5)
    moe = MoeConfig(
        settings.get("num_local_experts", 8),
        settings.get("num_experts_per_tok", 2),
        settings["intermediate_size"],
        balance_loss=settings.get("router_aux_loss_coef", 0.001),
    )
    window = settings.get("sliding_window")
    return replace(model, pattern="attention:moe", moe=moe, attention=replace(model.attention, window=window))


def tensors(model: ModelConfig) -> list[Tensor]:
    """Every tensor of a checkpoint."""
    return decoder_tensors(
        model, NORMS, lambda name, path: moe_tensors(f"{name}block_sparse_moe.", path, model.moe, parts=PARTS)
    )

"""OLMoE checkpoints (Muennighoff 2024): norms of whole queries and keys, and gates that are not renormalised."""

from dataclasses import replace
from typing import Any

from research.config import ModelConfig, MoeConfig
from research.pretrained.experts import moe_tensors
from research.pretrained.llama import NORMS, decoder_from_settings, decoder_settings, decoder_tensors
from research.pretrained.tensors import Tensor

MODEL_TYPE = "olmoe"
IGNORED = r"lm_head\.weight"  # where it is tied


def to_settings(model: ModelConfig) -> dict[str, Any]:
    """The config.json of a model of this family."""
    return {
        **decoder_settings(model, MODEL_TYPE, "OlmoeForCausalLM"),
        "intermediate_size": model.moe.hidden,
        "num_experts": model.moe.experts,
        "num_experts_per_tok": model.moe.active,
        "norm_topk_prob": model.moe.renormalize,
        "router_aux_loss_coef": model.moe.balance_loss,
        "attention_bias": model.attention.biases == "all",
        "clip_qkv": None,
    }


def from_settings(settings: dict[str, Any]) -> ModelConfig:
    """The model that a config.json describes; what it leaves out has OlmoeConfig's default.

    Raises ValueError for a file that clips queries, keys and values, which the released ones do not.
    """
    if settings.get("clip_qkv") is not None:
        raise ValueError(f"clip_qkv = {settings['clip_qkv']}: must be null. Fix: use a model that does not clip.")
    model = decoder_from_settings(settings, epsilon=1e-5)
    moe = MoeConfig(
        settings.get("num_experts", 64),
        settings.get("num_experts_per_tok", 8),
        settings["intermediate_size"],
        renormalize=settings.get("norm_topk_prob", False),
        balance_loss=settings.get("router_aux_loss_coef", 0.01),
    )
    biases = "all" if settings.get("attention_bias") else "none"
    attention = replace(model.attention, qk_norm="full", biases=biases)
    return replace(model, pattern="attention:moe", moe=moe, attention=attention)


def tensors(model: ModelConfig) -> list[Tensor]:
    """Every tensor of a checkpoint."""
    return decoder_tensors(model, NORMS, lambda name, path: moe_tensors(f"{name}mlp.", path, model.moe))

"""Qwen3-MoE checkpoints (Yang 2025): Qwen3 whose feed-forward layers are mixtures of experts."""

from dataclasses import replace
from typing import Any

from research.config import ModelConfig, MoeConfig
from research.pretrained import qwen3
from research.pretrained.experts import moe_tensors
from research.pretrained.llama import NORMS, decoder_tensors
from research.pretrained.tensors import Tensor

MODEL_TYPE = "qwen3_moe"
IGNORED = r"lm_head\.weight"  # where it is tied


def to_settings(model: ModelConfig) -> dict[str, Any]:
    """The config.json of a model of this family."""
    return {
        **qwen3.to_settings(model),
        "model_type": MODEL_TYPE,
        "architectures": ["Qwen3MoeForCausalLM"],
        "moe_intermediate_size": model.moe.hidden,
        "num_experts": model.moe.experts,
        "num_experts_per_tok": model.moe.active,
        "norm_topk_prob": model.moe.renormalize,
        "router_aux_loss_coef": model.moe.balance_loss,
    }


def from_settings(settings: dict[str, Any]) -> ModelConfig:
    """The model that a config.json describes; what it leaves out has Qwen3MoeConfig's default.

    Raises ValueError for a file that leaves some layers dense, which no released one does.
    """
    if settings.get("mlp_only_layers") or settings.get("decoder_sparse_step", 1) != 1:
        raise ValueError("mlp_only_layers, decoder_sparse_step: must be empty and 1. Fix: use a model without them.")
    head_dim = settings.get("head_dim") or settings["hidden_size"] // settings["num_attention_heads"]
    model = qwen3.from_settings({"num_key_value_heads": 4, **settings, "head_dim": head_dim})
    moe = MoeConfig(
        settings.get("num_experts", settings.get("num_local_experts", 128)),  # as released, and as written today
        settings.get("num_experts_per_tok", 8),
        settings.get("moe_intermediate_size", 768),
        renormalize=settings.get("norm_topk_prob", False),
        balance_loss=settings.get("router_aux_loss_coef", 0.001),
    )
    return replace(model, pattern="attention:moe", moe=moe)


def tensors(model: ModelConfig) -> list[Tensor]:
    """Every tensor of a checkpoint."""
    return decoder_tensors(model, NORMS, lambda name, path: moe_tensors(f"{name}mlp.", path, model.moe))

"""Qwen3-MoE checkpoints (Yang 2025): Qwen3 whose feed-forward layers are mixtures of experts."""

from dataclasses import replace
from typing import Any

from research.config import ModelConfig, MoeConfig
from research.pretrained import qwen3
from research.pretrained.activations import SILU
from research.pretrained.experts import ROUTER_UNUSED, moe_tensors
from research.pretrained.llama import NORMS, decoder_tensors
from research.pretrained.settings import or_null
from research.pretrained.tensors import Tensor

MODEL_TYPE = "qwen3_moe"
IGNORED = r"rotary_emb\.inv_freq"
KEYS = qwen3.KEYS.but(
    read={
        "hidden_size": 2048,
        "num_hidden_layers": 24,
        "num_key_value_heads": or_null(4),
        "head_dim": or_null(None),
        "moe_intermediate_size": 768,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "norm_topk_prob": False,
        "router_aux_loss_coef": 0.001,
    },
    only={"hidden_act": SILU, "decoder_sparse_step": (1,), "mlp_only_layers": ([], None)},
    unused=ROUTER_UNUSED | {"intermediate_size": "of dense layers, of which decoder_sparse_step = 1 leaves none"},
    other_names={"num_local_experts": "num_experts"},  # as transformers writes it since version 5
)


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
    """The model that a config.json describes; `settings` are complete."""
    model = qwen3.from_settings(settings)
    moe = MoeConfig(
        settings["num_experts"],
        settings["num_experts_per_tok"],
        settings["moe_intermediate_size"],
        renormalize=settings["norm_topk_prob"],
        balance_loss=settings["router_aux_loss_coef"],
    )
    return replace(model, pattern="attention:moe", moe=moe)


def tensors(model: ModelConfig) -> list[Tensor]:
    """Every tensor of a checkpoint."""
    return decoder_tensors(model, NORMS, lambda name, path: moe_tensors(f"{name}mlp.", path, model.moe))

"""Mixtral checkpoints (Jiang 2024): Llama whose feed-forward layers are mixtures of experts."""

from dataclasses import replace
from typing import Any

from research.config import ModelConfig, MoeConfig
from research.pretrained.activations import SILU
from research.pretrained.experts import ROUTER_UNUSED, moe_tensors
from research.pretrained.llama import DECODER, NORMS, decoder_from_settings, decoder_settings, decoder_tensors
from research.pretrained.rotary import rope_keys
from research.pretrained.settings import or_null
from research.pretrained.tensors import Tensor

MODEL_TYPE = "mixtral"
IGNORED = r"rotary_emb\.inv_freq"
KEYS = DECODER.but(
    read={
        "intermediate_size": 14_336,
        "num_key_value_heads": or_null(8),
        "rms_norm_eps": 1e-5,
        **rope_keys(1e6),
        "sliding_window": or_null(None),
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
        "router_aux_loss_coef": 0.001,
    },
    only={"hidden_act": SILU},
    unused=ROUTER_UNUSED,
    other_names={"num_experts": "num_local_experts"},
)
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
    """The model that a config.json describes; `settings` are complete."""
    model = decoder_from_settings(settings)
    moe = MoeConfig(
        settings["num_local_experts"],
        settings["num_experts_per_tok"],
        settings["intermediate_size"],
        balance_loss=settings["router_aux_loss_coef"],
    )
    attention = replace(model.attention, window=settings["sliding_window"])
    return replace(model, pattern="attention:moe", moe=moe, attention=attention)


def tensors(model: ModelConfig) -> list[Tensor]:
    """Every tensor of a checkpoint."""
    return decoder_tensors(
        model, NORMS, lambda name, path: moe_tensors(f"{name}block_sparse_moe.", path, model.moe, parts=PARTS)
    )

"""OLMoE checkpoints (Muennighoff 2024): norms of whole queries and keys, and gates that are not renormalised."""

from dataclasses import replace
from typing import Any

from research.config import ModelConfig, MoeConfig
from research.pretrained.activations import SILU
from research.pretrained.experts import ROUTER_UNUSED, moe_tensors
from research.pretrained.llama import DECODER, NORMS, decoder_from_settings, decoder_settings, decoder_tensors
from research.pretrained.tensors import Tensor

MODEL_TYPE = "olmoe"
IGNORED = r"rotary_emb\.inv_freq"
KEYS = DECODER.but(
    read={
        "vocab_size": 50_304,
        "hidden_size": 2048,
        "intermediate_size": 2048,
        "num_hidden_layers": 16,
        "num_attention_heads": 16,
        "rms_norm_eps": 1e-5,
        "attention_bias": False,
        "num_experts": 64,
        "num_experts_per_tok": 8,
        "norm_topk_prob": False,
        "router_aux_loss_coef": 0.01,
    },
    only={"hidden_act": SILU, "clip_qkv": (None,)},
    unused=ROUTER_UNUSED,
    other_names={"num_local_experts": "num_experts"},
)


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
    """The model that a config.json describes; `settings` are complete."""
    model = decoder_from_settings(settings)
    moe = MoeConfig(
        settings["num_experts"],
        settings["num_experts_per_tok"],
        settings["intermediate_size"],
        renormalize=settings["norm_topk_prob"],
        balance_loss=settings["router_aux_loss_coef"],
    )
    biases = "all" if settings["attention_bias"] else "none"
    attention = replace(model.attention, qk_norm="full", biases=biases)
    return replace(model, pattern="attention:moe", moe=moe, attention=attention)


def tensors(model: ModelConfig) -> list[Tensor]:
    """Every tensor of a checkpoint."""
    return decoder_tensors(model, NORMS, lambda name, path: moe_tensors(f"{name}mlp.", path, model.moe))

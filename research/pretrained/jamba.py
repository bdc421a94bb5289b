"""Jamba checkpoints (Lieber 2024) as Hugging Face stores them: JambaForCausalLM.

Every layer has a sequence mixer, attention once a period and Mamba elsewhere, and a channel mixer, a mixture of experts
once a period of its own and a dense one elsewhere. Attention has no positions.
"""

import math
from typing import Any

from research.config import AttentionConfig, MambaConfig, MlpConfig, ModelConfig, MoeConfig
from research.pretrained.llama import attention_tensors, mlp_tensors
from research.pretrained.mamba import mamba_tensors, step_rank
from research.pretrained.tensors import Tensor, layer_paths, linear, same

MODEL_TYPE = "jamba"
IGNORED = r"lm_head\.weight"  # where it is tied


def to_settings(model: ModelConfig) -> dict[str, Any]:
    """The config.json of a model of this family."""
    attention, mamba = model.attention, model.mamba
    attention_period, attention_offset = _spacing(model, "attention")
    expert_period, expert_offset = _spacing(model, "moe")
    return {
        "model_type": MODEL_TYPE,
        "architectures": ["JambaForCausalLM"],
        "vocab_size": model.vocab_size,
        "hidden_size": model.width,
        "intermediate_size": model.mlp.hidden,
        "num_hidden_layers": model.depth,
        "num_attention_heads": attention.heads,
        "num_key_value_heads": attention.kv_heads,
        "attn_layer_period": attention_period,
        "attn_layer_offset": attention_offset,
        "expert_layer_period": expert_period,
        "expert_layer_offset": expert_offset,
        "num_experts": model.moe.experts,
        "num_experts_per_tok": model.moe.active,
        "mamba_d_state": mamba.state_size,
        "mamba_d_conv": mamba.conv_width,
        "mamba_expand": mamba.expand,
        "mamba_dt_rank": mamba.step_rank or "auto",
        "mamba_conv_bias": True,
        "mamba_proj_bias": False,
        "hidden_act": "silu",
        "rms_norm_eps": model.norm_epsilon,
        "tie_word_embeddings": model.tied_embeddings,
    }


def from_settings(settings: dict[str, Any]) -> ModelConfig:
    """The model that a config.json describes; what it leaves out has JambaConfig's default."""
    width, depth, heads = settings["hidden_size"], settings["num_hidden_layers"], settings["num_attention_heads"]
    epsilon = settings.get("rms_norm_eps", 1e-6)
    hidden, experts = settings["intermediate_size"], settings.get("num_experts", 16)
    return ModelConfig(
        vocab_size=settings["vocab_size"],
        width=width,
        depth=depth,
        pattern=pattern(
            depth,
            (settings.get("attn_layer_period", 8), settings.get("attn_layer_offset", 4)),
            (settings.get("expert_layer_period", 2), settings.get("expert_layer_offset", 1)) if experts > 1 else None,
        ),
        attention=AttentionConfig(heads, settings.get("num_key_value_heads", 8), width // heads, positions="none"),
        mlp=MlpConfig(hidden),
        moe=MoeConfig(experts, settings.get("num_experts_per_tok", 2), hidden, renormalize=False),
        mamba=MambaConfig(
            state_size=settings.get("mamba_d_state", 16),
            expand=settings.get("mamba_expand", 2),
            conv_width=settings.get("mamba_d_conv", 4),
            step_rank=step_rank(settings.get("mamba_dt_rank", "auto"), width),
            inner_norms="learned",
            inner_norm_epsilon=epsilon,
        ),
        norm_epsilon=epsilon,
        tied_embeddings=settings.get("tie_word_embeddings", False),
    )


def pattern(depth: int, attention: tuple[int, int], experts: tuple[int, int] | None) -> str:
    """The block pattern of (period, offset) of attention and of mixtures of experts, none of the latter if None.

    One period of both, or every layer where that does not divide the depth.
    """
    length = math.lcm(attention[0], experts[0] if experts else 1)
    layers = []
    for i in range(length if depth % length == 0 else depth):
        sequence = "attention" if i % attention[0] == attention[1] else "mamba"
        channel = "moe" if experts and i % experts[0] == experts[1] else "mlp"
        layers.append(f"{sequence}:{channel}")
    return ", ".join(layers)


def tensors(model: ModelConfig) -> list[Tensor]:
    """Every tensor of a checkpoint."""
    table = [same("model.embed_tokens.weight", "embedding"), same("model.final_layernorm.weight", "final_norm/gain")]
    if not model.tied_embeddings:
        table.append(linear("lm_head.weight", "head"))
    for i, (path, (sequence, channel)) in enumerate(zip(layer_paths(model), model.layers, strict=True)):
        name = f"model.layers.{i}."
        table += [
            same(name + "input_layernorm.weight", f"{path}_mixer_norm/gain"),
            same(name + "pre_ff_layernorm.weight", f"{path}_channel_norm/gain"),
        ]
        if sequence == "attention":
            table += attention_tensors(name + "self_attn.", f"{path}_mixer/", model.attention)
        else:
            table += mamba_tensors(name + "mamba.", f"{path}_mixer/")
            inner = (("dt", "step"), ("b", "write"), ("c", "read"))
            table += [
                same(f"{name}mamba.{old}_layernorm.weight", f"{path}_mixer/{new}_norm/gain") for old, new in inner
            ]
        if channel == "moe":
            table += expert_tensors(name + "feed_forward.", f"{path}_channel/", model.moe.experts)
        else:
            table += mlp_tensors(name + "feed_forward.", f"{path}_channel/", model.mlp)
    return table


def expert_tensors(name: str, path: str, experts: int) -> list[Tensor]:
    """The router and the three matrices of each expert, which files hold one by one."""
    return [linear(name + "router.weight", path + "router")] + [
        linear(f"{name}experts.{i}.{part}_proj.weight", f"{path}{part}/{i}")
        for i in range(experts)
        for part in ("gate", "up", "down")
    ]


def _spacing(model: ModelConfig, mixer: str) -> tuple[int, int]:
    """(period, offset) of the layers that have the mixer; a period beyond the depth if at most one has."""
    places = [i for i, layer in enumerate(model.layers) if mixer in layer]
    period = places[1] - places[0] if len(places) > 1 else model.depth + 1
    return period, places[0] if places else model.depth

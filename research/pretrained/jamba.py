"""Jamba checkpoints (Lieber 2024) as Hugging Face stores them: JambaForCausalLM.

Every layer has a sequence mixer, attention once a period and Mamba elsewhere, and a channel mixer, a mixture of experts
once a period of its own and a dense one elsewhere. Attention has no positions.
"""

import math
from typing import Any

from research.config import AttentionConfig, MambaConfig, MlpConfig, ModelConfig, MoeConfig
from research.pretrained.activations import SILU
from research.pretrained.experts import ROUTER_UNUSED
from research.pretrained.llama import attention_tensors, mlp_tensors
from research.pretrained.mamba import dt_rank, mamba_tensors
from research.pretrained.settings import DROPOUT, KERNEL, NO_TABLE, OTHER_OUTPUTS, Key, Keys, because, or_null, or_zero
from research.pretrained.tensors import Tensor, layer_paths, linear, same

MODEL_TYPE = "jamba"
IGNORED = None
KEYS = Keys(
    read={
        "vocab_size": 65_536,
        "hidden_size": 4096,
        "intermediate_size": 14_336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": or_null(8),
        "attn_layer_period": 8,
        "attn_layer_offset": or_zero(4),
        "expert_layer_period": 2,
        "expert_layer_offset": or_zero(1),
        "num_experts": 16,
        "num_experts_per_tok": 2,
        "router_aux_loss_coef": 0.001,
        "mamba_d_state": 16,
        "mamba_d_conv": 4,
        "mamba_expand": 2,
        "mamba_dt_rank": Key("auto", (str, int)),
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
    },
    only={
        "hidden_act": SILU,
        "mamba_conv_bias": (True,),
        "mamba_proj_bias": (False,),
        "mamba_inner_layernorms": (True,),
        "sliding_window": (None,),
    },
    unused={
        "max_position_embeddings": NO_TABLE,
        "attention_dropout": DROPOUT,
        **because(KERNEL, "use_mamba_kernels use_mambapy use_associative_scan"),
        **because(OTHER_OUTPUTS, "num_logits_to_keep calc_logits_for_entire_prompt"),
        **ROUTER_UNUSED,
    },
    other_names={"num_local_experts": "num_experts"},
)


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
        "router_aux_loss_coef": model.moe.balance_loss,
        "mamba_d_state": mamba.state_size,
        "mamba_d_conv": mamba.conv_width,
        "mamba_expand": mamba.expand,
        "mamba_dt_rank": mamba.dt_rank or "auto",
        "mamba_conv_bias": True,
        "mamba_proj_bias": False,
        "hidden_act": "silu",
        "rms_norm_eps": model.norm_epsilon,
        "tie_word_embeddings": model.tied_embeddings,
    }


def from_settings(settings: dict[str, Any]) -> ModelConfig:
    """The model that a config.json describes; `settings` are complete."""
    width, depth, heads = settings["hidden_size"], settings["num_hidden_layers"], settings["num_attention_heads"]
    epsilon = settings["rms_norm_eps"]
    experts = settings["num_experts"]
    return ModelConfig(
        vocab_size=settings["vocab_size"],
        width=width,
        depth=depth,
        pattern=pattern(
            depth,
            (settings["attn_layer_period"], settings["attn_layer_offset"]),
            (settings["expert_layer_period"], settings["expert_layer_offset"]) if experts > 1 else None,
        ),
        attention=AttentionConfig(heads, settings["num_key_value_heads"] or heads, width // heads, positions="none"),
        mlp=MlpConfig(settings["intermediate_size"]),
        moe=mixture_of_experts(settings) if experts > 1 else MoeConfig(),
        mamba=MambaConfig(
            state_size=settings["mamba_d_state"],
            expand=settings["mamba_expand"],
            conv_width=settings["mamba_d_conv"],
            dt_rank=dt_rank(settings, "mamba_dt_rank"),
            inner_norms="learned",
            inner_norm_epsilon=epsilon,
        ),
        norm_epsilon=epsilon,
        tied_embeddings=settings["tie_word_embeddings"],
    )


def mixture_of_experts(settings: dict[str, Any]) -> MoeConfig:
    """The section of ModelConfig; experts are as large as the dense layers."""
    return MoeConfig(
        settings["num_experts"],
        settings["num_experts_per_tok"],
        settings["intermediate_size"],
        renormalize=False,
        balance_loss=settings["router_aux_loss_coef"],
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
            inner = (("dt", "dt"), ("b", "B"), ("c", "C"))
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

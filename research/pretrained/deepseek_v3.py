"""DeepSeek-V3 checkpoints (2024) as Hugging Face stores them: latent attention, the first few layers with a dense mlp.

Those above have a mixture of experts that is balanced by a bias. Modules that predict further tokens are left out: the
language model is the same without them (section 2.2).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from research.config import LatentAttentionConfig, MlpConfig, ModelConfig, MoeConfig
from research.pretrained.activations import SILU
from research.pretrained.experts import ROUTER_UNUSED, moe_tensors
from research.pretrained.llama import NORMS, mlp_tensors
from research.pretrained.rotary import check_whole_heads, rope_fields, rope_keys
from research.pretrained.settings import (
    DROPOUT,
    KERNEL,
    NO_TABLE,
    Keys,
    must_equal,
    or_null,
    or_zero,
    refuse,
)
from research.pretrained.tensors import Tensor, joined_rows, layer_paths, linear, same

MODEL_TYPE = "deepseek_v3"
IGNORED = r"rotary_emb\.inv_freq"
ROUTING = {"scoring_func": "sigmoid", "topk_method": "noaux_tc", "moe_layer_freq": 1}  # the only kind there is here
FURTHER_LAYERS = "num_nextn_predict_layers"  # above the language model's, each predicting one more token ahead
KEYS = Keys(
    read={
        "vocab_size": 129_280,
        "hidden_size": 7168,
        "intermediate_size": 18_432,
        "moe_intermediate_size": 2048,
        "num_hidden_layers": 61,
        "num_attention_heads": 128,
        "num_key_value_heads": or_null(None),
        "n_shared_experts": or_zero(1),
        "n_routed_experts": 256,
        "routed_scaling_factor": 2.5,
        "kv_lora_rank": 512,
        "q_lora_rank": or_null(1536),
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "qk_nope_head_dim": 128,
        "qk_head_dim": or_null(None),
        "head_dim": or_null(None),
        "n_group": 8,
        "topk_group": 4,
        "num_experts_per_tok": 8,
        "first_k_dense_replace": or_zero(3),
        "norm_topk_prob": True,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        **rope_keys(),
        "rope_interleave": True,
        FURTHER_LAYERS: or_zero(1),
        # Of training, and of no other reader than DeepSeek's and ours.
        "aux_loss_alpha": 0.001,
        "seq_aux": True,
        "bias_update_speed": or_null(0.001, float),
    },
    only={"hidden_act": SILU, "attention_bias": (False,)} | {key: (value,) for key, value in ROUTING.items()},
    unused={
        "max_position_embeddings": NO_TABLE,
        "attention_dropout": DROPOUT,
        "pretraining_tp": KERNEL,
        "ep_size": KERNEL,
        **ROUTER_UNUSED,
    },
    other_names={"num_local_experts": "n_routed_experts", "num_mtp_layers": FURTHER_LAYERS},
)


def to_settings(model: ModelConfig) -> dict[str, Any]:
    """The config.json of a model of this family."""
    cfg, moe = model.latent_attention, model.moe
    channel_mixers = [layer[-1] for layer in model.layers]
    return {
        "model_type": MODEL_TYPE,
        "architectures": ["DeepseekV3ForCausalLM"],
        "vocab_size": model.vocab_size,
        "hidden_size": model.width,
        "intermediate_size": model.mlp.hidden,
        "num_hidden_layers": model.depth,
        "first_k_dense_replace": channel_mixers.index("moe") if "moe" in channel_mixers else model.depth,
        "num_nextn_predict_layers": 0,
        "num_attention_heads": cfg.heads,
        "num_key_value_heads": cfg.heads,
        "qk_nope_head_dim": cfg.head_dim,
        "qk_rope_head_dim": cfg.rope_dim,
        "v_head_dim": cfg.value_dim,
        "kv_lora_rank": cfg.kv_rank,
        "q_lora_rank": cfg.query_rank,
        "rope_parameters": {"rope_type": "default", "rope_theta": cfg.rope_theta},
        "rope_theta": cfg.rope_theta,
        "rope_scaling": None,
        "rope_interleave": cfg.rope_pairs == "interleaved",
        "moe_intermediate_size": moe.hidden,
        "n_routed_experts": moe.experts,
        "n_shared_experts": moe.shared_experts,
        "num_experts_per_tok": moe.active,
        "n_group": moe.groups,
        "topk_group": moe.active_groups,
        "norm_topk_prob": moe.renormalize,
        "routed_scaling_factor": moe.gate_scale,
        "aux_loss_alpha": moe.balance_loss,
        "seq_aux": moe.balance_over == "sequence",
        "bias_update_speed": moe.bias_rate,  # of training alone, and of no other reader
        **ROUTING,
        "hidden_act": "silu",
        "rms_norm_eps": model.norm_epsilon,
        "tie_word_embeddings": model.tied_embeddings,
    }


def from_settings(settings: dict[str, Any]) -> ModelConfig:
    """The model that a config.json describes; `settings` are complete.

    Raises CheckpointError for scaled rotary positions, and for sizes that do not follow from those they are made of.
    """
    must_equal(settings, "num_key_value_heads", settings["num_attention_heads"], "num_attention_heads")
    must_equal(settings, "head_dim", settings["qk_rope_head_dim"], "qk_rope_head_dim")
    whole = settings["qk_nope_head_dim"] + settings["qk_rope_head_dim"]
    must_equal(settings, "qk_head_dim", whole, "qk_nope_head_dim + qk_rope_head_dim")
    depth = settings["num_hidden_layers"]
    return ModelConfig(
        vocab_size=settings["vocab_size"],
        width=settings["hidden_size"],
        depth=depth,
        pattern=pattern(settings["first_k_dense_replace"], depth),
        latent_attention=latent_attention(settings),
        mlp=MlpConfig(settings["intermediate_size"]),
        moe=mixture_of_experts(settings),
        norm_epsilon=settings["rms_norm_eps"],
        tied_embeddings=settings["tie_word_embeddings"],
    )


def pattern(dense: int, depth: int) -> str:
    """The block pattern of `depth` layers of which the first `dense` have an mlp."""
    if dense <= 0:
        return "latent_attention:moe"
    return "latent_attention:mlp" if dense >= depth else f"{dense} * latent_attention:mlp | latent_attention:moe"


def mixture_of_experts(settings: dict[str, Any]) -> MoeConfig:
    """The section of ModelConfig; what files leave out of training is as in section 4.2 of the paper."""
    rate = settings["bias_update_speed"]
    return MoeConfig(
        settings["n_routed_experts"],
        settings["num_experts_per_tok"],
        settings["moe_intermediate_size"],
        shared_experts=settings["n_shared_experts"],
        scores="sigmoid",
        renormalize=settings["norm_topk_prob"],
        gate_scale=settings["routed_scaling_factor"],
        groups=settings["n_group"],
        active_groups=settings["topk_group"],
        balance_loss=settings["aux_loss_alpha"],
        balance_over="sequence" if settings["seq_aux"] else "batch",
        router_z_loss=0.0,
        bias_rate=0.001 if rate is None else rate,  # null for a model without routed layers
    )


def latent_attention(settings: dict[str, Any]) -> LatentAttentionConfig:
    """The section of ModelConfig; CheckpointError for scaled rotary positions."""
    rope = check_whole_heads(rope_fields(settings))
    if "rope_scaling" in rope:
        rule = "must be 'default': latent attention is not stretched here"
        raise refuse("rope_type", "llama3", rule, "use a model without scaled positions")
    return LatentAttentionConfig(
        settings["num_attention_heads"],
        settings["qk_nope_head_dim"],
        settings["qk_rope_head_dim"],
        settings["v_head_dim"],
        settings["kv_lora_rank"],
        settings["q_lora_rank"],
        rope["rope_theta"],
        "interleaved" if settings["rope_interleave"] else "half",
    )


def beside(settings: dict[str, Any]) -> str:
    """The tensors of the layers above the language model's, by which released files predict the second next token."""
    depth, further = settings["num_hidden_layers"], settings[FURTHER_LAYERS]
    layers = "|".join(str(depth + i) for i in range(further))
    return rf"^model\.layers\.({layers or '(?!)'})\."


def tensors(model: ModelConfig) -> list[Tensor]:
    """Every tensor of a checkpoint."""
    table = [same("model.embed_tokens.weight", "embedding"), same("model.norm.weight", "final_norm/gain")]
    if not model.tied_embeddings:
        table.append(linear("lm_head.weight", "head"))
    for i, (layer, mixers) in enumerate(zip(layer_paths(model), model.layers, strict=True)):
        name = f"model.layers.{i}."
        table += [
            same(f"{name}{NORMS[0]}.weight", f"{layer}_mixer_norm/gain"),
            same(f"{name}{NORMS[1]}.weight", f"{layer}_channel_norm/gain"),
            *latent_attention_tensors(name + "self_attn.", f"{layer}_mixer/", model.latent_attention),
        ]
        if mixers[1] == "moe":
            table += moe_tensors(name + "mlp.", f"{layer}_channel/", model.moe)
        else:
            table += mlp_tensors(name + "mlp.", f"{layer}_channel/", model.mlp)
    return table


def latent_attention_tensors(name: str, path: str, cfg: LatentAttentionConfig) -> list[Tensor]:
    """The projections and norms of one layer of latent attention."""
    narrow = [linear("", path + "latent"), linear("", path + "rope_key")]
    table = [
        joined_rows(name + "kv_a_proj_with_mqa.weight", narrow),
        same(name + "kv_a_layernorm.weight", path + "latent_norm/gain"),
        _keys_and_values(name + "kv_b_proj.weight", (path + "key", path + "value")),
        linear(name + "o_proj.weight", path + "out", inputs=2),
    ]
    if cfg.query_rank is None:
        return [*table, linear(name + "q_proj.weight", path + "query")]
    return [
        *table,
        linear(name + "q_a_proj.weight", path + "query_down"),
        same(name + "q_a_layernorm.weight", path + "query_norm/gain"),
        linear(name + "q_b_proj.weight", path + "query"),
    ]


def _keys_and_values(name: str, paths: tuple[str, str]) -> Tensor:
    """Keys (R, H, K) and values (R, H, V) as rows ordered by head, key before value, channel."""

    def join(ours: Sequence[np.ndarray]) -> np.ndarray:
        joined = np.concatenate(ours, axis=2)
        return joined.reshape(joined.shape[0], -1).T

    def split(theirs: np.ndarray, shapes: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
        R, H, K = shapes[0]
        return np.split(theirs.T.reshape(R, H, -1), [K], axis=2)

    return Tensor(name, paths, join, split)

"""DeepSeek-V3 checkpoints (2024) as Hugging Face stores them: latent attention, the first few layers with a dense mlp.

Those above have a mixture of experts that is balanced by a bias. Modules that predict further tokens are left out: the
language model is the same without them (section 2.2).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from research.config import LatentAttentionConfig, MlpConfig, ModelConfig, MoeConfig
from research.pretrained.experts import moe_tensors
from research.pretrained.llama import NORMS, mlp_tensors
from research.pretrained.tensors import Tensor, joined_rows, layer_paths, linear, same

MODEL_TYPE = "deepseek_v3"
# The 62nd layer of released files predicts the second next token.
IGNORED = r"rotary_emb\.inv_freq|lm_head\.weight|model\.layers\.61\."
ROUTING = {"scoring_func": "sigmoid", "topk_method": "noaux_tc", "moe_layer_freq": 1}  # the only kind there is here


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
    """The model that a config.json describes.

    Raises ValueError for another routing than DeepSeek-V3's, and for scaled rotary positions.
    """
    depth = settings["num_hidden_layers"]
    return ModelConfig(
        vocab_size=settings["vocab_size"],
        width=settings["hidden_size"],
        depth=depth,
        pattern=pattern(settings.get("first_k_dense_replace", 3), depth),
        latent_attention=latent_attention(settings),
        mlp=MlpConfig(settings["intermediate_size"]),
        moe=mixture_of_experts(settings),
        norm_epsilon=settings.get("rms_norm_eps", 1e-6),
        tied_embeddings=settings.get("tie_word_embeddings", False),
    )


def pattern(dense: int, depth: int) -> str:
    """The block pattern of `depth` layers of which the first `dense` have an mlp."""
    if dense <= 0:
        return "latent_attention:moe"
    return "latent_attention:mlp" if dense >= depth else f"{dense} * latent_attention:mlp | latent_attention:moe"


def mixture_of_experts(settings: dict[str, Any]) -> MoeConfig:
    """The section of ModelConfig; ValueError for another routing.

    What config.json does not say of training is as in section 4.2 of the paper: the bias moves by 0.001 a step.
    """
    for name, only in ROUTING.items():
        if settings.get(name, only) != only:
            raise ValueError(f"{name} = {settings[name]!r}: must be {only!r}. Fix: use a model routed as DeepSeek-V3.")
    rate = settings.get("bias_update_speed")
    return MoeConfig(
        settings.get("n_routed_experts", 256),
        settings.get("num_experts_per_tok", 8),
        settings.get("moe_intermediate_size", 2048),
        shared_experts=settings.get("n_shared_experts", 1),
        scores="sigmoid",
        renormalize=settings.get("norm_topk_prob", True),
        gate_scale=settings.get("routed_scaling_factor", 2.5),
        groups=settings.get("n_group", 8),
        active_groups=settings.get("topk_group", 4),
        balance_loss=settings.get("aux_loss_alpha", 0.001),
        balance_over="sequence" if settings.get("seq_aux", True) else "batch",
        router_z_loss=0.0,
        bias_rate=0.001 if rate is None else rate,  # null for a model without routed layers
    )


def latent_attention(settings: dict[str, Any]) -> LatentAttentionConfig:
    """The section of ModelConfig; ValueError for scaled rotary positions."""
    rope = settings.get("rope_parameters") or settings.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        raise ValueError(f"rope_type = {kind!r}: must be 'default'. Fix: use a model without scaled positions.")
    return LatentAttentionConfig(
        settings["num_attention_heads"],
        settings["qk_nope_head_dim"],
        settings["qk_rope_head_dim"],
        settings["v_head_dim"],
        settings["kv_lora_rank"],
        settings["q_lora_rank"],
        float(rope.get("rope_theta", settings.get("rope_theta", 10_000.0))),
        "interleaved" if settings.get("rope_interleave", True) else "half",
    )


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

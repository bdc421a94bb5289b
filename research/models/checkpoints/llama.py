"""Llama checkpoints (Touvron 2023) as Hugging Face stores them: LlamaForCausalLM."""

from typing import Any

from research.model_config import AttentionConfig, MlpConfig, ModelConfig
from research.models.checkpoints.tensors import Tensor, layer_paths, linear, same

MODEL_TYPE = "llama"
IGNORED = r"rotary_emb\.inv_freq|lm_head\.weight"  # old files hold the rotary tables; tied ones may hold the head


def to_settings(model: ModelConfig) -> dict[str, Any]:
    """The config.json of a model of this family."""
    cfg = model.attention
    return {
        "model_type": MODEL_TYPE,
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": model.vocab_size,
        "hidden_size": model.width,
        "intermediate_size": model.mlp.hidden,
        "num_hidden_layers": model.depth,
        "num_attention_heads": cfg.heads,
        "num_key_value_heads": cfg.kv_heads,
        "head_dim": cfg.head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": model.norm_epsilon,
        "rope_parameters": {"rope_type": "default", "rope_theta": cfg.rope_theta},
        "tie_word_embeddings": model.tied_embeddings,
    }


def from_settings(settings: dict[str, Any]) -> ModelConfig:
    """The model that a config.json describes; what older files leave out has LlamaConfig's default."""
    rope = settings.get("rope_parameters") or {"rope_theta": settings.get("rope_theta", 10_000.0)}
    width, heads = settings["hidden_size"], settings["num_attention_heads"]
    return ModelConfig(
        vocab_size=settings["vocab_size"],
        width=width,
        depth=settings["num_hidden_layers"],
        attention=AttentionConfig(
            heads,
            settings.get("num_key_value_heads") or heads,
            settings.get("head_dim") or width // heads,
            rope_theta=float(rope["rope_theta"]),
        ),
        mlp=MlpConfig(settings["intermediate_size"]),
        norm_epsilon=settings.get("rms_norm_eps", 1e-6),
        tied_embeddings=settings.get("tie_word_embeddings", False),
    )


def tensors(model: ModelConfig) -> list[Tensor]:
    """Every tensor of a checkpoint."""
    table = [same("model.embed_tokens.weight", "embedding"), same("model.norm.weight", "final_norm/gain")]
    if not model.tied_embeddings:
        table.append(linear("lm_head.weight", "head"))
    for i, layer in enumerate(layer_paths(model)):
        name = f"model.layers.{i}."
        table += [
            same(name + "input_layernorm.weight", f"{layer}_mixer_norm/gain"),
            same(name + "post_attention_layernorm.weight", f"{layer}_channel_norm/gain"),
            *attention_tensors(name + "self_attn.", f"{layer}_mixer/"),
            *mlp_tensors(name + "mlp.", f"{layer}_channel/"),
        ]
    return table


def attention_tensors(name: str, path: str) -> list[Tensor]:
    """The four projections of one attention layer."""
    return [
        linear(name + "q_proj.weight", path + "query"),
        linear(name + "k_proj.weight", path + "key"),
        linear(name + "v_proj.weight", path + "value"),
        linear(name + "o_proj.weight", path + "out", inputs=2),
    ]


def mlp_tensors(name: str, path: str) -> list[Tensor]:
    """The three matrices of one SwiGLU layer."""
    return [linear(f"{name}{part}_proj.weight", path + part) for part in ("gate", "up", "down")]

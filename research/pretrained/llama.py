"""Llama checkpoints (Touvron 2023, Grattafiori 2024) as Hugging Face stores them: LlamaForCausalLM.

The decoders that differ from it in a few fields (Mistral, Qwen, OLMo 2) build on the functions here.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from research.config import AttentionConfig, MlpConfig, ModelConfig, RopeScaling
from research.pretrained.tensors import Tensor, bias, layer_paths, linear, same

MODEL_TYPE = "llama"
IGNORED = r"rotary_emb\.inv_freq|lm_head\.weight"  # old files hold the rotary tables; tied ones may hold the head
NORMS = ("input_layernorm", "post_attention_layernorm")  # of the sequence mixer and of the channel mixer


def to_settings(model: ModelConfig) -> dict[str, Any]:
    """The config.json of a model of this family."""
    biases = {"attention_bias": model.attention.biases == "all", "mlp_bias": model.mlp.biases}
    return {**decoder_settings(model, MODEL_TYPE, "LlamaForCausalLM"), **biases}


def from_settings(settings: dict[str, Any]) -> ModelConfig:
    """The model that a config.json describes; what it leaves out has LlamaConfig's default."""
    model = decoder_from_settings(settings)
    biases = "all" if settings.get("attention_bias") else "none"
    return replace(
        model,
        attention=replace(model.attention, biases=biases),
        mlp=replace(model.mlp, biases=settings.get("mlp_bias", False)),
    )


def tensors(model: ModelConfig) -> list[Tensor]:
    """Every tensor of a checkpoint."""
    return decoder_tensors(model, NORMS)


def decoder_settings(model: ModelConfig, model_type: str, architecture: str) -> dict[str, Any]:
    """The fields that every decoder of this kind has."""
    cfg = model.attention
    return {
        "model_type": model_type,
        "architectures": [architecture],
        "vocab_size": model.vocab_size,
        "hidden_size": model.width,
        "intermediate_size": model.mlp.hidden,
        "num_hidden_layers": model.depth,
        "num_attention_heads": cfg.heads,
        "num_key_value_heads": cfg.kv_heads,
        "head_dim": cfg.head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": model.norm_epsilon,
        "rope_parameters": rope_settings(cfg),
        "tie_word_embeddings": model.tied_embeddings,
    }


def decoder_from_settings(settings: dict[str, Any], epsilon: float = 1e-6) -> ModelConfig:
    """Inverse of `decoder_settings`; `epsilon` is the family's default."""
    width, heads = settings["hidden_size"], settings["num_attention_heads"]
    return ModelConfig(
        vocab_size=settings["vocab_size"],
        width=width,
        depth=settings["num_hidden_layers"],
        attention=AttentionConfig(
            heads,
            settings.get("num_key_value_heads") or heads,
            settings.get("head_dim") or width // heads,
            **rope_fields(settings),
        ),
        mlp=MlpConfig(settings["intermediate_size"]),
        norm_epsilon=settings.get("rms_norm_eps", epsilon),
        tied_embeddings=settings.get("tie_word_embeddings", False),
    )


def rope_settings(cfg: AttentionConfig) -> dict[str, Any]:
    """`rope_parameters` of a config.json."""
    if cfg.rope_scaling is None:
        return {"rope_type": "default", "rope_theta": cfg.rope_theta}
    return {
        "rope_type": "llama3",
        "rope_theta": cfg.rope_theta,
        "factor": cfg.rope_scaling.factor,
        "low_freq_factor": cfg.rope_scaling.low_factor,
        "high_freq_factor": cfg.rope_scaling.high_factor,
        "original_max_position_embeddings": cfg.rope_scaling.original_length,
    }


def rope_fields(settings: dict[str, Any]) -> dict[str, Any]:
    """What of AttentionConfig a config.json says by `rope_parameters`, or by `rope_theta` and `rope_scaling` before it.

    Raises ValueError for a kind of scaling that this project does not have.
    """
    rope = settings.get("rope_parameters") or {
        "rope_theta": settings.get("rope_theta", 10_000.0), **(settings.get("rope_scaling") or {})
    }  # fmt: skip
    kind = rope.get("rope_type", rope.get("type", "default"))
    fields = {"rope_theta": float(rope["rope_theta"])}
    if kind == "default":
        return fields
    if kind != "llama3":
        raise ValueError(f"rope_type = {kind!r}: must be 'default' or 'llama3'. Fix: use a model with one of those.")
    scaling = RopeScaling(
        float(rope["factor"]),
        float(rope["low_freq_factor"]),
        float(rope["high_freq_factor"]),
        rope["original_max_position_embeddings"],
    )
    return {**fields, "rope_scaling": scaling}


def decoder_tensors(
    model: ModelConfig, norms: tuple[str, str], of_moe: Callable[[str, str], list[Tensor]] | None = None
) -> list[Tensor]:
    """Every tensor of a checkpoint whose two norms a layer have these names.

    of_moe: (what the layer's names begin with, what its parameters' paths begin with) to those of a `moe` layer.
    """
    table = [same("model.embed_tokens.weight", "embedding"), same("model.norm.weight", "final_norm/gain")]
    if not model.tied_embeddings:
        table.append(linear("lm_head.weight", "head"))
    for i, (layer, mixers) in enumerate(zip(layer_paths(model), model.layers, strict=True)):
        name = f"model.layers.{i}."
        table += [
            same(f"{name}{norms[0]}.weight", f"{layer}_mixer_norm/gain"),
            same(f"{name}{norms[1]}.weight", f"{layer}_channel_norm/gain"),
            *attention_tensors(name + "self_attn.", f"{layer}_mixer/", model.attention),
        ]
        if mixers[1] == "moe":
            table += of_moe(name, f"{layer}_channel/")
        else:
            table += mlp_tensors(name + "mlp.", f"{layer}_channel/", model.mlp)
    return table


def attention_tensors(name: str, path: str, cfg: AttentionConfig) -> list[Tensor]:
    """The projections of one attention layer, with the biases and norms it has."""
    table = [linear(name + "o_proj.weight", path + "out", inputs=2)]
    for part in ("query", "key", "value"):
        table.append(linear(f"{name}{part[0]}_proj.weight", path + part))
        if cfg.biases != "none":
            table.append(bias(f"{name}{part[0]}_proj.bias", f"{path}{part}_bias"))
    if cfg.biases == "all":
        table.append(bias(name + "o_proj.bias", path + "out_bias"))
    if cfg.qk_norm != "none":
        table += [same(f"{name}{part[0]}_norm.weight", f"{path}{part}_norm/gain") for part in ("query", "key")]
    return table


def mlp_tensors(name: str, path: str, cfg: MlpConfig) -> list[Tensor]:
    """The matrices of one gated layer, and their biases if it has them."""
    parts = ("gate", "up", "down")
    table = [linear(f"{name}{part}_proj.weight", path + part) for part in parts]
    return table + ([bias(f"{name}{part}_proj.bias", f"{path}{part}_bias") for part in parts] if cfg.biases else [])

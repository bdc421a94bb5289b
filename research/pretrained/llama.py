"""Llama checkpoints (Touvron 2023, Grattafiori 2024) as Hugging Face stores them: LlamaForCausalLM.

The decoders that differ from it in a few fields (Mistral, Qwen, OLMo 2) build on the functions here.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from research.config import AttentionConfig, MlpConfig, ModelConfig
from research.pretrained.activations import GATED, read_activation, written_activation
from research.pretrained.rotary import check_whole_heads, rope_fields, rope_keys, rope_settings
from research.pretrained.settings import DROPOUT, KERNEL, NO_TABLE, Keys, or_null
from research.pretrained.tensors import Tensor, bias, layer_paths, linear, same

MODEL_TYPE = "llama"
IGNORED = r"rotary_emb\.inv_freq"  # old files hold the rotary tables
NORMS = ("input_layernorm", "post_attention_layernorm")  # of the sequence mixer and of the channel mixer
DECODER = Keys(  # what every decoder of this kind reads, with LlamaConfig's defaults
    read={
        "vocab_size": 32_000,
        "hidden_size": 4096,
        "intermediate_size": 11_008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": or_null(None),
        "head_dim": or_null(None),
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        **rope_keys(),
        "tie_word_embeddings": False,
    },
    only={"attention_bias": (False,), "mlp_bias": (False,), "partial_rotary_factor": (1.0, None)},
    unused={"max_position_embeddings": NO_TABLE, "attention_dropout": DROPOUT, "pretraining_tp": KERNEL},
)
KEYS = DECODER.but(
    read={"attention_bias": False, "mlp_bias": False},
    only={"rope_interleaved": (False,)},  # in files of SmolLM
    unused={"is_llama_config": "written by SmolLM's converter"},
)


def to_settings(model: ModelConfig) -> dict[str, Any]:
    """The config.json of a model of this family."""
    biases = {"attention_bias": model.attention.biases == "all", "mlp_bias": model.mlp.biases}
    return {**decoder_settings(model, MODEL_TYPE, "LlamaForCausalLM"), **biases}


def from_settings(settings: dict[str, Any]) -> ModelConfig:
    """The model that a config.json describes; `settings` are complete."""
    model = decoder_from_settings(settings)
    return replace(
        model,
        attention=replace(model.attention, biases="all" if settings["attention_bias"] else "none"),
        mlp=replace(model.mlp, biases=settings["mlp_bias"]),
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
        "hidden_act": written_activation(model.mlp.activation, GATED),
        "rms_norm_eps": model.norm_epsilon,
        **rope_settings(cfg),
        "tie_word_embeddings": model.tied_embeddings,
    }


def decoder_from_settings(settings: dict[str, Any]) -> ModelConfig:
    """Inverse of `decoder_settings`; `settings` are complete."""
    width, heads = settings["hidden_size"], settings["num_attention_heads"]
    return ModelConfig(
        vocab_size=settings["vocab_size"],
        width=width,
        depth=settings["num_hidden_layers"],
        attention=AttentionConfig(
            heads,
            settings["num_key_value_heads"] or heads,
            settings["head_dim"] or width // heads,
            **check_whole_heads(rope_fields(settings)),
        ),
        mlp=MlpConfig(settings["intermediate_size"], read_activation(settings, "hidden_act", GATED)),
        norm_epsilon=settings["rms_norm_eps"],
        tied_embeddings=settings["tie_word_embeddings"],
    )


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

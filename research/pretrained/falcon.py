"""Falcon-7B checkpoints (Almazrouei 2023): parallel mixers that read one norm, and a single key-value head."""

from typing import Any

from research.config import AttentionConfig, MlpConfig, ModelConfig
from research.pretrained.activations import PLAIN, read_activation, written_activation
from research.pretrained.rotary import check_whole_heads, rope_fields, rope_keys, rope_settings
from research.pretrained.settings import DROPOUT, NO_TABLE, Keys, or_null
from research.pretrained.tensors import Tensor, joined_rows, layer_norm, layer_paths, linear, same

MODEL_TYPE = "falcon"
IGNORED = r"rotary_emb\.inv_freq"
KIND = {"multi_query": True, "parallel_attn": True, "new_decoder_architecture": False, "alibi": False, "bias": False}
KEYS = Keys(
    read={
        "vocab_size": 65_024,
        "hidden_size": 4544,
        "num_hidden_layers": 32,
        "num_attention_heads": 71,
        "ffn_hidden_size": or_null(None),
        "activation": "gelu",
        "layer_norm_epsilon": 1e-5,
        **rope_keys(),
        "tie_word_embeddings": True,
    },
    only={
        **{key: (value,) for key, value in KIND.items()},  # the other kinds of Falcon are other architectures
        "apply_residual_connection_post_layernorm": (False,),
        "partial_rotary_factor": (1.0, None),
    },
    unused={
        "max_position_embeddings": NO_TABLE,
        "hidden_dropout": DROPOUT,
        "attention_dropout": DROPOUT,
        "num_kv_heads": "multi_query has one",
        "num_ln_in_parallel_attn": "of new_decoder_architecture",
    },
)


def to_settings(model: ModelConfig) -> dict[str, Any]:
    """The config.json of a model of this family."""
    cfg = model.attention
    return {
        "model_type": MODEL_TYPE,
        "architectures": ["FalconForCausalLM"],
        "vocab_size": model.vocab_size,
        "hidden_size": model.width,
        "num_hidden_layers": model.depth,
        "num_attention_heads": cfg.heads,
        "ffn_hidden_size": model.mlp.hidden,
        "activation": written_activation(model.mlp.activation, PLAIN),
        "layer_norm_epsilon": model.norm_epsilon,
        **rope_settings(cfg),
        **KIND,
        "tie_word_embeddings": model.tied_embeddings,
    }


def from_settings(settings: dict[str, Any]) -> ModelConfig:
    """The model that a config.json describes; `settings` are complete."""
    width, heads = settings["hidden_size"], settings["num_attention_heads"]
    return ModelConfig(
        vocab_size=settings["vocab_size"],
        width=width,
        depth=settings["num_hidden_layers"],
        attention=AttentionConfig(heads, 1, width // heads, **check_whole_heads(rope_fields(settings))),
        mlp=MlpConfig(settings["ffn_hidden_size"] or 4 * width, read_activation(settings, "activation", PLAIN)),
        norm="layer",
        norm_epsilon=settings["layer_norm_epsilon"],
        parallel_mixers=True,
        shared_norm=True,
        tied_embeddings=settings["tie_word_embeddings"],
    )


def tensors(model: ModelConfig) -> list[Tensor]:
    """Every tensor of a checkpoint."""
    table = [same("transformer.word_embeddings.weight", "embedding"), *layer_norm("transformer.ln_f", "final_norm")]
    if not model.tied_embeddings:
        table.append(linear("lm_head.weight", "head"))
    for i, layer in enumerate(layer_paths(model)):
        name, mixer, channel = f"transformer.h.{i}.", f"{layer}_mixer/", f"{layer}_channel/"
        fused = [linear("", mixer + part) for part in ("query", "key", "value")]
        table += [
            *layer_norm(name + "input_layernorm", f"{layer}_norm"),
            joined_rows(name + "self_attention.query_key_value.weight", fused),
            linear(name + "self_attention.dense.weight", mixer + "out", inputs=2),
            linear(name + "mlp.dense_h_to_4h.weight", channel + "up"),
            linear(name + "mlp.dense_4h_to_h.weight", channel + "down"),
        ]
    return table

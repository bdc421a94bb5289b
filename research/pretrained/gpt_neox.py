"""GPT-NeoX and Pythia checkpoints (Black 2022, Biderman 2023): query, key and value of each head in one matrix."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from research.config import AttentionConfig, MlpConfig, ModelConfig
from research.pretrained.activations import PLAIN, read_activation, written_activation
from research.pretrained.rotary import rope_fields, rope_settings
from research.pretrained.settings import DROPOUT, NO_TABLE, Keys, because, or_null
from research.pretrained.tensors import Tensor, bias, layer_norm, layer_paths, linear, same

MODEL_TYPE = "gpt_neox"
IGNORED = r"attention\.(masked_)?bias$|rotary_emb\.inv_freq"
KEYS = Keys(
    read={
        "vocab_size": 50_432,
        "hidden_size": 6144,
        "intermediate_size": 24_576,
        "num_hidden_layers": 44,
        "num_attention_heads": 64,
        "hidden_act": "gelu",
        "rotary_pct": 0.25,
        "rotary_emb_base": 10_000.0,
        "rope_parameters": or_null(None, dict),
        "rope_scaling": or_null(None, dict),
        "layer_norm_eps": 1e-5,
        "use_parallel_residual": True,
        "attention_bias": True,
        "tie_word_embeddings": False,
    },
    unused={
        "max_position_embeddings": NO_TABLE,
        **because(DROPOUT, "attention_dropout attention_probs_dropout_prob hidden_dropout hidden_dropout_prob"),
        **because(DROPOUT, "classifier_dropout"),
    },
)


def to_settings(model: ModelConfig) -> dict[str, Any]:
    """The config.json of a model of this family."""
    cfg = model.attention
    rope = rope_settings(cfg)
    return {
        "model_type": MODEL_TYPE,
        "architectures": ["GPTNeoXForCausalLM"],
        "vocab_size": model.vocab_size,
        "hidden_size": model.width,
        "intermediate_size": model.mlp.hidden,
        "num_hidden_layers": model.depth,
        "num_attention_heads": cfg.heads,
        "hidden_act": written_activation(model.mlp.activation, PLAIN),
        "rotary_pct": cfg.rope_fraction,
        "rotary_emb_base": cfg.rope_theta,
        "rope_parameters": rope["rope_parameters"] | {"partial_rotary_factor": cfg.rope_fraction},
        "rope_scaling": rope["rope_scaling"],
        "layer_norm_eps": model.norm_epsilon,
        "use_parallel_residual": model.parallel_mixers,
        "attention_bias": cfg.biases == "all",
        "tie_word_embeddings": model.tied_embeddings,
    }


def from_settings(settings: dict[str, Any]) -> ModelConfig:
    """The model that a config.json describes; `settings` are complete."""
    width, heads = settings["hidden_size"], settings["num_attention_heads"]
    attention = AttentionConfig(
        heads,
        heads,
        width // heads,
        **rope_fields(settings, settings["rotary_pct"], "rotary_emb_base"),
        biases="all" if settings["attention_bias"] else "none",
    )
    return ModelConfig(
        vocab_size=settings["vocab_size"],
        width=width,
        depth=settings["num_hidden_layers"],
        attention=attention,
        mlp=MlpConfig(settings["intermediate_size"], read_activation(settings, "hidden_act", PLAIN), biases=True),
        norm="layer",
        norm_epsilon=settings["layer_norm_eps"],
        parallel_mixers=settings["use_parallel_residual"],
        tied_embeddings=settings["tie_word_embeddings"],
    )


def tensors(model: ModelConfig) -> list[Tensor]:
    """Every tensor of a checkpoint."""
    table = [same("gpt_neox.embed_in.weight", "embedding"), *layer_norm("gpt_neox.final_layer_norm", "final_norm")]
    if not model.tied_embeddings:
        table.append(linear("embed_out.weight", "head"))
    for i, layer in enumerate(layer_paths(model)):
        name, mixer, channel = f"gpt_neox.layers.{i}.", f"{layer}_mixer/", f"{layer}_channel/"
        parts, fused = ("query", "key", "value"), name + "attention.query_key_value."
        table += [
            *layer_norm(name + "input_layernorm", f"{layer}_mixer_norm"),
            *layer_norm(name + "post_attention_layernorm", f"{layer}_channel_norm"),
            _by_head(fused + "weight", tuple(mixer + part for part in parts)),
            linear(name + "attention.dense.weight", mixer + "out", inputs=2),
            linear(name + "mlp.dense_h_to_4h.weight", channel + "up"),
            bias(name + "mlp.dense_h_to_4h.bias", channel + "up_bias"),
            linear(name + "mlp.dense_4h_to_h.weight", channel + "down"),
            bias(name + "mlp.dense_4h_to_h.bias", channel + "down_bias"),
        ]
        if model.attention.biases == "all":
            table.append(_by_head(fused + "bias", tuple(f"{mixer}{part}_bias" for part in parts)))
            table.append(bias(name + "attention.dense.bias", mixer + "out_bias"))
    return table


def _by_head(name: str, paths: tuple[str, ...]) -> Tensor:
    """Query, key and value (D, H, K), or their biases (H, K), as rows ordered by head, which of the three, channel."""

    def join(ours: Sequence[np.ndarray]) -> np.ndarray:
        stacked = np.stack(ours, axis=-2)  # (..., H, 3, K)
        return stacked.reshape(*stacked.shape[:-3], -1).T

    def split(theirs: np.ndarray, shapes: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
        *outer, heads, channels = shapes[0]
        return list(np.moveaxis(theirs.T.reshape(*outer, heads, 3, channels), -2, 0))

    return Tensor(name, paths, join, split)

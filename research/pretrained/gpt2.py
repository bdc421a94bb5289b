"""GPT-2 checkpoints (Radford 2019) as Hugging Face stores them: GPT2LMHeadModel, matrices as (in, out)."""

from typing import Any

from research.config import AttentionConfig, MlpConfig, ModelConfig
from research.pretrained.tensors import Tensor, bias, joined_rows, layer_norm, layer_paths, linear, same, transposed

MODEL_TYPE = "gpt2"
IGNORED = r"\.attn\.(masked_)?bias$|lm_head\.weight"  # causal masks in old files; the head where it is tied
PREFIX = "transformer."  # which the files of the first release leave out


def to_settings(model: ModelConfig) -> dict[str, Any]:
    """The config.json of a model of this family."""
    return {
        "model_type": MODEL_TYPE,
        "architectures": ["GPT2LMHeadModel"],
        "vocab_size": model.vocab_size,
        "n_positions": model.max_positions,
        "n_embd": model.width,
        "n_layer": model.depth,
        "n_head": model.attention.heads,
        "n_inner": model.mlp.hidden,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": model.norm_epsilon,
        "tie_word_embeddings": model.tied_embeddings,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
    }


def from_settings(settings: dict[str, Any]) -> ModelConfig:
    """The model that a config.json describes; what it leaves out has GPT2Config's default."""
    width, heads = settings["n_embd"], settings["n_head"]
    return ModelConfig(
        vocab_size=settings["vocab_size"],
        width=width,
        depth=settings["n_layer"],
        attention=AttentionConfig(heads, heads, width // heads, positions="none", biases="all"),
        mlp=MlpConfig(settings.get("n_inner") or 4 * width, "gelu", biases=True),
        norm="layer",
        norm_epsilon=settings.get("layer_norm_epsilon", 1e-5),
        max_positions=settings.get("n_positions", 1024),
        tied_embeddings=settings.get("tie_word_embeddings", True),
    )


def tensors(model: ModelConfig) -> list[Tensor]:
    """Every tensor of a checkpoint."""
    table = [same(PREFIX + "wte.weight", "embedding"), same(PREFIX + "wpe.weight", "positions")]
    table += layer_norm(PREFIX + "ln_f", "final_norm")
    if not model.tied_embeddings:
        table.append(linear("lm_head.weight", "head"))
    for i, layer in enumerate(layer_paths(model)):
        name, mixer, channel = f"{PREFIX}h.{i}.", f"{layer}_mixer/", f"{layer}_channel/"
        parts = ("query", "key", "value")
        table += [
            *layer_norm(name + "ln_1", f"{layer}_mixer_norm"),
            *layer_norm(name + "ln_2", f"{layer}_channel_norm"),
            transposed(joined_rows(name + "attn.c_attn.weight", [linear("", mixer + part) for part in parts])),
            joined_rows(name + "attn.c_attn.bias", [bias("", f"{mixer}{part}_bias") for part in parts]),
            transposed(linear(name + "attn.c_proj.weight", mixer + "out", inputs=2)),
            bias(name + "attn.c_proj.bias", mixer + "out_bias"),
            transposed(linear(name + "mlp.c_fc.weight", channel + "up")),
            bias(name + "mlp.c_fc.bias", channel + "up_bias"),
            transposed(linear(name + "mlp.c_proj.weight", channel + "down")),
            bias(name + "mlp.c_proj.bias", channel + "down_bias"),
        ]
    return table

"""GPT-2 checkpoints (Radford 2019) as Hugging Face stores them: GPT2LMHeadModel, matrices as (in, out)."""

from typing import Any

from research.config import AttentionConfig, MlpConfig, ModelConfig
from research.pretrained.activations import PLAIN, read_activation, written_activation
from research.pretrained.settings import DROPOUT, KERNEL, OTHER_OUTPUTS, Keys, because, or_null
from research.pretrained.tensors import Tensor, bias, joined_rows, layer_norm, layer_paths, linear, same, transposed

MODEL_TYPE = "gpt2"
IGNORED = r"\.attn\.(masked_)?bias$"  # causal masks in old files
PREFIX = "transformer."  # which the files of the first release leave out
KEYS = Keys(
    read={
        "vocab_size": 50_257,
        "n_positions": 1024,
        "n_embd": 768,
        "n_layer": 12,
        "n_head": 12,
        "n_inner": or_null(None),
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "tie_word_embeddings": True,
    },
    only={"scale_attn_weights": (True,), "scale_attn_by_inverse_layer_idx": (False,)},
    unused={
        **because(DROPOUT, "resid_pdrop embd_pdrop attn_pdrop summary_first_dropout"),
        **because(OTHER_OUTPUTS, "summary_type summary_use_proj summary_activation summary_proj_to_labels"),
        "reorder_and_upcast_attn": KERNEL,
        "n_ctx": "n_positions once more, in the first files",
    },
    longest=None,
)


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
        "activation_function": written_activation(model.mlp.activation, PLAIN),
        "layer_norm_epsilon": model.norm_epsilon,
        "tie_word_embeddings": model.tied_embeddings,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
    }


def from_settings(settings: dict[str, Any]) -> ModelConfig:
    """The model that a config.json describes; `settings` are complete."""
    width, heads = settings["n_embd"], settings["n_head"]
    return ModelConfig(
        vocab_size=settings["vocab_size"],
        width=width,
        depth=settings["n_layer"],
        attention=AttentionConfig(heads, heads, width // heads, positions="none", biases="all"),
        mlp=MlpConfig(
            settings["n_inner"] or 4 * width, read_activation(settings, "activation_function", PLAIN), biases=True
        ),
        norm="layer",
        norm_epsilon=settings["layer_norm_epsilon"],
        max_positions=settings["n_positions"],
        tied_embeddings=settings["tie_word_embeddings"],
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

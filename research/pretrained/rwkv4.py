"""RWKV-4 checkpoints (Peng 2023) as Hugging Face stores them: RwkvForCausalLM.

`rescale_every` is written as 0: with another value that class divides some weights in place when it is first used for
inference, which keeps float16 in range and is no part of the model.
"""

from typing import Any

from research.config import ModelConfig, Rwkv4Config
from research.pretrained.settings import KERNEL, Keys, must_equal, or_null, quotient
from research.pretrained.tensors import Tensor, layer_paths, linear, same

MODEL_TYPE = "rwkv"
IGNORED = None
KEYS = Keys(
    read={
        "vocab_size": 50_277,
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "attention_hidden_size": or_null(None),
        "intermediate_size": or_null(None),
        "layer_norm_epsilon": 1e-5,
        "tie_word_embeddings": False,
    },
    unused={"rescale_every": KERNEL, "context_length": KERNEL},
    other_names={"max_position_embeddings": "context_length"},
    longest="context_length",
)


def to_settings(model: ModelConfig) -> dict[str, Any]:
    """The config.json of a model of this family."""
    return {
        "model_type": MODEL_TYPE,
        "architectures": ["RwkvForCausalLM"],
        "vocab_size": model.vocab_size,
        "hidden_size": model.width,
        "attention_hidden_size": model.width,
        "intermediate_size": model.rwkv4.hidden(model.width),
        "num_hidden_layers": model.depth,
        "layer_norm_epsilon": model.norm_epsilon,
        "rescale_every": 0,
        "tie_word_embeddings": model.tied_embeddings,
    }


def from_settings(settings: dict[str, Any]) -> ModelConfig:
    """The model that a config.json describes; `settings` are complete."""
    width = settings["hidden_size"]
    must_equal(settings, "attention_hidden_size", width, "hidden_size")
    said = settings["intermediate_size"] is not None
    return ModelConfig(
        vocab_size=settings["vocab_size"],
        width=width,
        depth=settings["num_hidden_layers"],
        pattern="rwkv4_time:rwkv4_channel",
        rwkv4=Rwkv4Config(expand=quotient(settings, "intermediate_size", width, "hidden_size") if said else 4),
        norm="layer",
        norm_epsilon=settings["layer_norm_epsilon"],
        embedding_norm=True,
        tied_embeddings=settings["tie_word_embeddings"],
    )


def tensors(model: ModelConfig) -> list[Tensor]:
    """Every tensor of a checkpoint."""
    table = [
        same("rwkv.embeddings.weight", "embedding"),
        *norm_tensors("rwkv.blocks.0.pre_ln", "embedding_norm"),
        *norm_tensors("rwkv.ln_out", "final_norm"),
    ]
    if not model.tied_embeddings:
        table.append(linear("head.weight", "head"))
    for i, layer in enumerate(layer_paths(model)):
        block, time, channel = f"rwkv.blocks.{i}.", f"{layer}_mixer", f"{layer}_channel"
        table += [
            *norm_tensors(block + "ln1", f"{time}_norm"),
            *norm_tensors(block + "ln2", f"{channel}_norm"),
            same(block + "attention.time_decay", f"{time}/decay"),
            same(block + "attention.time_first", f"{time}/bonus"),
            linear(block + "attention.output.weight", f"{time}/out"),
            linear(block + "feed_forward.value.weight", f"{channel}/value"),
        ]
        mixed = [("attention", time, name) for name in ("key", "value", "receptance")]
        mixed += [("feed_forward", channel, name) for name in ("key", "receptance")]
        for part, path, name in mixed:
            table.append(linear(f"{block}{part}.{name}.weight", f"{path}/{name}"))
            table.append(channel_vector(f"{block}{part}.time_mix_{name}", f"{path}/{name}_mix"))
    return table


def norm_tensors(name: str, path: str) -> list[Tensor]:
    """Gain and bias of one LayerNorm."""
    return [same(name + ".weight", path + "/gain"), same(name + ".bias", path + "/bias")]


def channel_vector(name: str, path: str) -> Tensor:
    """A number a channel, stored as (1, 1, D)."""
    return Tensor(
        name,
        (path,),
        lambda ours: ours[0].reshape(1, 1, -1),
        lambda theirs, shapes: [theirs.reshape(shapes[0])],
    )

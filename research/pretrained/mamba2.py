"""Mamba-2 checkpoints (Dao & Gu 2024) as Hugging Face stores them: Mamba2ForCausalLM."""

import math
from typing import Any

from research.config import Mamba2Config, ModelConfig
from research.pretrained.activations import SILU
from research.pretrained.mamba import IGNORED, UNUSED, backbone_tensors, convolution_weight
from research.pretrained.settings import KERNEL, Key, Keys, must_equal, or_null, refuse
from research.pretrained.tensors import Tensor, joined_rows, layer_paths, linear, same

__all__ = ["IGNORED", "KEYS", "MODEL_TYPE", "from_settings", "tensors", "to_settings"]

MODEL_TYPE = "mamba2"


INFINITY = {"__float__": "Infinity"}  # as transformers writes it
KEYS = Keys(
    read={
        "vocab_size": 32_768,
        "hidden_size": 4096,
        "num_hidden_layers": 64,
        "num_heads": or_null(128),
        "head_dim": 64,
        "state_size": 128,
        "expand": 2,
        "intermediate_size": or_null(None),
        "n_groups": 8,
        "conv_kernel": 4,
        "layer_norm_epsilon": 1e-5,
        "tie_word_embeddings": False,
        "time_step_limit": Key((0.0, math.inf), (list, tuple)),
    },
    only={"hidden_act": SILU, "use_bias": (False,), "use_conv_bias": (True,), "rms_norm": (True,)},
    unused={
        **UNUSED,
        "chunk_size": KERNEL,
        "norm_before_gate": "transformers' class gates first whatever it says, and files are made for that class",
        "time_step_rank": "of the first Mamba",
    },
    longest=None,
)


def to_settings(model: ModelConfig) -> dict[str, Any]:
    """The config.json of a model of this family."""
    cfg = model.mamba2
    return {
        "model_type": MODEL_TYPE,
        "architectures": ["Mamba2ForCausalLM"],
        "vocab_size": model.vocab_size,
        "hidden_size": model.width,
        "num_hidden_layers": model.depth,
        "state_size": cfg.state_size,
        "expand": cfg.expand,
        "head_dim": cfg.head_dim,
        "num_heads": cfg.heads(model.width),
        "n_groups": cfg.groups,
        "conv_kernel": cfg.conv_width,
        "hidden_act": "silu",
        "use_bias": False,
        "use_conv_bias": True,
        "layer_norm_epsilon": model.norm_epsilon,
        "tie_word_embeddings": model.tied_embeddings,
    }


def from_settings(settings: dict[str, Any]) -> ModelConfig:
    """The model that a config.json describes; `settings` are complete.

    Raises CheckpointError for limited steps, and for sizes that do not follow from those they are made of.
    """
    limits = list(settings["time_step_limit"])
    if limits not in ([0, math.inf], [0, INFINITY]):
        rule = "must be [0, Infinity]: steps are not clamped here"
        raise refuse("time_step_limit", limits, rule, "use a checkpoint that was trained without the limit")
    inner = settings["expand"] * settings["hidden_size"]
    must_equal(settings, "intermediate_size", inner, "expand * hidden_size")
    must_equal(settings, "num_heads", inner // settings["head_dim"], "expand * hidden_size / head_dim")
    return ModelConfig(
        vocab_size=settings["vocab_size"],
        width=settings["hidden_size"],
        depth=settings["num_hidden_layers"],
        pattern="mamba2",
        mamba2=Mamba2Config(
            state_size=settings["state_size"],
            expand=settings["expand"],
            head_dim=settings["head_dim"],
            groups=settings["n_groups"],
            conv_width=settings["conv_kernel"],
        ),
        norm_epsilon=settings["layer_norm_epsilon"],
        tied_embeddings=settings["tie_word_embeddings"],
    )


def tensors(model: ModelConfig) -> list[Tensor]:
    """Every tensor of a checkpoint."""
    table = backbone_tensors(model)
    for i, layer in enumerate(layer_paths(model)):
        table += mamba2_tensors(f"backbone.layers.{i}.mixer.", f"{layer}_mixer/")
    return table


def mamba2_tensors(name: str, path: str) -> list[Tensor]:
    """One mixer: rows of in_proj are the gate's, input's, B's and C's, and the step's; conv1d has all but the first."""
    rows = [linear("", path + part) for part in ("gate", "input", "selection", "dt")]
    convolved = [path + "conv_input/", path + "conv_selection/"]
    return [
        joined_rows(name + "in_proj.weight", rows),
        joined_rows(name + "conv1d.weight", [convolution_weight("", conv + "kernel") for conv in convolved]),
        joined_rows(name + "conv1d.bias", [same("", conv + "bias") for conv in convolved]),
        same(name + "dt_bias", path + "dt_bias"),
        same(name + "A_log", path + "A_log"),
        same(name + "D", path + "skip"),
        same(name + "norm.weight", path + "gain"),
        linear(name + "out_proj.weight", path + "out"),
    ]

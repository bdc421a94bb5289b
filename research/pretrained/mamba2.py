"""Mamba-2 checkpoints (Dao & Gu 2024) as Hugging Face stores them: Mamba2ForCausalLM."""

import math
from typing import Any

from research.config import Mamba2Config, ModelConfig, check
from research.pretrained.mamba import IGNORED, backbone_tensors, convolution_weight
from research.pretrained.tensors import Tensor, joined_rows, layer_paths, linear, same

__all__ = ["IGNORED", "MODEL_TYPE", "from_settings", "tensors", "to_settings"]

MODEL_TYPE = "mamba2"


INFINITY = {"__float__": "Infinity"}  # as transformers writes it


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
    """The model that a config.json describes; what older files leave out has Mamba2Config's default.

    chunk_size says how a kernel computes, not what: it is neither read nor written. ConfigError for limited steps.
    """
    low, high = settings.get("time_step_limit", (0.0, math.inf))
    check(
        low <= 0 and high in (math.inf, INFINITY),
        "time_step_limit",
        (low, high),
        "must be (0, inf): steps are not clamped here",
        "convert a checkpoint that was trained without the limit",
    )
    return ModelConfig(
        vocab_size=settings["vocab_size"],
        width=settings["hidden_size"],
        depth=settings["num_hidden_layers"],
        pattern="mamba2",
        mamba2=Mamba2Config(
            state_size=settings.get("state_size", 128),
            expand=settings.get("expand", 2),
            head_dim=settings.get("head_dim", 64),
            groups=settings.get("n_groups", 8),
            conv_width=settings.get("conv_kernel", 4),
        ),
        norm_epsilon=settings.get("layer_norm_epsilon", 1e-5),
        tied_embeddings=settings.get("tie_word_embeddings", False),
    )


def tensors(model: ModelConfig) -> list[Tensor]:
    """Every tensor of a checkpoint."""
    table = backbone_tensors(model)
    for i, layer in enumerate(layer_paths(model)):
        table += mamba2_tensors(f"backbone.layers.{i}.mixer.", f"{layer}_mixer/")
    return table


def mamba2_tensors(name: str, path: str) -> list[Tensor]:
    """One mixer: rows of in_proj are the gate's, input's, B's and C's, and the step's; conv1d has all but the first."""
    rows = [linear("", path + part) for part in ("gate", "input", "selection", "step")]
    convolved = [path + "conv_input/", path + "conv_selection/"]
    return [
        joined_rows(name + "in_proj.weight", rows),
        joined_rows(name + "conv1d.weight", [convolution_weight("", conv + "kernel") for conv in convolved]),
        joined_rows(name + "conv1d.bias", [same("", conv + "bias") for conv in convolved]),
        same(name + "dt_bias", path + "step_bias"),
        same(name + "A_log", path + "rate_log"),
        same(name + "D", path + "skip"),
        same(name + "norm.weight", path + "gain"),
        linear(name + "out_proj.weight", path + "out"),
    ]

"""Mamba checkpoints (Gu & Dao 2023) as Hugging Face stores them: MambaForCausalLM."""

from typing import Any

from research.config import MambaConfig, ModelConfig
from research.pretrained.tensors import Tensor, joined_rows, layer_paths, linear, same

MODEL_TYPE = "mamba"
IGNORED = r"lm_head\.weight"  # a tied file may hold the head


def to_settings(model: ModelConfig) -> dict[str, Any]:
    """The config.json of a model of this family."""
    cfg = model.mamba
    return {
        "model_type": MODEL_TYPE,
        "architectures": ["MambaForCausalLM"],
        "vocab_size": model.vocab_size,
        "hidden_size": model.width,
        "num_hidden_layers": model.depth,
        "state_size": cfg.state_size,
        "expand": cfg.expand,
        "conv_kernel": cfg.conv_width,
        "time_step_rank": cfg.step_rank or "auto",
        "hidden_act": "silu",
        "use_bias": False,
        "use_conv_bias": True,
        "layer_norm_epsilon": model.norm_epsilon,
        "tie_word_embeddings": model.tied_embeddings,
    }


def from_settings(settings: dict[str, Any]) -> ModelConfig:
    """The model that a config.json describes; what older files leave out has MambaConfig's default."""
    return ModelConfig(
        vocab_size=settings["vocab_size"],
        width=settings["hidden_size"],
        depth=settings["num_hidden_layers"],
        pattern="mamba",
        mamba=MambaConfig(
            state_size=settings.get("state_size", 16),
            expand=settings.get("expand", 2),
            conv_width=settings.get("conv_kernel", 4),
            step_rank=step_rank(settings.get("time_step_rank", "auto"), settings["hidden_size"]),
        ),
        norm_epsilon=settings.get("layer_norm_epsilon", 1e-5),
        tied_embeddings=settings.get("tie_word_embeddings", True),
    )


def step_rank(said: int | str, width: int) -> int | None:
    """Ours from a config.json's, which may give the rule by name ("auto") or the number it comes to."""
    return None if said in ("auto", MambaConfig().rank(width)) else said


def tensors(model: ModelConfig) -> list[Tensor]:
    """Every tensor of a checkpoint."""
    table = backbone_tensors(model)
    for i, layer in enumerate(layer_paths(model)):
        table += mamba_tensors(f"backbone.layers.{i}.mixer.", f"{layer}_mixer/")
    return table


def backbone_tensors(model: ModelConfig) -> list[Tensor]:
    """What is not inside of mixers, as Mamba, Mamba-2 and FalconMamba name it."""
    table = [same("backbone.embeddings.weight", "embedding"), same("backbone.norm_f.weight", "final_norm/gain")]
    if not model.tied_embeddings:
        table.append(linear("lm_head.weight", "head"))
    return table + [
        same(f"backbone.layers.{i}.norm.weight", f"{layer}_mixer_norm/gain")
        for i, layer in enumerate(layer_paths(model))
    ]


def mamba_tensors(name: str, path: str) -> list[Tensor]:
    """One mixer: rows of in_proj are the input's, then the gate's; those of x_proj the step's, B's and C's."""
    return [
        joined_rows(name + "in_proj.weight", [linear("", path + "input"), linear("", path + "gate")]),
        convolution_weight(name + "conv1d.weight", path + "conv/kernel"),
        same(name + "conv1d.bias", path + "conv/bias"),
        linear(name + "x_proj.weight", path + "selection"),
        linear(name + "dt_proj.weight", path + "step"),
        same(name + "dt_proj.bias", path + "step_bias"),
        linear(name + "A_log", path + "rate_log"),
        same(name + "D", path + "skip"),
        linear(name + "out_proj.weight", path + "out"),
    ]


def convolution_weight(name: str, path: str) -> Tensor:
    """A depthwise torch.nn.Conv1d weight (channels, 1, taps) of our kernel (taps, channels); both correlate."""
    return Tensor(
        name,
        (path,),
        lambda ours: ours[0].T[:, None],
        lambda theirs, shapes: [theirs[:, 0].T.reshape(shapes[0])],
    )

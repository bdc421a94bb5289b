"""Mamba checkpoints (Gu & Dao 2023) as Hugging Face stores them: MambaForCausalLM."""

from typing import Any

from research.config import MambaConfig, ModelConfig
from research.pretrained.activations import SILU
from research.pretrained.settings import (
    INITIALISATION,
    KERNEL,
    OTHER_READER,
    Key,
    Keys,
    because,
    or_null,
    quotient,
    refuse,
)
from research.pretrained.tensors import Tensor, joined_rows, layer_paths, linear, same

MODEL_TYPE = "mamba"
IGNORED = None
UNUSED = {  # keys of all three kinds of Mamba that change nothing
    "residual_in_fp32": "the precision of sums alone",
    **because(INITIALISATION, "time_step_scale time_step_min time_step_max time_step_init_scheme time_step_floor"),
    **because(INITIALISATION, "rescale_prenorm_residual"),
    **because(KERNEL, "use_mambapy use_associative_scan fused_add_norm"),
    **because(OTHER_READER, "d_model d_inner n_layer ssm_cfg pad_vocab_size_multiple"),
}
KEYS = Keys(
    read={
        "vocab_size": 50_280,
        "hidden_size": 768,
        "num_hidden_layers": 32,
        "state_size": 16,
        "expand": 2,
        "intermediate_size": or_null(None),  # of the recurrence; where it is said, `expand` is not looked at
        "conv_kernel": 4,
        "time_step_rank": Key("auto", (str, int)),
        "layer_norm_epsilon": 1e-5,
        "tie_word_embeddings": True,
    },
    only={"hidden_act": SILU, "use_bias": (False,), "use_conv_bias": (True,), "rms_norm": (True,)},
    unused=UNUSED,
    longest=None,
)


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
        "intermediate_size": cfg.inner(model.width),
        "conv_kernel": cfg.conv_width,
        "time_step_rank": cfg.dt_rank or "auto",
        "hidden_act": "silu",
        "use_bias": False,
        "use_conv_bias": True,
        "layer_norm_epsilon": model.norm_epsilon,
        "tie_word_embeddings": model.tied_embeddings,
    }


def from_settings(settings: dict[str, Any]) -> ModelConfig:
    """The model that a config.json describes; `settings` are complete."""
    width, expand = settings["hidden_size"], settings["expand"]
    if settings["intermediate_size"] is not None:
        expand = quotient(settings, "intermediate_size", width, "hidden_size")
    return ModelConfig(
        vocab_size=settings["vocab_size"],
        width=width,
        depth=settings["num_hidden_layers"],
        pattern="mamba",
        mamba=MambaConfig(
            state_size=settings["state_size"],
            expand=expand,
            conv_width=settings["conv_kernel"],
            dt_rank=dt_rank(settings, "time_step_rank"),
        ),
        norm_epsilon=settings["layer_norm_epsilon"],
        tied_embeddings=settings["tie_word_embeddings"],
    )


def dt_rank(settings: dict[str, Any], key: str) -> int | None:
    """Ours from a config.json's, which may give the rule by name ("auto") or the number it comes to."""
    said, rule = settings[key], MambaConfig().rank(settings["hidden_size"])
    if isinstance(said, str) and said != "auto":
        raise refuse(key, said, "must be a whole number or 'auto'", "correct the file")
    return None if said in ("auto", rule) else said


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
        linear(name + "dt_proj.weight", path + "dt"),
        same(name + "dt_proj.bias", path + "dt_bias"),
        linear(name + "A_log", path + "A_log"),
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

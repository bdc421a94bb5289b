"""The names that config.json gives to activations, which leave no trace in the tensors."""

from collections.abc import Mapping
from typing import Any

from research.pretrained.settings import refuse

# What transformers' ACT2FN computes by each name, as MlpConfig calls it; the first name of each is the one we write.
GATED = {
    "silu": "swiglu",
    "swish": "swiglu",
    **dict.fromkeys(("gelu_pytorch_tanh", "gelu_new", "gelu_fast", "gelu_accurate"), "geglu"),
}
PLAIN = {
    **dict.fromkeys(("gelu_new", "gelu_fast", "gelu_pytorch_tanh", "gelu_accurate"), "gelu"),
    **dict.fromkeys(("gelu", "gelu_python"), "gelu_exact"),
    "relu": "relu",
    "relu2": "relu_squared",
}
SILU = ("silu", "swish")  # one function, and the only one of layers whose activation is fixed here


def read_activation(settings: Mapping[str, Any], key: str, names: Mapping[str, str]) -> str:
    """MlpConfig's name of the activation; CheckpointError for one that this project does not have."""
    if settings[key] not in names:
        rule = f"must be one of {', '.join(names)}"
        raise refuse(key, settings[key], rule, "use a checkpoint that has one of them")
    return names[settings[key]]


def written_activation(activation: str, names: Mapping[str, str]) -> str:
    """The name of MlpConfig's `activation`; the table's first if it has none, which then reads back as another."""
    return next((name for name, ours in names.items() if ours == activation), next(iter(names)))

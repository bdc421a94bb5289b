"""FalconMamba checkpoints (Zuo 2024) as Hugging Face stores them: Mamba with fixed norms of the step, B and C."""

from dataclasses import replace
from typing import Any

from research.config import ModelConfig
from research.pretrained.mamba import IGNORED, tensors
from research.pretrained.mamba import KEYS as MAMBA_KEYS
from research.pretrained.mamba import from_settings as mamba_from_settings
from research.pretrained.mamba import to_settings as mamba_to_settings

__all__ = ["IGNORED", "KEYS", "MODEL_TYPE", "from_settings", "tensors", "to_settings"]

MODEL_TYPE = "falcon_mamba"
KEYS = MAMBA_KEYS.but(read={"mixer_rms_eps": 1e-6})


def to_settings(model: ModelConfig) -> dict[str, Any]:
    """The config.json of a model of this family."""
    own = {"model_type": MODEL_TYPE, "architectures": ["FalconMambaForCausalLM"]}
    return {**mamba_to_settings(model), **own, "mixer_rms_eps": model.mamba.inner_norm_epsilon}


def from_settings(settings: dict[str, Any]) -> ModelConfig:
    """The model that a config.json describes; `settings` are complete."""
    model, epsilon = mamba_from_settings(settings), settings["mixer_rms_eps"]
    return replace(model, mamba=replace(model.mamba, inner_norms="fixed", inner_norm_epsilon=epsilon))

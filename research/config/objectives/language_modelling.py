"""Next-token language modelling."""

from dataclasses import dataclass
from typing import Literal

from research.config.objectives.base import ObjectiveSettings


@dataclass(frozen=True)
class LanguageModellingConfig(ObjectiveSettings):
    """Next-token cross-entropy. Its z-loss is `training.z_loss`, which names earlier runs."""

    name: Literal["language_modelling"] = "language_modelling"

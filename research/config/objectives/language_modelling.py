"""Next-token language modelling."""

from dataclasses import dataclass
from typing import Literal

from research.config.validation import check_choices


@dataclass(frozen=True)
class LanguageModellingConfig:
    """Next-token cross-entropy. Its z-loss is `training.z_loss`, which names earlier runs."""

    name: Literal["language_modelling"] = "language_modelling"

    def __post_init__(self):
        check_choices(self, "objective")

"""Which class a row is of."""

from dataclasses import dataclass
from typing import Literal

from research.config.heads import Head
from research.config.model import ModelConfig
from research.config.objectives.base import ObjectiveSettings
from research.config.validation import check


@dataclass(frozen=True)
class ClassificationConfig(ObjectiveSettings):
    """Cross-entropy of the class head's answer after a row's last token; labels are 0 to model.heads.classes - 1."""

    name: Literal["classification"] = "classification"

    @property
    def heads(self) -> tuple[Head, ...]:
        return ("classes",)

    def labels(self, model: ModelConfig) -> int | None:
        return model.heads.classes

    def check_fits(self, model: ModelConfig) -> None:
        rule = f"must be set for objective {self.name!r}, which trains that head"
        check(model.heads.classes is not None, "model.heads.classes", None, rule, "set it to the number of classes")

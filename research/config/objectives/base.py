"""What every objective says of itself, beside its name and its numbers."""

from dataclasses import dataclass

from research.config.heads import Head
from research.config.model import ModelConfig
from research.config.validation import check_choices


@dataclass(frozen=True)
class ObjectiveSettings:
    """A subclass adds a `name`, which is its tag in JSON, and its own fields, each with a default."""

    def __post_init__(self):
        check_choices(self, "objective")

    @property
    def heads(self) -> tuple[Head, ...]:
        """The model's heads that training multiplies final hidden states with; they count in its cost."""
        return ("vocabulary",)

    def labels(self, model: ModelConfig) -> int | None:
        """How many labels a row may have, counted from 0; None where training reads none."""
        return None

    def check_fits(self, model: ModelConfig) -> None:
        """Raise ConfigError unless the model has what the objective trains."""

"""Whether a solution is right, judged after each of its tokens."""

from dataclasses import dataclass
from typing import Literal

from research.config.heads import Head
from research.config.model import ModelConfig
from research.config.objectives.base import ObjectiveSettings
from research.config.validation import check, check_range


@dataclass(frozen=True)
class VerifierConfig(ObjectiveSettings):
    """A verifier of tokens, trained jointly with the language-model loss (Cobbe 2021, arXiv:2110.14168, section 4.2).

    Labels are 1 for a right solution and 0 for a wrong one. Under squared_error the scalar is itself the estimate of
    the label; under logistic it is that estimate's log odds.
    """

    loss: Literal["squared_error", "logistic"] = "squared_error"
    language_weight: float = 1.0  # of the language-model loss of a token, beside the verifier's; 0: the latter alone
    name: Literal["verifier"] = "verifier"

    def __post_init__(self):
        super().__post_init__()
        check_range(self, "objective", "language_weight", 0)

    @property
    def heads(self) -> tuple[Head, ...]:
        return ("vocabulary", "scalar")

    def labels(self, model: ModelConfig) -> int | None:
        return 2

    def check_fits(self, model: ModelConfig) -> None:
        rule = f"must be true for objective {self.name!r}, which trains that head"
        check(model.heads.scalar, "model.heads.scalar", False, rule, "set it to true")

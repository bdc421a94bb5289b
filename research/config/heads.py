"""What a model has beside its language-model head to judge what it reads."""

from dataclasses import dataclass
from typing import Literal

from research.config.validation import check_range

Head = Literal["vocabulary", "scalar", "classes"]  # what final hidden states may be multiplied with


@dataclass(frozen=True)
class HeadsConfig:
    """Further heads on the final hidden states, of the decoder where there is an encoder (research/models/heads.py)."""

    scalar: bool = False  # one number after each token: a verifier's, a reward's, a value's
    classes: int | None = None  # a logit for each of so many classes, read after one token of a row

    def __post_init__(self):
        check_range(self, "model.heads", "classes", 2)

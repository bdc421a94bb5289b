"""What a recipe is: a rule from the scale of a run to settings of its optimizer, with its source and its own range.

Params are counted in four ways, and each source counts in its own; `Scale` has them all, so that a rule names the one
that its source means.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

FLOPS_PER_PARAM = 6  # and token, in training (Kaplan 2020, section 2.1), where nothing else is known of a model


@dataclass(frozen=True)
class Scale:
    """What a recipe may read of a run. FLOPs are of training, raw; tokens are those of the whole run.

    base_rate, width_ratio: peak rate of the run that the plan is scaled from, and the run's width over that one's
    width; None outside of a plan.
    """

    params: float  # all
    non_embedding_params: float  # without the tables of tokens and positions and the head
    head_params: float  # what a token is multiplied with: non-embedding, and the head
    flops_per_token: float
    non_embedding_flops_per_token: float  # without the head's
    tokens: float
    batch_tokens: float | None = None
    base_rate: float | None = None
    width_ratio: float | None = None

    @classmethod
    def of_counts(cls, params: float, tokens: float, batch_tokens: float | None = None) -> "Scale":
        """Where one count of params is all that is known: it stands for every count, with 6 FLOPs a param and token."""
        per_token = FLOPS_PER_PARAM * params
        return cls(params, params, params, per_token, per_token, tokens, batch_tokens)

    @property
    def flops(self) -> float:
        return self.flops_per_token * self.tokens

    @property
    def non_embedding_flops(self) -> float:
        return self.non_embedding_flops_per_token * self.tokens


@dataclass(frozen=True)
class Settings:
    """What a recipe says; None where it says nothing."""

    learning_rate: float | None = None  # the schedule's peak
    batch_tokens: float | None = None  # of an optimizer step, not yet whole sequences
    weight_decay: float | None = None
    beta2: float | None = None
    warmup_tokens: float | None = None


Setting = Literal["learning_rate", "batch_tokens", "weight_decay", "beta2", "warmup_tokens"]


@dataclass(frozen=True)
class Rule:
    """A recipe as its source states it.

    formula: with units, for people. settings: of a run's scale and of the recipe's constants, by name. constants: the
    names of those that a plan must give; None if the rule takes whatever it finds. ranges: (low, high) of the source's
    own runs, by attribute of Scale. cells: (params, tokens) of the sweeps that it has seen, where known, in its own
    count. parametrisations: those of the model under which its rate means what its source says: "scaled" is any but the
    standard one. relative: whether its rate is the base run's, changed, so that it says nothing outside of a plan.
    """

    formula: str
    source: str
    settings: Callable[[Scale, Mapping[str, float]], Settings]
    constants: tuple[str, ...] | None = ()
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    cells: tuple[tuple[float, float], ...] = ()
    parametrisations: Literal["standard", "scaled", "any"] = "standard"
    relative: bool = False

    def outside(self, scale: Scale) -> tuple[str, ...]:
        """Attributes of the scale that lie outside of the source's own runs."""
        return tuple(name for name, (low, high) in self.ranges.items() if not low <= getattr(scale, name) <= high)

    def range_of(self, quantity: str) -> str:
        """The source's own range of an attribute of the scale, for people."""
        low, high = self.ranges[quantity]
        return f"{quantity} {low:.3g} to {high:.3g}"

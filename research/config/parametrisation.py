"""How a model's numbers change with its size: what research/optim/parametrisation.py follows."""

from dataclasses import dataclass
from typing import Literal

from research.config.validation import check, check_choices, check_range


@dataclass(frozen=True)
class ParametrisationConfig:
    """The parametrisation, and the base model at which it is the standard one, to the last bit.

    It stands in the model and not in the optimizer, since multipliers of weights, of residual branches and of attention
    are part of the function: whoever has a model's config and its parameters computes the same, decoding too.
    """

    # mup: Yang 2022 (Tensor Programs V); mean_field, ntk: Everett 2024; completep: Dey 2025, mup with depth
    name: Literal["standard", "mup", "mean_field", "ntk", "completep"] = "standard"
    base_width: int | None = None  # of the model whose hyperparameters these are; every parametrisation but standard
    base_depth: int | None = None  # its depth, the decoder's if it has an encoder; completep alone
    base_head_dim: int | None = None  # its heads' channels, where these grow too; none: heads grow in number alone
    # independent: learning rate times weight decay is held constant, so that a weight decays as fast at every width
    # (Wang & Aitchison 2024; Dey 2025); coupled: the decay is, and a lower rate decays less.
    decay: Literal["independent", "coupled"] = "independent"

    def __post_init__(self):
        check_choices(self, "model.parametrisation")
        check_range(self, "model.parametrisation", "base_width base_depth base_head_dim", 1)
        needed = {"base_width": self.name != "standard", "base_depth": self.name == "completep"}
        for field, is_needed in needed.items():
            check(
                not is_needed or getattr(self, field) is not None,
                f"model.parametrisation.{field}",
                None,
                f"must be set for {self.name}, which is relative to a base model",
                "write that of the model whose learning rate was tuned",
            )

    @property
    def unused(self) -> frozenset[str]:
        """Fields that decide no number."""
        if self.name == "standard":
            return frozenset({"base_width", "base_depth", "base_head_dim", "decay"})
        return frozenset() if self.name == "completep" else frozenset({"base_depth"})

    def width_ratio(self, width: int) -> float:
        """How many times as wide as the base a model is; 1 under the standard parametrisation."""
        return width / self.base_of(width)

    def base_of(self, width: int) -> int:
        """The base's width, of a model this wide; its own under the standard parametrisation."""
        return width if self.name == "standard" else self.base_width

    def depth_ratio(self, depth: int) -> float:
        """How many times as deep as the base; 1 where depth changes nothing."""
        return depth / self.base_depth if self.name == "completep" else 1.0

    def score_ratio(self, head_dim: int) -> float:
        """Of attention's scale to 1 / sqrt(head_dim): it falls as 1 / head_dim, being sums of so many alike terms."""
        grows = self.name != "standard" and self.base_head_dim is not None
        return (self.base_head_dim / head_dim) ** 0.5 if grows else 1.0

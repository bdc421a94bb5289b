"""Muon for matrices, Adam for the rest."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from research.config.optimizers.base import Axes
from research.config.optimizers.orthogonalised import Orthogonalised
from research.config.validation import check_positive

if TYPE_CHECKING:
    import jax


@dataclass(frozen=True)
class MuonConfig(Orthogonalised):
    """Muon (Jordan 2024) as Liu 2025 (arXiv:2502.16982, section 2.2) runs it: a matrix between widths moves along its
    orthogonalised momentum, times update_rms * sqrt(its larger dimension), the size of AdamW's steps; so one rate and
    one decay serve Muon and the Adam of all other parameters.
    """

    update_rms: float = 0.2  # root mean square of an update's entries, at the rate 1
    name: Literal["muon"] = "muon"

    def __post_init__(self):
        super().__post_init__()
        check_positive(self, "optimizer", "update_rms")

    def matrix_step(self, numbers: dict[str, Any], update: "jax.Array", param: "jax.Array", of: Axes) -> "jax.Array":
        return numbers["update_rms"] * math.sqrt(max(of.shapes(update.shape)[1:])) * update

    def rate_scale(self, axes: Axes, rate: float, growth: float) -> float:
        """A matrix' step moves its products by its largest singular value, which grows as the square root of its sides,
        where Adam's grows as they do: for as far a move at every width the rate falls as one over the square root."""
        return rate * math.sqrt(growth) if axes.into else rate

"""SOAP."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from research.config.optimizers.base import FLOAT32_BYTES, Axes, Optimizer
from research.config.validation import check_positive, check_range

if TYPE_CHECKING:
    import optax


@dataclass(frozen=True)
class SoapConfig(Optimizer):
    """SOAP (Vyas 2024, arXiv:2409.11321): Adam in the eigenbases of Shampoo's two preconditioners of a matrix, renewed
    every `every` steps. A side longer than `largest` keeps its own basis; what is no matrix has Adam."""

    beta1: float = 0.95
    beta2: float = 0.95  # of Adam's squares and of the preconditioners
    epsilon: float = 1e-8
    every: int = 10  # steps between two bases
    largest: int = 4096
    name: Literal["soap"] = "soap"

    def __post_init__(self):
        super().__post_init__()
        check_positive(self, "optimizer", "epsilon")
        check_range(self, "optimizer", "every largest", 1)
        check_range(self, "optimizer", "beta1 beta2", 0, 0.999999)

    def direction(self, numbers: dict[str, Any], axes: Any) -> "optax.GradientTransformation":
        from research.optim.soap import scale_by_soap

        return scale_by_soap(
            numbers["beta1"], numbers["beta2"], numbers["epsilon"], axes, every=self.every, largest=self.largest
        )

    def kept_bytes(self, shape: tuple[int, ...], axes: Axes) -> int:
        stacked, sides = axes.shapes(shape)[0], self._sides(shape, axes)
        return FLOAT32_BYTES * (2 * math.prod(shape) + 2 * stacked * sum(size * size for size, _ in sides))

    def update_flops(self, shape: tuple[int, ...], axes: Axes) -> float:
        """Per side: its preconditioner, the gradient and the momentum into its basis and the step out of it; every few
        steps the eigenvalues (one product and its diagonal) and the power iteration (one); no factorisation."""
        stacked = axes.shapes(shape)[0]
        each = [
            4 * 2.0 * size * size * other + 2.0 * (2 * size**3 + size**2) / self.every
            for size, other in self._sides(shape, axes)
        ]
        return stacked * sum(each)

    def _sides(self, shape: tuple[int, ...], axes: Axes) -> list[tuple[int, int]]:
        """The sides that have a basis, as (side, other side)."""
        _, rows, columns = axes.shapes(shape)
        sides = ((rows, columns), (columns, rows)) if axes.into else ()
        return [pair for pair in sides if pair[0] <= self.largest]

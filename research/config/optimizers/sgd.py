"""Stochastic gradient descent with momentum."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from research.config.optimizers.base import FLOAT32_BYTES, Axes, Optimizer
from research.config.validation import check_range

if TYPE_CHECKING:
    import optax


@dataclass(frozen=True)
class SgdConfig(Optimizer):
    """Gradient descent with momentum (Sutskever 2013): the rate multiplies the sum of all gradients so far, each times
    momentum^age. Unlike the others' steps, its follow the size of the gradients."""

    learning_rate: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    name: Literal["sgd"] = "sgd"

    def __post_init__(self):
        super().__post_init__()
        check_range(self, "optimizer", "momentum", 0, 0.999999)

    def direction(self, numbers: dict[str, Any], axes: Any) -> "optax.GradientTransformation":
        import optax

        return optax.trace(numbers["momentum"], self.nesterov)

    def kept_bytes(self, shape: tuple[int, ...], axes: Axes) -> int:
        return FLOAT32_BYTES * math.prod(shape)

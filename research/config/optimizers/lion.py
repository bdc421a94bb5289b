"""Lion."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from research.config.optimizers.base import FLOAT32_BYTES, Axes, Optimizer
from research.config.validation import check_range

if TYPE_CHECKING:
    import optax


@dataclass(frozen=True)
class LionConfig(Optimizer):
    """Lion (Chen 2023, arXiv:2302.06675): the sign of an interpolated momentum. Its rate is 3 to 10 times lower than
    AdamW's and its decay as much higher (section 5)."""

    learning_rate: float = 3e-4
    weight_decay: float = 1.0
    beta1: float = 0.9  # of the step
    beta2: float = 0.99  # of the momentum
    name: Literal["lion"] = "lion"

    def __post_init__(self):
        super().__post_init__()
        check_range(self, "optimizer", "beta1 beta2", 0, 0.999999)

    def direction(self, numbers: dict[str, Any], axes: Any) -> "optax.GradientTransformation":
        import optax

        return optax.scale_by_lion(numbers["beta1"], numbers["beta2"])

    def kept_bytes(self, shape: tuple[int, ...], axes: Axes) -> int:
        return FLOAT32_BYTES * math.prod(shape)

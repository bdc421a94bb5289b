"""Schedule-free AdamW."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from research.config.optimizers.base import FLOAT32_BYTES, Axes, Optimizer
from research.config.validation import check, check_positive, check_range

if TYPE_CHECKING:
    import optax


@dataclass(frozen=True)
class ScheduleFreeConfig(Optimizer):
    """Schedule-free AdamW (Defazio 2024, arXiv:2405.15682): gradients are taken between the newest iterate and the mean
    of all, and the mean is what is evaluated. The rate is constant after its warm-up."""

    schedule: Literal["constant"] = "constant"
    beta1: float = 0.9  # share of the mean where gradients are taken, in place of momentum
    beta2: float = 0.95
    epsilon: float = 1e-8
    name: Literal["schedule_free"] = "schedule_free"

    def __post_init__(self):
        super().__post_init__()
        check_positive(self, "optimizer", "epsilon")
        check_range(self, "optimizer", "beta1 beta2", 0, 0.999999)
        check(self.beta1 > 0, "optimizer.beta1", self.beta1, "must be above zero, or no mean is kept", "use 0.9")

    def direction(self, numbers: dict[str, Any], axes: Any) -> "optax.GradientTransformation":
        import optax

        return optax.scale_by_adam(0.0, numbers["beta2"], numbers["epsilon"])

    def wrapped(
        self, update: "optax.GradientTransformation", numbers: dict[str, Any], axes: Any, rate: Callable[[Any], Any]
    ) -> "optax.GradientTransformation":
        from optax import contrib

        # optax counts its steps from 1 here, and from 0 in the schedule of the update.
        return contrib.schedule_free(update, lambda step: rate(step - 1), b1=numbers["beta1"])

    def evaluated(self, moments: Any, params: Any) -> Any:
        import optax
        from optax import contrib

        return contrib.schedule_free_eval_params(optax.tree.get(moments, "ScheduleFreeState"), params)

    def kept_bytes(self, shape: tuple[int, ...], axes: Axes) -> int:
        """The newest iterate, Adam's squares, and a mean of gradients, which optax keeps though it is the last's."""
        return 3 * FLOAT32_BYTES * math.prod(shape)

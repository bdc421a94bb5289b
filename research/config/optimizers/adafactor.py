"""Adafactor."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from research.config.optimizers.base import FLOAT32_BYTES, Axes, Optimizer
from research.config.validation import check_positive, check_range

if TYPE_CHECKING:
    import optax


@dataclass(frozen=True)
class AdafactorConfig(Optimizer):
    """Adafactor (Shazeer 2018, arXiv:1804.04235) with a rate of its own in place of one relative to the weights, and
    decoupled decay: second moments as rows and columns, the root mean square of an update clipped (section 6)."""

    decay_exponent: float = 0.8  # the second moments' beta2 is 1 - step^-decay_exponent (section 7)
    update_clip: float = 1.0  # highest root mean square of a parameter's update
    epsilon: float = 1e-30  # added to squared gradients
    least_factored: int = 128  # matrices with a smaller second-largest dimension keep every second moment
    name: Literal["adafactor"] = "adafactor"

    def __post_init__(self):
        super().__post_init__()
        check_positive(self, "optimizer", "decay_exponent update_clip epsilon")
        check_range(self, "optimizer", "least_factored", 1)

    def direction(self, numbers: dict[str, Any], axes: Any) -> "optax.GradientTransformation":
        import optax

        return optax.chain(
            optax.scale_by_factored_rms(
                decay_rate=numbers["decay_exponent"],
                min_dim_size_to_factor=self.least_factored,
                epsilon=numbers["epsilon"],
            ),
            optax.clip_by_block_rms(numbers["update_clip"]),
        )

    def kept_bytes(self, shape: tuple[int, ...], axes: Axes) -> int:
        """Of a factored matrix one row, one column, and the single number that optax keeps in place of the rest."""
        *_, second, largest = (0, 0, *sorted(shape))
        size = math.prod(shape)
        factored = second >= self.least_factored
        return FLOAT32_BYTES * (size // largest + size // second + 1 if factored else size + 2)

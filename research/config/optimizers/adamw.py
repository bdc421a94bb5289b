"""AdamW."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from research.config.optimizers.base import FLOAT32_BYTES, Axes, Optimizer
from research.config.validation import check_positive, check_range

if TYPE_CHECKING:
    import optax


@dataclass(frozen=True)
class AdamWConfig(Optimizer):
    """AdamW (Loshchilov 2019)."""

    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-8
    first_moment_dtype: Literal["float32", "bfloat16"] = "float32"  # of the mean of gradients; of squares: float32
    name: Literal["adamw"] = "adamw"

    def __post_init__(self):
        super().__post_init__()
        check_positive(self, "optimizer", "epsilon")
        check_range(self, "optimizer", "beta1 beta2", 0, 0.999999)

    def direction(self, numbers: dict[str, Any], axes: Any) -> "optax.GradientTransformation":
        import optax

        adam = optax.scale_by_adam(
            numbers["beta1"], numbers["beta2"], numbers["epsilon"], mu_dtype=self.first_moment_dtype
        )
        return adam if self.first_moment_dtype == "float32" else _in_float32(adam)

    def kept_bytes(self, shape: tuple[int, ...], axes: Axes) -> int:
        first = FLOAT32_BYTES if self.first_moment_dtype == "float32" else 2
        return (first + FLOAT32_BYTES) * math.prod(shape)


def _in_float32(adam: "optax.GradientTransformation") -> "optax.GradientTransformation":
    """The same of a first moment that is kept in another dtype: optax alone would round beta1 to it, .95 to .949."""
    import jax.numpy as jnp
    import optax

    def update(grads: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        return adam.update(grads, state._replace(mu=optax.tree.cast(state.mu, jnp.float32)), params)

    return optax.GradientTransformation(adam.init, update)

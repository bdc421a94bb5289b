"""Muon for matrices, Adam for the rest."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from research.config.optimizers.base import FLOAT32_BYTES, Axes, Optimizer
from research.config.validation import check_positive, check_range

if TYPE_CHECKING:
    import optax


@dataclass(frozen=True)
class MuonConfig(Optimizer):
    """Muon (Jordan 2024) as Liu 2025 (arXiv:2502.16982, section 2.2) runs it: a matrix between widths moves along its
    orthogonalised momentum, times update_rms * sqrt(its larger dimension), the size of AdamW's steps; so one rate and
    one decay serve Muon and the Adam of all other parameters. Each expert and each layer is a matrix of its own; heads
    are columns (or rows) of one.
    """

    momentum: float = 0.95  # Nesterov's
    iterations: int = 5  # of Newton and Schulz
    update_rms: float = 0.2  # root mean square of an update's entries, at the rate 1
    beta1: float = 0.9  # of Adam, for the rest
    beta2: float = 0.95
    epsilon: float = 1e-8
    name: Literal["muon"] = "muon"

    def __post_init__(self):
        super().__post_init__()
        check_positive(self, "optimizer", "update_rms epsilon")
        check_range(self, "optimizer", "iterations", 1)
        check_range(self, "optimizer", "momentum beta1 beta2", 0, 0.999999)

    def direction(self, numbers: dict[str, Any], axes: Any) -> "optax.GradientTransformation":
        import jax
        import optax
        from optax import contrib

        def of_adams_size(update: jax.Array, of: Axes) -> jax.Array:
            return numbers["update_rms"] * math.sqrt(max(of.shapes(update.shape)[1:])) * update

        matrices = jax.tree.map(lambda of: of if of.into else optax.MaskedNode(), axes)
        dimensions = jax.tree.map(lambda of: contrib.MuonDimensionNumbers(of.into, of.out), matrices)
        muon = optax.chain(
            contrib.scale_by_muon(
                ns_steps=self.iterations, beta=numbers["momentum"], weight_dimension_numbers=dimensions
            ),
            optax.stateless(lambda updates, params: jax.tree.map(of_adams_size, updates, matrices)),
        )
        adam = optax.scale_by_adam(numbers["beta1"], numbers["beta2"], numbers["epsilon"])
        return optax.partition(
            {"muon": muon, "adam": adam}, jax.tree.map(lambda of: "muon" if of.into else "adam", axes)
        )

    def kept_bytes(self, shape: tuple[int, ...], axes: Axes) -> int:
        return FLOAT32_BYTES * math.prod(shape) * (1 if axes.into else 2)

    def update_flops(self, shape: tuple[int, ...], axes: Axes) -> float:
        """Each iteration: X X^T, its square, and their sum times X."""
        if not axes.into:
            return 0.0
        stacked, *sides = axes.shapes(shape)
        small, large = sorted(sides)
        return stacked * self.iterations * (4.0 * small * small * large + 2.0 * small**3)

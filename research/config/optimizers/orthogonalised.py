"""What optimizers share that move a matrix along its orthogonalised momentum, and all else as Adam does."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from research.config.optimizers.base import FLOAT32_BYTES, Axes, Optimizer
from research.config.validation import check_positive, check_range

if TYPE_CHECKING:
    import jax
    import optax


@dataclass(frozen=True)
class Orthogonalised(Optimizer):
    """Each expert and each layer is a matrix of its own; heads are columns (or rows) of one. A subclass says how far a
    matrix moves, by `matrix_step`."""

    momentum: float = 0.95  # Nesterov's
    iterations: int = 5  # of Newton and Schulz
    beta1: float = 0.9  # of Adam, for the rest
    beta2: float = 0.95
    epsilon: float = 1e-8

    def __post_init__(self):
        super().__post_init__()
        check_positive(self, "optimizer", "epsilon")
        check_range(self, "optimizer", "iterations", 1)
        check_range(self, "optimizer", "momentum beta1 beta2", 0, 0.999999)

    def matrix_step(self, numbers: dict[str, Any], update: "jax.Array", param: "jax.Array", of: Axes) -> "jax.Array":
        """What the rate multiplies, of the orthogonalised momentum `update` of a parameter."""
        raise NotImplementedError(f"{type(self).__name__} does not say how far a matrix moves. Fix: use MuonConfig.")

    def direction(self, numbers: dict[str, Any], axes: Any) -> "optax.GradientTransformation":
        import jax
        import optax
        from optax import contrib

        matrices = jax.tree.map(lambda of: of if of.into else optax.MaskedNode(), axes)
        dimensions = jax.tree.map(lambda of: contrib.MuonDimensionNumbers(of.into, of.out), matrices)

        def steps(updates: Any, params: Any) -> Any:
            return jax.tree.map(lambda u, p, of: self.matrix_step(numbers, u, p, of), updates, params, matrices)

        muon = optax.chain(
            contrib.scale_by_muon(
                ns_steps=self.iterations, beta=numbers["momentum"], weight_dimension_numbers=dimensions
            ),
            optax.stateless(steps),
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

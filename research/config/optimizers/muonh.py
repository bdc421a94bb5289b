"""Muon on spheres: matrices keep their size and turn, Adam for the rest."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from research.config.optimizers.base import Axes
from research.config.optimizers.orthogonalised import Orthogonalised
from research.config.validation import check_positive

if TYPE_CHECKING:
    import jax
    import optax


@dataclass(frozen=True)
class MuonHConfig(Orthogonalised):
    """MuonH (Wen 2026, Hyperball, arXiv:2606.16899): a matrix between widths stays on the sphere of its Frobenius norm.

    It moves along its orthogonalised momentum by `turn` times the rate, relative to its norm, and is brought back to
    the sphere. Steps that are relative need no change with the width
    (Ren 2026, HyperP, arXiv:2603.28743), so that the parametrisation's rates are for all other parameters alone, which
    Adam moves. Decay of the matrices is undone by the way back to the sphere, but for a factor 1 + rate * decay of
    their steps.
    """

    turn: float = 1.0  # of a matrix' step, relative to its norm, at the rate 1
    name: Literal["muonh"] = "muonh"

    def __post_init__(self):
        super().__post_init__()
        check_positive(self, "optimizer", "turn")

    def matrix_step(self, numbers: dict[str, Any], update: "jax.Array", param: "jax.Array", of: Axes) -> "jax.Array":
        return numbers["turn"] * update * (_norm(param, of) / _norm(update, of))

    def wrapped(
        self, update: "optax.GradientTransformation", numbers: dict[str, Any], axes: Any, rate: Callable[[Any], Any]
    ) -> "optax.GradientTransformation":
        import jax
        import optax

        def to_sphere(step: jax.Array, param: jax.Array, of: Axes) -> jax.Array:
            if not of.into:
                return step
            moved = param + step
            return moved * (_norm(param, of) / _norm(moved, of)) - param

        def all_to_sphere(updates: Any, params: Any) -> Any:
            return jax.tree.map(to_sphere, updates, params, axes)

        return optax.chain(update, optax.stateless(all_to_sphere))

    def rate_scale(self, axes: Axes, rate: float, growth: float) -> float:
        return 1.0 if axes.into else rate


def _norm(array: "jax.Array", of: Axes) -> "jax.Array":
    """Frobenius norm of each matrix, kept as dimensions of one; the least float32 above zero where it is zero."""
    import jax.numpy as jnp

    squares = jnp.sum(jnp.square(array), axis=(*of.into, *of.out), keepdims=True)
    return jnp.sqrt(jnp.maximum(squares, jnp.finfo(jnp.float32).tiny))

"""SOAP: Adam in the eigenbases of Shampoo's preconditioners (Vyas 2024, arXiv:2409.11321, algorithm 3).

No library that this project depends on has it. As in the authors' code, the first gradient moves nothing: its
preconditioners' eigenvectors are the first bases. A later basis is a power iteration away from the one before, with its
columns, and Adam's squares with them, in the order of the eigenvalues.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec

Number = float | jax.Array
KEPT, FIRST, NEXT = 0, 1, 2  # what a step does with the bases


class SoapState(NamedTuple):
    """count: steps done. Trees like the parameters: mu, the mean of gradients; nu, of their squares in the bases; left
    and right, the preconditioners as (matrices, side, side), and their bases; MaskedNode where a side has none."""

    count: jax.Array
    mu: Any
    nu: Any
    left: Any
    right: Any
    left_basis: Any
    right_basis: Any


def scale_by_soap(
    beta1: Number, beta2: Number, epsilon: Number, axes: Any, *, every: int, largest: int
) -> optax.GradientTransformation:
    """Steps of the size of Adam's. axes: of each parameter, which dimensions make it matrices (config.optimizers.Axes);
    every: steps between two bases; largest: sides that are longer keep their own basis, and a parameter without a
    shorter side has plain Adam."""

    def init(params: Any) -> SoapState:
        def side(which: int) -> Any:
            return jax.tree.map(lambda param, of: _no_preconditioner(param.shape, of, which, largest), params, axes)

        zeros = jax.tree.map(jnp.zeros_like, params)
        return SoapState(jnp.zeros((), jnp.int32), zeros, zeros, side(1), side(2), side(1), side(2))

    def update(grads: Any, state: SoapState, params: Any = None) -> tuple[Any, SoapState]:
        count = state.count + 1
        due = jnp.where(count == 1, FIRST, jnp.where((count - 1) % every == 0, NEXT, KEPT))
        leaves, structure = jax.tree.flatten(grads)
        trees = (axes, *state[1:])
        moved = [
            _moved(leaf, *of, count=count, due=due, betas=(beta1, beta2), epsilon=epsilon)
            for leaf, *of in zip(leaves, *(structure.flatten_up_to(tree) for tree in trees), strict=True)
        ]
        updates, *rest = (structure.unflatten(part) for part in zip(*moved, strict=True))
        return updates, SoapState(count, *rest)

    return optax.GradientTransformation(init, update)


def _no_preconditioner(shape: tuple[int, ...], axes: Any, side: int, largest: int) -> Any:
    stacked, size = axes.shapes(shape)[0], axes.shapes(shape)[side]
    return jnp.zeros((stacked, size, size)) if axes.into and size <= largest else optax.MaskedNode()


def _moved(
    gradient: jax.Array, axes: Any, mu: Any, nu: Any, *sides: Any, count: Any, due: Any, betas: Any, epsilon: Any
) -> tuple[Any, ...]:
    """One parameter's update and the new mu, nu, left, right, left basis, right basis."""
    beta1, beta2 = betas
    order = (*axes.stacked, *axes.into, *axes.out) if axes.into else tuple(range(gradient.ndim))
    dims = axes.shapes(gradient.shape) if axes.into else (1, 1, gradient.size)

    def as_matrices(array: jax.Array) -> jax.Array:
        return array.transpose(order).reshape(dims)

    def as_parameter(x_KMN: jax.Array) -> jax.Array:
        back = sorted(range(gradient.ndim), key=order.__getitem__)
        return x_KMN.reshape([gradient.shape[axis] for axis in order]).transpose(back)

    *preconditioners, left, right = sides
    g_KMN, nu_KMN = as_matrices(gradient), as_matrices(nu)
    seen = (count > 1).astype(g_KMN.dtype)  # the first gradient only makes the bases, of which there are none before
    mu = seen * (beta1 * mu + (1 - beta1) * gradient)
    nu_KMN = seen * (beta2 * nu_KMN + (1 - beta2) * _into(g_KMN, left, right) ** 2)
    steps = jnp.maximum(count - 1, 1)
    m_KMN = _into(as_matrices(mu), left, right) / (1 - beta1**steps)
    step_KMN = _out_of(m_KMN / (jnp.sqrt(nu_KMN / (1 - beta2**steps)) + epsilon), left, right)

    preconditioners = [
        old if isinstance(old, optax.MaskedNode) else beta2 * old + (1 - beta2) * jnp.einsum(squares, g_KMN, g_KMN)
        for old, squares in zip(preconditioners, ("kmn,kpn->kmp", "kmn,kmp->knp"), strict=True)
    ]
    left, by_left = _basis(preconditioners[0], left, due)
    right, by_right = _basis(preconditioners[1], right, due)
    if by_left is not None:
        nu_KMN = jnp.take_along_axis(nu_KMN, by_left[:, :, None], axis=1)
    if by_right is not None:
        nu_KMN = jnp.take_along_axis(nu_KMN, by_right[:, None, :], axis=2)
    return as_parameter(step_KMN), mu, as_parameter(nu_KMN), *preconditioners, left, right


def _basis(now_KMM: Any, old_KMM: Any, due: jax.Array) -> tuple[Any, Any]:
    """The basis of a side after this step, and the order of the old one's columns in it (None for a side without)."""
    if isinstance(now_KMM, optax.MaskedNode):
        return now_KMM, None
    same = jnp.broadcast_to(jnp.arange(now_KMM.shape[-1]), now_KMM.shape[:2])

    def first() -> tuple[jax.Array, jax.Array]:
        return _each(lambda now_MM: jnp.linalg.eigh(now_MM)[1][:, ::-1], _whole(now_KMM)), same

    def following() -> tuple[jax.Array, jax.Array]:
        now, old = _whole(now_KMM), _whole(old_KMM)
        order_KM = jnp.argsort(-jnp.einsum("kmp,kmq,kqp->kp", old, now, old), axis=1)
        iterated_KMM = now @ jnp.take_along_axis(old, order_KM[:, None, :], axis=2)
        return _each(lambda x_MM: jnp.linalg.qr(x_MM)[0], iterated_KMM), order_KM

    return jax.lax.switch(due, (lambda: (old_KMM, same), first, following))


def _whole(x_KMM: jax.Array) -> jax.Array:
    """Gathered on every device, since no partitioner splits a decomposition."""
    is_alone = jax.sharding.get_abstract_mesh().empty
    return x_KMM if is_alone else jax.lax.with_sharding_constraint(x_KMM, PartitionSpec())


def _each(decompose: Callable[[jax.Array], jax.Array], x_KMM: jax.Array) -> jax.Array:
    """`decompose` of every matrix: all at once, but on CPUs one by one. There jaxlib hands a batch's matrices to the
    threads that execute the program; when as many devices decompose as there are threads, all wait for one."""
    return jax.lax.platform_dependent(
        x_KMM, cpu=lambda x_KMM: jax.lax.map(decompose, x_KMM), default=jax.vmap(decompose)
    )


def _into(x_KMN: jax.Array, left: Any, right: Any) -> jax.Array:
    x_KMN = x_KMN if isinstance(left, optax.MaskedNode) else jnp.einsum("kmp,kmn->kpn", left, x_KMN)
    return x_KMN if isinstance(right, optax.MaskedNode) else jnp.einsum("kmn,knp->kmp", x_KMN, right)


def _out_of(x_KMN: jax.Array, left: Any, right: Any) -> jax.Array:
    x_KMN = x_KMN if isinstance(left, optax.MaskedNode) else jnp.einsum("kpm,kmn->kpn", left, x_KMN)
    return x_KMN if isinstance(right, optax.MaskedNode) else jnp.einsum("kmn,kpn->kmp", x_KMN, right)

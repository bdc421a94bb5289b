"""Rows taken from one array into another, where each row's taker is known too: gathers in both directions.

The gradient of a gather would be a scatter of sums; here it gathers the gradients of a row's takers instead.
"""

import jax
import jax.numpy as jnp


@jax.custom_vjp
def take_rows(source_ND: jax.Array, from_M: jax.Array, takers_NJ: jax.Array) -> jax.Array:
    """source[from], zero where `from` is past the end. takers: which rows took each row (past the end: none)."""
    return jnp.take(source_ND, from_M, axis=0, mode="fill", fill_value=0)


def _take_forward(source_ND: jax.Array, from_M: jax.Array, takers_NJ: jax.Array) -> tuple[jax.Array, jax.Array]:
    return take_rows(source_ND, from_M, takers_NJ), takers_NJ


def _take_backward(takers_NJ: jax.Array, grads_MD: jax.Array) -> tuple[jax.Array, None, None]:
    return jnp.take(grads_MD, takers_NJ, axis=0, mode="fill", fill_value=0).sum(axis=1), None, None


take_rows.defvjp(_take_forward, _take_backward)


def taker(place_N: jax.Array, places: int) -> jax.Array:
    """Inverse of `place_N`: who sits at each place; N where no one does."""
    N = len(place_N)
    return jnp.full(places, N, place_N.dtype).at[place_N].set(jnp.arange(N, dtype=place_N.dtype), mode="drop")


def weighted(chosen_BLAD: jax.Array, gates_BLA: jax.Array) -> jax.Array:
    """(B, L, D): the sum over A of what each choice gave times its gate, in the dtype of the former."""
    return (chosen_BLAD * gates_BLA.astype(chosen_BLAD.dtype)[..., None]).sum(axis=2)

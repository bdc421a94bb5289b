"""Three ways to let each token pass its experts: one function of the routing, with different work.

- `dense` computes every expert for every token: no data moves; E / A times the work.
- `capacity` gathers tokens into the (E, X) slots that routing gave out and multiplies batches of them: fixed shapes,
  which is what splits over an `expert` mesh axis.
- `ragged` sorts choices by expert and multiplies groups of unequal size (grouped_swiglu.py): no slot is empty and no
  choice is dropped. On CPU the fastest of those that drop none (models/algorithms.py: what is chosen where).

Data moves by gathers alone, in both directions: the gradient of a gather would be a scatter, but every row that is
taken somewhere is taken from a place that is known too.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from research.models.experts.grouped_swiglu import grouped_swiglu
from research.models.experts.router import Routing
from research.sharding import constrain

Experts = tuple[jax.Array, jax.Array, jax.Array]  # gate (E, D, F), up (E, D, F), down (E, F, D) in the compute dtype


def dense(x_BLD: jax.Array, routing: Routing, experts: Experts) -> jax.Array:
    """sum_e gate_e * down_e(silu(x gate_e) * (x up_e)) over all experts, gates being zero where not chosen."""
    gate_EDF, up_EDF, down_EFD = experts
    is_expert = routing.experts_BLA[..., None] == jnp.arange(len(gate_EDF))[None, None, None, :]
    gates_BLE = jnp.where(is_expert, routing.gates_BLA[..., None], 0.0).sum(axis=2).astype(x_BLD.dtype)
    hidden_BLEF = jax.nn.silu(jnp.einsum("bld,edf->blef", x_BLD, gate_EDF)) * jnp.einsum("bld,edf->blef", x_BLD, up_EDF)
    hidden_BLEF = constrain(hidden_BLEF, "batch length experts hidden")
    return jnp.einsum("blef,efd->bld", hidden_BLEF * gates_BLE[..., None], down_EFD)


def capacity(x_BLD: jax.Array, routing: Routing, experts: Experts) -> jax.Array:
    """Tokens in the slots of their experts, S = E * X of them a sequence; empty slots hold zeros."""
    B, L, D = x_BLD.shape
    E, X, A = len(experts[0]), routing.slots, routing.slot_BLA.shape[2]
    choice_BS = jax.vmap(lambda seat_LA: _taker(seat_LA.reshape(-1), E * X))(routing.slot_BLA)
    seated_BSD = jax.vmap(take_rows)(x_BLD, choice_BS // A, routing.slot_BLA)  # no taker: L * A // A = L, past the end
    # (E, B * X) rows: one batched product, whose batch is the experts
    rows_END = seated_BSD.reshape(B, E, X, D).transpose(1, 0, 2, 3).reshape(E, B * X, D)
    rows_END = constrain(rows_END, "experts batch activation")
    out_END = _swiglu(rows_END, experts, lambda rows, weight: jnp.einsum("end,edf->enf", rows, weight))
    out_BSD = out_END.reshape(E, B, X, D).transpose(1, 0, 2, 3).reshape(B, E * X, D)
    chosen_BND = jax.vmap(take_rows)(out_BSD, routing.slot_BLA.reshape(B, L * A), choice_BS[..., None])
    return _weighted(chosen_BND.reshape(B, L, A, D), routing.gates_BLA)


def ragged(x_BLD: jax.Array, routing: Routing, experts: Experts) -> jax.Array:
    """All choices of the batch sorted by expert; dropped ones and padding are computed and weigh nothing."""
    B, L, D = x_BLD.shape
    E, A = len(experts[0]), routing.experts_BLA.shape[2]
    expert_N = routing.experts_BLA.reshape(-1)
    choice_N = jnp.argsort(expert_N, stable=True)
    place_N = _taker(choice_N, B * L * A)
    sizes_E = (expert_N[:, None] == jnp.arange(E)[None, :]).sum(axis=0, dtype=jnp.int32)
    rows_ND = take_rows(x_BLD.reshape(B * L, D), choice_N // A, place_N.reshape(B * L, A))
    out_ND = grouped_swiglu(rows_ND, experts, sizes_E)
    return _weighted(take_rows(out_ND, place_N, choice_N[:, None]).reshape(B, L, A, D), routing.gates_BLA)


ALGORITHMS: dict[str, Callable[[jax.Array, Routing, Experts], jax.Array]] = {
    "dense": dense,
    "capacity": capacity,
    "ragged": ragged,
}


@jax.custom_vjp
def take_rows(source_ND: jax.Array, from_M: jax.Array, takers_NJ: jax.Array) -> jax.Array:
    """source[from], zero where `from` is past the end. takers: which rows took each row (past the end: none)."""
    return jnp.take(source_ND, from_M, axis=0, mode="fill", fill_value=0)


def _take_forward(source_ND: jax.Array, from_M: jax.Array, takers_NJ: jax.Array) -> tuple[jax.Array, jax.Array]:
    return take_rows(source_ND, from_M, takers_NJ), takers_NJ


def _take_backward(takers_NJ: jax.Array, grads_MD: jax.Array) -> tuple[jax.Array, None, None]:
    return jnp.take(grads_MD, takers_NJ, axis=0, mode="fill", fill_value=0).sum(axis=1), None, None


take_rows.defvjp(_take_forward, _take_backward)


def _taker(place_N: jax.Array, places: int) -> jax.Array:
    """Inverse of `place_N`: who sits at each place; N where no one does."""
    N = len(place_N)
    return jnp.full(places, N, place_N.dtype).at[place_N].set(jnp.arange(N, dtype=place_N.dtype), mode="drop")


def _swiglu(rows_ND: jax.Array, experts: Experts, product: Callable) -> jax.Array:
    gate_EDF, up_EDF, down_EFD = experts
    return product(jax.nn.silu(product(rows_ND, gate_EDF)) * product(rows_ND, up_EDF), down_EFD)


def _weighted(chosen_BLAD: jax.Array, gates_BLA: jax.Array) -> jax.Array:
    return (chosen_BLAD * gates_BLA.astype(chosen_BLAD.dtype)[..., None]).sum(axis=2)

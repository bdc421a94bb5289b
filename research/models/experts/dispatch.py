"""Three ways to let each token pass its experts: one function of the routing, with different work.

- `dense` computes every expert for every token: no data moves; E / A times the work.
- `capacity` gathers tokens into the (E, X) slots that routing gave out and multiplies batches of them: fixed shapes.
- `ragged` sorts choices by expert and multiplies groups of unequal size (ragged.py): no slot is empty and no choice is
  dropped. On CPU the fastest of those that drop none (models/algorithms.py: what is chosen where).

On a mesh every device works on its own tokens, and on its own channels of its own experts. Where experts are split over
devices, which hold different sequences, `capacity` sends each slot to its expert's device and back, by two all-to-alls,
and computes a share of each expert's slots where the length is split; `ragged` sends each choice. `dense`, for which
every expert takes every token, gathers the tokens of all these devices and sums what each has made of them.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from research.models.experts.grouped_swiglu import Matrices, runs_kernel
from research.models.experts.ragged import ragged
from research.models.experts.router import Routing
from research.models.experts.rows import take_rows, taker, weighted
from research.per_device import (
    devices_of,
    exchanged,
    gathered,
    on_each_device,
    own_over,
    start_of,
    sum_over,
    summed_part,
)


def pass_experts(algorithm: str, x_BLD: jax.Array, routing: Routing, experts: Matrices) -> jax.Array:
    """(B, L, D): sum over each token's experts of gate * down(silu(x gate) * (x up)), by one of `ALGORITHMS`."""

    def of_device(x_BLD: jax.Array, arrays: Routing, gate_EDF: jax.Array, up_EDF: jax.Array, down_EFD: jax.Array):
        # Every device of a tensor axis has these tokens, and its own channels' share in their gradients.
        x_BLD, gates_BLA = own_over(x_BLD, "hidden"), own_over(arrays.gates_BLA, "hidden")
        own = arrays._replace(gates_BLA=gates_BLA, slots=routing.slots)
        return sum_over(ALGORITHMS[algorithm](x_BLD, own, (gate_EDF, up_EDF, down_EFD)), "hidden")

    tokens, wide, narrow = "batch length", "experts activation hidden", "experts hidden"
    # Pallas' kernels do not say which devices their results differ between, so that jax cannot check it.
    check = not (algorithm == "ragged" and runs_kernel(x_BLD.dtype))
    run = on_each_device(of_device, (tokens, tokens, wide, wide, narrow), tokens, check)
    return run(x_BLD, routing._replace(slots=None), *experts)


def dense(x_BLD: jax.Array, routing: Routing, experts: Matrices) -> jax.Array:
    """Every expert for every token, gates being zero where it was not chosen."""
    gate_EDF, up_EDF, down_EFD = experts
    x_BLD, experts_BLA, gates_BLA = (
        gathered(array, "experts") for array in (x_BLD, routing.experts_BLA, routing.gates_BLA)
    )
    here_E = start_of("experts", len(gate_EDF)) + jnp.arange(len(gate_EDF))
    is_expert = experts_BLA[..., None] == here_E[None, None, None, :]
    gates_BLE = jnp.where(is_expert, gates_BLA[..., None], 0.0).sum(axis=2).astype(x_BLD.dtype)
    hidden_BLEF = jax.nn.silu(jnp.einsum("bld,edf->blef", x_BLD, gate_EDF)) * jnp.einsum("bld,edf->blef", x_BLD, up_EDF)
    y_BLD = jnp.einsum("blef,efd->bld", hidden_BLEF * gates_BLE[..., None], down_EFD)
    return summed_part(y_BLD, "experts", "experts")


def capacity(x_BLD: jax.Array, routing: Routing, experts: Matrices) -> jax.Array:
    """Tokens in the slots of their experts, S = E * X of them a sequence; empty slots hold zeros."""
    x_BLD, gates_BLA, slot_BLA = (
        gathered(array, "length", 1) for array in (x_BLD, routing.gates_BLA, routing.slot_BLA)
    )
    B, L, D = x_BLD.shape
    E, A = len(experts[0]) * devices_of("experts"), slot_BLA.shape[2]
    slot_BLA, X = _own_slots(slot_BLA, routing.slots, E)
    choice_BS = jax.vmap(lambda seat_LA: taker(seat_LA.reshape(-1), E * X))(slot_BLA)
    seated_BSD = jax.vmap(take_rows)(x_BLD, choice_BS // A, slot_BLA)  # no taker: L * A // A = L, past the end
    seated_BEXD = exchanged(seated_BSD.reshape(B, E, X, D), "experts", 1, 0)
    # (E, B * X) rows: one batched product, whose batch is the experts
    rows_END = seated_BEXD.swapaxes(0, 1).reshape(len(experts[0]), -1, D)
    out_END = _swiglu(rows_END, experts, lambda rows, weight: jnp.einsum("end,edf->enf", rows, weight))
    out_BEXD = exchanged(out_END.reshape(len(experts[0]), -1, X, D).swapaxes(0, 1), "experts", 0, 1)
    out_BSD = out_BEXD.reshape(B, E * X, D)
    chosen_BND = jax.vmap(take_rows)(out_BSD, slot_BLA.reshape(B, L * A), choice_BS[..., None])
    y_BLD = weighted(chosen_BND.reshape(B, L, A, D), gates_BLA)
    return summed_part(y_BLD, "length", "length", 1)


def _own_slots(slot_BLA: jax.Array, slots: int, experts: int) -> tuple[jax.Array, int]:
    """Slots as this device counts them, and how many an expert has here: a share, where the length is split."""
    own = -(-slots // devices_of("length"))
    expert_BLA, place_BLA = slot_BLA // slots, slot_BLA % slots - start_of("length", own)
    is_own_BLA = (slot_BLA < experts * slots) & (place_BLA >= 0) & (place_BLA < own)
    return jnp.where(is_own_BLA, expert_BLA * own + place_BLA, experts * own), own


ALGORITHMS: dict[str, Callable[[jax.Array, Routing, Matrices], jax.Array]] = {
    "dense": dense,
    "capacity": capacity,
    "ragged": ragged,
}


def _swiglu(rows_ND: jax.Array, experts: Matrices, product: Callable) -> jax.Array:
    gate_EDF, up_EDF, down_EFD = experts
    return product(jax.nn.silu(product(rows_ND, gate_EDF)) * product(rows_ND, up_EDF), down_EFD)

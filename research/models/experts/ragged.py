"""All choices sorted by expert, in groups of unequal size: no slot is empty and no choice is dropped.

Where experts are split over devices, which hold different sequences, each choice is sent to its expert's device and
back by all-to-alls. How many go where is known when the step runs, and shapes before: a round has SPARE times the mean
number of places from each device to each, and there are as many rounds as the fullest pair of devices needs. That is
one while the load is balanced; in the worst case, every token of every device for the same one, it is the work and the
traffic of gathering them all, in the memory of a round. A loop of unknown length keeps nothing of its rounds, so that
the backward pass computes them again, whatever is rematerialised besides.
"""

import jax
import jax.numpy as jnp

from research.models.experts.grouped_swiglu import Matrices, grouped_swiglu
from research.models.experts.router import Routing
from research.models.experts.rows import take_rows, taker, weighted
from research.per_device import devices_of, exchanged, max_over

SPARE = 1.25


def ragged(x_BLD: jax.Array, routing: Routing, experts: Matrices) -> jax.Array:
    """(B, L, D): dropped choices and padding are computed and weigh nothing."""
    if devices_of("experts") > 1:
        # What weighs nothing stays: paddings, which all have the same experts, would fill rounds of their own.
        nowhere = len(experts[0]) * devices_of("experts")
        sent_BLA = jnp.where(routing.gates_BLA == 0, nowhere, routing.experts_BLA)
        return _in_rounds(x_BLD, routing.gates_BLA, sent_BLA, experts)
    return weighted(_sorted(x_BLD, routing.experts_BLA, experts), routing.gates_BLA)


def _sorted(x_BLD: jax.Array, expert_BLA: jax.Array, experts: Matrices) -> jax.Array:
    """(B, L, A, D): what each token's experts make of it; of E, which is no expert, anything (so are gradients)."""
    (B, L, D), A = x_BLD.shape, expert_BLA.shape[2]
    expert_N = expert_BLA.reshape(-1)
    choice_N = jnp.argsort(expert_N, stable=True)
    place_N = taker(choice_N, B * L * A)
    sizes_E = (expert_N[:, None] == jnp.arange(len(experts[0]))[None, :]).sum(axis=0, dtype=jnp.int32)
    rows_ND = take_rows(x_BLD.reshape(B * L, D), choice_N // A, place_N.reshape(B * L, A))
    out_ND = grouped_swiglu(rows_ND, experts, sizes_E)
    return take_rows(out_ND, place_N, choice_N[:, None]).reshape(B, L, A, D)


@jax.custom_vjp
def _in_rounds(x_BLD: jax.Array, gates_BLA: jax.Array, expert_BLA: jax.Array, experts: Matrices) -> jax.Array:
    def add(number: jax.Array, y_BLD: jax.Array) -> jax.Array:
        return y_BLD + _round(number, x_BLD, gates_BLA, expert_BLA, experts)

    return jax.lax.fori_loop(0, _rounds(expert_BLA, len(experts[0])), add, jnp.zeros_like(x_BLD))


def _forward(x_BLD: jax.Array, gates_BLA: jax.Array, expert_BLA: jax.Array, experts: Matrices) -> tuple:
    arrays = (x_BLD, gates_BLA, expert_BLA, experts)
    return _in_rounds(*arrays), arrays


def _backward(arrays: tuple, to_y_BLD: jax.Array) -> tuple:
    x_BLD, gates_BLA, expert_BLA, experts = arrays

    def add(number: jax.Array, sums: tuple) -> tuple:
        _, gradients = jax.vjp(
            lambda x, gates, own: _round(number, x, gates, expert_BLA, own), x_BLD, gates_BLA, experts
        )
        return jax.tree.map(jnp.add, sums, gradients(to_y_BLD))

    nothing = jax.tree.map(jnp.zeros_like, (x_BLD, gates_BLA, experts))
    to_x_BLD, to_gates_BLA, to_experts = jax.lax.fori_loop(0, _rounds(expert_BLA, len(experts[0])), add, nothing)
    return to_x_BLD, to_gates_BLA, None, to_experts


_in_rounds.defvjp(_forward, _backward)


def _places(choices: int) -> int:
    """Of a round, for the choices that one device sends to another."""
    return -(-int(SPARE * choices) // devices_of("experts"))


def _rounds(expert_BLA: jax.Array, own: int) -> jax.Array:
    """As many as the fullest pair of devices needs; `own` experts a device."""
    device_N = expert_BLA.reshape(-1) // own
    sent_K = (device_N[:, None] == jnp.arange(devices_of("experts"))[None, :]).sum(axis=0, dtype=jnp.int32)
    return max_over(-(-sent_K.max() // _places(expert_BLA.size)), "experts")


def _round(
    number: jax.Array, x_BLD: jax.Array, gates_BLA: jax.Array, expert_BLA: jax.Array, experts: Matrices
) -> jax.Array:
    """(B, L, D): the part in y of the choices that travel in this round."""
    (B, L, D), A, E = x_BLD.shape, expert_BLA.shape[2], len(experts[0])
    choices, devices = B * L * A, devices_of("experts")
    places = _places(choices)
    expert_N = expert_BLA.reshape(-1)
    is_for_NK = (expert_N // E)[:, None] == jnp.arange(devices)[None, :]
    turn_N = jnp.where(is_for_NK, jnp.cumsum(is_for_NK, axis=0, dtype=jnp.int32) - 1, 0).sum(axis=1) - number * places
    place_N = jnp.where((turn_N >= 0) & (turn_N < places), expert_N // E * places + turn_N, devices * places)
    choice_S = taker(place_N, devices * places)

    sent_SD = take_rows(x_BLD.reshape(B * L, D), choice_S // A, place_N.reshape(B * L, A))  # no one: past the end
    sent_S = jnp.take(expert_N % E, choice_S, mode="fill", fill_value=E)
    come_SD, come_S = (exchanged(sent, "experts", 0, 0) for sent in (sent_SD, sent_S))
    is_one_S1 = (come_S < E)[:, None]
    out_SAD = _sorted(jnp.where(is_one_S1, come_SD, 0)[None], come_S[None, :, None], experts)[0]
    back_SD = exchanged(jnp.where(is_one_S1, out_SAD[:, 0], 0), "experts", 0, 0)
    chosen_ND = take_rows(back_SD, place_N, choice_S[:, None])
    return weighted(chosen_ND.reshape(B, L, A, D), gates_BLA)

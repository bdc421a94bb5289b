"""Which experts see which token, with what weight, and how evenly: the routing half of a mixture of experts.

Everything here is a pure function of the router's scores. A sequence is routed by itself: its capacity, its places and
its statistics depend on no other sequence of the batch, so that microbatches, meshes and batch order change nothing.
"""

import math
from functools import partial
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp

from research.config import MoeConfig
from research.models.layers import along_last, at_least_float32
from research.per_device import on_each_device

ROUTING = "routing"  # the Linen collection in which every router leaves its RouterStatistics
SMALLEST_SUM = 1e-20  # keeps the renormalised gates of all-zero sigmoid scores finite, as in DeepSeek-V3


class RouterStatistics(flax.struct.PyTreeNode):
    """Sums over the real tokens of each sequence, float32; the axis before the last is the batch.

    `load_BE` counts the choices of each expert before any is dropped, `probability_BE` sums the scores as a
    distribution over experts, `entropy_B1` that distribution's entropy in nats, `z_B1` logsumexp(logits)^2.
    `dropped_B1` counts choices without a slot (expert choice: tokens that no expert took). Only `probability_BE` and
    `z_B1` carry gradients.
    """

    load_BE: jax.Array
    probability_BE: jax.Array
    entropy_B1: jax.Array
    z_B1: jax.Array
    dropped_B1: jax.Array
    tokens_B1: jax.Array


class Routing(NamedTuple):
    """Where each token goes. A token has A choices, of which expert choice counts all E, taken or not.

    `slots` is the number of places an expert keeps for one sequence, and None where none was counted (nothing is
    dropped, and `slot_BLA` is None); a slot's number is expert * slots + place, and experts * slots stands for none.
    """

    experts_BLA: jax.Array
    gates_BLA: jax.Array  # zero for a choice that was dropped, and at padding
    slot_BLA: jax.Array | None
    slots: int | None


def capacity(config: MoeConfig, length: int) -> int:
    """Slots of one expert for one sequence: ceil(factor * A * L / E) (Switch, equation 3), L being enough for all."""
    if config.capacity_factor is None:
        return length
    return min(length, math.ceil(config.capacity_factor * config.active * length / config.experts))


def distribution(config: MoeConfig, logits_BLE: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(scores, scores as a distribution over experts); the same for softmax, normalised for sigmoid."""
    if config.scores == "softmax":
        scores_BLE = jax.nn.softmax(logits_BLE, axis=-1)
        return scores_BLE, scores_BLE
    scores_BLE = jax.nn.sigmoid(logits_BLE)
    return scores_BLE, scores_BLE / (scores_BLE.sum(axis=-1, keepdims=True) + SMALLEST_SUM)


def token_choice(
    config: MoeConfig,
    scores_BLE: jax.Array,
    bias_E: jax.Array | None,
    real_BL: jax.Array | None,
    slots: int | None,
) -> Routing:
    """Each token takes its A best experts; with `slots`, in the order of positions, until an expert is full.

    Selection is by score plus bias, weights are scores alone (DeepSeek-V3, equations 12 to 16). A token's choices all
    come before the next token's, so that no token is dropped for the sake of a later one: routing stays causal.
    """
    wanted_BLE = jax.lax.stop_gradient(scores_BLE)
    if bias_E is not None:
        wanted_BLE = along_last(jnp.add, wanted_BLE, jax.lax.stop_gradient(bias_E))
    # On each device, since XLA would gather all tokens' scores before it sorts any.
    experts_BLA = on_each_device(partial(_best, config), ("batch length",), "batch length")(wanted_BLE)
    gates_BLA = jnp.take_along_axis(scores_BLE, experts_BLA, axis=-1)
    if config.renormalize:
        gates_BLA /= gates_BLA.sum(axis=-1, keepdims=True) + SMALLEST_SUM
    gates_BLA *= config.gate_scale
    if real_BL is not None:
        gates_BLA = jnp.where(real_BL[..., None], gates_BLA, 0.0)
    if slots is None:
        return Routing(experts_BLA, gates_BLA, None, None)
    slot_BLA = _by_position(experts_BLA, real_BL, config.experts, slots)
    has_slot_BLA = slot_BLA < config.experts * slots
    return Routing(experts_BLA, jnp.where(has_slot_BLA, gates_BLA, 0.0), slot_BLA, slots)


def expert_choice(config: MoeConfig, scores_BLE: jax.Array, real_BL: jax.Array | None, slots: int) -> Routing:
    """Each expert takes its `slots` best tokens of a sequence (Zhou 2022, section 3.2): every load is the same.

    A token's place depends on the tokens after it, which makes a language model see the future.
    """
    B, L, E = scores_BLE.shape
    wanted_BEL = jax.lax.stop_gradient(scores_BLE).transpose(0, 2, 1)
    if real_BL is not None:
        wanted_BEL = jnp.where(real_BL[:, None, :], wanted_BEL, -1.0)
    taken_BEX = on_each_device(lambda wanted: jax.lax.top_k(wanted, slots)[1], ("batch",), "batch")(wanted_BEL)
    places_BEX = jnp.broadcast_to(jnp.arange(E * slots).reshape(1, E, slots), taken_BEX.shape)
    none_BEL = jnp.full((B, E, L), E * slots)
    rows, columns = jnp.arange(B)[:, None, None], jnp.arange(E)[None, :, None]
    slot_BLE = none_BEL.at[rows, columns, taken_BEX].set(places_BEX).transpose(0, 2, 1)
    if real_BL is not None:
        slot_BLE = jnp.where(real_BL[..., None], slot_BLE, E * slots)
    gates_BLE = jnp.where(slot_BLE < E * slots, scores_BLE, 0.0) * config.gate_scale
    experts_BLE = jnp.broadcast_to(jnp.arange(E)[None, None, :], (B, L, E))
    return Routing(experts_BLE, gates_BLE, slot_BLE, slots)


def statistics(
    config: MoeConfig,
    logits_BLE: jax.Array,
    probability_BLE: jax.Array,
    routing: Routing,
    real_BL: jax.Array | None,
) -> RouterStatistics:
    """What auxiliary losses and metrics need to know of one layer."""
    B, L, E = logits_BLE.shape
    real_BL1 = jnp.ones((B, L, 1), jnp.float32) if real_BL is None else real_BL[..., None].astype(jnp.float32)
    if config.routing == "token_choice":
        load_BE = _one_hot(routing.experts_BLA, E, real_BL1).sum(axis=(1, 2))
        has_slot_BLA = jnp.ones(()) if routing.slots is None else routing.slot_BLA < E * routing.slots
        dropped_BLA = real_BL1 * (1.0 - jnp.broadcast_to(has_slot_BLA, routing.experts_BLA.shape))
    else:
        has_slot_BLE = routing.slot_BLA < E * routing.slots
        load_BE = has_slot_BLE.sum(axis=1, dtype=jnp.float32)
        dropped_BLA = real_BL1 * (1.0 - has_slot_BLE.any(axis=-1, keepdims=True))
    logs_BLE = jnp.log(jnp.maximum(jax.lax.stop_gradient(probability_BLE), SMALLEST_SUM))
    entropy_BL = -(jax.lax.stop_gradient(probability_BLE) * logs_BLE).sum(axis=-1)
    z_BL = jax.nn.logsumexp(logits_BLE, axis=-1) ** 2
    real_BL = real_BL1[..., 0]
    return RouterStatistics(
        load_BE=load_BE,
        probability_BE=(at_least_float32(probability_BLE) * real_BL1).sum(axis=1),
        entropy_B1=(entropy_BL * real_BL).sum(axis=1, keepdims=True),
        z_B1=(z_BL * real_BL).sum(axis=1, keepdims=True),
        dropped_B1=dropped_BLA.sum(axis=(1, 2))[:, None],
        tokens_B1=real_BL.sum(axis=1, keepdims=True),
    )


def _best(config: MoeConfig, wanted_BLE: jax.Array) -> jax.Array:
    """The A experts that are wanted most, of the best groups where there are some."""
    if config.groups > 1:
        wanted_BLE = _in_best_groups(config, wanted_BLE)
    return jax.lax.top_k(wanted_BLE, config.active)[1]


def _in_best_groups(config: MoeConfig, wanted_BLE: jax.Array) -> jax.Array:
    """-inf outside the `active_groups` groups whose two best experts add up to most (DeepSeek-V3, section 2.1.2)."""
    grouped = wanted_BLE.reshape(*wanted_BLE.shape[:2], config.groups, -1)
    best_two, _ = jax.lax.top_k(grouped, 2)
    _, chosen = jax.lax.top_k(best_two.sum(axis=-1), config.active_groups)
    is_chosen = (chosen[..., None] == jnp.arange(config.groups)[None, None, None, :]).any(axis=-2)
    return jnp.where(is_chosen[..., None], grouped, -jnp.inf).reshape(wanted_BLE.shape)


def _by_position(experts_BLA: jax.Array, real_BL: jax.Array | None, experts: int, slots: int) -> jax.Array:
    """Slot of each choice, given out along the sequence; experts * slots at padding and where all are taken."""
    B, L, A = experts_BLA.shape
    real_BL1 = jnp.ones((B, L, 1), jnp.int32) if real_BL is None else real_BL[..., None].astype(jnp.int32)
    asked_BLAE = _one_hot(experts_BLA, experts, real_BL1)
    before_BLAE = (jnp.cumsum(asked_BLAE.reshape(B, L * A, experts), axis=1) - 1).reshape(asked_BLAE.shape)
    place_BLA = jnp.take_along_axis(before_BLAE, experts_BLA[..., None], axis=-1)[..., 0]
    return jnp.where((place_BLA < slots) & (real_BL1 == 1), experts_BLA * slots + place_BLA, experts * slots)


def _one_hot(experts_BLA: jax.Array, experts: int, real_BL1: jax.Array) -> jax.Array:
    """(B, L, A, E): whether that choice is that expert, zero at padding, in real's dtype."""
    is_chosen = experts_BLA[..., None] == jnp.arange(experts)[None, None, None, :]
    return is_chosen * real_BL1[..., None]

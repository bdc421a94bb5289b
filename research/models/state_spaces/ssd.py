"""State space duality (Dao & Gu 2024, sections 6 and 7): one decay per head, as a recurrence or as matrix products.

    state[t] = exp(dt[t] * A) * state[t-1] + B[t] (dt[t] * x[t])^T        y[t] = C[t]^T state[t]

for each head; dt is the paper's Delta, and B and C are shared by the heads of a group. M = (H / G) * K are the channels
of one group's heads, C counts chunks of Q tokens, and S is a source token in a chunk. States are (B, G, N, M): the
group's heads stand side by side, so that reading and writing them are one product per group and chunk instead of one
per head.
"""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from research.config import check
from research.per_device import on_each_device
from research.sharding import ways

Scanned = tuple[jax.Array, jax.Array]  # y_BLHK, state_BGNM after the last token


def ssd(
    algorithm: str,
    chunk: int,
    x_BLHK: jax.Array,
    dt_BLH: jax.Array,
    A_H: jax.Array,
    B_BLGN: jax.Array,
    C_BLGN: jax.Array,
    state_BGNM: jax.Array,
) -> Scanned:
    """(y_BLHK, state_BGNM after the last token), both in the dtype of the state; x, B and C share one dtype.

    `recurrent` scans over tokens in the state's dtype. `chunked` multiplies matrices in x's dtype, sums in the state's,
    and scans over chunks. A token whose dt is 0 changes no state.
    """
    log_decay_BLH = dt_BLH * A_H.astype(dt_BLH.dtype)[None, None]
    B, G, N, M = state_BGNM.shape
    copies = _copies_of_groups(x_BLHK.shape[2], G)
    if copies > 1:
        B_BLGN, C_BLGN = (jnp.repeat(array, copies, axis=2) for array in (B_BLGN, C_BLGN))
        state_BGNM = state_BGNM.reshape(B, G, N, copies, -1).swapaxes(2, 3).reshape(B, G * copies, N, -1)
    tokens, states = "batch steps spread", "batch spread"
    run = on_each_device(partial(ALGORITHMS[algorithm], chunk), (tokens,) * 5 + (states,), (tokens, states))
    y_BLHK, state_BGNM = run(x_BLHK, dt_BLH, log_decay_BLH, B_BLGN, C_BLGN, state_BGNM)
    if copies > 1:
        state_BGNM = state_BGNM.reshape(B, G, copies, N, -1).swapaxes(2, 3).reshape(B, G, N, M)
    return y_BLHK, state_BGNM


def _copies_of_groups(heads: int, groups: int) -> int:
    """How often B and C of a group must be there, for every device to have those of its heads as groups of its own."""
    copies = ways("spread") // math.gcd(groups, ways("spread"))
    check(
        heads // groups % copies == 0,
        "model.mamba2.groups",
        groups,
        f"the {heads // groups} heads of a group must divide over {copies} devices of mesh axes tensor and sequence",
        "change heads, groups or the mesh",
    )
    return copies


def _recurrent(
    chunk: int, x_BLHK: jax.Array, dt_BLH: jax.Array, log_decay_BLH: jax.Array, B_BLGN: jax.Array, C_BLGN: jax.Array,
    state_BGNM: jax.Array,
) -> Scanned:  # fmt: skip
    B, G, N, M = state_BGNM.shape
    K = x_BLHK.shape[-1]
    added_BLHK = x_BLHK.astype(state_BGNM.dtype) * dt_BLH[..., None]

    def by_group(per_head_BLH: jax.Array) -> jax.Array:
        return jnp.repeat(per_head_BLH, K, axis=-1).reshape(B, -1, G, M)

    def token(state_BGNM: jax.Array, inputs: tuple[jax.Array, ...]) -> Scanned:
        added_BGM, decay_BGM, B_BGN, C_BGN = inputs
        added_BGNM = added_BGM[:, :, None, :] * B_BGN[..., None]
        state_BGNM = decay_BGM[:, :, None, :] * state_BGNM + added_BGNM
        return state_BGNM, jnp.sum(state_BGNM * C_BGN[..., None], axis=2)

    inputs = (added_BLHK.reshape(B, -1, G, M), by_group(jnp.exp(log_decay_BLH)), B_BLGN, C_BLGN)
    inputs = tuple(array.astype(state_BGNM.dtype).swapaxes(0, 1) for array in inputs)
    state_BGNM, y_LBGM = jax.lax.scan(jax.checkpoint(token, prevent_cse=False), state_BGNM, inputs)
    return y_LBGM.swapaxes(0, 1).reshape(x_BLHK.shape), state_BGNM


def _chunked(
    chunk: int, x_BLHK: jax.Array, dt_BLH: jax.Array, log_decay_BLH: jax.Array, B_BLGN: jax.Array, C_BLGN: jax.Array,
    state_BGNM: jax.Array,
) -> Scanned:  # fmt: skip
    """Within chunks as masked attention, between them by their states (listing 1 of the paper, batched over chunks)."""
    B, L, H, K = x_BLHK.shape
    Q = min(chunk, L)

    def cut(array_BLX: jax.Array) -> jax.Array:
        """(C, B, Q, ...): the last chunk filled with tokens of dt 0."""
        padding = [(0, 0), (0, -L % Q)] + [(0, 0)] * (array_BLX.ndim - 2)
        padded = jnp.pad(array_BLX, padding)
        return padded.reshape(B, -1, Q, *array_BLX.shape[2:]).swapaxes(0, 1)

    sums_CBQH = jnp.cumsum(cut(log_decay_BLH), axis=2)
    added_CBQHK = cut(x_BLHK.astype(dt_BLH.dtype) * dt_BLH[..., None])
    B_CBQGN, C_CBQGN = cut(B_BLGN), cut(C_BLGN)
    y_CBQHK = _within_chunks(added_CBQHK, sums_CBQH, B_CBQGN, C_CBQGN)
    before_CBGNM, state_BGNM = _chunk_states(added_CBQHK, sums_CBQH, B_CBQGN, state_BGNM)
    read_out = jnp.einsum(
        "cbqgn,cbgnm->cbqgm", C_CBQGN, before_CBGNM.astype(C_CBQGN.dtype), preferred_element_type=state_BGNM.dtype
    )
    y_CBQHK += read_out.reshape(y_CBQHK.shape) * jnp.exp(sums_CBQH)[..., None]
    return y_CBQHK.swapaxes(0, 1).reshape(B, -1, H, K)[:, :L], state_BGNM


def _within_chunks(added_CBQHK: jax.Array, sums_CBQH: jax.Array, B_CBQGN: jax.Array, C_CBQGN: jax.Array) -> jax.Array:
    """y_CBQHK of a chunk's own tokens: (C B^T * decay from source to reader) (dt * x)."""
    scores_CBGQS = jnp.einsum("cbqgn,cbsgn->cbgqs", C_CBQGN, B_CBQGN, preferred_element_type=added_CBQHK.dtype)
    added_CBHSK = added_CBQHK.swapaxes(2, 3).astype(B_CBQGN.dtype)
    return _mix(scores_CBGQS, sums_CBQH.swapaxes(2, 3), added_CBHSK).swapaxes(2, 3)


@jax.custom_vjp
def _mix(scores_CBGQS: jax.Array, sums_CBHQ: jax.Array, added_CBHSK: jax.Array) -> jax.Array:
    """y_CBHQK = (scores * exp(sums[q] - sums[s]), s up to q) added, in the dtype of the scores.

    Its own gradient, because a sum of a source moves a weight as much as that of its reader moves it back: the sums'
    gradients are products of y and of added with their own gradients, and the Q * Q weights need not be kept.
    """
    return _mix_forward(scores_CBGQS, sums_CBHQ, added_CBHSK)[0]


def _mix_forward(scores_CBGQS: jax.Array, sums_CBHQ: jax.Array, added_CBHSK: jax.Array) -> tuple[jax.Array, tuple]:
    mixing_CBHQS = _by_head(scores_CBGQS, _decays(sums_CBHQ)).astype(added_CBHSK.dtype)
    y_CBHQK = jnp.einsum("cbhqs,cbhsk->cbhqk", mixing_CBHQS, added_CBHSK, preferred_element_type=scores_CBGQS.dtype)
    return y_CBHQK, (scores_CBGQS, sums_CBHQ, added_CBHSK, y_CBHQK)


def _mix_backward(kept: tuple, to_y_CBHQK: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    scores_CBGQS, sums_CBHQ, added_CBHSK, y_CBHQK = kept
    precise, narrow = scores_CBGQS.dtype, added_CBHSK.dtype
    decay_CBHQS = _decays(sums_CBHQ)
    mixing_CBHQS = _by_head(scores_CBGQS, decay_CBHQS).astype(narrow)
    cut_CBHQK = to_y_CBHQK.astype(narrow)
    to_mixing = jnp.einsum("cbhqk,cbhsk->cbhqs", cut_CBHQK, added_CBHSK, preferred_element_type=precise)
    to_added = jnp.einsum("cbhqs,cbhqk->cbhsk", mixing_CBHQS, cut_CBHQK, preferred_element_type=precise)
    C, B, G, Q, _ = scores_CBGQS.shape
    to_scores = (to_mixing * decay_CBHQS).reshape(C, B, G, -1, Q, Q).sum(3)
    to_sums = (y_CBHQK * to_y_CBHQK).sum(-1) - (added_CBHSK.astype(precise) * to_added).sum(-1)
    return to_scores, to_sums, to_added.astype(narrow)


_mix.defvjp(_mix_forward, _mix_backward)


def _decays(sums_CBHQ: jax.Array) -> jax.Array:
    """exp(sums[q] - sums[s]) for sources s up to the reader q, and 0 beyond: (C, B, H, Q, S).

    The exponential of a difference, masked before: at most 1, where a quotient of exponentials could overflow.
    """
    Q = sums_CBHQ.shape[-1]
    causal_QS = jnp.tril(jnp.ones((Q, Q), bool))[None, None, None]
    return jnp.exp(jnp.where(causal_QS, sums_CBHQ[..., :, None] - sums_CBHQ[..., None, :], -jnp.inf))


def _by_head(scores_CBGQS: jax.Array, decay_CBHQS: jax.Array) -> jax.Array:
    """Each head's decays times its group's scores."""
    C, B, G, Q, _ = scores_CBGQS.shape
    return (scores_CBGQS[:, :, :, None] * decay_CBHQS.reshape(C, B, G, -1, Q, Q)).reshape(decay_CBHQS.shape)


def _chunk_states(
    added_CBQHK: jax.Array, sums_CBQH: jax.Array, B_CBQGN: jax.Array, state_BGNM: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """(state before each chunk, state after the last)."""
    C, B, Q, H, K = added_CBQHK.shape
    _, G, N, M = state_BGNM.shape
    to_end_CBQH = jnp.exp(sums_CBQH[:, :, -1:] - sums_CBQH)
    kept_CBQGM = (added_CBQHK * to_end_CBQH[..., None]).reshape(C, B, Q, G, M).astype(B_CBQGN.dtype)
    written_CBGNM = jnp.einsum("cbqgn,cbqgm->cbgnm", B_CBQGN, kept_CBQGM, preferred_element_type=state_BGNM.dtype)
    return _pass_on(jnp.exp(sums_CBQH[:, :, -1]).astype(state_BGNM.dtype), written_CBGNM, state_BGNM)


@jax.custom_vjp
def _pass_on(decay_CBH: jax.Array, written_CBGNM: jax.Array, state_BGNM: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(state before each chunk, state after the last): state = decay * state + written, chunk by chunk.

    Its own gradient, to sum the decays' over all chunks at once, first over a head's channels: as XLA's CPU compiler
    sums them otherwise, inside the scan or over both at once, takes ten times as long.
    """
    return _pass_on_forward(decay_CBH, written_CBGNM, state_BGNM)[0]


def _pass_on_forward(
    decay_CBH: jax.Array, written_CBGNM: jax.Array, state_BGNM: jax.Array
) -> tuple[tuple[jax.Array, jax.Array], tuple]:
    def chunk(state_BGNM: jax.Array, inputs: tuple[jax.Array, jax.Array]) -> Scanned:
        decay_BH, written_BGNM = inputs
        return _decayed(decay_BH, state_BGNM) + written_BGNM, state_BGNM

    state_BGNM, before_CBGNM = jax.lax.scan(chunk, state_BGNM, (decay_CBH, written_CBGNM))
    return (before_CBGNM, state_BGNM), (decay_CBH, before_CBGNM)


def _pass_on_backward(kept: tuple, to_states: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
    decay_CBH, before_CBGNM = kept
    to_before_CBGNM, to_state_BGNM = to_states

    def chunk(to_state_BGNM: jax.Array, inputs: tuple[jax.Array, jax.Array]) -> Scanned:
        decay_BH, to_before_BGNM = inputs
        return _decayed(decay_BH, to_state_BGNM) + to_before_BGNM, to_state_BGNM

    to_state_BGNM, to_written = jax.lax.scan(chunk, to_state_BGNM, (decay_CBH, to_before_CBGNM), reverse=True)
    C, B, G, N, M = before_CBGNM.shape
    by_head = (before_CBGNM * to_written).reshape(C, B, G, N, decay_CBH.shape[2] // G, -1)
    return by_head.sum(-1).sum(3).reshape(decay_CBH.shape), to_written, to_state_BGNM


def _decayed(decay_BH: jax.Array, state_BGNM: jax.Array) -> jax.Array:
    B, G, _, M = state_BGNM.shape
    return jnp.repeat(decay_BH, G * M // decay_BH.shape[1], axis=-1).reshape(B, G, 1, M) * state_BGNM


_pass_on.defvjp(_pass_on_forward, _pass_on_backward)


ALGORITHMS: dict[str, Callable[..., Scanned]] = {"chunked": _chunked, "recurrent": _recurrent}

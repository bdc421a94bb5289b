"""The selective scan for TPUs: a program has a block of channels of one sequence, and takes a chunk at a time.

States (N, P) stay in vector registers, channels along the lanes; a chunk's are made again in the chip's own memory.
"""

from typing import Any

import jax
import jax.numpy as jnp

CHUNK = 128  # tokens between the states that are kept: a row of lanes, which B and C have along their length
CHANNELS = (512, 256, 128)  # of one program: the first that divides them, and whose states of a chunk have room
ROOM = 8 * 2**20  # bytes of the chip's memory, half of what a program may have
LANES = CHANNELS[-1]
UNROLLED = 8  # tokens of a loop's body, a tile's rows


def padded_states(states: int) -> int:
    """Any number of them fills rows of registers."""
    return states


def laid_out(of_tokens: jax.Array) -> jax.Array:
    """B, C and their gradients, (B, N, L) of (B, L, N), and back: tokens along the lanes."""
    return of_tokens.swapaxes(1, 2)


class Blocks:
    """What of each kind of array a program (sequence, block of channels, chunk) reads or writes."""

    def __init__(self, shape: tuple[int, int, int], states: int, backward: bool):
        from jax.experimental import pallas as pl

        batch, length, channels = shape
        most = ROOM // (4 * CHUNK * states)
        P = next(size for size in CHANNELS if size == LANES or (channels % size == 0 and size <= most))
        chunks = length // CHUNK

        def chunk(step: Any) -> Any:
            return chunks - 1 - step if backward else step

        self.grid = (batch, channels // P, chunks)
        self.of_tokens = pl.BlockSpec((None, CHUNK, P), lambda b, p, step: (b, chunk(step), p))  # (B, L, P)
        self.rates = pl.BlockSpec((states, P), lambda b, p, step: (0, p))  # (N, P)
        self.selection = pl.BlockSpec((None, states, CHUNK), lambda b, p, step: (b, 0, chunk(step)))  # (B, N, L)
        self.state = pl.BlockSpec((None, states, P), lambda b, p, step: (b, 0, p))  # (B, N, P)
        self.starts = pl.BlockSpec((None, None, states, P), lambda b, p, step: (b, chunk(step), 0, p))  # (B, C, N, P)
        # (B, K, N, L): gradients of the selection by the K blocks of channels
        self.parts = pl.BlockSpec((None, None, states, CHUNK), lambda b, p, step: (b, p, 0, chunk(step)))
        self.scratch = [(states, P), *([(CHUNK, states, P)] if backward else [])]  # what is handed on, and a chunk's


def _column(of_tokens_NQ: jax.Array, token: Any) -> jax.Array:
    """(N, 1): one token's; a sum, since lanes are not addressed."""
    return jnp.sum(jnp.where(_lanes(of_tokens_NQ) == token, of_tokens_NQ, 0.0), axis=1, keepdims=True)


def _lanes(of_tokens_NQ: jax.Array) -> jax.Array:
    return jax.lax.broadcasted_iota(jnp.int32, of_tokens_NQ.shape, 1)


def _row(token: Any) -> Any:
    """(1, P) of a block (Q, P)."""
    from jax.experimental import pallas as pl

    return pl.ds(token, 1), slice(None)


def scan(x_QP, dt_QP, A_NP, B_NQ, C_NQ, state_NP, y_QP, start_NP, last_NP, carried_NP) -> None:
    """Pallas' body: what is read, what is written, and the state that is handed on."""
    from jax.experimental import pallas as pl

    @pl.when(pl.program_id(2) == 0)
    def _():
        carried_NP[...] = state_NP[...]

    start_NP[...] = carried_NP[...]
    rates_NP, writes_NQ, reads_NQ = A_NP[...], B_NQ[...], C_NQ[...]

    def token(t: Any, h_NP: jax.Array) -> jax.Array:
        dt_1P = dt_QP[_row(t)]
        h_NP = jnp.exp(dt_1P * rates_NP) * h_NP + dt_1P * x_QP[_row(t)] * _column(writes_NQ, t)
        y_QP[_row(t)] = jnp.sum(h_NP * _column(reads_NQ, t), axis=0, keepdims=True)
        return h_NP

    carried_NP[...] = jax.lax.fori_loop(0, CHUNK, token, carried_NP[...], unroll=UNROLLED)
    last_NP[...] = carried_NP[...]


def scan_backward(
    x_QP, dt_QP, A_NP, B_NQ, C_NQ, start_NP, gy_QP, glast_NP,
    gx_QP, gdt_QP, gA_NP, gB_NQ, gC_NQ, gfirst_NP, carried_NP, before_QNP,
) -> None:  # fmt: skip
    """Pallas' body: what is read, then the gradients, then the scratch."""
    from jax.experimental import pallas as pl

    @pl.when(pl.program_id(2) == 0)
    def _():
        carried_NP[...] = glast_NP[...]
        gA_NP[...] = jnp.zeros_like(gA_NP)

    rates_NP, writes_NQ, reads_NQ = A_NP[...], B_NQ[...], C_NQ[...]

    def again(t: Any, h_NP: jax.Array) -> jax.Array:
        before_QNP[t] = h_NP
        dt_1P = dt_QP[_row(t)]
        return jnp.exp(dt_1P * rates_NP) * h_NP + dt_1P * x_QP[_row(t)] * _column(writes_NQ, t)

    jax.lax.fori_loop(0, CHUNK, again, start_NP[...], unroll=UNROLLED)

    def token(i: Any, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        t = CHUNK - 1 - i
        g_NP, of_rates_NP, of_writes_NQ, of_reads_NQ = carry
        x_1P, dt_1P, gy_1P, before_NP = x_QP[_row(t)], dt_QP[_row(t)], gy_QP[_row(t)], before_QNP[t]
        decay_NP, write_N1 = jnp.exp(dt_1P * rates_NP), _column(writes_NQ, t)
        h_NP = decay_NP * before_NP + dt_1P * x_1P * write_N1
        g_NP = g_NP + _column(reads_NQ, t) * gy_1P
        here = _lanes(writes_NQ) == t
        of_reads_NQ = jnp.where(here, jnp.sum(h_NP * gy_1P, axis=1, keepdims=True), of_reads_NQ)
        of_writes_NQ = jnp.where(here, jnp.sum(g_NP * (dt_1P * x_1P), axis=1, keepdims=True), of_writes_NQ)
        of_added_1P = jnp.sum(g_NP * write_N1, axis=0, keepdims=True)  # of dt * x
        of_exponent_NP = g_NP * before_NP * decay_NP
        gx_QP[_row(t)] = dt_1P * of_added_1P
        gdt_QP[_row(t)] = jnp.sum(of_exponent_NP * rates_NP, axis=0, keepdims=True) + x_1P * of_added_1P
        return g_NP * decay_NP, of_rates_NP + of_exponent_NP * dt_1P, of_writes_NQ, of_reads_NQ

    zero_NQ = jnp.zeros_like(writes_NQ)
    carry = (carried_NP[...], gA_NP[...], zero_NQ, zero_NQ)
    carry = jax.lax.fori_loop(0, CHUNK, token, carry, unroll=UNROLLED)
    carried_NP[...], gA_NP[...], gB_NQ[...], gC_NQ[...] = carry
    gfirst_NP[...] = carried_NP[...]

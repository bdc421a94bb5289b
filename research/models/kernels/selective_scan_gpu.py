"""The selective scan for NVIDIA GPUs, in Triton by way of Pallas: a warp has a block of channels of one sequence.

It goes through all tokens with the states (N, P) of its channels in registers. The backward kernel writes the states of
one chunk at a time, which it makes again, to a scratch array that stays in the cache.
"""

from typing import Any

import jax
import jax.numpy as jnp

CHUNK = 32  # tokens between the states that are kept
LANES = 32  # channels of a program


def padded_states(states: int) -> int:
    """Arrays in registers have sizes that are powers of two."""
    return 1 << (states - 1).bit_length()


def laid_out(of_tokens: jax.Array) -> jax.Array:
    """B, C and their gradients as they are."""
    return of_tokens


class Blocks:
    """What of each kind of array a program (sequence, block of channels) reads or writes."""

    def __init__(self, shape: tuple[int, int, int], states: int, backward: bool):
        from jax.experimental import pallas as pl

        batch, length, channels = shape
        chunks = length // CHUNK
        self.grid = (batch, channels // LANES)
        self.of_tokens = pl.BlockSpec((None, length, LANES), lambda b, p: (b, 0, p))  # (B, L, P)
        self.rates = pl.BlockSpec((states, LANES), lambda b, p: (0, p))  # (N, P)
        self.selection = pl.BlockSpec((None, length, states), lambda b, p: (b, 0, 0))  # (B, L, N)
        self.state = pl.BlockSpec((None, states, LANES), lambda b, p: (b, 0, p))  # (B, N, P)
        self.starts = pl.BlockSpec((None, chunks, states, LANES), lambda b, p: (b, 0, 0, p))  # (B, C, N, P)
        # (B, Q, N, P): a chunk's states, made again
        of_chunk = pl.BlockSpec((None, CHUNK, states, LANES), lambda b, p: (b, 0, 0, p))
        self.scratch = [((batch, CHUNK, states, channels), of_chunk)] if backward else []
        # (B, K, L, N): gradients of the selection by the K blocks of channels
        self.parts = pl.BlockSpec((None, None, length, states), lambda b, p: (b, p, 0, 0))


def scan(interpret: bool, x_LP, dt_LP, A_NP, B_LN, C_LN, state_NP, y_LP, starts_CNP, last_NP) -> None:
    """Pallas' body: what is read, then what is written. interpret: read by `scan_backward` alone."""
    rates_NP = A_NP[...]

    def chunk(c: Any, h_NP: jax.Array) -> jax.Array:
        starts_CNP[c] = h_NP

        def token(i: Any, h_NP: jax.Array) -> jax.Array:
            t = c * CHUNK + i
            dt_P, x_P, write_N, read_N = dt_LP[t], x_LP[t], B_LN[t], C_LN[t]
            h_NP = jnp.exp(dt_P[None, :] * rates_NP) * h_NP + (dt_P * x_P)[None, :] * write_N[:, None]
            y_LP[t] = jnp.sum(h_NP * read_N[:, None], axis=0)
            return h_NP

        return jax.lax.fori_loop(0, CHUNK, token, h_NP)

    last_NP[...] = jax.lax.fori_loop(0, starts_CNP.shape[0], chunk, state_NP[...])


def scan_backward(
    interpret: bool,
    x_LP, dt_LP, A_NP, B_LN, C_LN, starts_CNP, gy_LP, glast_NP,
    gx_LP, gdt_LP, gA_NP, gB_LN, gC_LN, gfirst_NP, before_QNP,
) -> None:  # fmt: skip
    """Pallas' body: what is read, then the gradients, then the scratch. interpret: without barriers."""
    from jax.experimental.pallas import triton

    rates_NP, chunks = A_NP[...], starts_CNP.shape[0]

    def wait() -> None:
        if not interpret:  # where there is one thread, and no barrier
            triton.debug_barrier()

    def chunk(j: Any, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        c = chunks - 1 - j

        def again(i: Any, h_NP: jax.Array) -> jax.Array:
            before_QNP[i] = h_NP
            t = c * CHUNK + i
            dt_P, x_P, write_N = dt_LP[t], x_LP[t], B_LN[t]
            return jnp.exp(dt_P[None, :] * rates_NP) * h_NP + (dt_P * x_P)[None, :] * write_N[:, None]

        jax.lax.fori_loop(0, CHUNK, again, starts_CNP[c])
        wait()  # what this warp has written is read below

        def token(i: Any, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            g_NP, of_rates_NP = carry
            q = CHUNK - 1 - i
            t = c * CHUNK + q
            x_P, dt_P, gy_P, before_NP, write_N = x_LP[t], dt_LP[t], gy_LP[t], before_QNP[q], B_LN[t]
            added_NP, decay_NP = (dt_P * x_P)[None, :], jnp.exp(dt_P[None, :] * rates_NP)
            h_NP = decay_NP * before_NP + added_NP * write_N[:, None]
            g_NP = g_NP + C_LN[t][:, None] * gy_P[None, :]
            gC_LN[t] = jnp.sum(h_NP * gy_P[None, :], axis=1)
            gB_LN[t] = jnp.sum(g_NP * added_NP, axis=1)
            of_added_P = jnp.sum(g_NP * write_N[:, None], axis=0)  # of dt * x
            of_exponent_NP = g_NP * before_NP * decay_NP
            gx_LP[t] = dt_P * of_added_P
            gdt_LP[t] = jnp.sum(of_exponent_NP * rates_NP, axis=0) + x_P * of_added_P
            return g_NP * decay_NP, of_rates_NP + of_exponent_NP * dt_P[None, :]

        carry = jax.lax.fori_loop(0, CHUNK, token, carry)
        wait()  # the next chunk overwrites it
        return carry

    gfirst_NP[...], gA_NP[...] = jax.lax.fori_loop(0, chunks, chunk, (glast_NP[...], jnp.zeros_like(rates_NP)))

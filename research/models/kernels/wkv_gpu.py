"""RWKV-4's recurrence for NVIDIA GPUs, in Triton by way of Pallas: a warp has a block of channels of one sequence.

It goes through all tokens with the sums of its channels, one a thread, in registers, and loads a few tokens before it
computes the first of them, so that they wait for the memory together. The backward kernel writes the sums before each
token of one chunk at a time, which it makes again, to a scratch array that stays in the cache.
"""

from typing import Any

import jax
import jax.numpy as jnp

from research.models.kernels import wkv_token

CHUNK = 32  # tokens between the sums that are kept
LANES = 32  # channels of a program
TOGETHER = 4  # tokens whose loads are issued before the first is computed


def laid_out(real_BL: jax.Array) -> jax.Array:
    """As it is."""
    return real_BL


class Blocks:
    """What of each kind of array a program (sequence, block of channels) reads or writes."""

    def __init__(self, shape: tuple[int, int, int], backward: bool):
        from jax.experimental import pallas as pl

        batch, length, channels = shape
        chunks = length // CHUNK
        self.grid = (batch, channels // LANES)
        self.of_tokens = pl.BlockSpec((None, length, LANES), lambda b, d: (b, 0, d))  # (B, L, D)
        self.real = pl.BlockSpec((None, length), lambda b, d: (b, 0))  # (B, L)
        self.rates = pl.BlockSpec((2, LANES), lambda b, d: (0, d))  # (2, D)
        self.of_rates = pl.BlockSpec((None, 2, LANES), lambda b, d: (b, 0, d))  # (B, 2, D)
        self.sums = pl.BlockSpec((None, 3, LANES), lambda b, d: (b, 0, d))  # (B, 3, D)
        self.starts = pl.BlockSpec((None, chunks, 3, LANES), lambda b, d: (b, 0, 0, d))  # (B, C, 3, D)
        # (B, Q, 3, D): the sums before each token of a chunk, made again
        of_chunk = pl.BlockSpec((None, CHUNK, 3, LANES), lambda b, d: (b, 0, 0, d))
        self.scratch = [((batch, CHUNK, 3, channels), of_chunk)] if backward else []


def _load(sums_3D: Any, *index: Any) -> wkv_token.Sums:
    return tuple(sums_3D[*index, s] for s in range(3))


def _store(sums_3D: Any, sums: wkv_token.Sums, *index: Any) -> None:
    for s, of_each_D in enumerate(sums):
        sums_3D[*index, s] = of_each_D


def _after(before: wkv_token.Sums, grown_D: jax.Array, key_D: jax.Array, v_D: jax.Array) -> wkv_token.Sums:
    n_D, d_D, e_D = before
    kept_D, added_D, e_D = wkv_token.weights(e_D + grown_D, key_D)
    return *wkv_token.advanced(n_D, d_D, kept_D, added_D, added_D * v_D), e_D


def wkv(interpret: bool, rates_2D, k_LD, v_LD, real_L, sums_3D, y_LD, starts_C3D, last_3D) -> None:
    """Pallas' body: what is read, then what is written. interpret: read by `wkv_backward` alone."""
    rate_D, bonus_D = rates_2D[0], rates_2D[1]

    def chunk(c: Any, sums: wkv_token.Sums) -> wkv_token.Sums:
        _store(starts_C3D, sums, c)

        def some(i: Any, sums: wkv_token.Sums) -> wkv_token.Sums:
            t = c * CHUNK + i * TOGETHER
            tokens = [(k_LD[t + j], v_LD[t + j], real_L[t + j] > 0) for j in range(TOGETHER)]
            for j, (k_D, v_D, real) in enumerate(tokens):
                y_LD[t + j] = wkv_token.read(sums, k_D + bonus_D, v_D)
                sums = _after(sums, *wkv_token.exponents(rate_D, k_D, real), v_D)
            return sums

        return jax.lax.fori_loop(0, CHUNK // TOGETHER, some, sums)

    _store(last_3D, jax.lax.fori_loop(0, starts_C3D.shape[0], chunk, _load(sums_3D)))


def wkv_backward(
    interpret: bool,
    rates_2D, k_LD, v_LD, real_L, starts_C3D, gy_LD, glast_3D,
    grates_2D, gk_LD, gv_LD, gfirst_3D, before_Q3D,
) -> None:  # fmt: skip
    """Pallas' body: what is read, then the gradients, then the scratch; those of the sums: by n and d, and the rest.

    interpret: without barriers.
    """
    from jax.experimental.pallas import triton

    rate_D, bonus_D, chunks = rates_2D[0], rates_2D[1], starts_C3D.shape[0]

    def wait() -> None:
        if not interpret:  # where there is one thread, and no barrier
            triton.debug_barrier()

    def chunk(i: Any, carry: tuple) -> tuple:
        c = chunks - 1 - i

        def again(i: Any, sums: wkv_token.Sums) -> wkv_token.Sums:
            q = i * TOGETHER
            t = c * CHUNK + q
            tokens = [(k_LD[t + j], v_LD[t + j], real_L[t + j] > 0) for j in range(TOGETHER)]
            for j, (k_D, v_D, real) in enumerate(tokens):
                _store(before_Q3D, sums, q + j)
                sums = _after(sums, *wkv_token.exponents(rate_D, k_D, real), v_D)
            return sums

        jax.lax.fori_loop(0, CHUNK // TOGETHER, again, _load(starts_C3D, c))
        wait()  # what this warp has written is read below

        def some(i: Any, carry: tuple) -> tuple:
            q = CHUNK - (i + 1) * TOGETHER
            t = c * CHUNK + q
            tokens = [
                (k_LD[t + j], v_LD[t + j], real_L[t + j] > 0, gy_LD[t + j], _load(before_Q3D, q + j))
                for j in range(TOGETHER)
            ]
            for j in reversed(range(TOGETHER)):
                gk_LD[t + j], gv_LD[t + j], *carry = _token_backward(rate_D, bonus_D, tokens[j], *carry)
            return tuple(carry)

        carry = jax.lax.fori_loop(0, CHUNK // TOGETHER, some, carry)
        wait()  # the next chunk overwrites it
        return carry

    carry = (_load(glast_3D), jnp.zeros_like(rate_D), jnp.zeros_like(rate_D))
    sums, grates_2D[0], grates_2D[1] = jax.lax.fori_loop(0, chunks, chunk, carry)
    _store(gfirst_3D, sums)


def _token_backward(
    rate_D: jax.Array, bonus_D: jax.Array, token: tuple, g: wkv_token.Sums, of_rate_D: jax.Array, of_bonus_D: jax.Array
) -> tuple:
    """Gradients by k, v and the sums before the token; those by rate and bonus are added up."""
    k_D, v_D, real, gy_D, before = token
    of_n_D, of_d_D, of_own_D, gv_D = wkv_token.read_backward(before, k_D + bonus_D, v_D, gy_D)
    grown_D, key_D = wkv_token.exponents(rate_D, k_D, real)
    of_grown_D, of_key_D, of_value_D = wkv_token.added_backward(before, grown_D, key_D, v_D, g)
    kept_D, _, _ = wkv_token.weights(before[2] + grown_D, key_D)
    g = wkv_token.earlier(g, kept_D, wkv_token.is_older(before[2], grown_D, key_D), of_n_D, of_d_D)
    of_rate_D, of_bonus_D = of_rate_D + jnp.where(real, of_grown_D, 0.0), of_bonus_D + of_own_D
    return of_own_D + of_key_D, gv_D + of_value_D, g, of_rate_D, of_bonus_D

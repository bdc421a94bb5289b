"""RWKV-4's recurrence for TPUs: a program has a block of channels of one sequence, and takes a chunk at a time.

A token fills a row of a register that has eight. What a token needs of the one before is computed row by row: first the
largest exponent, which gives the weights of eight tokens at once, then both sums, a product and a sum each. All the
rest, every exponential and quotient among it, is computed for eight tokens together.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from research.models.kernels import wkv_token

CHUNK = 128  # tokens between the sums that are kept
CHANNELS = (512, 256, 128)  # of one program: the first that divides them
LANES = CHANNELS[-1]
TILE = 8  # rows of a register


def laid_out(real_BL: jax.Array) -> jax.Array:
    """(B, L, 1): a tile's tokens along its rows."""
    return real_BL[:, :, None]


class Blocks:
    """What of each kind of array a program (sequence, block of channels, chunk) reads or writes."""

    def __init__(self, shape: tuple[int, int, int], backward: bool):
        from jax.experimental import pallas as pl

        batch, length, channels = shape
        D = next(size for size in CHANNELS if channels % size == 0)
        chunks = length // CHUNK

        def chunk(step: Any) -> Any:
            return chunks - 1 - step if backward else step

        self.grid = (batch, channels // D, chunks)
        self.of_tokens = pl.BlockSpec((None, CHUNK, D), lambda b, d, step: (b, chunk(step), d))  # (B, L, D)
        self.real = pl.BlockSpec((None, CHUNK, 1), lambda b, d, step: (b, chunk(step), 0))  # (B, L, 1)
        self.rates = pl.BlockSpec((2, D), lambda b, d, step: (0, d))  # (2, D)
        self.of_rates = pl.BlockSpec((None, 2, D), lambda b, d, step: (b, 0, d))  # (B, 2, D)
        self.sums = pl.BlockSpec((None, 3, D), lambda b, d, step: (b, 0, d))  # (B, 3, D)
        self.starts = pl.BlockSpec((None, None, 3, D), lambda b, d, step: (b, chunk(step), 0, d))  # (B, C, 3, D)
        self.scratch = [(3, D), *([(3, CHUNK, D)] if backward else [])]  # what is handed on, and a chunk's sums


def _rows(tile: Any) -> Any:
    """Those of a chunk that the tile has."""
    from jax.experimental import pallas as pl

    return pl.ds(pl.multiple_of(tile * TILE, TILE), TILE)


def _each(rows_8D: jax.Array) -> list[jax.Array]:
    """The tile's rows, (1, D) each."""
    return [rows_8D[row : row + 1] for row in range(TILE)]


def _tile(rows: Sequence[jax.Array]) -> jax.Array:
    return jnp.concatenate(rows, axis=0)


def _before(grown_8D: jax.Array, key_8D: jax.Array, v_8D: jax.Array, sums: wkv_token.Sums) -> tuple:
    """(the sums before each token of a tile, those after its last), from those before its first, (1, D) each."""
    n_1D, d_1D, e_1D = sums
    e_rows, n_rows, d_rows = [], [], []
    for grown_1D, key_1D in zip(_each(grown_8D), _each(key_8D), strict=True):
        e_rows.append(e_1D)
        e_1D = jnp.maximum(e_1D + grown_1D, key_1D)
    e_8D = _tile(e_rows)
    kept_8D, added_8D, _ = wkv_token.weights(e_8D + grown_8D, key_8D)
    for kept_1D, added_1D, value_1D in zip(_each(kept_8D), _each(added_8D), _each(added_8D * v_8D), strict=True):
        n_rows.append(n_1D)
        d_rows.append(d_1D)
        n_1D, d_1D = wkv_token.advanced(n_1D, d_1D, kept_1D, added_1D, value_1D)
    return (_tile(n_rows), _tile(d_rows), e_8D), (n_1D, d_1D, e_1D)


def _split(sums_3D: Any) -> wkv_token.Sums:
    """Three rows, (1, D) each, of a block."""
    return sums_3D[0:1, :], sums_3D[1:2, :], sums_3D[2:3, :]


def wkv(rates_2D, k_QD, v_QD, real_Q1, sums_3D, y_QD, start_3D, last_3D, carried_3D) -> None:
    """Pallas' body: what is read, what is written, and the sums that are handed on."""
    from jax.experimental import pallas as pl

    @pl.when(pl.program_id(2) == 0)
    def _():
        carried_3D[...] = sums_3D[...]

    start_3D[...] = carried_3D[...]
    rate_1D, bonus_1D = rates_2D[0:1, :], rates_2D[1:2, :]

    def tile(i: Any, sums: wkv_token.Sums) -> wkv_token.Sums:
        rows = _rows(i)
        k_8D, v_8D = k_QD[rows], v_QD[rows]
        exponents = wkv_token.exponents(rate_1D, k_8D, real_Q1[rows] > 0)
        before, sums = _before(*exponents, v_8D, sums)
        y_QD[rows] = wkv_token.read(before, k_8D + bonus_1D, v_8D)
        return sums

    sums = jax.lax.fori_loop(0, CHUNK // TILE, tile, _split(carried_3D))
    carried_3D[...] = _tile(sums)
    last_3D[...] = carried_3D[...]


def wkv_backward(
    rates_2D, k_QD, v_QD, real_Q1, start_3D, gy_QD, glast_3D,
    grates_2D, gk_QD, gv_QD, gfirst_3D, carried_3D, before_3QD,
) -> None:  # fmt: skip
    """Pallas' body: what is read, then the gradients, then the scratch; those of the sums: by n and d, and the rest."""
    from jax.experimental import pallas as pl

    @pl.when(pl.program_id(2) == 0)
    def _():
        carried_3D[...] = glast_3D[...]
        grates_2D[...] = jnp.zeros_like(grates_2D)

    rate_1D, bonus_1D = rates_2D[0:1, :], rates_2D[1:2, :]

    def again(i: Any, sums: wkv_token.Sums) -> wkv_token.Sums:
        rows = _rows(i)
        exponents = wkv_token.exponents(rate_1D, k_QD[rows], real_Q1[rows] > 0)
        (before_3QD[0, rows], before_3QD[1, rows], before_3QD[2, rows]), sums = _before(*exponents, v_QD[rows], sums)
        return sums

    jax.lax.fori_loop(0, CHUNK // TILE, again, _split(start_3D))

    def tile(i: Any, carry: tuple) -> tuple:
        sums, of_rate_8D, of_bonus_8D = carry
        rows = _rows(CHUNK // TILE - 1 - i)
        k_8D, v_8D, real_81 = k_QD[rows], v_QD[rows], real_Q1[rows] > 0
        before = tuple(before_3QD[s, rows] for s in range(3))
        of_n_8D, of_d_8D, of_own_8D, gv_8D = wkv_token.read_backward(before, k_8D + bonus_1D, v_8D, gy_QD[rows])
        grown_8D, key_8D = wkv_token.exponents(rate_1D, k_8D, real_81)
        after, sums = _after(before[2], grown_8D, key_8D, of_n_8D, of_d_8D, sums)
        of_grown_8D, of_key_8D, of_value_8D = wkv_token.added_backward(before, grown_8D, key_8D, v_8D, after)
        gk_QD[rows], gv_QD[rows] = of_own_8D + of_key_8D, gv_8D + of_value_8D
        return sums, of_rate_8D + jnp.where(real_81, of_grown_8D, 0.0), of_bonus_8D + of_own_8D

    zero_8D = jnp.zeros((TILE, rate_1D.shape[1]), jnp.float32)
    carry = (_split(carried_3D), zero_8D, zero_8D)
    sums, *of_rates = jax.lax.fori_loop(0, CHUNK // TILE, tile, carry)
    grates_2D[...] += _tile([jnp.sum(of_8D, axis=0, keepdims=True) for of_8D in of_rates])
    carried_3D[...] = _tile(sums)
    gfirst_3D[...] = carried_3D[...]


def _after(
    e_8D: jax.Array, grown_8D: jax.Array, key_8D: jax.Array, of_n_8D: jax.Array, of_d_8D: jax.Array, g: wkv_token.Sums
) -> tuple:
    """(gradients by the sums after each token of a tile, those by the sums before its first), from the next tile's."""
    kept_8D, _, _ = wkv_token.weights(e_8D + grown_8D, key_8D)
    older_8D = wkv_token.is_older(e_8D, grown_8D, key_8D)
    rows = []
    for token in reversed(list(zip(*map(_each, (kept_8D, older_8D, of_n_8D, of_d_8D)), strict=True))):
        rows.append(g)
        g = wkv_token.earlier(g, *token)
    return tuple(_tile(of_each[::-1]) for of_each in zip(*rows, strict=True)), g

"""RWKV-4's recurrence by Pallas kernels of our own, forward and backward: its sums stay on the chip.

Each backend's program is a module of its own; what a token does in both is wkv_token.py. `wkv` gives the outputs, the
sums before each chunk of tokens and the last ones. `wkv_backward` goes through the chunks from the last to the first,
makes a chunk's sums again from those before it, and then takes its tokens from the last to the first. The gradients of
rate and bonus, which all sequences have in common, come out per sequence and are summed here.

Proven are their numbers in Pallas' interpret mode (tests/test_wkv.py), that the TPU's compiles for a v5e
(tests/benchmarks/ahead_of_time.py --rows rwkv4-3b, given libtpu) and that Triton's is lowered for CUDA: neither's
numbers nor speed on a device.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from research.models.kernels import wkv_gpu, wkv_tpu
from research.models.kernels.launch import LAUNCH
from research.models.kernels.wkv_token import Sums

PROGRAMS = {"gpu": wkv_gpu, "tpu": wkv_tpu}

Outcome = tuple[jax.Array, jax.Array]  # y_BLD, sums_B3D after the last token
Residuals = tuple[jax.Array, ...]


def wkv(
    rate_D: jax.Array,
    bonus_D: jax.Array,
    k_BLD: jax.Array,
    v_BLD: jax.Array,
    sums: Sums,
    mask_BL: jax.Array | None,
    backend: str,
    interpret: bool = False,
) -> tuple[jax.Array, Sums]:
    """(wkv_BLD, the sums after the last token) of local float32 arrays, by the program of `backend`, "gpu" or "tpu".

    sums: numerator, denominator and exponent, (B, D) each. The length is padded to whole chunks with tokens that change
    no sums, channels to what a program takes together. interpret: on any backend, without its compiler.
    """
    (batch, length, channels), program = k_BLD.shape, PROGRAMS[backend]
    tokens, lanes = -length % program.CHUNK, -channels % program.LANES
    real_BL = jnp.ones((batch, length), jnp.float32) if mask_BL is None else mask_BL.astype(jnp.float32)
    y_BLD, sums_B3D = _wkv(
        backend,
        interpret,
        jnp.pad(jnp.stack([rate_D, bonus_D]), ((0, 0), (0, lanes))),
        *(jnp.pad(array, ((0, 0), (0, tokens), (0, lanes))) for array in (k_BLD, v_BLD)),
        jnp.pad(real_BL, ((0, 0), (0, tokens))),
        jnp.pad(jnp.stack(sums, axis=1), ((0, 0), (0, 0), (0, lanes))),
    )
    n_BD, d_BD, e_BD = jnp.unstack(sums_B3D[:, :, :channels], axis=1)
    return y_BLD[:, :length, :channels], (n_BD, d_BD, e_BD)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _wkv(backend: str, interpret: bool, *arrays: jax.Array) -> Outcome:
    return _wkv_forward(backend, interpret, *arrays)[0]


def _wkv_forward(backend: str, interpret: bool, *arrays: jax.Array) -> tuple[Outcome, Residuals]:
    """arrays: rates_2D, k_BLD, v_BLD, real_BL, sums_B3D; kept are the sums before each chunk, and the last, instead."""
    program, (_, k_BLD, *_, sums_B3D) = PROGRAMS[backend], arrays
    blocks = program.Blocks(k_BLD.shape, backward=False)
    batch, length, channels = k_BLD.shape
    starts = (batch, length // program.CHUNK, 3, channels)
    inputs = [*_read(program, blocks, *arrays[:-1]), (sums_B3D, blocks.sums)]
    outputs = [(k_BLD.shape, blocks.of_tokens), (starts, blocks.starts), (sums_B3D.shape, blocks.sums)]
    y_BLD, starts_BC3D, sums_B3D = LAUNCH[backend](program.wkv, blocks, inputs, outputs, interpret)
    return (y_BLD, sums_B3D), (*arrays[:-1], starts_BC3D, sums_B3D)


def _wkv_backward(backend: str, interpret: bool, residuals: Residuals, gradients: Outcome) -> tuple[jax.Array, ...]:
    """Of rates, k, v, what is real (of which nothing is asked) and the first sums."""
    program, (*read, starts_BC3D, last_B3D), (gy_BLD, g_B3D) = PROGRAMS[backend], residuals, gradients
    rates_2D, k_BLD, _, real_BL = read
    blocks = program.Blocks(k_BLD.shape, backward=True)
    g_B3D = g_B3D.at[:, 2].add(-_of_exponent(g_B3D, last_B3D))  # the rest (wkv_token.py)
    inputs = [*_read(program, blocks, *read), (starts_BC3D, blocks.starts)]
    inputs += [(gy_BLD, blocks.of_tokens), (g_B3D, blocks.sums)]
    of_rates = (len(k_BLD), *rates_2D.shape)
    outputs = [(of_rates, blocks.of_rates), *[(k_BLD.shape, blocks.of_tokens)] * 2, (g_B3D.shape, blocks.sums)]
    of_each = LAUNCH[backend](program.wkv_backward, blocks, inputs, outputs, interpret)
    grates_B2D, gk_BLD, gv_BLD, g_B3D = of_each
    g_B3D = g_B3D.at[:, 2].add(_of_exponent(g_B3D, starts_BC3D[:, 0]))
    return grates_B2D.sum(0), gk_BLD, gv_BLD, jnp.zeros_like(real_BL), g_B3D


def _of_exponent(g_B3D: jax.Array, sums_B3D: jax.Array) -> jax.Array:
    """(B, D): the gradient by the exponent that follows from those by numerator and denominator."""
    return (g_B3D[:, :2] * sums_B3D[:, :2]).sum(1)


def _read(program: Any, blocks: Any, *arrays: jax.Array) -> list[tuple[jax.Array, Any]]:
    """What both programs read first, each with its blocks."""
    rates_2D, k_BLD, v_BLD, real_BL = arrays
    of_tokens = [(array, blocks.of_tokens) for array in (k_BLD, v_BLD)]
    return [(rates_2D, blocks.rates), *of_tokens, (program.laid_out(real_BL), blocks.real)]


_wkv.defvjp(_wkv_forward, _wkv_backward)

"""The selective scan by Pallas kernels of our own, forward and backward: states stay on the chip.

Each backend's program is a module of its own. `scan` gives the outputs, the states before each chunk of tokens and the
last one; `scan_backward` goes through the chunks from the last to the first, makes a chunk's states again from the one
before it, and then takes its tokens from the last to the first. The gradients of B and C, which all channels have in
common, come out per block of channels and are summed here, as those of A, which all sequences have in common.

Proven are their numbers in Pallas' interpret mode (tests/test_selective_scan.py), that the TPU's compiles for a v5e
(tests/benchmarks/ahead_of_time.py --rows mamba-2.8b, given libtpu) and that Triton's is lowered for CUDA: neither's
numbers nor speed on a device.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from research.models.kernels import selective_scan_gpu, selective_scan_tpu
from research.models.kernels.launch import LAUNCH

PROGRAMS = {"gpu": selective_scan_gpu, "tpu": selective_scan_tpu}

Outcome = tuple[jax.Array, jax.Array]  # y_BLP, state_BNP after the last token
Residuals = tuple[jax.Array, ...]


def selective_scan(
    x_BLP: jax.Array,
    dt_BLP: jax.Array,
    A_NP: jax.Array,
    B_BLN: jax.Array,
    C_BLN: jax.Array,
    state_BNP: jax.Array,
    backend: str,
    interpret: bool = False,
) -> Outcome:
    """(y_BLP, state_BNP after the last token) of local float32 arrays, by the program of `backend`, "gpu" or "tpu".

    The length is padded to whole chunks with tokens that change no state, channels and states to what a program takes
    together. interpret: on any backend, without its compiler.
    """
    (length, channels), states, program = x_BLP.shape[1:], len(A_NP), PROGRAMS[backend]
    tokens, lanes, rows = -length % program.CHUNK, -channels % program.LANES, program.padded_states(states) - states
    of_tokens, of_selection = ((0, 0), (0, tokens), (0, lanes)), ((0, 0), (0, tokens), (0, rows))
    y_BLP, state_BNP = _scan(
        backend,
        interpret,
        *(jnp.pad(array, of_tokens) for array in (x_BLP, dt_BLP)),
        jnp.pad(A_NP, ((0, rows), (0, lanes))),
        *(jnp.pad(array, of_selection) for array in (B_BLN, C_BLN)),
        jnp.pad(state_BNP, ((0, 0), (0, rows), (0, lanes))),
    )
    return y_BLP[:, :length, :channels], state_BNP[:, :states, :channels]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _scan(backend: str, interpret: bool, *arrays: jax.Array) -> Outcome:
    return _scan_forward(backend, interpret, *arrays)[0]


def _scan_forward(backend: str, interpret: bool, *arrays: jax.Array) -> tuple[Outcome, Residuals]:
    """arrays: x_BLP, dt_BLP, A_NP, B_BLN, C_BLN and the first state; kept are the states before each chunk instead."""
    program, (x_BLP, _, A_NP, *_, state_BNP) = PROGRAMS[backend], arrays
    blocks = program.Blocks(x_BLP.shape, len(A_NP), backward=False)
    starts = (len(x_BLP), x_BLP.shape[1] // program.CHUNK, *A_NP.shape)
    inputs = [*_read(program, blocks, *arrays[:-1]), (state_BNP, blocks.state)]
    outputs = [(x_BLP.shape, blocks.of_tokens), (starts, blocks.starts), (state_BNP.shape, blocks.state)]
    y_BLP, starts_BCNP, state_BNP = LAUNCH[backend](program.scan, blocks, inputs, outputs, interpret)
    return (y_BLP, state_BNP), (*arrays[:-1], starts_BCNP)


def _scan_backward(backend: str, interpret: bool, residuals: Residuals, gradients: Outcome) -> tuple[jax.Array, ...]:
    """Of x, dt, A, B, C and the first state."""
    program, (x_BLP, _, A_NP, B_BLN, _, starts_BCNP), (gy_BLP, g_BNP) = PROGRAMS[backend], residuals, gradients
    blocks = program.Blocks(x_BLP.shape, len(A_NP), backward=True)
    of_selection = (len(x_BLP), blocks.grid[1], *program.laid_out(B_BLN).shape[1:])
    inputs = [*_read(program, blocks, *residuals[:-1]), (starts_BCNP, blocks.starts)]
    inputs += [(gy_BLP, blocks.of_tokens), (g_BNP, blocks.state)]
    outputs = [(x_BLP.shape, blocks.of_tokens), (x_BLP.shape, blocks.of_tokens), (g_BNP.shape, blocks.state)]
    outputs += [(of_selection, blocks.parts), (of_selection, blocks.parts), (g_BNP.shape, blocks.state)]
    of_each = LAUNCH[backend](program.scan_backward, blocks, inputs, outputs, interpret)
    gx_BLP, gdt_BLP, gA_BNP, gB, gC, g_BNP = of_each
    return gx_BLP, gdt_BLP, gA_BNP.sum(0), program.laid_out(gB.sum(1)), program.laid_out(gC.sum(1)), g_BNP


def _read(program: Any, blocks: Any, *arrays: jax.Array) -> list[tuple[jax.Array, Any]]:
    """What both programs read first, each with its blocks."""
    x_BLP, dt_BLP, A_NP, B_BLN, C_BLN = arrays
    of_tokens = [(array, blocks.of_tokens) for array in (x_BLP, dt_BLP)]
    return [
        *of_tokens,
        (A_NP, blocks.rates),
        *((program.laid_out(array), blocks.selection) for array in (B_BLN, C_BLN)),
    ]


_scan.defvjp(_scan_forward, _scan_backward)

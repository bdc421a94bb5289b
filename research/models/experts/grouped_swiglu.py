"""SwiGLUs of rows that lie sorted by group, each group with its own matrices: groups of unequal size, nothing padded.

`jax.lax.ragged_dot` multiplies such groups. XLA executes it as one masked product of all rows for each group on a CPU,
where a loop over blocks of rows takes its place here, with a gradient of its own, and on a TPU, where a kernel does.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from research.models.kernels import megablox
from research.sharding import platform

BLOCK_ROWS = 128  # of one product on the CPU

Matrices = tuple[jax.Array, jax.Array, jax.Array]  # gate (E, D, F), up (E, D, F), down (E, F, D)
Product = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]  # of rows, matrices and sizes of the groups


def grouped_swiglu(rows_ND: jax.Array, experts: Matrices, sizes_E: jax.Array) -> jax.Array:
    """(N, D): down(silu(x gate) * (x up)) with the matrices of each row's group.

    The first sizes[0] rows are group 0's, and so on; the sizes are int32. What lies behind the last group is undefined,
    and so are the gradients of rows there.
    """
    if runs_kernel(rows_ND.dtype):  # asked here, so that nowhere else a kernel is traced for TPUs
        return accelerator_swiglu(rows_ND, experts, sizes_E, megablox.grouped_product)
    return jax.lax.platform_dependent(rows_ND, experts, sizes_E, cpu=_on_cpu, default=accelerator_swiglu)


def runs_kernel(dtype: jnp.dtype) -> bool:
    """Whether the products are a kernel's."""
    return platform() == "tpu" and dtype.name in megablox.DTYPES


def accelerator_swiglu(
    rows_ND: jax.Array, experts: Matrices, sizes_E: jax.Array, product: Product = jax.lax.ragged_dot
) -> jax.Array:
    """The same in three products of all groups."""
    gate_EDF, up_EDF, down_EFD = experts
    gate_NF, up_NF = (product(rows_ND, matrix_EDF, sizes_E) for matrix_EDF in (gate_EDF, up_EDF))
    return product(jax.nn.silu(gate_NF) * up_NF, down_EFD, sizes_E)


def _glu(halves_TH: jax.Array) -> jax.Array:
    gate_TF, up_TF = jnp.split(halves_TH, 2, axis=1)
    return jax.nn.silu(gate_TF) * up_TF


def _on_cpu(rows_ND: jax.Array, experts: Matrices, sizes_E: jax.Array) -> jax.Array:
    gate_EDF, up_EDF, down_EFD = experts
    return _in_blocks(rows_ND, jnp.concatenate([gate_EDF, up_EDF], axis=2), down_EFD, sizes_E)


@jax.custom_vjp
def _in_blocks(rows_ND: jax.Array, wide_EDH: jax.Array, down_EFD: jax.Array, sizes_E: jax.Array) -> jax.Array:
    """`wide` is gate and up side by side, so that a block takes two products and their gradients three: H = 2 F."""
    return _forward(rows_ND, wide_EDH, down_EFD, sizes_E)[0]


def _forward(
    rows_ND: jax.Array, wide_EDH: jax.Array, down_EFD: jax.Array, sizes_E: jax.Array
) -> tuple[jax.Array, tuple]:
    """A block that reaches beyond its group's end writes rows there that the next group's first block overwrites."""
    rows_MD = _padded(rows_ND)

    def group(made: tuple, inputs: tuple) -> tuple[tuple, None]:
        wide_DH, down_FD, *place = inputs

        def block(start: jax.Array, _: jax.Array, made: tuple) -> tuple:
            halves_TH = _block(rows_MD, start) @ wide_DH
            parts = (_glu(halves_TH) @ down_FD, halves_TH)
            return tuple(jax.lax.dynamic_update_slice_in_dim(all_, part, start, 0) for all_, part in zip(made, parts))

        return _over_blocks(*place, block, made), None

    nothing = (jnp.zeros_like(rows_MD), jnp.zeros_like(rows_MD, shape=(len(rows_MD), wide_EDH.shape[2])))
    (out_MD, halves_MH), _ = jax.lax.scan(group, nothing, (wide_EDH, down_EFD, *_places(sizes_E)))
    return out_MD[: len(rows_ND)], (rows_MD, halves_MH, wide_EDH, down_EFD, sizes_E)


def _backward(kept: tuple, to_out_ND: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, None]:
    rows_MD, halves_MH, wide_EDH, down_EFD, sizes_E = kept
    to_out_MD = _padded(to_out_ND)

    def group(to_rows_MD: jax.Array, inputs: tuple) -> tuple[jax.Array, tuple]:
        wide_DH, down_FD, *place = inputs

        def block(start: jax.Array, end: jax.Array, made: tuple) -> tuple:
            to_rows_MD, to_wide_DH, to_down_FD = made
            own_T1 = (start + jnp.arange(BLOCK_ROWS) < end)[:, None]
            to_out_TD = jnp.where(own_T1, _block(to_out_MD, start), 0)
            hidden_TF, to_halves = jax.vjp(_glu, _block(halves_MH, start))
            (to_halves_TH,) = to_halves(to_out_TD @ down_FD.T)
            to_rows_MD = jax.lax.dynamic_update_slice_in_dim(to_rows_MD, to_halves_TH @ wide_DH.T, start, 0)
            to_wide_DH += _block(rows_MD, start).T @ to_halves_TH
            return to_rows_MD, to_wide_DH, to_down_FD + hidden_TF.T @ to_out_TD

        made = (to_rows_MD, jnp.zeros_like(wide_DH), jnp.zeros_like(down_FD))
        to_rows_MD, *to_weights = _over_blocks(*place, block, made)
        return to_rows_MD, tuple(to_weights)

    inputs = (wide_EDH, down_EFD, *_places(sizes_E))
    to_rows_MD, to_weights = jax.lax.scan(group, jnp.zeros_like(rows_MD), inputs)
    return to_rows_MD[: len(to_out_ND)], *to_weights, None


_in_blocks.defvjp(_forward, _backward)


def _padded(rows_ND: jax.Array) -> jax.Array:
    """(M, D): with a block's worth of zeros, into which the last group's last block may reach."""
    return jnp.pad(rows_ND, ((0, BLOCK_ROWS), (0, 0)))


def _block(rows_MD: jax.Array, start: jax.Array) -> jax.Array:
    return jax.lax.dynamic_slice_in_dim(rows_MD, start, BLOCK_ROWS)


def _places(sizes_E: jax.Array) -> tuple[jax.Array, jax.Array]:
    """First row of each group, and the first that is no longer its own."""
    ends_E = jnp.cumsum(sizes_E)
    return ends_E - sizes_E, ends_E


def _over_blocks(first: jax.Array, end: jax.Array, visit: Callable[..., Any], made: Any) -> Any:
    """`visit(start, end, made)` for each block of one group."""
    blocks = -(-(end - first) // BLOCK_ROWS)
    return jax.lax.fori_loop(0, blocks, lambda number, made: visit(first + number * BLOCK_ROWS, end, made), made)

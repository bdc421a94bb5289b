"""Products of sorted groups of rows by the Pallas kernel for TPUs that is kept with JAX, megablox (Gale 2022).

`jax.lax.ragged_dot`, compiled for a TPU v5e, multiplies all rows with every group's matrix: E times the work. The
kernel multiplies each tile of rows with the matrices of the groups in it: at most a tile more for each group.

Proven are its numbers in Pallas' interpret mode, forward and backward (tests/test_ragged_experts.py), and that it
compiles for a TPU v5e (tests/benchmarks/ahead_of_time.py --rows jamba-v0.1, given libtpu): not its numbers on a TPU,
nor its speed.
"""

import jax
import jax.numpy as jnp

TILE_ROWS = (512, 128)  # the first of which a group has four, on average: what is lost is half a tile or so a group
TILE_BYTES, LANES = 2048, 128  # a matrix's tiles are square, since gradients turn it around; small: whole rows of lanes
DTYPES = ("bfloat16", "float32")


def grouped_product(
    rows_ND: jax.Array, matrices_EDF: jax.Array, sizes_E: jax.Array, interpret: bool = False
) -> jax.Array:
    """(N, F) in the dtype of the rows, one of DTYPES: each group's rows times its matrix.

    The first sizes[0] rows are group 0's, and so on; the sizes are int32. Behind the last group nothing is written,
    neither here nor of the rows' gradients: what stands there may be no number. `interpret`: on any backend, without
    Mosaic.
    """
    # Imported where it is needed: Pallas takes a second, and only TPUs run it.
    from jax.experimental.pallas.ops.tpu.megablox import gmm

    (N, D), (E, _, F) = rows_ND.shape, matrices_EDF.shape
    rows = next((tile for tile in TILE_ROWS if 4 * tile * E <= N), TILE_ROWS[-1])
    edge = min(TILE_BYTES // rows_ND.dtype.itemsize, -(-min(D, F) // LANES) * LANES)
    tiles = (rows, edge, edge)
    padded_MD = jnp.pad(rows_ND, ((0, -N % rows), (0, 0)))
    return gmm(padded_MD, matrices_EDF, sizes_E, rows_ND.dtype, tiles, None, None, False, interpret)[:N]

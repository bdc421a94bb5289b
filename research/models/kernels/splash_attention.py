"""Attention by the Pallas kernel for TPUs that is kept with JAX, splash attention: no scores are written to memory.

Grouped heads, causal masks and windows, of which it computes the tiles that something is seen in; padding and packed
sequences as numbers of segments; any head size, of values another one. Sequences are padded to whole tiles.

Proven are its numbers in Pallas' interpret mode, forward and backward (tests/test_attention_kernels.py), and that it
compiles for a TPU v5e (tests/benchmarks/attention.py, given libtpu): not its numbers on a TPU, nor its speed.
"""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from research.models.kernels.attention_mask import Mask
from research.models.remat import ATTENTION_RESULT

LANES = 128  # sequences are padded to a multiple of it
TILES = (512, 256, 128)  # the first that divides a sequence is the tile's edge


def splash(
    q_BLHK: jax.Array, k_BSGK: jax.Array, v_BSGV: jax.Array, mask: Mask, scale: float, interpret: bool = False
) -> jax.Array:
    """softmax(scale q k^T) v, (B, L, H, V), of local arrays; `interpret` computes it on any backend, without Mosaic."""
    # Imported where it is needed: Pallas takes a second, and only TPUs run it.
    from jax.experimental.pallas.ops.tpu import splash_attention as kept

    L, S, H = q_BLHK.shape[1], k_BSGK.shape[1], q_BLHK.shape[2]
    q_BHLK, k_BGSK, v_BGSV = (_whole_tiles(x.swapaxes(1, 2), 2) for x in (q_BLHK * scale, k_BSGK, v_BSGV))
    queries, sources = q_BHLK.shape[2], k_BGSK.shape[2]
    rows, columns = (next(tile for tile in TILES if size % tile == 0) for size in (queries, sources))
    tiles = kept.BlockSizes(
        block_q=rows, block_kv=columns, block_q_dkv=rows, block_kv_dkv=columns, block_q_dq=rows, block_kv_dq=columns
    )
    heads = kept.MultiHeadMask([_mask_of_head(queries, sources, mask.causal, mask.window)] * H)
    kernel = kept.make_splash_mha_single_device(
        heads, block_sizes=tiles, residual_checkpoint_name=ATTENTION_RESULT, interpret=interpret
    )
    segments = _segments(mask, q_BLHK.shape[0], L, S)
    if segments is None:
        mixed_BHLV = jax.vmap(kernel)(q_BHLK, k_BGSK, v_BGSV)
    else:
        mixed_BHLV = jax.vmap(kernel)(q_BHLK, k_BGSK, v_BGSV, kept.SegmentIds(*segments))
    return mixed_BHLV[:, :, :L].swapaxes(1, 2)


@cache
def _mask_of_head(queries: int, sources: int, causal: bool, window: int | None) -> Any:
    """One object for equal masks: its function is part of what jax knows a traced kernel by."""
    from jax.experimental.pallas.ops.tpu import splash_attention as kept

    if window is not None:
        return kept.LocalMask((queries, sources), (window - 1, 0 if causal else window - 1), offset=0)
    return kept.CausalMask((queries, sources)) if causal else kept.FullMask((queries, sources))


def _segments(mask: Mask, batch: int, queries: int, sources: int) -> tuple[jax.Array, jax.Array] | None:
    """Numbers of queries and sources (B, L), (B, S), padded to whole tiles: where they differ, nothing is seen.

    None where all are seen. Sources after the last query need no number where masks are causal.
    """
    if mask.real_BS is None and mask.segments_BS is None and (mask.causal or sources % LANES == 0):
        return None
    of_queries_BL, of_sources_BS = (jnp.ones((batch, size), jnp.int32) for size in (queries, sources))
    if mask.segments_BS is not None:
        of_queries_BL = of_sources_BS = mask.segments_BS.astype(jnp.int32) + 1
    if mask.real_BS is not None:
        of_sources_BS = jnp.where(mask.real_BS, of_sources_BS, 0)
    return _whole_tiles(of_queries_BL, 1), _whole_tiles(of_sources_BS, 1)


def _whole_tiles(x: jax.Array, axis: int) -> jax.Array:
    """x with zeros at the end of `axis`, up to a multiple of LANES."""
    added = np.zeros((x.ndim, 2), int)
    added[axis, 1] = -x.shape[axis] % LANES
    return jnp.pad(x, added)

"""Attention in matrix products: `dense`, all scores at once, and `chunked`, those of a block of queries at a time.

Both take any mask, added scores, dtype and head size, on any backend and mesh, and are the same function; `dense` is
what the kernels are tested against. `chunked` keeps no scores for the gradient (Rabe & Staats 2021, arXiv 2112.05682,
with blocks of queries alone): it computes a block's again, so that memory is linear in the length.

On a CPU the gradient of one call needs 64 MiB at length 2048 and 127 at 4096, where dense needs 390 and 1548, and less
time (tests/benchmarks/attention.py: 8 heads of 64 channels over 4, batch 1, float32).
"""

from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp

from research.models.kernels.attention_mask import MASKED_SCORE, AddedScores, Mask, visible
from research.sharding import constrain, ways

BLOCK = 256  # queries whose scores are held at a time
SPANS = 4  # parts of a causal sequence, each of which reads the sources up to its own end: 5/8 of all pairs


def dense(
    q_BLHK: jax.Array,
    k_BSGK: jax.Array,
    v_BSGV: jax.Array,
    mask: Mask,
    added: AddedScores | None,
    scale: float,
) -> jax.Array:
    """softmax(scale q k^T + added) v, (B, L, H, V); head h reads key-value head h // (H / G). Softmax in float32."""
    keys, values = _gathered(k_BSGK, mask), _gathered(v_BSGV, mask)
    return _of_queries(q_BLHK, keys, values, mask, added, scale, jnp.arange(q_BLHK.shape[1]))


def _of_queries(
    q_BLHK: jax.Array,
    k_BSGK: jax.Array,
    v_BSGV: jax.Array,
    mask: Mask,
    added: AddedScores | None,
    scale: float,
    rows_L: jax.Array,
    first: int = 0,
) -> jax.Array:
    """`dense` of queries `rows_L` of a sequence and its sources from `first` on, which every device has.

    The heads of one group are laid out as further queries of their key-value head, M = L * (H / G) rows, so that both
    products are plain batched matrix products with nothing repeated.
    """
    if ways("length") > 1 and not mask.decoding:
        q_BLHK = constrain(q_BLHK, "batch length heads head_dim")
    B, L, H, K = q_BLHK.shape
    S, G = k_BSGK.shape[1:3]
    group = H // G
    positions_L = mask.start + rows_L
    q_BGMK = (q_BLHK * scale).reshape(B, L, G, group, K).transpose(0, 2, 1, 3, 4).reshape(B, G, L * group, K)
    scores_BGMS = jnp.einsum(
        "bgmk,bsgk->bgms", q_BGMK, k_BSGK, preferred_element_type=jnp.promote_types(q_BLHK.dtype, jnp.float32)
    )
    if added is not None:
        added_BHLS = added.make(added.queries_BLHK, positions_L, first + jnp.arange(S))
        added_BGMS = added_BHLS.reshape(-1, G, group, L, S).transpose(0, 1, 3, 2, 4).reshape(-1, G, L * group, S)
        if len(added_BGMS) > 1:  # one alone is added to every sequence as it is
            added_BGMS = jnp.repeat(added_BGMS, B // len(added_BGMS), axis=0)
        scores_BGMS += added_BGMS.astype(scores_BGMS.dtype)
    mask_BMS = jnp.repeat(visible(mask, positions_L, first, S), group, axis=1)
    weights_BGMS = jax.nn.softmax(jnp.where(mask_BMS[:, None], scores_BGMS, MASKED_SCORE), axis=-1)
    mixed_BGMV = jnp.einsum("bgms,bsgv->bgmv", weights_BGMS.astype(v_BSGV.dtype), v_BSGV)
    return mixed_BGMV.reshape(B, G, L, group, -1).transpose(0, 2, 1, 3, 4).reshape(B, L, H, -1)


def _gathered(x_BSGK: jax.Array, mask: Mask) -> jax.Array:
    """Keys or values of the whole sequence on each device that has a part of the queries.

    XLA may else split the sources, and then it moves the queries, and sums over devices in every block.
    """
    if ways("length") == 1 or mask.decoding:
        return x_BSGK
    own_BSGK = constrain(x_BSGK, "batch length kv_heads head_dim")  # else every device makes the whole of them
    return constrain(own_BSGK, "batch steps kv_heads head_dim")


class Span(NamedTuple):
    """`blocks` blocks of `rows` queries, from query `start` on, which read the sources from `first` up to `end`."""

    start: int
    blocks: int
    rows: int
    first: int
    end: int


def spans(queries: int, sources: int, mask: Mask, block: int = BLOCK) -> list[Span]:
    """The blocks that `chunked` computes, in parts of equally many, and one of the rest."""
    causal, window = (False, None) if mask.decoding else (mask.causal, mask.window)
    full, parts = queries // block, SPANS if causal or window is not None else 1
    edges = [full * part // parts for part in range(parts + 1)]
    cuts = [(a * block, b - a, block) for a, b in pairwise(edges) if b > a]
    if queries % block:
        cuts.append((full * block, 1, queries % block))
    found = []
    for start, blocks, rows in cuts:
        first, end = 0, sources
        if window is not None:
            first, end = max(0, start - window + 1), min(sources, start + blocks * rows + window - 1)
        found.append(Span(start, blocks, rows, first, min(end, start + blocks * rows) if causal else end))
    return found


def chunked(
    q_BLHK: jax.Array,
    k_BSGK: jax.Array,
    v_BSGV: jax.Array,
    mask: Mask,
    added: AddedScores | None,
    scale: float,
    block: int = BLOCK,
) -> jax.Array:
    """`dense` without its memory. Where the length is split over devices, each has the queries it is given, of every
    block its share, and reads all sources.

    Elsewhere a block reads what its span does (`spans`).
    """
    L, S = q_BLHK.shape[1], k_BSGK.shape[1]
    k_BSGK, v_BSGV = _gathered(k_BSGK, mask), _gathered(v_BSGV, mask)
    devices = ways("length") if L % ways("length") == 0 else 1
    # Of queries that are split, a device's span is not the sequence's: all sources are read.
    cuts = spans(L // devices, S, mask if devices == 1 else replace(mask, causal=False, window=None), block)
    of_added = None if added is None else added.queries_BLHK
    mixed, precise = [], jnp.promote_types(q_BLHK.dtype, jnp.float32)  # in which the blocks' gradients add up
    for span in cuts:
        k, v = (x[:, span.first : span.end].astype(precise) for x in (k_BSGK, v_BSGV))
        one = jax.checkpoint(partial(_block, k, v, mask, added, scale, span.first))
        blocks = jax.tree.map(partial(_cut, span, devices), (q_BLHK, of_added, jnp.arange(L)[None]))
        mixed.append(_joined(jax.lax.map(one, blocks), devices))
    joined = jnp.concatenate(mixed, axis=2) if len(mixed) > 1 else mixed[0]
    return joined.reshape(*q_BLHK.shape[:3], v_BSGV.shape[-1])


def _block(
    k_BSGK: jax.Array,
    v_BSGV: jax.Array,
    mask: Mask,
    added: AddedScores | None,
    scale: float,
    first: int,
    block: tuple[jax.Array, jax.Array | None, jax.Array],
) -> jax.Array:
    """`dense` of a block: its queries, what `added` reads of them, and their numbers (1, L)."""
    q_BLHK, of_added_BLHK, rows_1L = block
    own = None if added is None else replace(added, queries_BLHK=of_added_BLHK)
    keys, values = k_BSGK.astype(q_BLHK.dtype), v_BSGV.astype(q_BLHK.dtype)
    return _of_queries(q_BLHK, keys, values, mask, own, scale, rows_1L[0], first)


def _cut(span: Span, devices: int, x_BL: jax.Array) -> jax.Array:
    """(blocks, B, devices * rows, ...): the span's queries, of each device as many."""
    B, L = x_BL.shape[:2]
    local = x_BL.reshape(B, devices, L // devices, *x_BL.shape[2:])
    own = local[:, :, span.start : span.start + span.blocks * span.rows]
    blocks = own.reshape(B, devices, span.blocks, span.rows, *x_BL.shape[2:])
    return jnp.moveaxis(blocks, 2, 0).reshape(span.blocks, B, devices * span.rows, *x_BL.shape[2:])


def _joined(mixed: jax.Array, devices: int) -> jax.Array:
    """(B, devices, L, H, V) of (blocks, B, devices * L / blocks, H, V): undoes `_cut`."""
    blocks, B, rows = mixed.shape[:3]
    apart = jnp.moveaxis(mixed.reshape(blocks, B, devices, rows // devices, *mixed.shape[3:]), 0, 2)
    return apart.reshape(B, devices, blocks * rows // devices, *mixed.shape[3:])

"""What attention's programs are told of masks and added scores: their kind, from which each makes what it needs.

An array of queries times sources would be the largest array of a model, and no kernel takes one.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

MASKED_SCORE = -1e30  # finite, so that a row with nothing to see yields no NaN


@dataclass(frozen=True)
class Mask:
    """Which sources a query sees.

    causal: none after its own position. window: none that is `window` or more positions away. start: the position of
    the first query among the sources, traced while decoding. real_BS: false at sources that are padding, seen by none;
    ends_early: they stand after the real ones alone, so that their number says all. segments_BS: numbers of sequences
    that are packed into one, positions of another being seen by none; queries and sources are then the same positions.
    """

    causal: bool = True
    window: int | None = None
    start: jax.Array | int = 0
    real_BS: jax.Array | None = None
    ends_early: bool = False
    segments_BS: jax.Array | None = None

    @property
    def decoding(self) -> bool:
        """Whether the queries follow what a cache holds: where they start is then known when the program runs."""
        return not isinstance(self.start, int)


@dataclass(frozen=True)
class AddedScores:
    """Scores added to those of queries and keys, made for some queries at a time.

    make(queries_BLHK, positions_L, sources_S) are those of queries at these positions, (n, H, L, S), each for B / n
    sequences in a row. The sources are positions in a row and reach at least as far as the queries. `queries_BLHK` is
    what `make` reads of each query, cut as the queries are, if it reads anything.
    """

    make: Callable[[jax.Array | None, jax.Array, jax.Array], jax.Array]
    queries_BLHK: jax.Array | None = None


def visible(mask: Mask, positions_L: jax.Array, first: int, sources: int) -> jax.Array:
    """(B or 1, L, S): true where queries at these positions see the sources from `first` on, `sources` of them."""
    sources_S = first + jnp.arange(sources)
    distance_LS = positions_L[:, None] - sources_S[None, :]
    seen_LS = distance_LS >= 0 if mask.causal else jnp.ones_like(distance_LS, bool)
    if mask.window is not None:
        seen_LS &= jnp.abs(distance_LS) < mask.window
    seen_BLS = seen_LS[None]
    if mask.real_BS is not None:
        seen_BLS = seen_BLS & mask.real_BS[:, None, first : first + sources]
    if mask.segments_BS is not None:
        of_queries_BL = jnp.take(mask.segments_BS, positions_L, axis=1)
        seen_BLS = seen_BLS & (of_queries_BL[:, :, None] == mask.segments_BS[:, None, first : first + sources])
    return seen_BLS

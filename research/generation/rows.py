"""The rows of a decoding: the key of each, and decode states repeated, or taken in another order."""

from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from research.config import ModelConfig
from research.models import language_model


def row_keys(seed: int, prompts: Sequence[int], samples: Sequence[int]) -> jax.Array:
    """A typed key for each row, (prompts * samples,), samples of one prompt one after another.

    It follows from (seed, number of the prompt, number of the sample) alone.
    """
    pairs = np.array([(prompt, sample) for prompt in prompts for sample in samples], np.uint32)
    return _keys(seed, pairs)


@jax.jit
def _keys(seed: jax.Array, pairs_B2: jax.Array) -> jax.Array:
    def fold(pair_2: jax.Array) -> jax.Array:
        return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), pair_2[0]), pair_2[1])

    return jax.vmap(fold)(pairs_B2)


def repeated(config: ModelConfig, states: Any, times: int) -> Any:
    """Decode states of which each row stands `times` times, one after another."""
    if times == 1:
        return states
    return _by_row(config, states, lambda leaf, axis: jnp.repeat(leaf, times, axis=axis))


def taken(config: ModelConfig, states: Any, rows_B: jax.Array) -> Any:
    """Decode states of the rows `rows_B` (B,), in that order."""
    return _by_row(config, states, lambda leaf, axis: jnp.take(leaf, rows_B, axis=axis))


def _by_row(config: ModelConfig, states: Any, change: Any) -> Any:
    leaves, tree = jax.tree.flatten(states)
    changed = (leaf if axis is None else change(leaf, axis) for leaf, axis in zip(leaves, _row_axes(config)))
    return jax.tree.unflatten(tree, changed)


@cache
def _row_axes(config: ModelConfig) -> tuple[int | None, ...]:
    """The axis of rows of each array of the states: where states for two rows and for three differ in shape.

    Stacked layers put it second; what all rows share, such as how many slots of a cache are filled, has none.
    """
    two, three = (
        jax.tree.leaves(jax.eval_shape(partial(language_model.init_states, config, rows, 1))) for rows in (2, 3)
    )
    differing = [[i for i, (a, b) in enumerate(zip(x.shape, y.shape)) if a != b] for x, y in zip(two, three)]
    return tuple(axes[0] if axes else None for axes in differing)

"""Position encodings for attention: rotary angles, Transformer-XL's relative positions, T5's distance buckets.

Which of them a model has, its base and its scaling are fields of `AttentionConfig` (research/config/attention.py).
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from research.config import AttentionConfig, RopeScaling
from research.models.layers import at_least_float32


def rotary_frequencies(channels: int, theta: float, scaling: RopeScaling | None = None) -> np.ndarray:
    """theta^(-2i/K), one per channel pair, float64 (Su 2021, section 3.2.2).

    With `scaling`, wavelengths longer than original_length / low_factor have their frequency divided by `factor`, those
    shorter than original_length / high_factor keep it, and those between are interpolated (Llama 3.1's released code).
    """
    frequencies_K = theta ** (-np.arange(0, channels, 2) / channels)
    if scaling is None:
        return frequencies_K
    waves_in_context_K = scaling.original_length * frequencies_K / (2 * math.pi)
    kept_K = (waves_in_context_K - scaling.low_factor) / (scaling.high_factor - scaling.low_factor)
    kept_K = np.clip(kept_K, 0, 1)
    return frequencies_K * (kept_K + (1 - kept_K) / scaling.factor)


def rotary_angles(positions_BL: jax.Array, frequencies_K: np.ndarray, dtype: Any) -> tuple[jax.Array, jax.Array]:
    """(cos, sin) of position * frequency, each (B, L, 1, K/2), computed in `dtype`."""
    angles_BLK = positions_BL.astype(dtype)[:, :, None] * jnp.asarray(frequencies_K, dtype)[None, None, :]
    return jnp.cos(angles_BLK)[:, :, None, :], jnp.sin(angles_BLK)[:, :, None, :]


def rotate(x_BLHK: jax.Array, angles: tuple[jax.Array, jax.Array], pairs: str) -> jax.Array:
    """Turn channel pairs by their angle, in float32; `half` pairs (i, i + K/2), `interleaved` (2i, 2i + 1).

    With fewer angles than pairs, only the first channels are rotated (GPT-NeoX). The conventions are one model under a
    permutation of query and key channels: Hugging Face checkpoints use `half`, Meta's Llama files `interleaved`.
    """
    cos, sin = angles
    turning, rest = 2 * cos.shape[-1], x_BLHK[..., 2 * cos.shape[-1] :]
    x32 = at_least_float32(x_BLHK[..., :turning])
    if pairs == "half":
        first, second = jnp.split(x32, 2, axis=-1)
    else:
        first, second = x32[..., 0::2], x32[..., 1::2]
    rotated = (first * cos - second * sin, second * cos + first * sin)
    joined = jnp.concatenate(rotated, -1) if pairs == "half" else jnp.stack(rotated, -1).reshape(x32.shape)
    joined = joined.astype(x_BLHK.dtype)
    return jnp.concatenate([joined, rest], axis=-1) if rest.shape[-1] else joined


def distance_waves(distances: int, width: int, dtype: Any) -> jax.Array:
    """(S, D): sines, then cosines, of each distance 0 to S - 1, as in the released code of Dai 2019."""
    angles_SD = np.arange(distances)[:, None] * rotary_frequencies(width, 10_000.0)[None, :]
    return jnp.asarray(np.concatenate([np.sin(angles_SD), np.cos(angles_SD)], axis=1), dtype)


def by_source(scores_BHLS: jax.Array, positions_L: jax.Array, sources_S: jax.Array) -> jax.Array:
    """Scores by distance 0 to S - 1 as scores by source position; sources in the future get distance 0's."""
    distances_LS = jnp.maximum(positions_L[:, None] - sources_S[None, :], 0)
    return jnp.take_along_axis(scores_BHLS, distances_LS[None, None], axis=-1)


def distance_buckets(distance_LS: jax.Array, config: AttentionConfig) -> jax.Array:
    """The bucket of each distance from a query back to a source, int32 (Raffel 2020, section 2.1, and T5's code).

    Half of the buckets hold one distance each, the others logarithmically more up to `longest_distance`. Where sources
    ahead are seen too, they have a half of all buckets to themselves.
    """
    buckets, ahead_LS = config.buckets, 0
    if not config.causal:
        buckets //= 2
        ahead_LS = jnp.where(distance_LS < 0, buckets, 0)
    distance_LS = jnp.maximum(distance_LS, 0) if config.causal else jnp.abs(distance_LS)
    single = buckets // 2
    share_LS = jnp.log(jnp.maximum(distance_LS, 1) / single) / math.log(config.longest_distance / single)
    wide_LS = jnp.minimum(single + (share_LS * (buckets - single)).astype(jnp.int32), buckets - 1)
    return ahead_LS + jnp.where(distance_LS < single, distance_LS, wide_LS)

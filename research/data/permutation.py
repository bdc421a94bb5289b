"""A pseudo-random order of 0 .. size-1 that is computed and never stored.

A Feistel network on pairs (Black and Rogaway 2002, "Ciphers with arbitrary finite domains", generalised Feistel and
cycle walking): an index is split into (left, right) in mixed radix; each round adds a keyed hash of one half to the
other, which can be undone, so the whole is a bijection on left_radix x right_radix. That grid is barely larger than
`size`; an index that lands outside is sent through again until it is inside, which keeps the map a bijection.
"""

import math

import numpy as np

_ROUNDS = 4  # each changes both halves once
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def permute(index: np.ndarray, size: int, key: np.ndarray) -> np.ndarray:
    """Where each `index` (int64, in [0, size)) goes under the permutation that its `key` (uint64, same shape) chooses.

    Returns int64 in [0, size). For one key, distinct indices have distinct results. Cost O(len(index)), no state.
    """
    left_radix = math.isqrt(size)
    right_radix = -(-size // left_radix)
    result = _feistel(index.astype(np.uint64), left_radix, right_radix, key)
    outside = np.flatnonzero(result >= size)
    while outside.size:
        result[outside] = _feistel(result[outside], left_radix, right_radix, key[outside])
        outside = outside[result[outside] >= size]
    return result.astype(np.int64)


def epoch_key(seed: int, epoch: np.ndarray) -> np.ndarray:
    """One uint64 key for each (seed, epoch); `epoch` is an array of non-negative integers."""
    return _mix(_mix(np.full(epoch.shape, seed, np.uint64) + _GOLDEN) + epoch.astype(np.uint64) * _GOLDEN)


def _feistel(index: np.ndarray, left_radix: int, right_radix: int, key: np.ndarray) -> np.ndarray:
    left, right = index // np.uint64(right_radix), index % np.uint64(right_radix)
    for _ in range(_ROUNDS):
        key = key + _GOLDEN
        left = (left + _mix(right ^ key) % np.uint64(left_radix)) % np.uint64(left_radix)
        key = key + _GOLDEN
        right = (right + _mix(left ^ key) % np.uint64(right_radix)) % np.uint64(right_radix)
    return left * np.uint64(right_radix) + right


def _mix(value: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64 (Steele 2014): every bit of the result depends on every bit of `value`."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))

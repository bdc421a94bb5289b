"""Where a distribution is cut, without sorting it: XLA sorts on a CPU so slowly that a sort would be most of a step."""

import jax
import jax.numpy as jnp


def smallest_set(keys_BV: jax.Array, weights_BV: jax.Array, share: float) -> jax.Array:
    """(B, V) bool: the entries of largest key whose weights first reach `share` of each row's; ties are kept together.

    The least key that is kept is found by bisection of the ordered bits of floats, one bit a pass: exact, not to a
    tolerance. An entry of weight zero is kept only if its key is above a kept one's, or the share is 1, which is all.
    """
    if share == 1:  # else rounding would drop what adds nothing to a sum in float32
        return jnp.ones(keys_BV.shape, bool)
    ordered_BV = _ordered(keys_BV)
    wanted_B = share * jnp.sum(weights_BV, axis=1)
    lowest, bits = jnp.iinfo(ordered_BV.dtype).min, jnp.iinfo(ordered_BV.dtype).bits

    def reaches(threshold_B: jax.Array) -> jax.Array:
        return jnp.sum(jnp.where(ordered_BV >= threshold_B[:, None], weights_BV, 0), axis=1) >= wanted_B

    def decide_bit(i: jax.Array, threshold_B: jax.Array) -> jax.Array:
        raised_B = threshold_B + (jnp.ones((), ordered_BV.dtype) << (bits - 2 - i))
        return jnp.where(reaches(raised_B), raised_B, threshold_B)

    zero_B = jnp.zeros(len(keys_BV), ordered_BV.dtype)
    start_B = jnp.where(reaches(zero_B), zero_B, lowest)  # the sign is the first bit
    threshold_B = jax.lax.fori_loop(0, bits - 1, decide_bit, start_B)
    return ordered_BV >= threshold_B[:, None]


def _ordered(values: jax.Array) -> jax.Array:
    """Signed integers in the order of the floats."""
    integers = {4: jnp.int32, 8: jnp.int64}[values.dtype.itemsize]
    bits = jax.lax.bitcast_convert_type(values, integers)
    return jnp.where(bits < 0, bits ^ jnp.iinfo(integers).max, bits)

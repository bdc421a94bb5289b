"""A token's part in RWKV-4's recurrence, forward and backward: what both backends' kernels compute, in any shape.

The sums (n, d, e) stand for n * exp(e) and d * exp(e). A token reads those before it, with k + bonus (`own`) as its own
exponent, and then is added to them with k as its `key`. Padding reads, too, and adds nothing.

Gradients by n and d are those at a fixed e. Whatever depends on n * exp(e) and d * exp(e) alone, as what is read does,
has n times that by n plus d times that by d as its gradient by e. `rest` is what the gradient by e is beyond this: it
goes back to the token whose exponent was the largest, and makes the gradients exact for any function of the last sums.
"""

import jax
import jax.numpy as jnp

Sums = tuple[jax.Array, jax.Array, jax.Array]  # n, d, e; of their gradients: by n, by d, rest


def exponents(rate: jax.Array, k: jax.Array, real: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(what the sums' exponent grows by, the token's own as it is added)."""
    return jnp.where(real, rate, 0.0), jnp.where(real, k, -jnp.inf)


def weights(older: jax.Array, added: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(exp(older), exp(added)) over the larger of them, and that one's exponent."""
    largest = jnp.maximum(older, added)
    return jnp.exp(older - largest), jnp.exp(added - largest), largest


def advanced(n: jax.Array, d: jax.Array, kept: jax.Array, added: jax.Array, value: jax.Array) -> tuple:
    """n and d with a token: its weight `added`, and that times its v."""
    return kept * n + value, kept * d + added


def read(before: Sums, own: jax.Array, v: jax.Array) -> jax.Array:
    """wkv: the mean of the values."""
    n, d, e = before
    kept, added, _ = weights(e, own)
    return (kept * n + added * v) / (kept * d + added)


def read_backward(before: Sums, own: jax.Array, v: jax.Array, gy: jax.Array) -> tuple[jax.Array, ...]:
    """Gradients by n, d, own and v; there is no rest."""
    n, d, e = before
    kept, added, _ = weights(e, own)
    weight = kept * d + added  # at least 1: one of both is 1, and d is at least 1 once there is a token
    y, g = (kept * n + added * v) / weight, gy / weight
    return kept * g, -kept * g * y, added * g * (v - y), added * g


def added_backward(before: Sums, grown: jax.Array, key: jax.Array, v: jax.Array, g: Sums) -> tuple[jax.Array, ...]:
    """Gradients by `grown`, key and v, from those by the sums after the token."""
    (n, d, e), (gn, gd, rest) = before, g
    kept, added, _ = weights(e + grown, key)
    to_older = is_older(e, grown, key) * rest
    return kept * (gn * n + gd * d) + to_older, added * (gn * v + gd) + (rest - to_older), added * gn


def is_older(e: jax.Array, grown: jax.Array, key: jax.Array) -> jax.Array:
    """1 where the largest exponent is that of the sums, 0 where it is the token's."""
    return (e + grown >= key).astype(jnp.float32)


def earlier(g: Sums, kept: jax.Array, older: jax.Array, of_n: jax.Array, of_d: jax.Array) -> Sums:
    """Gradients by the sums before a token, from those by the sums after it and what reading adds."""
    gn, gd, rest = g
    return kept * gn + of_n, kept * gd + of_d, older * rest

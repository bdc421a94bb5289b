"""The generalised delta rule of RWKV-7 (Peng 2025, arXiv 2503.14456, equation 16) in two algorithms, one function.

    S[t] = S[t-1] (diag(w[t]) + a[t] b[t]^T) + v[t] k[t]^T        y[t] = S[t] r[t]

per head, with S of value channels by key channels and the decay w = exp(log_decay) in (0, 1]. All arrays are float32 at
least; a token with log_decay, k, a and b of zero changes no state.
"""

from functools import partial

import jax
import jax.numpy as jnp

from research.per_device import on_each_device

MAX_CHUNK = 64  # decays of exp(-exp(-1/2)) each: their product and its inverse, exp(38.8), are far inside of float32

Tokens = tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]  # r, log_decay, k, v, a, b

# A loop's body is its own program: nothing outside could be merged with what it computes again.
_recomputed = partial(jax.checkpoint, prevent_cse=False)


def delta_rule(algorithm: str, chunk: int, tokens: Tokens, state_BHKK: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(y (B, L, H, K), the state after the last token) by one of `ALGORITHMS`."""
    axes = ("batch steps spread", "batch spread")
    return on_each_device(partial(ALGORITHMS[algorithm], chunk=chunk), axes, axes)(tokens, state_BHKK)


def sequential(tokens: Tokens, state_BHKK: jax.Array, chunk: int) -> tuple[jax.Array, jax.Array]:
    """(y (B, L, H, K), the state after the last token), one token after the other."""

    def token(state_BHKK: jax.Array, inputs: Tokens) -> tuple[jax.Array, jax.Array]:
        r_BHK, log_decay_BHK, k_BHK, v_BHK, a_BHK, b_BHK = inputs
        read_BHK = _read(state_BHKK, a_BHK)
        state_BHKK = (
            state_BHKK * jnp.exp(log_decay_BHK)[:, :, None, :]
            + read_BHK[:, :, :, None] * b_BHK[:, :, None, :]
            + v_BHK[:, :, :, None] * k_BHK[:, :, None, :]
        )
        return state_BHKK, _read(state_BHKK, r_BHK)

    state_BHKK, y_LBHK = jax.lax.scan(_recomputed(token), state_BHKK, tuple(jnp.moveaxis(x, 1, 0) for x in tokens))
    return jnp.moveaxis(y_LBHK, 0, 1), state_BHKK


def _read(state_BHKK: jax.Array, key_BHK: jax.Array) -> jax.Array:
    """S key, as products and sums: a matrix-vector product is no work for a matrix unit."""
    return jnp.sum(state_BHKK * key_BHK[:, :, None, :], axis=-1)


def chunked(tokens: Tokens, state_BHKK: jax.Array, chunk: int) -> tuple[jax.Array, jax.Array]:
    """`sequential` in matrix products over chunks of tokens, with a loop over the states between chunks.

    Within a chunk that starts from S, with P[t] the product of the decays up to t, the rows u[t] = S[t-1] a[t] solve

        (I - A) u = (P[t-1] a[t]) S^T + M v

    with A[t, s] = (P[t-1] a[t]) . (b[s] / P[s]) for s < t, and M the same with k for b (the UT transform of Yang 2024,
    arXiv 2406.06484, section 3, with decays), after which every state and output of the chunk is a sum over
    u[s] b[s]^T + v[s] k[s]^T.
    """
    B, L, H, K = tokens[0].shape
    Q = min(chunk, L)
    padding = -L % Q  # tokens behind the last one that change no state

    def cut(x_BLHK: jax.Array) -> jax.Array:
        padded = jnp.pad(x_BLHK, ((0, 0), (0, padding), (0, 0), (0, 0)))
        return padded.reshape(B, -1, Q, H, K).transpose(1, 0, 3, 2, 4)

    y_NBHQK, state_BHKK = _of_chunks(tuple(cut(x_BLHK) for x_BLHK in tokens), state_BHKK)
    y_BLHK = y_NBHQK.transpose(1, 0, 3, 2, 4).reshape(B, -1, H, K)
    return y_BLHK[:, :L], state_BHKK


def _of_chunks(tokens: Tokens, state_BHKK: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Outputs (N, B, H, Q, K) and the last state for tokens cut into N chunks; `t` and `s` below both run over Q."""
    r, log_decay, k, v, a, b = tokens
    Q = r.shape[-2]
    through = jnp.cumsum(log_decay, axis=-2)  # log P[t]
    to_end = jnp.exp(through[..., -1:, :] - through)
    a, r = a * jnp.exp(through - log_decay), r * jnp.exp(through)
    earlier = jnp.concatenate([b, k], axis=-2) * jnp.tile(jnp.exp(-through), (2, 1))
    scores = jnp.einsum("...tk,...sk->...ts", jnp.concatenate([a, r], axis=-2), earlier)
    among_a = jnp.where(_before(Q, 1), scores[..., :Q, :], 0)
    among_r = jnp.where(_before(Q, 0), scores[..., Q:, :], 0)
    from_values = jnp.einsum("...ts,...sk->...tk", among_a[..., Q:], v)
    solved = _solve(among_a[..., :Q], jnp.concatenate([a, from_values], axis=-1))
    of_state, own = jnp.split(solved, 2, axis=-1)  # u[t] = of_state[t] S^T + own[t]

    def of_chunk(state_BHKK: jax.Array, chunk: tuple) -> tuple[jax.Array, tuple]:
        of_state, own, b_end, written, kept = chunk
        u_BHQK = jnp.einsum("bhtk,bhvk->bhtv", of_state, state_BHKK) + own
        after = state_BHKK * kept[:, :, None, :] + jnp.einsum("bhtv,bhtk->bhvk", u_BHQK, b_end) + written
        return after, (state_BHKK, u_BHQK)

    written = jnp.einsum("...tv,...tk->...vk", v, k * to_end)
    kept = jnp.exp(through[..., -1, :])
    state_BHKK, (starts, u) = jax.lax.scan(of_chunk, state_BHKK, (of_state, own, b * to_end, written, kept))
    y = jnp.einsum("...tk,...vk->...tv", r, starts)
    return y + jnp.einsum("...ts,...sv->...tv", among_r, jnp.concatenate([u, v], axis=-2)), state_BHKK


@jax.custom_vjp
def _solve(lower: jax.Array, right: jax.Array) -> jax.Array:
    """x with (I - lower) x = right, `lower` (..., Q, Q) being zero on its diagonal and above."""
    return _solve_forward(lower, right)[0]


def _solve_forward(lower: jax.Array, right: jax.Array) -> tuple[jax.Array, tuple]:
    inverse = _unit_inverse(lower)
    x = jnp.einsum("...ts,...sk->...tk", inverse, right)
    return x, (inverse, x)


def _solve_backward(residuals: tuple, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    inverse, x = residuals
    to_right = jnp.einsum("...st,...sk->...tk", inverse, gradient)
    return jnp.einsum("...tk,...sk->...ts", to_right, x), to_right


_solve.defvjp(_solve_forward, _solve_backward)


def _unit_inverse(lower: jax.Array) -> jax.Array:
    """(I - lower)^-1 row by row, the triangles of all chunks and heads side by side in the innermost axis.

    XLA's triangular solve does one triangle after the other on a CPU, and is several times as slow.
    """
    Q = lower.shape[-1]
    rows = jnp.moveaxis(lower.reshape(-1, Q, Q), 0, -1)  # (t, s, triangles)
    units = jnp.eye(Q, dtype=lower.dtype)

    def add_row(inverse: jax.Array, inputs: tuple) -> tuple[jax.Array, None]:
        t, row, unit = inputs
        new = unit[:, None] + jnp.sum(row[:, None, :] * inverse, axis=0)
        return jax.lax.dynamic_update_index_in_dim(inverse, new, t, axis=0), None

    inverse, _ = jax.lax.scan(add_row, jnp.zeros_like(rows), (jnp.arange(Q), rows, units))
    return jnp.moveaxis(inverse, -1, 0).reshape(lower.shape)


def _before(chunk: int, by: int) -> jax.Array:
    """(Q, 2 Q), true where token s, counted twice over, stands at least `by` tokens before t; leading axes of one."""
    ages = jnp.arange(chunk)[:, None] - jnp.arange(chunk)[None, :]
    return jnp.tile(ages >= by, (1, 2))[None, None, None]


ALGORITHMS = {"sequential": sequential, "chunked": chunked}


def matmul_flops(algorithm: str, chunk: int, length: int, heads: int, head_dim: int) -> int:
    """Forward FLOPs of matrix products over one sequence.

    Each of the L / Q chunks of a head has 8 Q^2 K for the scores, 2 Q^2 K for M v, 4 Q^2 K to solve for u, 4 Q^2 K for
    the outputs from within the chunk, and 4 times 2 Q K^2 between the tokens and the state.
    """
    if algorithm == "sequential":
        return 0
    chunk = min(chunk, length)
    chunks = -(-length // chunk)
    return chunks * heads * (18 * chunk**2 * head_dim + 8 * chunk * head_dim**2)


def elementwise_flops(algorithm: str, chunk: int, length: int, heads: int, head_dim: int) -> int:
    """Sequential: 9 K^2 per token and head: 2 to read S a, 5 to decay and write twice, 2 to read S r.

    Chunked: 2 Q^3 per chunk to invert its triangle, 4 Q^2 to mask the scores, 3 K^2 to decay and write the state, and
    14 a channel of each token for the decays.
    """
    if algorithm == "sequential":
        return 9 * length * heads * head_dim**2
    chunk = min(chunk, length)
    chunks = -(-length // chunk)
    return chunks * heads * (2 * chunk**3 + 4 * chunk**2 + 3 * head_dim**2 + 14 * chunk * head_dim)

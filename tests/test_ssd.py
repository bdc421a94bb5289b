"""State space duality: chunks of any size are the recurrence and the masked product, in values and in all gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.models.state_spaces import ssd as module
from research.models.state_spaces.ssd import ALGORITHMS

ssd = jax.jit(module.ssd, static_argnums=(0, 1))

BATCH, LENGTH, HEADS, CHANNELS, GROUPS, STATES = 2, 19, 4, 3, 2, 5
NAMES = ("x", "dt", "rate", "write", "read", "state")
CASES = [("recurrent", 1), *(("chunked", chunk) for chunk in (1, 4, 16, LENGTH, 64))]


def _inputs(seed=0):
    keys = jax.random.split(jax.random.key(seed), 6)
    by_group = (BATCH, LENGTH, GROUPS, STATES)
    return (
        jax.random.normal(keys[0], (BATCH, LENGTH, HEADS, CHANNELS)),
        jax.nn.softplus(jax.random.normal(keys[1], (BATCH, LENGTH, HEADS))),
        -jnp.exp(jax.random.normal(keys[2], (HEADS,))),
        jax.random.normal(keys[3], by_group),
        jax.random.normal(keys[4], by_group),
        jax.random.normal(keys[5], (BATCH, GROUPS, STATES, HEADS // GROUPS * CHANNELS)),
    )


def _quadratic(x, step, rate, write, read, state):
    """y = (L * read write^T) (step * x) over the whole sequence, and what of the first state is left, in float64."""
    x, step, rate, write, read, state = (np.asarray(a, np.float64) for a in (x, step, rate, write, read, state))
    y, after = np.zeros_like(x), np.zeros_like(state).reshape(BATCH, GROUPS, STATES, -1, CHANNELS)
    first = state.reshape(after.shape)
    for h in range(HEADS):
        g, i = divmod(h, HEADS // GROUPS)
        for t in range(LENGTH):
            carried = np.exp(step[:, : t + 1, h].sum(1) * rate[h])[:, None, None] * first[:, g, :, i]
            for s in range(t + 1):
                decay = np.exp(step[:, s + 1 : t + 1, h].sum(1) * rate[h])
                score = decay * (read[:, t, g] * write[:, s, g]).sum(-1) * step[:, s, h]
                y[:, t, h] += score[:, None] * x[:, s, h]
                if t == LENGTH - 1:
                    scale = (decay * step[:, s, h])[:, None, None]
                    after[:, g, :, i] += scale * write[:, s, g][:, :, None] * x[:, s, h][:, None, :]
            y[:, t, h] += np.einsum("bn,bnk->bk", read[:, t, g], carried)
        after[:, g, :, i] += carried
    return y, after.reshape(state.shape)


@pytest.mark.parametrize(("algorithm", "chunk"), CASES)
def test_equals_the_masked_product_of_the_whole_sequence(algorithm, chunk):
    assert {name for name, _ in CASES} == set(ALGORITHMS)
    inputs = _inputs()
    for found, expected in zip(ssd(algorithm, chunk, *inputs), _quadratic(*inputs), strict=True):
        # float32 sums of at most 19 * 5 terms of order one.
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max(), rtol=0)


@pytest.mark.parametrize(("algorithm", "chunk"), CASES[1:])
def test_gradients_by_every_input_equal_the_recurrent_ones(algorithm, chunk):
    def gradients(algorithm, chunk):
        def loss(*inputs):
            y, state = ssd(algorithm, chunk, *inputs)
            return jnp.sum(jnp.sin(y)) + jnp.sum(jnp.cos(state))

        return jax.jit(jax.grad(loss, argnums=range(6)))(*_inputs())

    for name, found, want in zip(NAMES, gradients(algorithm, chunk), gradients("recurrent", 1), strict=True):
        assert float(jnp.abs(want).max()) > 0
        np.testing.assert_allclose(found, want, atol=2e-5 * np.abs(want).max(), rtol=0, err_msg=name)


@pytest.mark.parametrize(("algorithm", "chunk"), CASES[:4])
def test_a_sequence_in_two_calls_passes_its_state_on(algorithm, chunk):
    x, step, rate, write, read, state = _inputs()
    whole, after = ssd(algorithm, chunk, x, step, rate, write, read, state)
    parts = []
    for at in (slice(0, 7), slice(7, LENGTH)):
        y, state = ssd(algorithm, chunk, x[:, at], step[:, at], rate, write[:, at], read[:, at], state)
        parts.append(y)
    np.testing.assert_allclose(jnp.concatenate(parts, axis=1), whole, atol=1e-5 * np.abs(whole).max(), rtol=0)
    np.testing.assert_allclose(state, after, atol=1e-5 * np.abs(after).max(), rtol=0)


def test_strong_decay_neither_overflows_nor_loses_what_is_near():
    """Seven steps of 100 at rates up to -16: a chunk's decays sum to -11,200, whose exponential is 0 in float32."""
    x, step, _, write, read, state = _inputs()
    rate = -jnp.array([0.01, 1.0, 4.0, 16.0])
    step = jnp.where(jnp.arange(LENGTH)[None, :, None] % 3 == 0, 100.0, 0.01 * step)
    y, expected = (ssd(algorithm, LENGTH, x, step, rate, write, read, state)[0] for algorithm in ALGORITHMS)
    # A difference of two sums near 1e4 is wrong by 1e4 * 6e-8, and its exponential by as much relatively.
    np.testing.assert_allclose(y, expected, atol=1e-3 * np.abs(expected).max(), rtol=0)
    gradient = jax.grad(lambda step: ssd("chunked", LENGTH, x, step, rate, write, read, state)[0].sum())(step)
    assert bool(jnp.isfinite(gradient).all())


def test_bfloat16_products_sum_in_float32():
    x, step, rate, write, read, state = _inputs()
    halves = [a.astype(jnp.bfloat16) for a in (x, write, read)]
    y, after = ssd("chunked", 4, halves[0], step, rate, *halves[1:], state)
    assert y.dtype == after.dtype == jnp.float32
    exact, _ = ssd("recurrent", 4, halves[0], step, rate, *halves[1:], state)
    assert float(jnp.linalg.norm(y - exact) / jnp.linalg.norm(exact)) < 0.02  # 8 bits of mantissa in the factors

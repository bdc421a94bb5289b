"""Schedules end where they say, and AdamW is the published one with decay on matrices alone."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research.config import ModelConfig, OptimizerConfig
from research.models import language_model
from research.optim.optimizer import decayed, make_optimizer
from research.optim.schedules import learning_rate

STEPS = 200


def _rates(**fields):
    config = OptimizerConfig(learning_rate=2.0, **fields)
    return np.array([float(learning_rate(config, jnp.int32(step), STEPS)) for step in range(STEPS)])


@pytest.mark.parametrize("schedule", ["cosine", "wsd", "constant"])
def test_warmup_reaches_the_peak_and_the_end_is_the_stated_fraction(schedule):
    rates = _rates(schedule=schedule, warmup_fraction=0.05, final_fraction=0.1)
    np.testing.assert_allclose(rates[:10], 2.0 * np.arange(1, 11) / 10, rtol=1e-6)
    assert rates.max() == pytest.approx(2.0) and rates.argmax() in (9, 10)
    assert rates[-1] == pytest.approx(2.0 if schedule == "constant" else 0.2, rel=1e-5)
    assert (np.diff(rates[9:]) <= 1e-6).all()


def test_wsd_is_stable_until_its_decay():
    rates = _rates(schedule="wsd", decay_fraction=0.2, warmup_fraction=0.05)
    assert (rates[9:160] == 2.0).all() and rates[160] < 2.0
    np.testing.assert_allclose(np.diff(rates[160:], n=2), 0, atol=1e-6)


def test_cosine_is_half_way_down_in_the_middle():
    rates = _rates(schedule="cosine", warmup_fraction=0.0, final_fraction=0.0)
    assert rates[STEPS // 2] == pytest.approx(1.0, rel=0.02)


def test_adamw_equals_the_published_update():
    """Loshchilov & Hutter 2019, algorithm 2, written out in numpy for three steps."""
    boxed = language_model.abstract(ModelConfig(width=8, depth=1))
    config = OptimizerConfig(
        learning_rate=0.1, schedule="constant", warmup_fraction=0.0, clip_norm=None, weight_decay=0.3
    )
    optimizer = make_optimizer(config, boxed, STEPS)
    params = language_model.init(ModelConfig(width=8, depth=1), jax.random.key(0))
    state = optimizer.init(params)
    expected = jax.tree.map(np.asarray, params)
    first = second = jax.tree.map(np.zeros_like, expected)
    for step in range(1, 4):
        grads = jax.tree.map(lambda p, step=step: jnp.sin(7 * p + step), params)
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        g = jax.tree.map(np.asarray, grads)
        first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, g)
        second = jax.tree.map(lambda v, g: 0.95 * v + 0.05 * g * g, second, g)
        expected = jax.tree.map(
            lambda p, m, v, decay, step=step: (
                p - 0.1 * ((m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.95**step)) + 1e-8) + (0.3 * p if decay else 0))
            ),
            expected,
            first,
            second,
            decayed(boxed),
        )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6), params, expected)


def test_decay_spares_norms_and_nothing_else():
    mask = decayed(language_model.abstract(ModelConfig(width=8, depth=1)))
    for path, flag in jax.tree_util.tree_leaves_with_path(mask):
        assert flag == ("gain" not in jax.tree_util.keystr(path))


def test_clipping_bounds_the_global_norm():
    boxed = language_model.abstract(ModelConfig(width=8, depth=1))
    params = language_model.init(ModelConfig(width=8, depth=1), jax.random.key(0))
    grads = jax.tree.map(lambda p: 100 * jnp.ones_like(p), params)
    clipped = make_optimizer(OptimizerConfig(clip_norm=1.0), boxed, STEPS)
    _, state = clipped.update(grads, clipped.init(params), params)
    first_moment = optax.tree.get(state, "mu")
    assert float(optax.tree.norm(first_moment)) == pytest.approx(0.1, rel=1e-5)  # (1 - beta1) * clip_norm

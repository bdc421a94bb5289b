"""Schedules end where they say, and AdamW is the published one with decay on matrices alone."""

from typing import get_args, get_type_hints

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research.config import AdamWConfig, ModelConfig
from research.models import language_model
from research.optim.optimizer import decayed, make_optimizer
from research.optim.schedules import learning_rate

STEPS = 200


def _rates(**fields):
    config = AdamWConfig(learning_rate=2.0, **fields)
    return np.array(
        [float(learning_rate(config.schedule, config.numbers(STEPS), jnp.int32(at))) for at in range(STEPS)]
    )


ENDS = {"cosine": 0.2, "wsd": 0.2, "constant": 2.0}


@pytest.mark.parametrize("schedule", get_args(get_type_hints(AdamWConfig)["schedule"]))
def test_warmup_reaches_the_peak_and_the_end_is_the_stated_fraction(schedule):
    rates = _rates(schedule=schedule, warmup_fraction=0.05, final_fraction=0.1)
    np.testing.assert_allclose(rates[:10], 2.0 * np.arange(1, 11) / 10, rtol=1e-6)
    assert rates.max() == pytest.approx(2.0) and rates.argmax() in (9, 10)
    assert rates[-1] == pytest.approx(ENDS[schedule], rel=1e-5)
    assert (np.diff(rates[9:]) <= 1e-6).all()


def test_wsd_is_stable_until_its_decay():
    rates = _rates(schedule="wsd", decay_fraction=0.2, warmup_fraction=0.05)
    assert (rates[9:160] == 2.0).all() and rates[160] < 2.0
    np.testing.assert_allclose(np.diff(rates[160:], n=2), 0, atol=1e-6)


def test_cosine_is_half_way_down_in_the_middle():
    rates = _rates(schedule="cosine", warmup_fraction=0.0, final_fraction=0.0)
    assert rates[STEPS // 2] == pytest.approx(1.0, rel=0.02)


@pytest.mark.parametrize("kept", ["float32", "bfloat16"])
def test_adamw_equals_the_published_update(kept):
    """Loshchilov & Hutter 2019, algorithm 2, written out in numpy for three steps; the first moment kept as asked."""
    boxed = language_model.abstract(ModelConfig(width=8, depth=1))
    config = AdamWConfig(
        learning_rate=0.1,
        schedule="constant",
        warmup_fraction=0.0,
        clip_norm=None,
        weight_decay=0.3,
        first_moment_dtype=kept,
    )
    optimizer = make_optimizer(config, boxed, config.numbers(STEPS))
    params = language_model.init(ModelConfig(width=8, depth=1), jax.random.key(0))
    state = optimizer.init(params)
    expected = jax.tree.map(np.asarray, params)
    first = second = jax.tree.map(np.zeros_like, expected)
    for count in range(1, 4):
        grads = jax.tree.map(lambda p, count=count: jnp.sin(7 * p + count), params)
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        g = jax.tree.map(np.asarray, grads)
        first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, g)
        second = jax.tree.map(lambda v, g: 0.95 * v + 0.05 * g * g, second, g)
        expected = jax.tree.map(
            lambda p, m, v, decay, count=count: (
                p - 0.1 * ((m / (1 - 0.9**count)) / (np.sqrt(v / (1 - 0.95**count)) + 1e-8) + (0.3 * p if decay else 0))
            ),
            expected,
            first,
            second,
            decayed(boxed),
        )
        first = jax.tree.map(lambda m: np.float32(m.astype(kept)), first)
        assert {leaf.dtype.name for leaf in jax.tree.leaves(optax.tree.get(state, "mu"))} == {kept}
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6), params, expected)


def test_decay_spares_norms_and_nothing_else():
    mask = decayed(language_model.abstract(ModelConfig(width=8, depth=1)))
    for path, flag in jax.tree_util.tree_leaves_with_path(mask):
        assert flag == ("gain" not in jax.tree_util.keystr(path))


def test_clipping_bounds_the_global_norm():
    boxed = language_model.abstract(ModelConfig(width=8, depth=1))
    params = language_model.init(ModelConfig(width=8, depth=1), jax.random.key(0))
    grads = jax.tree.map(lambda p: 100 * jnp.ones_like(p), params)
    config = AdamWConfig(clip_norm=1.0)
    clipped = make_optimizer(config, boxed, config.numbers(STEPS))
    _, state = clipped.update(grads, clipped.init(params), params)
    first_moment = optax.tree.get(state, "mu")
    assert float(optax.tree.norm(first_moment)) == pytest.approx(0.1, rel=1e-5)  # (1 - beta1) * clip_norm

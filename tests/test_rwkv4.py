"""RWKV-4: its algorithms are one function equal to the published sum, and it starts as published."""

import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.config import ModelConfig
from research.models import language_model
from research.models.recurrent import rwkv4
from research.models.recurrent.rwkv4 import ALGORITHMS, EMPTY_EXPONENT, Sums

B, L, D = 2, 13, 5
MODEL = ModelConfig(
    vocab_size=31, width=24, depth=4, pattern="rwkv4_time:rwkv4_channel", norm="layer", embedding_norm=True
)
# Sums of some twenty terms of order one, taken in another order: a few units in the last place.
REORDERED = {"rtol": 1e-12, "atol": 1e-12}


def _inputs(scale=1.0):
    rng = np.random.default_rng(0)
    rate_D, bonus_D = -np.exp(rng.normal(size=D)), rng.normal(size=D)
    k_BLD, v_BLD = scale * rng.normal(size=(B, L, D)), rng.normal(size=(B, L, D))
    return rate_D, bonus_D, k_BLD, v_BLD


def _empty():
    zero_BD = jnp.zeros((B, D), jnp.float64)
    return Sums(zero_BD, zero_BD, zero_BD + EMPTY_EXPONENT)


def _brute_force(rate_D, bonus_D, k_BLD, v_BLD):
    """The formula as printed (section 3.1.2, equation 16), a sum over the past for every token."""
    out = np.empty_like(v_BLD)
    for t in range(L):
        age = (t - 1 - np.arange(t))[None, :, None]
        past = np.exp(age * rate_D + k_BLD[:, :t])
        own = np.exp(bonus_D + k_BLD[:, t])
        out[:, t] = ((past * v_BLD[:, :t]).sum(axis=1) + own * v_BLD[:, t]) / (past.sum(axis=1) + own)
    return out


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_wkv_is_the_published_sum(algorithm):
    with jax.enable_x64(True):
        found, _ = jax.jit(ALGORITHMS[algorithm])(*map(jnp.asarray, _inputs()), _empty(), None)
    np.testing.assert_allclose(found, _brute_force(*_inputs()), **REORDERED)


def test_algorithms_agree_in_values_states_and_gradients_for_exponents_beyond_the_type():
    def outcome(algorithm, rate_D, bonus_D, k_BLD, v_BLD):
        mask_BL = jnp.arange(L)[None] >= jnp.array([[0], [4]])
        first, sums = ALGORITHMS[algorithm](rate_D, bonus_D, k_BLD, v_BLD, _empty(), mask_BL)
        second, sums = ALGORITHMS[algorithm](rate_D, bonus_D, k_BLD[:, :7], v_BLD[:, :7], sums, None)
        wkv_BLD = jnp.concatenate([first * mask_BL[:, :, None], second], axis=1)
        mean_BD = sums.numerator / sums.denominator
        return (jnp.sin(3 * wkv_BLD).sum() + mean_BD.sum()), (wkv_BLD, mean_BD)

    results = []
    with jax.enable_x64(True):
        inputs = [jnp.asarray(array) for array in _inputs(scale=600.0)]  # exp(600) is no float64 number
        for algorithm in ALGORITHMS:
            gradient = jax.jit(jax.grad(outcome, argnums=(1, 2, 3, 4), has_aux=True), static_argnums=0)
            results.append(gradient(algorithm, *inputs))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(results))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **REORDERED), *results)


def _of_layer(params, layer, part):
    if "periods" in params:
        return jax.tree.map(lambda stacked: stacked[layer], params["periods"][f"layer0_{part}"])
    return params[f"period{layer}"][f"layer0_{part}"]


@pytest.mark.parametrize("scan_layers", [False, True])
def test_initial_values_are_the_published_ones_in_every_layer(scan_layers):
    model = replace(MODEL, scan_layers=scan_layers)
    params = language_model.init(model, jax.random.key(0))
    assert 0.9e-4 < float(jnp.abs(params["embedding"]).max()) <= 1e-4
    depth, width = model.depth, model.width
    for layer in range(depth):
        time, channel = (_of_layer(params, layer, part) for part in ("mixer", "channel"))
        time, channel = jax.device_get((time, channel))
        for i in range(width):
            share, last = i / width, layer / (depth - 1)
            fall = 1 - layer / depth
            assert time["decay"][i] == pytest.approx(-5 + 8 * (i / (width - 1)) ** (0.7 + 1.3 * last), abs=1e-5)
            assert time["bonus"][i] == pytest.approx(math.log(0.3) + 0.5 * ((i + 1) % 3 - 1), abs=1e-6)
            assert time["key_mix"][i] == pytest.approx(share**fall, abs=1e-6)
            assert time["value_mix"][i] == pytest.approx(share**fall + 0.3 * last, abs=1e-6)
            assert time["receptance_mix"][i] == pytest.approx(share ** (0.5 * fall), abs=1e-6)
            assert channel["key_mix"][i] == channel["receptance_mix"][i] == pytest.approx(share**fall, abs=1e-6)
        # exp(-exp(decay)) a token: the first channel forgets slowly, the last at once.
        assert math.exp(-math.exp(time["decay"][0])) == pytest.approx(math.exp(-math.exp(-5)))
        assert math.exp(-math.exp(time["decay"][-1])) < 1e-8
        np.testing.assert_allclose(time["value"].T @ time["value"], np.eye(width), atol=1e-5)
        np.testing.assert_allclose(channel["key"] @ channel["key"].T, 4 * np.eye(width), atol=1e-4)
        for zero in (time["key"], time["receptance"], time["out"], channel["value"], channel["receptance"]):
            assert not zero.any()


def test_one_layer_alone_starts_finite():
    params = language_model.init(replace(MODEL, depth=1), jax.random.key(0))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))


def test_the_state_has_one_size_for_every_length():
    states = [language_model.init_states(MODEL, 1, length) for length in (128, 8192)]
    assert jax.tree.map(lambda leaf: leaf.shape, states[0]) == jax.tree.map(lambda leaf: leaf.shape, states[1])
    per_layer = [rwkv4.time_state_bytes(MODEL, 9, 4) + rwkv4.channel_state_bytes(MODEL, 9, 4)] * MODEL.depth
    assert sum(per_layer) == 5 * MODEL.width * MODEL.depth * 4  # the paper's 5 numbers a channel and layer

"""Steps of matrices at any width: Muon's move products as far, MuonH's turn by the rate and keep the matrix' size."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.config import AdamWConfig, AttentionConfig, MlpConfig, ModelConfig, MuonConfig, MuonHConfig
from research.config import ParametrisationConfig as Parametrisation
from research.models import language_model
from research.models.layers import is_boxed
from research.optim.optimizer import make_optimizer

BASE, RATE = 32, 2**-6
MODEL = ModelConfig(
    64, BASE, 2, attention=AttentionConfig(4, 4, 8), mlp=MlpConfig(64, activation="gelu"), scan_layers=True
)
PLAIN = {"learning_rate": RATE, "schedule": "constant", "warmup_fraction": 0.0, "clip_norm": None}


def _wider(name, times):
    model = replace(MODEL, width=times * BASE, attention=AttentionConfig(4 * times, 4 * times, 8))
    return replace(model, mlp=replace(MODEL.mlp, hidden=64 * times), parametrisation=Parametrisation(name, BASE))


def _matrices(config, model):
    """(weight, its update) of each matrix (layers, fan-in, fan-out) after two steps of random gradients."""
    boxed = language_model.abstract(model)
    params, optimizer = language_model.init(model, jax.random.key(0)), make_optimizer(config, boxed, config.numbers(9))
    state, start, update_all = optimizer.init(params), params, jax.jit(optimizer.update)
    rng = np.random.default_rng(0)
    for _ in range(2):
        grads = jax.tree.map(lambda p: rng.standard_normal(p.shape, np.float32), params)
        updates, state = update_all(grads, state, params)
        start, params = params, jax.tree.map(jnp.add, params, updates)
    boxes, found = jax.tree.leaves(boxed, is_leaf=is_boxed), []
    for box, weight, update in zip(boxes, jax.tree.leaves(start), jax.tree.leaves(updates), strict=True):
        if box.matrix.into:
            sides = (box.value.shape[0], -1, int(np.prod([box.value.shape[axis] for axis in box.matrix.out])))
            found.append((np.reshape(weight, sides), np.reshape(update, sides), box))
    assert len(found) == 6
    return found


@pytest.mark.parametrize("name", ["mup", "mean_field"])
def test_muon_moves_products_as_far_at_every_width(name):
    """The largest singular value of the step that the model sees, over the root of fan-out over fan-in."""
    config = MuonConfig(**PLAIN, weight_decay=0.0)
    far = []
    for times in (1, 2, 4):
        of_width = []
        for _, update, box in _matrices(config, _wider(name, times)):
            largest = np.linalg.norm(update, ord=2, axis=(1, 2)) * box.scaling.multiplier
            of_width.append(largest / RATE / 0.2 / max(update.shape[1] // times, update.shape[2] // times) ** 0.5)
        far.append(np.array(of_width))
    for of_width in far:  # Newton and Schulz' iterations end between 0.7 and 1.2
        assert (of_width > 0.65).all() and (of_width < 1.25).all()


@pytest.mark.parametrize("name", ["standard", "mup", "mean_field"])
@pytest.mark.parametrize("times", [1, 4])
def test_muonh_turns_each_matrix_by_the_rate_and_keeps_its_norm(name, times):
    """Whatever the parametrisation and the width: W' = R (W - rate R u) / |W - rate R u|, where |u| = 1 and R = |W|."""
    config = MuonHConfig(**PLAIN, weight_decay=0.0, turn=2.0)
    for weight, update, _ in _matrices(config, _wider(name, times)):
        norm = np.linalg.norm(weight, axis=(1, 2), keepdims=True)
        np.testing.assert_allclose(np.linalg.norm(weight + update, axis=(1, 2), keepdims=True), norm, rtol=1e-6)
        step = update + weight - weight * np.sum(weight * (weight + update), (1, 2), keepdims=True) / norm**2
        turned = np.linalg.norm(step, axis=(1, 2)) / norm[:, 0, 0]  # the sine of the angle
        # A step straight to the side would turn by exactly this; one with a part along the matrix by a little less.
        np.testing.assert_allclose(turned, np.sin(np.arctan(2 * RATE)), rtol=0.02)


def test_decay_of_a_matrix_on_its_sphere_lengthens_its_step_by_rate_times_decay():
    plain, decayed = (MuonHConfig(**PLAIN, weight_decay=decay) for decay in (0.0, 4.0))
    for (weight, update, _), (_, other, _) in zip(_matrices(plain, MODEL), _matrices(decayed, MODEL), strict=True):
        ratio = np.linalg.norm(other, axis=(1, 2)) / np.linalg.norm(update, axis=(1, 2))
        np.testing.assert_allclose(ratio, 1 / (1 - 4 * RATE), rtol=0.02)
        assert weight.any()


def test_all_but_matrices_move_as_under_adam():
    config, adam = MuonHConfig(**PLAIN), AdamWConfig(**PLAIN)
    model = _wider("mup", 2)
    boxed, params = language_model.abstract(model), language_model.init(model, jax.random.key(0))
    grads = jax.tree.map(lambda p: jnp.cos(3 * p + jnp.arange(p.size).reshape(p.shape)), params)
    of_each = []
    for one in (config, adam):
        optimizer = make_optimizer(one, boxed, one.numbers(9))
        of_each.append(jax.tree.leaves(optimizer.update(grads, optimizer.init(params), params)[0]))
    for box, own, adams in zip(jax.tree.leaves(boxed, is_leaf=is_boxed), *of_each, strict=True):
        assert np.array_equal(own, adams) == (not box.matrix.into)

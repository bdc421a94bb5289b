"""Ragged experts: groups of rows by every program for them, and choices that travel between devices."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_moe import _apply, _input, _params, _with

from research.config import MeshConfig, MoeConfig
from research.models.experts import grouped_swiglu as groups
from research.models.experts import ragged
from research.models.experts.grouped_swiglu import accelerator_swiglu, grouped_swiglu
from research.models.kernels import megablox
from research.sharding import constrain, make_mesh
from research.training.hlo_cost import hlo_cost


@pytest.fixture
def interpreted(monkeypatch):
    """The TPU's kernel on a CPU."""
    product = partial(megablox.grouped_product, interpret=True)
    monkeypatch.setattr(megablox, "grouped_product", product)
    return product


@pytest.mark.parametrize("sizes", [(300, 0, 129, 1, 128), (0, 0, 558, 0, 0), (64, 64, 64, 64, 302)])
def test_grouped_products_of_cpus_and_of_accelerators_agree(sizes, interpreted):
    """Values and gradients; groups that are empty, shorter than a block of rows, a whole block, and one row more."""
    keys = jax.random.split(jax.random.key(0), 5)
    rows = jax.random.normal(keys[0], (sum(sizes), 24))
    shapes = [(len(sizes), 24, 40), (len(sizes), 24, 40), (len(sizes), 40, 24)]
    experts = tuple(0.2 * jax.random.normal(key, shape) for key, shape in zip(keys[1:], shapes))
    wanted = jax.random.normal(keys[4], rows.shape)

    def made(function):
        def loss(rows, experts):
            return (function(rows, experts, jnp.array(sizes, jnp.int32)) * wanted).sum()

        return jax.value_and_grad(loss, argnums=(0, 1))(rows, experts)

    expected = jax.tree.leaves(made(accelerator_swiglu))
    for program in (grouped_swiglu, partial(accelerator_swiglu, product=interpreted)):
        for got, want in zip(jax.tree.leaves(made(program)), expected, strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)  # sums of up to 558 products of order one


def test_accelerators_run_ragged_products():
    arguments = (
        jnp.zeros((6, 4)),
        (jnp.zeros((2, 4, 8)), jnp.zeros((2, 4, 8)), jnp.zeros((2, 8, 4))),
        jnp.array([2, 4]),
    )
    for platform, is_ragged in (("tpu", True), ("cpu", False)):
        module = jax.export.export(jax.jit(grouped_swiglu), platforms=[platform])(*arguments).mlir_module()
        assert ("ragged_dot" in module) == is_ragged


def _values_and_gradients(model, params, x_BLD, mask_BL=None):
    """y and the gradients of its sines, in params and x; traced anew for each mesh and platform."""

    def loss(params, x_BLD):
        y_BLD = _apply.__wrapped__(model, params, x_BLD, mask_BL)[0]
        return jnp.sum(jnp.sin(y_BLD)), y_BLD

    return jax.jit(jax.grad(loss, (0, 1), has_aux=True))(params, x_BLD)


def _mesh(**axes):
    sizes = {**dict.fromkeys(("data", "fsdp", "tensor", "expert", "sequence"), 1), **axes}
    return make_mesh(MeshConfig(**sizes), jax.devices()[: math.prod(sizes.values())])


def _assert_same(found, expected):
    for one, want in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, want, atol=1e-5 * np.abs(want).max(), rtol=0)


@pytest.mark.parametrize("axes", [{}, {"expert": 4}, {"data": 2, "tensor": 2}], ids=str)
def test_ragged_experts_by_the_tpus_kernel_on_every_mesh(axes, interpreted, monkeypatch):
    """Behind the last group there may be rows, which the kernel does not write: of no expert, in a round's places."""
    model = _with(MoeConfig(8, 2, 12), algorithm="ragged")
    params, x_BLD = _params(model), _input(model, batch=4, length=16)
    expected = _values_and_gradients(model, params, x_BLD)
    monkeypatch.setattr(groups, "platform", lambda: "tpu")
    with jax.set_mesh(_mesh(**axes)):
        _assert_same(_values_and_gradients(model, params, x_BLD), expected)


@pytest.mark.parametrize("skew", [0.0, 30.0], ids=["balanced", "all to one device"])
@pytest.mark.parametrize("axes", [{"expert": 4}, {"expert": 2, "tensor": 2, "sequence": 2}], ids=str)
def test_choices_travel_to_their_experts_in_as_many_rounds_as_it_takes(axes, skew, monkeypatch):
    """All tokens for the same experts: four rounds of a device, every fourth place of one filled, and none dropped."""
    model = _with(MoeConfig(8, 2, 12), algorithm="ragged")
    params, x_BLD = _params(model), _input(model, batch=4, length=16)
    x_BLD = x_BLD.at[..., 0].set(1.0)
    params["router"] = params["router"].at[0].set(skew * (jnp.arange(8) < 2))
    mask_BL = jnp.arange(16)[None, :] >= jnp.array([0, 3, 0, 9])[:, None]
    expected = _values_and_gradients(model, params, x_BLD, mask_BL)
    rounds = []
    one_round = ragged._round

    def counted(number, *arguments):
        jax.debug.callback(rounds.append, number)
        return one_round(number, *arguments)

    monkeypatch.setattr(ragged, "_round", counted)
    with jax.set_mesh(_mesh(**axes)):
        _assert_same(_values_and_gradients(model, params, x_BLD, mask_BL), expected)
    jax.effects_barrier()
    # of `expert` times the mean, SPARE times in each
    assert max(rounds) + 1 == math.ceil(axes["expert"] / ragged.SPARE) if skew else max(rounds) < 2


def test_ragged_experts_exchange_a_rounds_places():
    """Of tokens there and back, and which expert each is for; nothing is gathered."""
    model = _with(MoeConfig(8, 2, 12), algorithm="ragged")
    params, x_BLD = _params(model), _input(model, batch=4, length=16)
    with jax.set_mesh(_mesh(expert=4)):
        layer = jax.jit(lambda params, x_BLD: _apply.__wrapped__(model, params, constrain(x_BLD, "batch length"))[0])
        cost = hlo_cost(layer.lower(params, x_BLD).compile().as_text())
    places = 4 * math.ceil(ragged.SPARE * 16 * 2 / 4)
    assert cost.collective_bytes["all-to-all"] == places * (12 + 1 + 12) * 4
    assert "all-gather" not in cost.collective_bytes

"""Training a mixture of experts: auxiliary losses, metrics, microbatches, and the bias that evens out the load."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from synthetic_tokens import synthetic_examples, tiny_run

from research.config import MeshConfig, MoeConfig, RunConfig
from research.models import language_model
from research.models.experts import router
from research.optim.expert_bias import balanced
from research.sharding import make_mesh
from research.training.feed import global_batch
from research.training.objective import language_modelling
from research.training.routing import auxiliary_loss, router_metrics, summed
from research.training.step import gradients, make_program


def _statistics(load_BE, tokens=4.0):
    load_BE = jnp.asarray(load_BE, jnp.float32)
    one_B1 = jnp.ones((len(load_BE), 1))
    probability_BE = load_BE / load_BE.sum(axis=1, keepdims=True) * tokens
    return router.RouterStatistics(load_BE, probability_BE, one_B1, 9 * tokens * one_B1, 0 * one_B1, tokens * one_B1)


def test_auxiliary_loss_is_the_published_one():
    cfg = MoeConfig(4, 2, balance_loss=0.1, router_z_loss=0.01)
    even, one_sided = _statistics([[2, 2, 2, 2]] * 2), _statistics([[8, 0, 0, 0]] * 2)
    assert float(auxiliary_loss(cfg, {"layer": even})) == pytest.approx(0.1 * 1 + 0.01 * 9)
    assert float(auxiliary_loss(cfg, {"layer": one_sided})) == pytest.approx(0.1 * 4 + 0.01 * 9)
    assert float(auxiliary_loss(cfg, {"a": even, "b": one_sided})) == pytest.approx(0.1 * 2.5 + 0.01 * 9)
    opposite = _statistics([[8, 0, 0, 0], [0, 8, 0, 0]])  # balance over the batch asks less than over each sequence
    assert float(auxiliary_loss(cfg, {"layer": opposite})) == pytest.approx(0.1 * 2 + 0.01 * 9)
    each = replace(cfg, balance_over="sequence")
    assert float(auxiliary_loss(each, {"layer": opposite})) == pytest.approx(0.1 * 4 + 0.01 * 9)
    assert float(auxiliary_loss(cfg, {})) == 0


def test_metrics_name_the_worst_layer():
    cfg = MoeConfig(4, 2)
    routing = {
        "a": _statistics([[2, 2, 2, 2]]),
        "b": _statistics([[6, 2, 0, 0]]).replace(dropped_B1=jnp.full((1, 1), 3.0)),
    }
    found = router_metrics(cfg, summed(routing), jnp.float32(0.5))
    assert found["router_max_load"] == 3 and found["router_dead_experts"] == 2
    assert found["router_dropped_fraction"] == pytest.approx(3 / 16) and found["auxiliary_loss"] == 0.5
    assert router_metrics(cfg, {}, jnp.float32(0)) == {}


def _moe_run(**fields) -> RunConfig:
    base = tiny_run(steps=30)
    settings = {"hidden": 12, "balance_over": "sequence", "capacity_factor": 2.0, "algorithm": "capacity", **fields}
    return replace(base, model=replace(base.model, pattern="attention:moe", moe=MoeConfig(4, 2, **settings)))


def test_microbatches_add_up_to_the_batch():
    config = _moe_run(bias_rate=1e-3)
    params = language_model.init(config.model, jax.random.key(0))
    keys = jax.random.split(jax.random.key(0), 3)
    batch = {
        "inputs": jax.random.randint(keys[0], (8, 16), 0, 264),
        "targets": jax.random.randint(keys[1], (8, 16), 0, 264),
        "weights": jax.random.bernoulli(keys[2], 0.4, (8, 16)).astype(np.float32),
    }
    compiled, objective = jax.jit(gradients, static_argnums=(0, 1)), language_modelling(config)
    parts = (replace(config.training, microbatches=count) for count in (4, 1))
    found, expected = (compiled(objective, training, params, batch) for training in parts)
    np.testing.assert_allclose(found[1].penalty, expected[1].penalty, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), found, expected)
    assert float(expected[1].penalty) > 0
    without = replace(
        config, model=replace(config.model, moe=replace(config.model.moe, balance_loss=0, router_z_loss=0))
    )
    grads, terms, _ = compiled(language_modelling(without), config.training, params, batch)
    np.testing.assert_allclose(terms.loss, expected[1].loss, rtol=1e-6)  # the penalty is the objective's alone
    router_of = lambda tree: np.asarray(tree["period0"]["layer0_channel"]["router"])  # noqa: E731
    assert not np.allclose(router_of(grads), router_of(expected[0]), rtol=1e-3)


def test_a_step_moves_the_bias_against_the_load_and_nothing_else_does():
    config = _moe_run(bias_rate=0.01, balance_loss=0.0)
    examples = synthetic_examples(config)
    mesh = make_mesh(MeshConfig(data=1), jax.devices()[:1])
    with jax.set_mesh(mesh):
        program = make_program(config, mesh, language_modelling(config))
        state = program.init()
        batch = global_batch(config, examples, 0, program.batch_sharding)
        _, _, routing = language_model.hidden(config.model, state.params, batch["inputs"])
        load = np.asarray(routing["period1"]["layer0_channel"]["statistics"].load_BE.sum(axis=0))
        state, _ = program.train(state, batch, program.numbers)
        bias = np.asarray(state.params["period1"]["layer0_channel"]["bias"])
        np.testing.assert_allclose(bias, 0.01 * np.sign(load.mean() - load), rtol=1e-6)
        batch = global_batch(config, examples, 1, program.batch_sharding)
        _, measured = program.train(state, batch, program.numbers)
    total = float(measured["loss_nats"] + measured["auxiliary_loss"])
    assert float(measured["objective_nats"]) == pytest.approx(total, rel=1e-6)
    assert measured["router_dead_experts"] == 0


def test_the_bias_evens_out_any_scores():
    """Recovery: experts that all tokens prefer lose that lead, to within what one step moves."""
    cfg = MoeConfig(4, 1, scores="sigmoid", renormalize=False, bias_rate=0.01)
    scores_BLE = jax.nn.sigmoid(
        jax.random.normal(jax.random.key(0), (8, 64, 4)) + jnp.array([2.0, 0.5, 0, -1])[None, None]
    )
    params = {"layer": {"bias": jnp.zeros(4)}}

    @jax.jit
    def step(params):
        experts_BLA = router.token_choice(cfg, scores_BLE, params["layer"]["bias"], None, None).experts_BLA
        load_E = (experts_BLA == jnp.arange(4)[None, None, :]).sum(axis=(0, 1)).astype(jnp.float32)
        statistics = _statistics(load_E[None]).replace(load_BE=load_E)
        return balanced(cfg, params, {"layer": {"statistics": statistics}}), load_E

    loads = []
    for _ in range(150):
        params, load_E = step(params)
        loads.append(np.asarray(load_E) / 128)
    assert loads[0].max() > 2 and np.mean(loads[-10:], axis=0).max() < 1.1

"""The gradient noise scale of training steps: unbiased whatever the microbatches hold, free where it is not asked."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from synthetic_tokens import synthetic_examples, tiny_run

from research.config import ConfigError, LoggingConfig, MeshConfig, RunConfig, TrainingConfig, override
from research.evaluation.held_out import held_out_measures
from research.runs import Status, open_run
from research.sharding import make_mesh
from research.training import metrics
from research.training.feed import global_batch
from research.training.loop import train
from research.training.noise_scale import SQUARE, VARIANCE, estimates, of_run
from research.training.objective import language_modelling
from research.training.objectives.base import Objective, Terms
from research.training.session import Run
from research.training.step import gradients, make_program

SIGNAL = jnp.array([0.8, -0.6, 0.0, 0.0])  # G, with |G|^2 = 1
DEVIATIONS = jnp.array([1.0, 2.0, 3.0, 1.0])  # of one token's gradient, with tr(Sigma) = 15


def linear() -> Objective:
    """A token's loss is its features times the parameters, so that its gradient is its features."""
    return Objective(
        arrays=("features", "weights"),
        weight=lambda batch: jnp.sum(batch["weights"]),
        terms=lambda params, batch: Terms(
            jnp.einsum("bld,bl,d->", batch["features"], batch["weights"], params), jnp.zeros(()), ()
        ),
        metrics=lambda sums, weight, penalty: {},
        evaluate=lambda params, batch: (),
        measures=lambda sums, held_out: {},
    )


def _features(key):
    """Eight rows of three tokens."""
    return SIGNAL[None, None] + DEVIATIONS[None, None] * jax.random.normal(key, (8, 3, 4))


def measured(objective, microbatches, params, batch):
    training = TrainingConfig(batch_size=len(batch["weights"]), microbatches=microbatches)
    grads, terms, weight = gradients(objective, training, params, batch, with_spread=True)
    norm = jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(grads)))
    return {**estimates(terms.spread, norm, weight), "naive": norm**2}


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("microbatches", [2, 4, 8])
def test_both_parts_are_unbiased_whatever_the_microbatches_hold(microbatches, padded):
    """Means over 20,000 batches lie within four standard errors of the planted |G|^2 and tr(Sigma)."""

    def draw(key):
        noise, mask = jax.random.split(key)
        features = _features(noise)
        # Whole rows are empty, too: with 8 microbatches many hold nothing, and others three tokens.
        weights = jax.random.bernoulli(mask, 0.5, (8, 3)) if padded else jnp.ones((8, 3))
        batch = {"features": features, "weights": weights.astype(np.float32)}
        return measured(linear(), microbatches, jnp.zeros(4), batch)

    found = jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(microbatches), 20_000))
    found = {name: np.asarray(values)[np.isfinite(found[VARIANCE])] for name, values in found.items()}
    assert len(found["naive"]) > 19_000  # the rest have one microbatch with tokens, or none
    for name, truth in ((SQUARE, 1.0), (VARIANCE, 15.0)):
        error = found[name].std() / np.sqrt(len(found[name]))
        assert abs(found[name].mean() - truth) < 4 * error < 0.06 * truth, name
    assert found["naive"].mean() > 1.5  # the batch's own norm holds tr(Sigma) / 24 as well, or more


def test_microbatches_without_tokens_change_nothing_and_one_alone_says_nothing():
    features = _features(jax.random.key(0))
    weights = np.ones((8, 3), np.float32)
    weights[2::4] = 0  # rows go to microbatches in turn: of four, the third holds nothing
    batch = {"features": features, "weights": weights}
    kept = {name: jnp.delete(array, jnp.array([2, 6]), axis=0) for name, array in batch.items()}
    some, all_of_them = (measured(linear(), n, jnp.zeros(4), b) for n, b in ((4, batch), (3, kept)))
    np.testing.assert_allclose(some[VARIANCE], all_of_them[VARIANCE], rtol=1e-5)
    np.testing.assert_allclose(some[SQUARE], all_of_them[SQUARE], rtol=1e-5)
    weights[1::4] = weights[3::4] = 0
    assert np.isnan(measured(linear(), 4, jnp.zeros(4), batch)[SQUARE])


def tiny(**training) -> RunConfig:
    """One layer, in four microbatches on one device."""
    config = tiny_run(microbatches=4, **training)
    logging = LoggingConfig(every=1, noise_scale=True)
    return replace(config, model=replace(config.model, depth=1), logging=logging, mesh=MeshConfig(data=1))


def test_a_model_has_the_noise_of_its_gradients_row_by_row():
    """Each row a microbatch: the sample variance of gradients taken apart, weighed by their tokens."""
    config = tiny()
    objective = language_modelling(config)
    params = make_program(config, make_mesh(config.mesh, jax.devices()[:1]), objective).init().params
    keys = jax.random.split(jax.random.key(0), 3)
    batch = {
        "inputs": jax.random.randint(keys[0], (8, 16), 0, 264),
        "targets": jax.random.randint(keys[1], (8, 16), 0, 264),
        "weights": jax.random.bernoulli(keys[2], 0.4, (8, 16)).astype(np.float32),
    }
    found = jax.jit(lambda p, b: measured(objective, 8, p, b))(params, batch)

    def flat(rows):
        grads = jax.grad(lambda p: objective.terms(p, rows).loss)(params)
        return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(grads)])

    sums = np.stack([jax.jit(flat)({k: a[i : i + 1] for k, a in batch.items()}) for i in range(8)]).astype(np.float64)
    tokens = np.asarray(batch["weights"].sum(axis=1), np.float64)
    mean = sums.sum(axis=0) / tokens.sum()
    variance = np.sum(tokens * np.sum((sums / tokens[:, None] - mean) ** 2, axis=1)) / 7
    np.testing.assert_allclose(found[VARIANCE], variance, rtol=1e-4)
    np.testing.assert_allclose(found[SQUARE], np.sum(mean**2) - variance / tokens.sum(), rtol=1e-3, atol=1e-4)


def _steps(config, devices=None, count=2):
    mesh = make_mesh(config.mesh, devices)
    with jax.set_mesh(mesh):
        program = make_program(config, mesh, language_modelling(config))
        state, lines = program.init(), []
        for step in range(count):
            batch = global_batch(config, synthetic_examples(config), step, program.batch_sharding)
            state, line = program.train(state, batch, program.numbers)
            lines.append(jax.device_get(line))
        return jax.device_get(state.params), lines


def test_measuring_changes_no_training():
    """But for rounding: another program adds up in another order."""
    config = tiny()
    params, lines = _steps(config, jax.devices()[:1])
    without, others = _steps(replace(config, logging=LoggingConfig()), jax.devices()[:1])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6), params, without)
    losses = [[line["loss_nats"] for line in run] for run in (lines, others)]
    np.testing.assert_allclose(*losses, rtol=1e-6)
    assert [line.keys() - other.keys() for line, other in zip(lines, others, strict=True)] == [{SQUARE, VARIANCE}] * 2


@pytest.mark.slow
def test_a_mesh_changes_no_measure():
    config = tiny(batch_size=16)
    _, lines = _steps(config, jax.devices()[:1])
    for line, other in zip(lines, _steps(replace(config, mesh=MeshConfig(2, 2, 2)))[1], strict=True):
        np.testing.assert_allclose(other[VARIANCE], line[VARIANCE], rtol=1e-4)
        np.testing.assert_allclose(other[SQUARE], line[SQUARE], rtol=1e-3, atol=1e-4 * line[VARIANCE] / 256)


@pytest.mark.parametrize("noise_scale", [False, True])
def test_a_step_counts_what_the_closed_form_says(noise_scale):
    """XLA counts a loop's body once: one microbatch's square and sum for each parameter, and nothing if not asked."""

    def flops(config):
        program = make_program(config, make_mesh(config.mesh, jax.devices()[:1]), language_modelling(config))
        shape = jax.ShapeDtypeStruct((8, 16), jnp.int32)
        batch = {"inputs": shape, "targets": shape, "weights": jax.ShapeDtypeStruct((8, 16), jnp.float32)}
        abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), program.abstract_state)
        lowered = program.train.lower(abstract, batch, program.numbers)
        return lowered.cost_analysis()["flops"], sum(leaf.size for leaf in jax.tree.leaves(abstract.params))

    without, params = flops(replace(tiny(), logging=LoggingConfig()))
    added = flops(replace(tiny(), logging=LoggingConfig(noise_scale=noise_scale)))[0] - without
    assert 2 * params * noise_scale <= added <= (2 * params + 100) * noise_scale


def test_a_run_keeps_both_parts_of_each_step_and_their_ratio_in_its_result(tmp_path):
    config = replace(tiny(steps=12, batch_size=32), mesh=MeshConfig())
    folder = open_run(tmp_path, config)
    (status,) = train(
        [Run(config, folder, synthetic_examples(config))],
        objective=language_modelling,
        evaluate=held_out_measures,
        on_progress=lambda folder, step, loss: None,
        should_stop=lambda: False,
    )
    lines = [line for line in metrics.read(folder.metrics_path) if line["kind"] == "train"]
    assert status == Status.DONE and len(lines) == 12
    last = lines[9:]  # steps 10 to 12, a quarter
    ratio = sum(line[VARIANCE] for line in last) / sum(line[SQUARE] for line in last)
    assert folder.result()["noise_scale_tokens"] == pytest.approx(ratio)


def _line(step, square, variance):
    return {"kind": "train", "step": step, SQUARE: square, VARIANCE: variance}


def test_a_runs_scale_is_the_ratio_of_the_last_quarters_means():
    lines = [_line(step, 50.0, 1.0) for step in range(1, 7)] + [_line(7, 1.0, 30.0), _line(8, 3.0, 10.0)]
    assert of_run(lines) == {"noise_scale_tokens": 10.0}  # the mean of the ratios would be 16.7
    assert of_run([*lines[:7], _line(8, None, None)]) == {"noise_scale_tokens": 30.0}  # of a batch that said nothing
    assert of_run([*lines[:6], _line(7, -2.0, 30.0), _line(8, 1.0, 10.0)]) == {}  # noise hides the gradient
    assert of_run([]) == of_run([{"kind": "train", "step": 8, "loss_nats": 1.0}]) == {}


def test_one_microbatch_has_nothing_to_compare():
    with pytest.raises(ConfigError, match=r"logging.noise_scale = True.*microbatches is 1.*Fix: set training.microb"):
        override(tiny_run(), ["logging.noise_scale=true"])

"""How S4 and H3 are trained: rates and decay of their dynamics, meshes, and a task that H3 learns."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from synthetic_tokens import synthetic_examples, tiny_run

from research.config import AdamWConfig, H3Config, MeshConfig, MlpConfig, ModelConfig, S4Config
from research.models import language_model
from research.optim.optimizer import decayed, make_optimizer
from research.sharding import make_mesh
from research.training.feed import global_batch
from research.training.objective import language_modelling
from research.training.step import make_program


def test_dynamics_are_never_decayed():
    model = ModelConfig(width=4, depth=3, pattern="s4, h3, attention")
    mask = decayed(language_model.abstract(model))["period0"]
    kept = ("readout_real", "readout_imaginary", "shift_readout", "out", "query", "key", "value")
    for layer in ("layer0_mixer", "layer1_mixer"):
        assert {name for name, flag in mask[layer].items() if flag} == {name for name in mask[layer] if name in kept}
    assert not mask["layer0_mixer"]["low_rank_real"] and not mask["layer0_mixer"]["log_dt"]


@pytest.mark.parametrize(("rate", "share"), [(4e-3, 0.25), (5e-4, 1.0)])
def test_dynamics_learn_at_a_capped_rate(rate, share):
    """Adam's first step is the learning rate for every parameter, whatever its gradient."""
    model = ModelConfig(width=4, depth=2, pattern="s4, h3")
    config = AdamWConfig(learning_rate=rate, schedule="constant", warmup_fraction=0.0, weight_decay=0.0, clip_norm=None)
    boxed = language_model.abstract(model)
    optimizer = make_optimizer(config, boxed, config.numbers(10))
    params = language_model.init(model, jax.random.key(0))
    updates, _ = jax.jit(optimizer.update)(jax.tree.map(jnp.ones_like, params), optimizer.init(params), params)
    capped = ("log_damping", "frequency", "log_dt", "low_rank", "input", "shift_input")
    for path, update in jax.tree_util.tree_leaves_with_path(updates):
        name = jax.tree_util.keystr(path[-1:], simple=True)
        expected = -rate * (share if name.removesuffix("_real").removesuffix("_imaginary") in capped else 1.0)
        np.testing.assert_allclose(update, expected, rtol=1e-5, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("pattern", ["s4", "h3"])
def test_a_run_is_the_same_on_a_mesh(pattern, capfd):
    config = tiny_run(steps=5)
    sections = {"s4": S4Config(state_size=8, kernel_length=16), "h3": H3Config(2, 8)}
    config = replace(config, model=replace(config.model, pattern=pattern, **sections))
    examples = synthetic_examples(config)

    def losses(mesh):
        with jax.set_mesh(mesh):
            program = make_program(config, mesh, language_modelling(config))
            state, found = program.init(), []
            for step in range(5):
                batch = global_batch(config, examples, step, program.batch_sharding)
                state, measured = program.train(state, batch, program.numbers)
                found.append(float(measured["loss_nats"]))
        return np.array(found)

    split = losses(make_mesh(MeshConfig(data=2, fsdp=2, tensor=2)))
    # As in test_sharding: 1e-6 relative, float32 sums in another order.
    np.testing.assert_allclose(split, losses(make_mesh(MeshConfig(data=1), jax.devices()[:1])), rtol=1e-6)
    assert "Involuntary full rematerialization" not in capfd.readouterr().err


def _recall(rng, batch, pairs=6, symbols=4):
    """(tokens, answers): key-value pairs in a row under one random assignment, then a key that has appeared."""
    values = rng.integers(0, symbols, (batch, symbols))
    keys = rng.integers(0, symbols, (batch, pairs))
    rows = np.stack([keys, symbols + np.take_along_axis(values, keys, axis=1)], axis=2).reshape(batch, 2 * pairs)
    asked = np.take_along_axis(keys, rng.integers(0, pairs, (batch, 1)), axis=1)
    return np.concatenate([rows, asked], axis=1), symbols + np.take_along_axis(values, asked, axis=1)[:, 0]


@pytest.mark.slow
def test_h3_learns_associative_recall():
    """The task of Fu 2023, section 3.2, at a size of seconds: four keys, four values, six pairs; chance is 1/4."""
    model = ModelConfig(
        vocab_size=8, width=32, depth=2, pattern="h3:mlp", h3=H3Config(1, 16), mlp=MlpConfig(64, "gelu"), norm="layer"
    )
    steps = 600
    adamw = AdamWConfig(learning_rate=5e-3)
    optimizer = make_optimizer(adamw, language_model.abstract(model), adamw.numbers(steps))

    def loss(params, tokens, answers):
        logits_BV = language_model.logits(model, params, tokens)[:, -1]
        return optax.softmax_cross_entropy_with_integer_labels(logits_BV, answers).mean()

    @jax.jit
    def train(params, moments, tokens, answers):
        updates, moments = optimizer.update(jax.grad(loss)(params, tokens, answers), moments, params)
        return optax.apply_updates(params, updates), moments

    rng = np.random.default_rng(0)
    params = language_model.init(model, jax.random.key(0))
    moments = optimizer.init(params)
    for _ in range(steps):
        params, moments = train(params, moments, *_recall(rng, 64))
    tokens, answers = _recall(rng, 1_000)
    accuracy = float((language_model.logits(model, params, tokens)[:, -1].argmax(-1) == answers).mean())
    print(f"accuracy {accuracy:.3f} after {steps} steps")
    assert accuracy > 0.95

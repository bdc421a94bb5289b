"""Encoder-decoders: the same in every form of execution, blind to padding and to the future, counted exactly."""

import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import jaxpr_flops
import numpy as np
import pytest
from random_configs import perturbed

from research.config import (
    AdamWConfig,
    AttentionConfig,
    ConfigError,
    EvaluationConfig,
    MlpConfig,
    ModelConfig,
    RunConfig,
    TaskConfig,
    TrainingConfig,
)
from research.data.synthetic import task_examples
from research.evaluation.held_out import held_out_measures
from research.models import language_model
from research.plan import decode_state_bytes, model_cost, run_cost
from research.sharding import make_mesh
from research.training.objective import language_modelling
from research.training.step import gradients, make_program

PATTERNS = (
    "attention:mlp -> attention, cross_attention:mlp",
    "lstm -> lstm",
    "gru -> gru:mlp",  # an mlp at the top of this encoder would be dead: only the state is read
    "lstm -> lstm_additive",
    "gru -> gru_multiplicative:mlp",
    "attention | gru -> attention | gru_additive",
)
SOURCE, TARGET = 7, 5
REORDERED = {"rtol": 2e-5, "atol": 2e-5}  # float32 sums of a few hundred terms of order one, in another order
LOGITS = jax.jit(language_model.logits, static_argnums=0)
STEP = jax.jit(language_model.decode_step, static_argnums=0)


def _model(pattern: str, **fields) -> ModelConfig:
    layers = len(pattern.rpartition("->")[2].replace("|", ",").split(","))
    model = ModelConfig(
        vocab_size=29,
        width=12,
        depth=2 if layers == 1 else layers,
        pattern=pattern,
        attention=AttentionConfig(2, 1, 6),
        mlp=MlpConfig(20),
        source_length=SOURCE,
    )
    return replace(model, **fields)


def _inputs(model: ModelConfig, seed: int = 1):
    keys = jax.random.split(jax.random.key(seed))
    tokens = jax.random.randint(keys[0], (2, TARGET), 0, model.vocab_size)
    sources = jax.random.randint(keys[1], (2, SOURCE), 0, model.vocab_size)
    return tokens, sources, jnp.array([[True] * SOURCE, [True] * 4 + [False] * 3])


@pytest.mark.parametrize("pattern", PATTERNS)
def test_targets_see_the_source_but_neither_padding_nor_the_future(pattern):
    model = _model(pattern)
    params, (tokens, sources, mask) = perturbed(model), _inputs(model)
    whole = LOGITS(model, params, tokens, None, (sources, mask))
    later = tokens.at[:, 3:].set((tokens[:, 3:] + 1) % model.vocab_size)
    np.testing.assert_array_equal(LOGITS(model, params, later, None, (sources, mask))[:, :3], whole[:, :3])
    padding = sources.at[1, 4:].set((sources[1, 4:] + 1) % model.vocab_size)
    np.testing.assert_array_equal(LOGITS(model, params, tokens, None, (padding, mask)), whole)
    for at in range(4):
        other = sources.at[:, at].set((sources[:, at] + 1) % model.vocab_size)
        assert (LOGITS(model, params, tokens, None, (other, mask)) != whole).any(axis=(1, 2)).all()


@pytest.mark.parametrize("pattern", PATTERNS)
def test_decoding_from_the_state_equals_the_whole_target(pattern):
    model = _model(pattern)
    params, (tokens, sources, mask) = perturbed(model), _inputs(model)
    whole = LOGITS(model, params, tokens, None, (sources, mask))
    states = language_model.init_states(model, 2, TARGET)
    logits, states = STEP(model, params, tokens[:, :2], states, None, (sources, mask))
    np.testing.assert_allclose(logits, whole[:, 1], **REORDERED)
    for t in range(2, TARGET):
        logits, states = STEP(model, params, tokens[:, t : t + 1], states)
        np.testing.assert_allclose(logits, whole[:, t], **REORDERED)


@pytest.mark.parametrize("pattern", PATTERNS[:5])
def test_scanned_and_written_out_are_one_function(pattern):
    written = _model(pattern, depth=4)
    scanned = replace(written, scan_layers=True)
    params, (tokens, sources, mask) = perturbed(written), _inputs(written)

    def stacked(tree):
        periods = [tree.pop(f"period{i}") for i in range(len([key for key in tree if key.startswith("period")]))]
        return {**tree, "periods": jax.tree.map(lambda *leaves: jnp.stack(leaves), *periods)}

    expected = LOGITS(written, params, tokens, None, (sources, mask))
    together = stacked({**params, "encoder": stacked({**params["encoder"]})})
    np.testing.assert_allclose(LOGITS(scanned, together, tokens, None, (sources, mask)), expected, **REORDERED)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("fields", [{}, {"max_positions": 8, "embedding_norm": True, "tied_embeddings": True}])
def test_counts_equal_leaves_jaxpr_and_states(pattern, fields):
    model = _model(pattern, **fields)
    params = language_model.unbox(language_model.abstract(model))
    assert model_cost(model, TARGET).params == sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
    batch = {
        name: jax.ShapeDtypeStruct((3, length), kind)
        for name, length, kind in (
            ("inputs", TARGET, jnp.int32),
            ("targets", TARGET, jnp.int32),
            ("weights", TARGET, jnp.float32),
            ("sources", SOURCE, jnp.int32),
            ("source_weights", SOURCE, jnp.float32),
        )
    }
    config = _run(model)
    counted = jaxpr_flops.count(
        lambda p, b: gradients(language_modelling(config), config.training, p, b), params, batch
    )
    assert counted == 3 * model_cost(model, TARGET).training_flops_per_sequence
    of_length = model_cost(model, config.training.sequence_length)
    assert run_cost(config).flops_per_step == 4 * of_length.training_flops_per_sequence
    states = jax.eval_shape(lambda: language_model.init_states(model, 1, TARGET))
    arrays = [leaf for leaf in jax.tree.leaves(states) if leaf.dtype == jnp.float32]
    assert decode_state_bytes(model, TARGET) == sum(4 * math.prod(leaf.shape) for leaf in arrays)


def _run(model: ModelConfig, **training) -> RunConfig:
    task = TaskConfig("copy", lengths=(2, SOURCE), evaluated=(2, SOURCE), symbols=model.vocab_size - 3)
    length = task.sequence_length(encoder_decoder=True)
    return RunConfig(
        model=model,
        task=task,
        optimizer=AdamWConfig(learning_rate=1e-2),
        training=TrainingConfig(**{"steps": 40, "batch_size": 4, "sequence_length": length, **training}),
        evaluation=EvaluationConfig(tokens=64, batch_size=8),
    )


@pytest.mark.parametrize("pattern", ["lstm -> lstm_additive", PATTERNS[0]])
def test_training_lowers_the_loss_and_measures_every_length(pattern):
    config = _run(_model(pattern), batch_size=8)
    examples, mesh = task_examples(config), make_mesh(config.mesh)
    with jax.set_mesh(mesh):
        program = make_program(config, mesh, language_modelling(config))
        state, losses = program.init(), []
        for step in range(config.training.steps):
            state, measured = program.train(state, examples.batch(step, 0, 1), program.numbers)
            losses.append(float(measured["loss_nats"]))
        measures = held_out_measures(program, state.params, examples)
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.1
    for name in ("loss_nats", "token_accuracy", "exact_match"):
        assert {name, f"{name}_copy_2", f"{name}_copy_7"} <= set(measures)
    assert "bits_per_byte" not in measures


def test_a_decoder_that_starts_from_the_encoder_must_face_one_like_it():
    with pytest.raises(ConfigError, match=r"layer 0 of the decoder, 'lstm', starts from the final state of layer 0"):
        language_model.abstract(_model("attention -> lstm"))
    with pytest.raises(ConfigError, match=r"layer 1 of the decoder, 'lstm'.*which is not there"):
        language_model.abstract(_model("lstm -> lstm", encoder_depth=1))

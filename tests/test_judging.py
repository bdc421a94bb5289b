"""Objectives that judge rows: they are their plain formulas, learn a planted rule, and count what they execute."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import jaxpr_flops
import numpy as np
import pytest
from labelled_rows import MARKERS, labelled_examples, labelled_run, rows

from research.config import (
    CheckpointConfig,
    ClassificationConfig,
    ConfigError,
    ExamplesConfig,
    HeadsConfig,
    LanguageModellingConfig,
    LoggingConfig,
    MeshConfig,
    RunConfig,
    VerifierConfig,
    fingerprint,
    override,
)
from research.evaluation.held_out import held_out_measures
from research.models import language_model
from research.plan import executed_cost, run_cost
from research.runs import Status, open_run
from research.sharding import make_mesh
from research.training import metrics
from research.training.checkpoint import Checkpoints
from research.training.feed import global_batch
from research.training.loop import train
from research.training.objective import objective_of
from research.training.objectives.verifier import RANK_BINS, estimates, judged_measures, judgements
from research.training.session import Run
from research.training.step import gradients, make_program

KINDS = {
    "classification": ClassificationConfig(),
    "squared": VerifierConfig(language_weight=0.5),
    "logistic": VerifierConfig("logistic", language_weight=0.0),
}


def _plain(config, params, batch):
    """The objective as its definition has it, row by row and token by token."""
    logits_BLV = language_model.logits(config.model, params, batch["inputs"])
    scores_BL = language_model.scores(config.model, params, batch["inputs"])
    classes_BC = language_model.class_logits(config.model, params, batch["inputs"], batch["label_weights"] > 0)
    total = jnp.zeros(())
    for row, label in enumerate(batch["labels"]):
        if config.objective.name == "classification":
            total -= jnp.log(jax.nn.softmax(classes_BC[row])[label])
            continue
        for at in range(batch["inputs"].shape[1]):
            if batch["label_weights"][row, at]:
                right = jax.nn.sigmoid(scores_BL[row, at])
                odds = -jnp.log(right if label else 1 - right)
                total += odds if config.objective.loss == "logistic" else (scores_BL[row, at] - label) ** 2
            if batch["weights"][row, at]:
                nats = -jnp.log(jax.nn.softmax(logits_BLV[row, at])[batch["targets"][row, at]])
                total += config.objective.language_weight * nats
    judged = len(batch["labels"]) if config.objective.name == "classification" else batch["weights"].sum()
    return total / judged


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_the_plain_formula_in_any_number_of_microbatches(kind):
    config = labelled_run(KINDS[kind], batch_size=4, sequence_length=8)
    params = language_model.init(config.model, jax.random.key(0))
    batch = rows(4, 8, config.objective.labels(config.model), (7,))
    expected = jax.jit(jax.grad(lambda p: _plain(config, p, batch)))(params)
    assert {name for name, leaf in expected.items() if name.endswith("head") and np.any(leaf)} == {
        "classification": {"class_head"}, "squared": {"scalar_head", "head"}, "logistic": {"scalar_head"}
    }[kind]  # fmt: skip
    for parts in (1, 4):
        training = replace(config.training, microbatches=parts)
        found = jax.jit(lambda p, training=training: gradients(objective_of(config), training, p, batch)[0])(params)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6), found, expected)


@pytest.mark.parametrize("kind", ["classification", "squared"])
def test_what_a_step_executes_is_counted_and_heads_that_it_leaves_alone_are_not(kind):
    config = labelled_run(KINDS[kind], batch_size=4, steps=7)
    params = language_model.unbox(language_model.abstract(config.model))
    batch = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, rows(4, 16, 2, (0,))))
    counted = jaxpr_flops.count(lambda p, b: gradients(objective_of(config), config.training, p, b), params, batch)
    assert 7 * counted == executed_cost(config, "cpu").executed_flops == run_cost(config).flops
    words = replace(config, objective=LanguageModellingConfig())
    D, V, L = config.model.width, config.model.vocab_size, 16
    heads = {"classification": 2 * D * MARKERS - 2 * L * D * V, "squared": 2 * L * D}[kind]
    assert run_cost(config).flops - run_cost(words).flops == 7 * 4 * 3 * heads


def _losses(config, mesh_config, steps=4):
    devices = jax.devices()[:1] if mesh_config == MeshConfig(data=1) else None
    mesh, examples, found = make_mesh(mesh_config, devices), labelled_examples(config), []
    with jax.set_mesh(mesh):
        program = make_program(config, mesh, objective_of(config))
        state = program.init()
        for step in range(steps):
            batch = global_batch(config, examples, step, program.batch_sharding)
            state, measured = program.train(state, batch, program.numbers)
            found.append([float(measured[name]) for name in ("objective_nats", "gradient_norm", "accuracy")])
        measures = held_out_measures(program, state.params, examples)
    return np.array(found), measures


@pytest.mark.parametrize("kind", ["classification", "squared"])
def test_a_mesh_changes_nothing_beyond_rounding(kind):
    config = labelled_run(KINDS[kind])
    alone, measures = _losses(config, MeshConfig(data=1))
    split, others = _losses(config, MeshConfig(data=2, tensor=2, sequence=2))
    np.testing.assert_allclose(split, alone, rtol=1e-5)
    assert others.keys() == measures.keys()
    for name, value in measures.items():
        assert others[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name


def _train(config, runs_dir, stop_at=None):
    folder, seen = open_run(runs_dir, config), [0]
    (status,) = train(
        [Run(config, folder, labelled_examples(config))],
        objective=objective_of,
        evaluate=held_out_measures,
        on_progress=lambda _, step, loss: seen.append(step),
        should_stop=lambda: stop_at is not None and seen[-1] >= stop_at,
    )
    mesh = make_mesh(config.mesh)
    with jax.set_mesh(mesh), Checkpoints(folder.checkpoints_path, config.checkpoint) as checkpoints:
        state, _ = checkpoints.restore(make_program(config, mesh, objective_of(config)).abstract_state)
    return folder, status, jax.device_get(state)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_planted_rule_is_learnt_and_resuming_is_bit_identical(kind, tmp_path):
    config = labelled_run(KINDS[kind], steps=120, batch_size=32)
    config = replace(
        override(config, ["optimizer.learning_rate=1e-2"]),
        logging=LoggingConfig(every=1),
        checkpoint=CheckpointConfig(every=1000),
    )
    folder, status, state = _train(config, tmp_path / "straight")
    assert status == Status.DONE
    result = folder.result()
    assert result["accuracy"] == result["accuracy_examples"] > 0.95
    if kind == "classification":
        assert result["loss_nats"] < 0.3 and result["brier"] < 0.2  # a guess has 1.1 and 0.67
    else:
        assert result["auc"] > 0.98 and result["calibration_error"] < 0.1 and result["verifier_loss"] < 0.15
    assert _train(config, tmp_path / "parts", stop_at=50)[1] == Status.PARTIAL
    again, status, other = _train(config, tmp_path / "parts")
    assert status == Status.DONE
    jax.tree.map(np.testing.assert_array_equal, other, state)
    lines = [[line for line in metrics.read(one.metrics_path) if line["kind"] == "train"] for one in (folder, again)]
    assert lines[0] == lines[1]


def test_measures_of_a_verifier_are_what_they_are_called():
    """Against every pair of rows, and bins made by numpy."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 400)
    scores = rng.normal(labels - 0.3, 1.0).astype(np.float32)
    weights = rng.integers(0, 2, 400)
    for loss in ("squared_error", "logistic"):
        estimate, place = estimates(loss, jnp.asarray(scores))
        total = jax.device_get(judgements(estimate, place, jnp.asarray(labels, jnp.float32), jnp.asarray(weights)))
        found = judged_measures(total)
        kept = weights > 0
        chance = np.clip(scores, 0, 1) if loss == "squared_error" else 1 / (1 + np.exp(-scores))
        chance, label, score = chance[kept], labels[kept], scores[kept]
        assert found["accuracy"] == pytest.approx(np.mean((chance > 0.5) == label))
        bins = np.minimum((chance * 15).astype(int), 14)
        gaps = [abs(np.sum((chance - label)[bins == i])) for i in range(15)]
        assert found["calibration_error"] == pytest.approx(sum(gaps) / len(label), rel=1e-4)
        above = score[label == 1][:, None] - score[label == 0][None]
        assert found["auc"] == pytest.approx(np.mean(above > 0), abs=2 / RANK_BINS)
    one = jax.device_get(judgements(jnp.array([0.9, 0.5]), jnp.array([0.9, 0.5]), jnp.ones(2), jnp.ones(2)))
    assert judged_measures(one).keys() == {"accuracy", "calibration_error"}  # no pair to rank
    assert judged_measures(one)["accuracy"] == 0.5  # one half says neither


def test_a_head_that_the_model_lacks_is_asked_for():
    for name, field in (("classification", "classes"), ("verifier", "scalar")):
        with pytest.raises(ConfigError, match=rf"model.heads.{field} = .*objective '{name}'.* Fix: set it to"):
            override(RunConfig(), [f"objective.name={name}"])
    with pytest.raises(ConfigError, match=r"objective.loss = 'hinge': must be one of 'squared_error', 'logistic'"):
        VerifierConfig("hinge")
    model = replace(RunConfig().model, heads=HeadsConfig(classes=2))
    with pytest.raises(ConfigError, match=r"objective.name = 'classification': reads a label of each row.*`examples`"):
        replace(RunConfig(), model=model, objective=ClassificationConfig())
    with pytest.raises(ConfigError, match=r"training.z_loss = 0.1: is of next-token logits"):
        override(labelled_run(ClassificationConfig()), ["training.z_loss=0.1"])


def test_every_number_of_an_objective_names_its_runs():
    model = replace(RunConfig().model, heads=HeadsConfig(True, 3))
    examples = ExamplesConfig(sha256="0" * 64, path="examples.jsonl")
    base = replace(RunConfig(), model=model, examples=examples)
    runs = [replace(base, objective=kind) for kind in (*KINDS.values(), VerifierConfig())]
    assert len({fingerprint(run) for run in runs}) == len(runs)

"""Runs that start from another's parameters: which these are, what is fresh, and which parents are refused."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from labelled_rows import MARKERS, labelled_examples, labelled_run
from synthetic_tokens import synthetic_examples, tiny_run

from research.config import (
    CheckpointConfig,
    ConfigError,
    HeadsConfig,
    LoggingConfig,
    ParentConfig,
    RunConfig,
    ScheduleFreeConfig,
    StartConfig,
    VerifierConfig,
    fingerprint,
    override,
    program_of,
    run_name,
)
from research.evaluation.held_out import held_out_measures
from research.runs import Status, open_run
from research.runs.table import collect
from research.sharding import make_mesh
from research.training import metrics
from research.training.checkpoint import Checkpoints
from research.training.loop import train
from research.training.objective import objective_of
from research.training.parents import parameters_of_parent
from research.training.session import Run
from research.training.step import abstract_state, make_program

PARENT = replace(tiny_run(steps=4), logging=LoggingConfig(every=1), checkpoint=CheckpointConfig(also_at=(2,)))


def child_of(parent, run=None, **fields):
    """A verifier that starts from the parent: its model with heads, other data, other optimizer and steps."""
    config = labelled_run(VerifierConfig(), steps=3)
    named = ParentConfig(**{"fingerprint": fingerprint(parent), "run": run or run_name(parent), **fields})
    config = replace(config, parent=named, logging=LoggingConfig(every=1))
    return override(config, ["optimizer.name=lion", "training.seed=5"])


def _train(config, runs_dir, stop_at=None):
    folder, seen = open_run(runs_dir, config), [0]
    examples = synthetic_examples(config) if config.examples is None else labelled_examples(config)
    (status,) = train(
        [Run(config, folder, examples)],
        objective=objective_of,
        evaluate=held_out_measures,
        on_progress=lambda _, step, loss: seen.append(step),
        should_stop=lambda: stop_at is not None and seen[-1] >= stop_at,
    )
    return folder, status


def _state(folder, config, step=None):
    mesh = make_mesh(config.mesh)
    with jax.set_mesh(mesh), Checkpoints(folder.checkpoints_path, config.checkpoint) as checkpoints:
        return jax.device_get(checkpoints.restore_step(step or config.training.steps, abstract_state(config, mesh)))


@pytest.fixture(scope="module")
def runs_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    assert _train(PARENT, folder)[1] == Status.DONE
    return folder


def _inherited(config, runs_dir):
    mesh = make_mesh(config.mesh)
    with jax.set_mesh(mesh):
        return jax.device_get(parameters_of_parent(config, open_run(runs_dir, config), mesh))


@pytest.mark.parametrize("step", [None, 2])
def test_a_child_has_the_parents_parameters_fresh_heads_and_a_fresh_optimizer(runs_dir, step):
    config = child_of(PARENT, step=step)
    expected = _state(open_run(runs_dir, PARENT), PARENT, step).params
    inherited = _inherited(config, runs_dir)
    jax.tree.map(np.testing.assert_array_equal, inherited, expected)
    mesh = make_mesh(config.mesh)
    with jax.set_mesh(mesh):
        program = make_program(config, mesh, objective_of(config))
        state, fresh = program.init(5, inherited), program.init(5)
    heads = {"scalar_head": (16,), "class_head": (16, MARKERS)}
    assert {name: state.params[name].shape for name in state.params if name not in expected} == heads
    for name in heads:
        np.testing.assert_array_equal(state.params[name], fresh.params[name])
    jax.tree.map(np.testing.assert_array_equal, {name: state.params[name] for name in expected}, expected)
    jax.tree.map(np.testing.assert_array_equal, state.moments, fresh.moments)
    assert int(state.step) == 0
    jax.tree.map(lambda a, b: a.sharding == b.sharding or pytest.fail(str(a.sharding)), state, program.abstract_state)


def test_a_child_trains_its_own_steps_and_its_row_names_the_parent(runs_dir):
    config = child_of(PARENT)
    folder, status = _train(config, runs_dir)
    assert status == Status.DONE
    lines = [line for line in metrics.read(folder.metrics_path) if line["kind"] == "train"]
    assert [line["step"] for line in lines] == [1, 2, 3]
    table = collect([PARENT, config], runs_dir).set_index("fingerprint")
    assert table["stage"].to_dict() == {fingerprint(PARENT): "pre_training", fingerprint(config): "fine_tuning"}
    assert table["parent"][fingerprint(config)] == fingerprint(PARENT)
    assert table["parent"].isna()[fingerprint(PARENT)]
    assert table["tokens"][fingerprint(config)] == 3 * 8 * 16  # its own steps'


@pytest.mark.slow
def test_a_child_stopped_and_resumed_is_bit_identical(runs_dir, tmp_path):
    """The second time from its own checkpoint, and not from the parent's again."""
    path = str(open_run(runs_dir, PARENT).path.resolve())
    config = child_of(PARENT, run=path)
    whole, _ = _train(config, tmp_path / "whole")
    assert _train(config, tmp_path / "parts", stop_at=2)[1] == Status.PARTIAL
    parts, status = _train(config, tmp_path / "parts")
    assert status == Status.DONE
    jax.tree.map(np.testing.assert_array_equal, _state(parts, config), _state(whole, config))


@pytest.mark.slow
def test_what_a_schedule_free_parent_hands_on_is_what_it_is_measured_by(tmp_path):
    parent = replace(PARENT, optimizer=ScheduleFreeConfig())
    folder, _ = _train(parent, tmp_path)
    config = child_of(parent)
    mesh, state = make_mesh(parent.mesh), _state(folder, parent)
    with jax.set_mesh(mesh):
        expected = jax.device_get(make_program(parent, mesh, objective_of(parent)).evaluated(state))
    jax.tree.map(np.testing.assert_array_equal, _inherited(config, tmp_path), expected)
    assert np.any(expected["embedding"] != state.params["embedding"])


def test_where_a_parent_lies_is_no_part_of_the_name_and_which_it_is_is(runs_dir):
    config = child_of(PARENT)
    elsewhere = replace(config, parent=replace(config.parent, run="elsewhere"))
    assert fingerprint(elsewhere) == fingerprint(config)
    others = [replace(config.parent, **{k: v}) for k, v in (("step", 2), ("fingerprint", "0"), ("stage", "judging"))]
    runs = [config, replace(config, parent=None), *(replace(config, parent=other) for other in others)]
    assert len({fingerprint(run) for run in runs}) == 5
    assert program_of(config) == program_of(runs[1])  # one compiled program for children of many parents
    assert RunConfig().stage == "pre_training" and runs[-1].stage == "judging"


@pytest.mark.parametrize(
    ("assignments", "words"),
    [
        (["parent.run=nowhere"], r"parent.run = 'nowhere': is no run in .*, nor the folder of one. Fix: train it"),
        (["parent.step=3"], r"parent.step = 3: is no checkpoint of tr.*, which has \[2, 4\]. Fix: train that run"),
        (["parent.fingerprint=abc"], r"parent.fingerprint = 'abc': is not that of tr\S+, which is \w{12}"),
        (["model.depth=3"], r"parent.run = 'tr.*': is of another model: they differ in model.depth. Fix: use the"),
    ],
)
def test_a_parent_that_is_none_is_refused_in_words(runs_dir, assignments, words):
    with pytest.raises(ConfigError, match=words):
        _inherited(override(child_of(PARENT), assignments), runs_dir)


def test_a_parent_of_another_tokenizer_is_refused(tmp_path):
    many = ["data.vocab_size=400", "model.vocab_size=400"]
    parent = override(PARENT, many)
    open_run(tmp_path, parent)
    with pytest.raises(ConfigError, match=r"parent.run = 'tr.*': was trained on ids of another tokenizer. Fix: use"):
        _inherited(override(child_of(parent), [*many, "data.tokenizer=sentencepiece"]), tmp_path)


def test_a_head_that_the_parent_has_is_kept_as_it_is(tmp_path):
    """No run is trained here: what is refused is refused before its checkpoints are looked at."""
    parent = replace(PARENT, model=replace(PARENT.model, heads=HeadsConfig(classes=5)))
    open_run(tmp_path, parent)
    with pytest.raises(ConfigError, match=r"is of another model: they differ in model.heads.classes"):
        _inherited(child_of(parent), tmp_path)
    plain = replace(child_of(parent), model=PARENT.model, objective=PARENT.objective)
    with pytest.raises(ConfigError, match=r"is of another model: they differ in model.heads.classes"):
        _inherited(plain, tmp_path)


def test_a_start_and_a_parent_are_not_both(runs_dir):
    with pytest.raises(ConfigError, match=r"start.run = 'a': goes on with another run's optimizer, and `parent`"):
        replace(child_of(PARENT), start=StartConfig("a", 1))
    with pytest.raises(ConfigError, match=r"parent.stage = 'pre_training': must be a plain identifier other than"):
        ParentConfig("0", "a", stage="pre_training")

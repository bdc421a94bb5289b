"""Synthetic tasks: what an example holds, and that batches depend on (seed, step) alone."""

from dataclasses import replace

import numpy as np
import pytest

from research.config import ConfigError, EvaluationConfig, ModelConfig, RunConfig, TaskConfig, TrainingConfig
from research.data.synthetic import BEGIN, END, PAD, task_examples

TASK = TaskConfig("reverse", lengths=(3, 6), evaluated=(3, 6), symbols=9)


def _run(task=TASK, pattern="attention:mlp", **fields):
    pairs = "->" in pattern
    return RunConfig(
        model=ModelConfig(
            vocab_size=task.vocab_size, pattern=pattern, source_length=task.lengths[1] if pairs else None
        ),
        task=task,
        training=TrainingConfig(batch_size=8, sequence_length=task.sequence_length(pairs)),
        evaluation=EvaluationConfig(tokens=1_000, batch_size=8),
        **fields,
    )


@pytest.mark.parametrize("name", ["copy", "reverse"])
def test_an_encoder_decoder_reads_the_source_apart(name):
    run = _run(
        replace(TASK, name=name),
        "attention:mlp -> attention, attention:mlp",
    )
    for batch in (task_examples(replace(run, model=replace(run.model))).batch(step, 0, 1) for step in range(3)):
        for i in range(8):
            source = batch["sources"][i][batch["source_weights"][i] > 0]
            assert 3 <= len(source) <= 6 and source.min() >= 3
            wanted = [*(source if name == "copy" else source[::-1]), END]
            np.testing.assert_array_equal(batch["targets"][i][batch["weights"][i] > 0], wanted)
            np.testing.assert_array_equal(batch["inputs"][i][: len(source) + 1], [BEGIN, *wanted[:-1]])
            assert (batch["sources"][i][len(source) :] == PAD).all()


def test_a_decoder_only_model_reads_the_source_before_the_target():
    batch = task_examples(_run()).batch(0, 0, 1)
    for inputs, targets, weights in zip(batch["inputs"], batch["targets"], batch["weights"]):
        length = int(weights.sum()) - 1
        source = inputs[:length]
        assert inputs[length] == BEGIN
        np.testing.assert_array_equal(targets[weights > 0], [*source[::-1], END])
        np.testing.assert_array_equal(inputs[1 : 2 * length + 1], targets[: 2 * length])
        assert (weights[:length] == 0).all() and (inputs[2 * length + 1 :] < 3).all()


def test_recall_asks_every_key_once_for_its_value():
    task = TaskConfig("recall", lengths=(2, 6), evaluated=(6,), symbols=20, recall_length=40)
    for step in range(5):
        batch = task_examples(_run(task)).batch(step, 0, 1)
        for inputs, targets, weights in zip(batch["inputs"], batch["targets"], batch["weights"]):
            count = int(weights.sum())
            pairs = dict(inputs[: 2 * count].reshape(count, 2))
            assert 2 <= count <= 6 and len(pairs) == count
            asked = np.flatnonzero(weights)
            assert asked.min() >= 2 * count and sorted(inputs[asked]) == sorted(pairs)
            assert [pairs[key] for key in inputs[asked]] == list(targets[asked])


def test_batches_depend_on_seed_and_step_alone_and_split_over_hosts():
    examples = task_examples(_run())
    whole = examples.batch(7, 0, 1)
    for name, array in task_examples(_run()).batch(7, 0, 1).items():
        np.testing.assert_array_equal(array, whole[name])
        np.testing.assert_array_equal(np.concatenate([examples.batch(7, i, 4)[name] for i in range(4)]), array)
    assert (examples.batch(8, 0, 1)["inputs"] != whole["inputs"]).any()


def test_held_out_examples_have_the_length_of_their_domain():
    examples = task_examples(_run())
    assert list(examples.domains) == ["reverse_3", "reverse_6"]
    held_out = examples.validation("reverse_6")
    assert all((batch["weights"].sum(axis=1) == 7).all() for batch in held_out.batches)
    assert held_out.tokens == 7 * 8 * len(held_out.batches) and held_out.text_bytes is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"lengths": (6, 3)}, r"task.lengths = \(6, 3\): must be 1 <= shortest <= longest"),
        ({"evaluated": (7,)}, r"task.evaluated = \(7,\): must be lengths from 1 to the longest, 6"),
        ({"name": "recall", "symbols": 11}, r"task.symbols = 11: must be at least 2 \* 6"),
        ({"name": "recall", "symbols": 12, "recall_length": 23}, r"task.recall_length = 23: must be at least 4 \* 6"),
    ],
)
def test_tasks_that_cannot_be_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        replace(TASK, **fields)


def test_runs_whose_shape_is_not_the_tasks_are_refused():
    with pytest.raises(ConfigError, match=r"training.sequence_length = 128: must be 13"):
        replace(_run(), training=TrainingConfig())
    with pytest.raises(
        ConfigError, match=r"model.pattern = 'attention:mlp -> attention:mlp': an encoder-decoder needs"
    ):
        RunConfig(model=ModelConfig(pattern="attention:mlp -> attention:mlp", source_length=6))
    with pytest.raises(ConfigError, match=r"model.source_length = None: must be set for an encoder-decoder"):
        ModelConfig(pattern="attention:mlp -> attention:mlp")

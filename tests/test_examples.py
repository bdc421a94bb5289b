"""Examples of prompt and completion from a file: what is laid out, what is refused, and a run that trains on them."""

import json
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console
from synthetic_tokens import tiny_run

from research.command.verbs import _prepare
from research.config import (
    ClassificationConfig,
    ConfigError,
    DataConfig,
    HeadsConfig,
    LoggingConfig,
    RunConfig,
    TaskConfig,
    VerifierConfig,
    fingerprint,
)
from research.data.errors import DataError
from research.data.example_file import examples_of, read_examples
from research.data.example_rows import example_batches
from research.execution.trainer import train_runs
from research.runs import Status, open_run

LINES = [{"prompt": f"{i}+1=", "completion": str(i + 1), "label": i % 2, "template": f"t{i % 7}"} for i in range(60)]


def written(tmp_path, lines=LINES, name="examples.jsonl"):
    path = tmp_path / name
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def run_on(examples, objective=None, **training):
    config = tiny_run(**{"max_epochs": 100.0, **training})
    model = replace(config.model, heads=HeadsConfig(scalar=True, classes=3))
    return replace(config, model=model, examples=examples, objective=objective or config.objective)


def text(ids):
    return bytes(int(i) - 3 for i in ids if i >= 3).decode()


def test_a_row_is_one_example_of_which_the_completion_and_its_end_are_predicted_and_judged(tmp_path):
    examples = example_batches(run_on(examples_of(written(tmp_path)), VerifierConfig()))
    batch = examples.batch(0, 0, 1)
    assert {name: (array.shape, array.dtype.name) for name, array in batch.items()} == {
        "inputs": ((8, 16), "int32"), "targets": ((8, 16), "int32"), "weights": ((8, 16), "float32"),
        "labels": ((8,), "int32"), "label_weights": ((8, 16), "float32"),
    }  # fmt: skip
    for row in range(8):
        inputs, targets, weights, judged = (batch[k][row] for k in ("inputs", "targets", "weights", "label_weights"))
        prompt, _, completion = text(inputs).partition("=")
        assert inputs[0] == 1 and 1 not in inputs[1 : 1 + len(prompt)]  # after the end of another document
        assert int(completion) == int(prompt.removesuffix("+1")) + 1
        assert batch["labels"][row] == int(prompt.removesuffix("+1")) % 2
        assert text(targets[weights > 0]) == text(inputs[judged > 0]) == completion
        assert targets[weights > 0][-1] == inputs[judged > 0][-1] == 1 and np.all(weights[1:] >= judged[1:] - 1)
        np.testing.assert_array_equal(inputs[1:], targets[:-1])
        assert len(inputs[judged > 0]) == len(completion) + 1 == weights.sum()


def test_every_example_is_read_once_an_epoch_and_the_sides_share_no_prompt(tmp_path):
    config = run_on(examples_of(written(tmp_path), held_out_fraction=0.3), batch_size=4)
    examples, held_out = example_batches(config), []
    for batch in examples.validation("examples").batches:
        held_out += [text(row) for row, weights in zip(batch["inputs"], batch["weights"]) if weights.any()]
    size = 60 - len(held_out)
    assert 8 < len(held_out) < 28 and len(set(held_out)) == len(held_out)
    rows = [text(row) for step in range(size) for row in examples.batch(step, 0, 1)["inputs"]]
    first, second = rows[:size], rows[size : 2 * size]
    assert sorted(first) == sorted(second) != first != second
    assert sorted([*first, *held_out]) == sorted(f"{line['prompt']}{line['completion']}" for line in LINES)
    whole, parts = examples.batch(5, 0, 1), [examples.batch(5, i, 2) for i in range(2)]
    np.testing.assert_array_equal(whole["inputs"], np.concatenate([part["inputs"] for part in parts]))
    assert "labels" not in whole  # which language modelling does not read
    assert examples.validation("examples").text_bytes == sum(len(one.partition("=")[2]) for one in held_out)


def test_a_split_by_template_keeps_each_on_one_side(tmp_path):
    found = read_examples(examples_of(written(tmp_path), split_by="template", held_out_fraction=0.4), 2)
    sides = {(LINES[example.line - 1]["template"], example.is_held_out) for example in found}
    assert len(sides) == 7 and {side for _, side in sides} == {True, False}
    same = [{**line, "prompt": "one prompt"} for line in LINES]
    config = examples_of(written(tmp_path, same, "same.jsonl"), split_by="template", held_out_fraction=0.4)
    with pytest.raises(DataError, match=r"same.jsonl: line \d+: its prompt is that of line \d+, which is held out"):
        read_examples(config, None)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ({"prompt": "a", "completion": " "}, r"line 61: completion = ' ': must be a text that is not empty. Fix: give"),
        ({"prompt": "", "completion": "b", "label": 1}, r"line 61: prompt = ''"),
        ({"prompt": "a", "label": 1}, r"line 61: has no field 'completion'"),
        ({"prompt": "a", "completion": "b", "label": 2}, r"line 61: label = 2: must be one of the 2 labels.*0 to 1"),
        ({"prompt": "a", "completion": "b", "label": "yes"}, r"line 61: label = 'yes'"),
        ({"prompt": "a", "completion": "b"}, r"line 61: label = None"),
        ({"prompt": "a", "completion": "\ud800", "label": 1}, r"line 61: completion is no Unicode text"),
        ("{", r"line 61: is no JSON \(.*Fix: repair or delete it"),
        ("[1]", r"line 61: is list, no object"),
    ],
)
def test_a_bad_line_is_refused_by_file_and_number(tmp_path, line, words):
    with pytest.raises(DataError, match=rf"examples.jsonl: {words}"):
        read_examples(examples_of(written(tmp_path, [*LINES, line])), 2)


def test_true_and_false_are_labels_and_blank_lines_are_none(tmp_path):
    lines = ["", {"prompt": "a", "completion": "b", "label": True}, "", *LINES]
    assert [(one.line, one.label) for one in read_examples(examples_of(written(tmp_path, lines)), 2)][:2] == [
        (2, 1),
        (4, 0),
    ]


def test_a_file_that_changed_or_is_gone_is_refused_and_its_place_names_no_run(tmp_path):
    path = written(tmp_path)
    config = examples_of(path)
    moved = replace(config, path=str(path.rename(tmp_path / "moved.jsonl")))
    assert fingerprint(run_on(moved)) == fingerprint(run_on(config)) != fingerprint(tiny_run())
    with pytest.raises(DataError, match=r"examples.jsonl: there is no such file. Fix: copy it there"):
        read_examples(config, None)
    written(tmp_path, LINES[1:], "moved.jsonl")
    assert fingerprint(run_on(examples_of(moved.path))) != fingerprint(run_on(moved))
    with pytest.raises(DataError, match=r"moved.jsonl: has sha256 \w+, and examples.sha256 is \w+: it has changed"):
        read_examples(moved, None)


def test_examples_longer_than_a_sequence_are_counted_and_refused_or_left_out(tmp_path, caplog):
    long = {"prompt": "p" * 12, "completion": "ccc"}  # with its beginning and end one token more than a row
    path = written(tmp_path, [*LINES, long, {**long, "prompt": "p" * 19}])
    words = r"2 of 62 examples are longer than .*sequence_length = 16 tokens: the first in line 61 with 17, the longest"
    with pytest.raises(DataError, match=rf"{words} with 24. Fix: raise training.sequence_length, or set examples.too"):
        example_batches(run_on(examples_of(path)))
    examples = example_batches(run_on(examples_of(path, too_long="leave_out")))
    assert "2 of 62 examples" in caplog.text and "They are left out" in caplog.text
    assert not any("ppp" in text(row) for step in range(20) for row in examples.batch(step, 0, 1)["inputs"])
    with pytest.raises(DataError, match=r"no training example fits into training.sequence_length = 2"):
        example_batches(run_on(examples_of(path, too_long="leave_out"), sequence_length=2))


def test_what_does_not_go_together_is_refused(tmp_path):
    examples = examples_of(written(tmp_path))
    with pytest.raises(ConfigError, match=r"examples.sha256 = 'abc': must be the 64 lower-case hex digits"):
        replace(examples, sha256="abc")
    with pytest.raises(ConfigError, match=r"training.steps = 20: takes 160 examples, which is .* epochs of the \d+ in"):
        example_batches(run_on(examples, max_epochs=1.0))
    with pytest.raises(ConfigError, match=r"task = .*: must be none where `examples` is set"):
        replace(run_on(examples), task=TaskConfig("copy"))
    with pytest.raises(ConfigError, match=r"model.vocab_size = 264: must equal data.vocab_size"):
        replace(run_on(examples), data=DataConfig())
    with pytest.raises(DataError, match=r"only example is held out|no example is held out"):
        read_examples(examples_of(written(tmp_path, LINES[:1], "one.jsonl")), None)
    assert not run_on(examples).needs_token_files and not run_on(examples).reads_text
    assert RunConfig().needs_token_files and RunConfig().reads_text


def test_what_is_wrong_with_a_file_is_said_before_any_run_starts(tmp_path):
    config = run_on(examples_of(written(tmp_path, [*LINES, "{"])))
    with pytest.raises(DataError, match=r"line 61: is no JSON"):
        _prepare([config], tmp_path, Console())
    _prepare([run_on(examples_of(written(tmp_path)))], tmp_path, Console())


@pytest.mark.slow
def test_a_run_on_a_file_trains_by_its_name_alone(tmp_path):
    """A classifier of what the prompt asks for, through the trainer that workers call; no tensorflow, no token file."""
    kinds = ("up", "down", "left")
    rng = np.random.default_rng(0)
    lines = [
        {"prompt": f"{i:03d} {kinds[k]} ", "completion": "ok", "label": int(k)}
        for i, k in enumerate(rng.integers(0, 3, 400))
    ]
    config = run_on(examples_of(written(tmp_path, lines)), ClassificationConfig(), steps=80, batch_size=32)
    config = replace(config, optimizer=replace(config.optimizer, learning_rate=1e-2), logging=LoggingConfig(every=20))
    folder = open_run(tmp_path / "runs", config)
    assert train_runs([(config, folder)], lambda *progress: None, lambda: False) == [Status.DONE]
    result = folder.result()
    assert result["accuracy"] == result["accuracy_examples"] > 0.95
    assert json.loads((folder.path / "text.json").read_text()) == {"examples": config.examples.sha256}

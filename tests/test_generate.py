"""`isoflop generate`: a run's folder, here or copied, its vocabulary, and answers that are resumed line by line."""

import json
import re
import shutil
from dataclasses import replace

import jax
import jsonschema
import numpy as np
import pytest
import sentencepiece
from random_configs import drawn_by_numpy

from research.command.cli import main
from research.config import (
    AttentionConfig,
    ConfigError,
    DataConfig,
    MeshConfig,
    MlpConfig,
    ModelConfig,
    RunConfig,
    SourceConfig,
    TaskConfig,
    TrainingConfig,
    to_json,
)
from research.data import sentence_pieces
from research.data.errors import DataError
from research.generation.source import load
from research.generation.vocabulary import byte_vocabulary, sentence_piece_vocabulary, text_stream
from research.pretrained import write_checkpoint
from research.pretrained.settings import CheckpointError
from research.runs import open_run
from research.sharding import make_mesh
from research.training.checkpoint import Checkpoints
from research.training.objective import language_modelling
from research.training.step import make_program

MODEL = ModelConfig(width=16, depth=1, attention=AttentionConfig(2, 2, 8), mlp=MlpConfig(24))
RUN = RunConfig(
    experiment="asked",
    family="small",
    model=MODEL,
    data=DataConfig(sources=(SourceConfig("news", "ag_news_subset:1.0.0", text_feature="description"),)),
    training=TrainingConfig(steps=4, batch_size=8, sequence_length=32),
)
TEXTS = "a grin without a cat", "¿qué? – naïve ▁ 日本 🙂", ""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run's folder with checkpoints of steps 2 and 4, copied to another place than it was made in."""
    folder = open_run(tmp_path_factory.mktemp("runs"), RUN)
    program = make_program(RUN, make_mesh(MeshConfig(data=1), jax.devices()[:1]), language_modelling(RUN))
    with Checkpoints(folder.checkpoints_path, RUN.checkpoint) as checkpoints:
        for step in (2, 4):
            state = program.init(step)
            checkpoints.save(step, state, {})
            checkpoints.wait()
    copied = tmp_path_factory.mktemp("elsewhere") / "copy"
    shutil.move(folder.path, copied)
    return copied


def _answers(run, out, *options, tokens="6"):
    assert main(["generate", str(run), "--tokens", tokens, "--out", str(out), *options]) == 0
    return [json.loads(line) for line in out.read_text().splitlines()]


def test_a_copied_run_loads_at_the_checkpoint_that_is_named(run):
    newest, earlier = load(run), load(run, 2)
    assert (newest.name, earlier.name) == ("copy@4", "copy@2")
    assert newest.config == MODEL and len(newest.vocabulary.pieces) == MODEL.vocab_size
    program = make_program(RUN, make_mesh(MeshConfig(data=1), jax.devices()[:1]), language_modelling(RUN))
    for source, seed in ((newest, 4), (earlier, 2)):
        jax.tree.map(np.testing.assert_array_equal, source.params, program.init(seed).params)
    with pytest.raises(ConfigError, match=r"step = 3: is no checkpoint of this run, which has \[2, 4\]"):
        load(run, 3)


def test_answers_are_lines_that_are_resumed_without_repeating_or_losing_one(run, tmp_path):
    prompts, out = tmp_path / "prompts.jsonl", tmp_path / "out.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in ("one", "two words", "\U0001f642")))
    options = "--prompts", str(prompts), "--samples", "3", "--logprobs", "2", "--top-k", "40"
    whole = _answers(run, out, *options)
    assert [(line["number"], line["sample"]) for line in whole] == [(n, s) for n in range(3) for s in range(3)]
    for line in whole:
        assert len(line["tokens"]) == len(line["logprobs"]) == len(line["best"]) <= 6
        assert all(len(place) == 2 and place[0][1] >= place[1][1] for place in line["best"])
        assert line["text"] == byte_vocabulary().of_size(MODEL.vocab_size).decode(line["tokens"])
    lines = out.read_bytes().splitlines(keepends=True)
    out.write_bytes(b"".join(lines[:4]) + lines[4][:20])  # as a process that was killed leaves it
    assert _answers(run, out, *options) == whole
    assert _answers(run, out, *options) == whole
    other = tmp_path / "other.jsonl"
    told = ("number", "sample", "prompt", "text", "end", "tokens")  # log-probabilities are rounded by batch
    for found, line in zip(_answers(run, other, *options, "--batch", "2"), whole, strict=True):
        assert [found[name] for name in told] == [line[name] for name in told]
    assert main(["generate", str(run), *options, "--out", str(out), "--seed", "1", "--tokens", "6"]) == 2
    assert out.read_bytes() == b"".join(lines)


def test_a_stop_string_is_no_part_of_the_answer(run, tmp_path, capsys):
    free = _answers(run, tmp_path / "free.jsonl", "--prompt", "x", tokens="30")[0]
    whole = byte_vocabulary().of_size(MODEL.vocab_size).bytes_of(free["tokens"])
    stop = next(chr(byte) for byte in whole[1:] if 32 <= byte < 127)
    cut = _answers(run, tmp_path / "cut.jsonl", "--prompt", "x", "--stop", stop, tokens="30")[0]
    assert cut["end"] == "stop" and cut["text"] == whole[: whole.index(stop.encode())].decode("utf-8", "replace")
    capsys.readouterr()
    assert main(["generate", str(run), "--tokens", "30", "--prompt", "x", "--stop", stop]) == 0
    assert capsys.readouterr().out == "x" + cut["text"] + "\n"


SCHEMA = {"type": "object", "properties": {"cat": {"enum": ["grin", "\u65e5"]}, "n": {"type": "integer"}},
          "required": ["cat", "n"], "additionalProperties": False}  # fmt: skip
LARK = 'start: "SELECT " NAME (", " NAME)~0..2 " FROM cats"\nNAME: "paws" | "tail" | "grin"\n'


def _is_schema(text):
    jsonschema.validate(json.loads(text), SCHEMA)
    return True


@pytest.mark.parametrize(
    ("option", "value", "is_right"),
    [
        ("--json-schema", json.dumps(SCHEMA), _is_schema),
        ("--regex", "(yes|no), [0-9]{2}", lambda text: re.fullmatch("(yes|no), [0-9]{2}", text)),
        ("--grammar", LARK, lambda text: text.startswith("SELECT ") and text.endswith(" FROM cats")),
    ],
)
def test_what_a_grammar_holds_is_of_the_grammar(run, tmp_path, option, value, is_right):
    file = tmp_path / "grammar"
    file.write_text(value)
    options = "--prompt", "x", "--samples", "5", option, value if option == "--regex" else str(file)
    lines = _answers(run, tmp_path / "out.jsonl", *options, tokens="64")
    ended = [line for line in lines if line["end"] == "end"]
    assert len(ended) >= 3 and all(is_right(line["text"]) for line in ended)
    assert len({line["text"] for line in ended}) > 1
    for line in lines:  # a model that was not trained spreads its probability over all bytes
        assert len(line["removed_bits"]) == len(line["tokens"]) and max(line["removed_bits"]) > 1
    assert main(["generate", str(run), "--tokens", "64", *options[:4], "--out", str(tmp_path / "out.jsonl")]) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--top-p", "0", "--prompt", "x"), "sampling.top_p = 0.0: must be above 0"),
        ((), "--prompt = None: must be given, or else --prompts, not both"),
        (("--prompt", "x", "--samples", "2", "--temperature", "0"), "--samples = 2: would all be the same text"),
        (("--prompt", "x", "--logprobs", "2"), "--logprobs = 2: are written to a file alone"),
        (("--prompt", "x", "--stop", ""), "stop = '': must not be empty"),
        (("--prompt", "x", "--step", "3"), "step = 3: is no checkpoint of this run"),
        (("--prompt", "\ud83d"), "half of a surrogate pair"),
        (
            ("--prompt", "x", "--regex", "a", "--grammar", "g.lark"),
            "--json-schema = ['regex', 'grammar']: must be given",
        ),
        (("--prompt", "x", "--regex", "(a"), "--regex = '(a': is no regular expression at line 1, column 1: missing )"),
        (("--prompts", "nowhere.jsonl"), "nowhere.jsonl"),
    ],
)
def test_a_value_that_means_nothing_is_refused_in_words(run, options, message, capsys):
    assert main(["generate", str(run), *options]) == 2
    assert message in capsys.readouterr().err


def test_what_is_no_model_of_text_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="holds no config.json, so that it is neither a run nor a checkpoint"):
        load(tmp_path)
    (tmp_path / "config.json").write_text(to_json(RUN))
    with pytest.raises(ConfigError, match="holds no checkpoint"):
        load(tmp_path)
    pieces = replace(RUN.data, tokenizer="sentencepiece", vocab_size=512)
    (tmp_path / "config.json").write_text(to_json(replace(RUN, data=pieces, model=replace(MODEL, vocab_size=512))))
    with pytest.raises(ConfigError, match="its SentencePiece model is neither there nor in"):
        load(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(b"no model")
    with pytest.raises(DataError, match="is no SentencePiece model"):
        load(tmp_path)
    task = TaskConfig("copy", (1, 4), (4,))
    training = replace(RUN.training, sequence_length=task.sequence_length(False))
    (tmp_path / "config.json").write_text(to_json(replace(RUN, task=task, training=training)))
    with pytest.raises(ConfigError, match="task = 'copy': learned a synthetic task"):
        load(tmp_path)
    write_checkpoint(tmp_path / "theirs", "llama", MODEL, drawn_by_numpy(MODEL))
    with pytest.raises(CheckpointError, match="no tokenizer.json, without which its ids mean no text"):
        load(tmp_path / "theirs")


def test_bytes_are_ids_also_those_of_half_a_character():
    vocabulary = byte_vocabulary()
    for text in TEXTS:
        assert vocabulary.decode(vocabulary.encode(text)) == text
    half = "🙂".encode()[:2]
    assert vocabulary.bytes_of(vocabulary.encode(half.decode("utf-8", "surrogateescape"))) == half
    assert vocabulary.prompt("") == [1]


def test_sentence_pieces_write_the_text_they_were_made_of(tmp_path):
    file = tmp_path / "tokenizer.model"
    with open(file, "wb") as model:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(["the cat sat on the mat", "a cat and a mat"] * 50), model_writer=model,
            vocab_size=300, model_type="bpe", byte_fallback=True, normalization_rule_name="identity",
            add_dummy_prefix=False, remove_extra_whitespaces=False, allow_whitespace_only_pieces=True, pad_id=0,
            eos_id=1, unk_id=2, bos_id=-1, hard_vocab_limit=False, minloglevel=2,
        )  # fmt: skip
    vocabulary = sentence_piece_vocabulary(file)
    assert vocabulary.end_ids == vocabulary.begin_ids == (1,) and vocabulary.pieces[:3] == (None,) * 3
    for text in TEXTS:
        assert vocabulary.decode(vocabulary.encode(text)) == text
    assert len(vocabulary.encode("the cat sat")) < len("the cat sat")
    half = "cat 🙂".encode()[:6]
    assert vocabulary.bytes_of(vocabulary.encode(half.decode("utf-8", "surrogateescape"))) == half
    assert sentence_pieces.SPACE_MARK.encode() not in b"".join(piece or b"" for piece in vocabulary.pieces)


def test_a_stream_holds_back_a_character_until_it_is_whole():
    stream = text_stream()
    assert [stream(bytes([byte]), False) for byte in "a🙂".encode()] == ["a", "", "", "", "🙂"]
    assert stream("é".encode()[:1], True) == "\ufffd"

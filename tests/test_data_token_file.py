"""Token files on disk, written by hand: what is read, what is refused, and that a run keeps to its text."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from research.config import ConfigError, DataConfig, ModelConfig, RunConfig, SourceConfig, TrainingConfig
from research.data.batches import text_digests, text_examples
from research.data.describe import described
from research.data.errors import DataError
from research.data.prepare import prepare
from research.data.splitting import Seen, split
from research.data.token_file import (
    FORMAT,
    LENGTH_DTYPE,
    MANIFEST,
    TOKEN_BYTES,
    TRAIN,
    VALIDATION,
    TokenFile,
    files_of,
    folder_of,
    open_files,
    recipe,
    token_dtype,
)
from research.runs import open_run
from research.runs.text import check_text, record_text

LARGE = 70_000  # ids, more than uint16 holds
WEB, NEWS = SourceConfig("web", "web", 3.0), SourceConfig("news", "news/today", 1.0)
CONFIG = RunConfig(
    model=ModelConfig(vocab_size=LARGE),
    data=DataConfig((WEB, NEWS), tokenizer="sentencepiece", vocab_size=LARGE, train_tokens=1000, validation_tokens=50),
    training=TrainingConfig(steps=20, batch_size=4, sequence_length=8),
)


def write(data: DataConfig, source: SourceConfig, train: np.ndarray, ids: int = LARGE, model: str = "one") -> TokenFile:
    """What `packing` writes, for ids that no tokenizer made."""
    folder = folder_of(data, source)
    folder.mkdir(parents=True, exist_ok=True)
    train.astype(token_dtype(ids)).tofile(folder / TRAIN)
    train[:100].astype(token_dtype(ids)).tofile(folder / VALIDATION)
    np.ones(ids, LENGTH_DTYPE).tofile(folder / TOKEN_BYTES)
    side = {"met": 3, "documents": 3, "bytes": 900, "tokens": train.size, "longest_bytes": 400}
    manifest = {
        "format": FORMAT, "recipe": recipe(data, source), "tokenizer": {"sha256": model}, "vocab_size": ids,
        "eos_id": 1, "data_set": source.tfds, "files": files_of(folder),
        "documents": {"train": side, "validation": {**side, "met": 1, "documents": 1, "tokens": 100}, "empty": 2,
                      "repeated": 5, "is_read_to_end": True},
    }  # fmt: skip
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return TokenFile.open(folder)


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Both token files of CONFIG in a cache folder of the test's own."""
    monkeypatch.setenv("ISOFLOP_CACHE", str(tmp_path / "cache"))
    for source in (WEB, NEWS):
        write(CONFIG.data, source, np.arange(1200) + 68_000)
    return open_files(CONFIG.data)


def test_ids_beyond_16_bits_come_back(files):
    assert {file.train.dtype for file in files.values()} == {np.dtype("uint32")}
    assert [token_dtype(ids).itemsize for ids in (259, 65_536, 65_537)] == [2, 2, 4]
    inputs = text_examples(CONFIG, files).batch(0, 0, 1)["inputs"]
    assert inputs.dtype == np.int32 and inputs.min() >= 68_000 and set(np.diff(inputs).ravel()) == {1}


def test_a_prepared_mixture_is_used_without_what_it_was_made_from(files):
    """No data set `web` exists, so building would fail; each source has one line."""
    lines = []
    found = prepare(CONFIG.data, lines.append)
    assert {name: file.folder for name, file in found.items()} == {name: file.folder for name, file in files.items()}
    assert lines == described(CONFIG.data, found)
    assert lines[0].startswith("web: web, 75.00% of training, 1,200 tokens in 3 documents (0.0 MB); held out 25.00% of")
    assert lines[0].endswith("left out 2 empty and 5 repeated")


def test_a_key_says_what_decides_the_text_and_nothing_else():
    data = CONFIG.data
    same = [replace(data, train_tokens=5), replace(data, sources=(replace(WEB, rate=9.0, name="other"), NEWS))]
    assert {folder_of(data, WEB) for data in same} == {folder_of(data, WEB)}
    assert folder_of(replace(same[1], tokenizer_sources=(WEB,)), WEB) != folder_of(data, WEB)
    others = [replace(data, vocab_size=400), replace(data, validation_fraction=0.1), replace(data, sources=(WEB,))]
    assert len({folder_of(data, WEB) for data in (data, *others)}) == 4
    alone = replace(data, sources=(WEB,), tokenizer_sources=data.tokenizer_mix)
    assert folder_of(alone, WEB) == folder_of(data, WEB)  # the tokenizer of the mixture, asked for by name
    of_bytes = [DataConfig((WEB,), vocab_size=ids) for ids in (259, 272)]
    assert folder_of(of_bytes[0], WEB) == folder_of(of_bytes[1], WEB)


@pytest.mark.parametrize(("name", "damage", "message"), [
    (TRAIN, lambda b: b[:100] + bytes([b[100] ^ 1]) + b[101:], r"train.bin has sha256 \w+ where .*content has changed"),
    (TOKEN_BYTES, lambda b: bytes([b[0] ^ 1]) + b[1:], r"token_bytes.bin has sha256"),
    (TRAIN, lambda b: b[:-4], r"train.bin has 4796 bytes where the manifest says 4800"),
    (MANIFEST, lambda b: b[:50], r"manifest.json is damaged"),
    (MANIFEST, lambda b: b'{"format": 1}', r"manifest.json is not a manifest of format 2"),
    (MANIFEST, None, r"holds no manifest.json.*Fix: `isoflop data prepare FILE`"),
])  # fmt: skip
def test_a_damaged_file_is_refused_when_it_is_opened(tmp_path, monkeypatch, name, damage, message):
    monkeypatch.setenv("ISOFLOP_CACHE", str(tmp_path))
    data = replace(CONFIG.data, sources=(WEB,))
    path = write(data, WEB, np.arange(1200)).folder / name
    path.write_bytes(damage(path.read_bytes())) if damage else path.unlink()
    with pytest.raises(DataError, match=message):
        open_files(data)


@pytest.mark.parametrize(("key", "value", "rule"), [
    *((key, ..., "is missing") for key in ("files", "vocab_size", "eos_id", "documents", "tokenizer", "data_set")),
    ("files.train.bin", ..., "is missing"),
    ("files.validation.bin.sha256", ..., "is missing"),
    ("files", [], "must be an object"),
    ("files.note", 7, "must be an object"),
    ("documents.train", ..., "is missing"),
    ("documents.train.met", 0, "must be a whole number of at least 1"),
    ("documents.train.tokens", 7, "must be the numbers of 4 bytes in train.bin, which has 4800 bytes"),
    ("documents.is_read_to_end", 1, "must be true or false"),
    ("vocab_size", str(LARGE), "must be a whole number of at least 1"),
    ("vocab_size", 10**6, "must be the numbers of 2 bytes in token_bytes.bin, which has 140000 bytes"),
    ("tokenizer", "bytes", "must be an object"),
    ("data_set", None, "must be a string"),
])  # fmt: skip
def test_a_manifest_holds_every_key_that_is_read_of_it_in_its_kind(tmp_path, monkeypatch, key, value, rule):
    monkeypatch.setenv("ISOFLOP_CACHE", str(tmp_path))
    path = write(CONFIG.data, WEB, np.arange(1200)).folder / MANIFEST
    manifest = within = json.loads(path.read_text())
    *outer, last = re.split(r"\.(?!bin)", key)
    for name in outer:
        within = within[name]
    if value is ...:
        del within[last]
    else:
        within[last] = value
    path.write_text(json.dumps(manifest))
    said = key if value is ... else f"{key} = {value!r}:"
    with pytest.raises(DataError) as error:
        TokenFile.open(path.parent)
    assert str(error.value) == f"{path}: {said} {rule}. Fix: delete the folder and prepare the data again."


def test_a_folder_in_the_place_of_a_manifest_is_not_to_be_prepared_but_deleted(tmp_path, monkeypatch):
    monkeypatch.setenv("ISOFLOP_CACHE", str(tmp_path))
    path = write(CONFIG.data, WEB, np.arange(1200)).folder / MANIFEST
    path.unlink()
    path.mkdir()
    with pytest.raises(DataError, match=f"{path} is no file. Fix: delete the folder"):
        prepare(CONFIG.data, lambda line: None)


def test_a_token_beyond_the_vocabulary_is_named_with_its_place(tmp_path, monkeypatch):
    monkeypatch.setenv("ISOFLOP_CACHE", str(tmp_path))
    data = replace(CONFIG.data, sources=(WEB,))
    stream = np.arange(1200)
    stream[1007] = LARGE
    write(data, WEB, stream)
    with pytest.raises(DataError, match=r"train.bin: token 1,007 is 70000, beyond the vocabulary of 70000 ids"):
        open_files(data)


def test_files_of_two_tokenizers_are_not_mixed(files):
    write(CONFIG.data, NEWS, np.arange(1200), model="two")
    with pytest.raises(DataError, match=r"web-.* and .*news_today-.* were made with different SentencePiece models"):
        open_files(CONFIG.data)


def test_a_model_of_too_few_ids_is_refused(files):
    with pytest.raises(ConfigError, match=r"model.vocab_size = 300: must be at least the 70000 ids of the token file"):
        files["web"].check_vocabulary(300)


def test_a_run_keeps_to_the_text_it_was_begun_on(files, tmp_path):
    folder = open_run(tmp_path / "runs", CONFIG)
    check_text(folder, text_digests(CONFIG, files))  # not begun, so any text will do
    record_text(folder, text_digests(CONFIG, files))
    record_text(folder, text_digests(CONFIG, open_files(CONFIG.data)))
    before = text_digests(CONFIG, files)["news.train"]
    write(CONFIG.data, NEWS, np.arange(1200))
    with pytest.raises(
        DataError, match=f"was begun on other text: news.train had sha256 {before}, .* here has"
    ) as error:
        record_text(folder, text_digests(CONFIG, open_files(CONFIG.data)))
    assert str(folder.path) in str(error.value)
    (folder.path / "text.json").write_text("{")
    with pytest.raises(DataError, match=r"text.json: damaged"):
        check_text(folder, text_digests(CONFIG, files))


def test_a_text_counts_once_and_an_empty_one_not_at_all():
    texts = [b"one", b"", b"two", b"one", b" \n\t", b"three", b"one", b"two"]
    found = list(split(((str(i), text) for i, text in enumerate(texts)), 0.5, "set"))
    assert [document.text for document in found] == [b"one", b"two", b"three", b""]
    assert (found[-1].empty, found[-1].repeated) == (2, 3)
    assert (found[1].empty, found[1].repeated, found[2].empty, found[2].repeated) == (1, 0, 2, 1)
    blank = [(name, name.encode()) for name in ("\u00a0", "\u3000\n", "\u2003\u2028")]
    assert [(document.text, document.empty) for document in split(blank, 0.5, "set")] == [(b"", 3)]


def test_nothing_that_repeats_can_fill_a_side_and_the_share_is_of_distinct_documents():
    """A corpus that is half one text, a third empty: 2 % of the distinct rest is held out, within 4 deviations."""
    distinct = [f"document {i}".encode() for i in range(5000)]
    rows = [text for document in distinct for text in (document, b"boilerplate", b"boilerplate", b"")]
    found = list(split(((str(i), text) for i, text in enumerate(rows)), 0.02, "set"))[:-1]
    held_out = [document.text for document in found if document.is_held_out]
    assert len(found) == len({document.text for document in found}) == 5001
    assert abs(len(held_out) - 100) < 4 * (5000 * 0.02 * 0.98) ** 0.5
    reversed_order = split(((str(i), text) for i, text in enumerate(reversed(rows))), 0.02, "set")
    assert {document.text for document in reversed_order if document.is_held_out} == set(held_out)


def test_digests_that_have_left_the_set_are_still_known(monkeypatch):
    monkeypatch.setattr("research.data.splitting._RECENT", 10)
    seen = Seen()
    values = [int(value) for value in np.random.default_rng(0).integers(0, 2**64, 95, np.uint64)]
    assert all(seen.add(value) for value in values) and not any(seen.add(value) for value in values)
    assert seen.older.size == 90


def test_a_byte_that_is_no_utf8_is_named_with_its_document():
    documents = [("first", b"fine"), ("shard-0__17", b"caf\xe9 au lait")]
    with pytest.raises(DataError, match=r"web: document shard-0__17 is not UTF-8: byte 3 is 0xe9, in b'caf\\xe9 au"):
        list(split(documents, 0.1, "web"))

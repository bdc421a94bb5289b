import hashlib
import itertools
import sys
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data_fixtures import CODE, LONG_DOCUMENT_BYTES, ODD_TEXT, PROSE, data_config, write_corpus

from research.config import ConfigError, SourceConfig
from research.data import extraction, token_file
from research.data.describe import described
from research.data.encoding import encoder_of
from research.data.errors import DataError
from research.data.prepare import prepare
from research.data.token_file import folder_of, open_files
from research.paths import cache_dir

PIECES = {"tokenizer": "sentencepiece", "vocab_size": 400}
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """The tiny corpus, and a cache folder of this module's own."""
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ISOFLOP_CACHE", str(folder / "cache"))
        yield write_corpus(folder / "corpus")


@pytest.fixture(scope="module")
def corpus(roots, tmp_path_factory):
    """Domain to its documents as text, straight from the extraction."""
    folder = tmp_path_factory.mktemp("extracted")
    extraction.extract(roots, folder)
    return {domain: [text for _, text in extraction.documents(folder, domain)] for domain in extraction.DOMAINS}


@pytest.fixture(scope="module")
def mixed(roots):
    """Both domains, whole: they are shorter than what is packed to spare."""
    return _prepared(data_config(), roots)


@pytest.fixture(scope="module")
def pieces(roots, mixed):
    """The same documents in SentencePiece tokens."""
    return _prepared(data_config(**PIECES, train_tokens=20_000), roots)


@pytest.fixture
def empty_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("ISOFLOP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def _prepared(data, roots):
    return prepare(data, report=lambda line: None, roots=roots)


def _documents(stream):
    """Bytes of each document in a stream of byte tokens."""
    *parts, rest = np.split(np.asarray(stream), np.flatnonzero(stream == 1) + 1)
    assert rest.size == 0
    return [bytes((part[:-1] - 3).astype(np.uint8)) for part in parts]


@pytest.mark.parametrize("domain", ["prose", "code"])
def test_bytes_in_are_bytes_out_and_no_document_is_cut_or_lost_or_doubled(mixed, corpus, domain):
    tokens = mixed[domain]
    train, held_out = _documents(tokens.train), _documents(tokens.validation)
    assert Counter(train + held_out) == Counter(text.encode() for text in corpus[domain])
    assert tokens.is_whole("train") and tokens.is_whole("validation")
    documents = tokens.manifest["documents"]
    for side, found in (("train", train), ("validation", held_out)):
        sizes = {"documents": len(found), "bytes": sum(map(len, found)), "longest_bytes": max(map(len, found))}
        assert documents[side] == {**sizes, "met": len(found), "tokens": sizes["bytes"] + sizes["documents"]}
    assert (documents["empty"], documents["repeated"]) == (0, 0)


def test_less_held_out_text_than_asked_is_said_with_both_numbers(mixed, roots):
    data, lines = data_config(validation_tokens=10**6), []
    found = prepare(data, lines.append, roots)
    for name in ("prose", "code"):
        size = found[name].validation.size
        (line,) = [line for line in lines if line.startswith(f"{name}: {size:,} held-out tokens are all there are of")]
        assert "of the 1,000,000 that data.validation_tokens asks for" in line
    assert not any("all there are" in line for line in described(replace(data, validation_tokens=10), found))


def test_the_longest_document_is_whole(mixed):
    assert max(map(len, _documents(mixed["prose"].train))) > 0.8 * LONG_DOCUMENT_BYTES


def test_too_short_a_corpus_says_how_much_there_is_and_a_share_of_it_will_do(mixed, roots):
    """The code's share, 30 %, runs out first or not; what the message names can be had, and a token more cannot."""
    data = data_config(sources=(PROSE, replace(CODE, rate=0.7)), train_tokens=10**7)
    with pytest.raises(ConfigError, match=r"train_tokens = 10000000: source 'prose' holds") as raised:
        _prepared(data, roots)
    available = int(str(raised.value).split("lower data.train_tokens to ")[1].split(" ")[0])
    assert f"{mixed['prose'].train.size:,} tokens" in str(raised.value) and "training.max_epochs" in str(raised.value)
    assert available == min(2 * mixed[name].train.size for name in mixed)
    _prepared(replace(data, train_tokens=available), roots)
    with pytest.raises(ConfigError, match="or less"):
        _prepared(replace(data, train_tokens=available + 1), roots)


def test_the_held_out_share_is_about_the_fraction(mixed, corpus):
    """The number held out is binomial(82, 0.2): mean 16.4, standard deviation 3.6; both sides of it are allowed 4."""
    for domain, texts in corpus.items():
        held_out = mixed[domain].manifest["documents"]["validation"]["documents"]
        assert abs(held_out - 0.2 * len(texts)) < 4 * (len(texts) * 0.2 * 0.8) ** 0.5


def test_split_is_made_before_tokenising(mixed, pieces):
    """Another tokenizer, the same documents on the same side."""
    for domain in mixed:
        by_bytes, by_pieces = (files[domain].manifest["documents"] for files in (mixed, pieces))
        for side in ("train", "validation"):
            assert by_pieces[side]["bytes"] == by_bytes[side]["bytes"]
            assert by_pieces[side]["documents"] == by_bytes[side]["documents"]
            assert by_pieces[side]["tokens"] < by_bytes[side]["tokens"]


def test_sentencepiece_decodes_every_document_exactly(mixed, pieces):
    from research.data.tokenizers import ExactSentencePieceVocabulary

    tokens = pieces["prose"]
    vocabulary = ExactSentencePieceVocabulary(str(tokens.folder / "tokenizer.model"))
    encode = encoder_of(data_config(**PIECES))
    stream = np.asarray(tokens.validation)
    parts = np.split(stream, np.flatnonzero(stream == 1) + 1)[:-1]
    found = [vocabulary.decode(part[part != 1].tolist()).encode() for part in parts]
    assert found == _documents(mixed["prose"].validation)
    for text in (ODD_TEXT, "", "\u2581", " \u2581 a\u2581", "\x00\n\r\n", "plain text of a model"):
        ids = vocabulary.encode(text)
        assert vocabulary.decode(ids) == text
        assert vocabulary.encode_tf(text).numpy().tolist() == ids == encode(text)
        assert tokens.token_bytes[ids].sum() == len(text.encode())
        assert not {0, 1, 2} & set(ids)


def test_byte_tokens_are_exact(mixed):
    from research.data.tokenizers import byte_vocabulary, token_bytes

    vocabulary = byte_vocabulary()
    assert vocabulary.vocab_size == mixed["prose"].vocab_size == 259
    assert vocabulary.decode(vocabulary.encode(ODD_TEXT)) == ODD_TEXT
    assert encoder_of(data_config())(ODD_TEXT) == vocabulary.encode(ODD_TEXT)
    assert token_bytes(vocabulary)[vocabulary.encode(ODD_TEXT)].sum() == len(ODD_TEXT.encode())
    assert mixed["prose"].token_bytes.tolist() == [0] * 3 + [1] * 256


def test_mixtures_share_files_and_tokenizer(mixed, pieces, roots):
    """Other rates, other sizes of the model and one source alone find what is there: nothing is built again."""
    lines: list[str] = []
    other_rates = data_config(sources=(replace(CODE, rate=2.0), PROSE), vocab_size=272, train_tokens=30_000)
    one_source = data_config(**PIECES, sources=(CODE,), tokenizer_sources=data_config(**PIECES).tokenizer_mix)
    for data, files in ((other_rates, mixed), (one_source, pieces)):
        found = prepare(data, lines.append, roots)
        assert all(tokens.folder == files[name].folder for name, tokens in found.items())
    described_alone = [line for line in lines if "all there are" not in line]
    assert [line.split(":")[0] for line in described_alone] == ["code", "prose", "code"]
    assert pieces["prose"].manifest["tokenizer"]["sha256"] == pieces["code"].manifest["tokenizer"]["sha256"]


def test_a_longer_file_begins_with_the_shorter_one(mixed, roots, empty_cache, monkeypatch):
    monkeypatch.setattr("research.data.prepare.SPARE_TOKENS", 10)
    data, lines = data_config(sources=(PROSE,), train_tokens=5_000, validation_tokens=2_000), []
    short = prepare(data, lines.append, roots)["prose"]
    assert 5_010 <= short.train.size < mixed["prose"].train.size and not short.is_whole("train")
    assert 2_000 <= short.validation.size < mixed["prose"].validation.size
    longer = prepare(replace(data, train_tokens=20_000, validation_tokens=10), lines.append, roots)["prose"]
    assert longer.folder == short.folder and longer.validation.size == short.validation.size
    for side in ("train", "validation"):
        of_lengths = [np.asarray(getattr(tokens, side)) for tokens in (short, longer, mixed["prose"])]
        for shorter, whole in itertools.pairwise(of_lengths):
            np.testing.assert_array_equal(shorter, whole[: shorter.size])
    assert not any("has changed" in line for line in lines)
    assert prepare(data, lines.append, roots)["prose"].train.size == longer.train.size  # the longer one serves both


def test_the_manifest_states_sources_and_files(mixed):
    manifest = mixed["code"].manifest
    assert manifest["data_set"] == "embedded_corpus/code/1.0.0"
    assert manifest["details"]["versions"] == {"tiny": "1.0"}
    assert manifest["details"]["counts"]["files_not_parsed"] == 0
    assert {"train.bin", "validation.bin", "token_bytes.bin"} == set(manifest["files"])
    train = (mixed["code"].folder / "train.bin").read_bytes()
    assert manifest["files"]["train.bin"] == {"bytes": len(train), "sha256": hashlib.sha256(train).hexdigest()}
    assert manifest["vocab_size"] == 259 and manifest["eos_id"] == 1 and manifest["python"] == sys.version.split()[0]


def test_preparing_again_gives_the_same_bytes(mixed, roots, empty_cache):
    assert {name: tokens.manifest for name, tokens in _prepared(data_config(), roots).items()} == {
        name: tokens.manifest for name, tokens in mixed.items()
    }


def test_two_callers_at_once_build_once(roots):
    data, lines = data_config(validation_fraction=0.3), []
    callers = [threading.Thread(target=prepare, args=(data, lines.append, roots)) for _ in range(2)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert sum(": packed " in line for line in lines) == 2  # a source each
    for tokens in open_files(data).values():
        assert [path.name for path in tokens.folder.parent.glob(f"{tokens.folder.name}*")] == [tokens.folder.name]


def test_a_changed_sentencepiece_model_is_refused(pieces, roots):
    model = next((cache_dir() / "tokenizers").glob("*/tokenizer.model"))
    content = model.read_bytes()
    model.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    names = SourceConfig("names", PROSE.tfds, text_feature="name")
    one_more = data_config(**PIECES, sources=(names,), tokenizer_sources=data_config(**PIECES).tokenizer_mix,
                           train_tokens=100)  # fmt: skip
    with pytest.raises(DataError, match=r"tokenizer.model has sha256 \w+ where its manifest says \w+. Fix: delete"):
        _prepared(one_more, roots)
    model.write_bytes(content)
    assert _prepared(one_more, roots)["names"].manifest["tokenizer"] == pieces["prose"].manifest["tokenizer"]


def test_a_full_disk_is_said_and_leaves_nothing(roots, monkeypatch):
    data = data_config(sources=(PROSE,), validation_fraction=0.25)
    monkeypatch.setattr(token_file, "TRAIN", "/dev/full")  # every write to it fails as on a full disk
    with pytest.raises(OSError, match=r"the disk is full \(\d+ MB free now\).*ISOFLOP_CACHE"):
        _prepared(data, roots)
    folder = folder_of(data, PROSE)
    assert not list(folder.parent.glob(f"{folder.name}*"))


def test_a_file_system_without_locks_is_said(empty_cache, roots, monkeypatch):
    def refuse(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", refuse)
    message = rf"{empty_cache}/prepare.lock: its file system cannot lock files \(flock: Function not .*Fix: set ISOFLOP"
    with pytest.raises(DataError, match=message):
        _prepared(data_config(), roots)


def test_what_a_killed_process_left_is_cleared_away(roots):
    data = data_config(sources=(CODE,), validation_fraction=0.35)
    folder = folder_of(data, CODE)
    left_over = folder.parent / f"{folder.name}.tmp0"
    left_over.mkdir(parents=True)
    (left_over / "train.bin").write_bytes(b"half")
    _prepared(data, roots)
    assert not left_over.exists()


def test_too_small_a_vocabulary_for_sentencepiece_is_said(roots):
    data = data_config(tokenizer="sentencepiece", vocab_size=300, train_tokens=1000)
    with pytest.raises(ConfigError, match=r"data.vocab_size = 300: SentencePiece cannot train"):
        _prepared(data, roots)


def test_no_held_out_document_is_an_error(roots):
    with pytest.raises(ConfigError, match=r"validation_fraction = 1e-05: no document of source 'prose' is held out"):
        _prepared(data_config(sources=(PROSE,), validation_fraction=1e-5, train_tokens=1000), roots)

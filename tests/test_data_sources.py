"""TFDS data sets of one's own: what is used of them, and what is said of those that are damaged or cannot be had."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from data_fixtures import data_config

from research.config import ConfigError, SourceConfig
from research.data.errors import DataError
from research.data.prepare import prepare

PIECES = {"tokenizer": "sentencepiece", "vocab_size": 400}


@pytest.fixture(scope="module")
def own_sets(tmp_path_factory):
    """TFDS data sets of one's own, in a folder that is not the cache: clean and dirty, texts and other features."""
    import tensorflow_datasets as tfds

    clean = [f"News {index}. ".encode() * (1 + index % 7) for index in range(300)]
    rows = {
        "clean": clean,
        "dirty": [row for text in clean for row in (text, b"", b" \n", b"boilerplate")],
        "latin": [*clean, b"caf\xe9"],
        "same": [b"Click here."] * 30,
        "blank": [b"", b" \n", "\u00a0".encode(), "\u3000\u3000".encode()] * 5,
    }

    class OwnNews(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("2.0.0")
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name) for name in rows]

        def _info(self):
            body, label, parts = tfds.features.Text(), np.int64, tfds.features.Sequence(tfds.features.Text())
            features = tfds.features.FeaturesDict({"body": body, "label": label, "parts": parts})
            return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for index, text in enumerate(rows[self.builder_config.name]):
                yield index, {"body": text, "label": index, "parts": ["a", "b"]}

    folder = tmp_path_factory.mktemp("own")
    for name in rows:
        OwnNews(config=name, data_dir=folder).download_and_prepare()
    tfds.core.registered._DATASET_REGISTRY.pop("own_news")  # as in the process of a user who prepared it elsewhere
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TFDS_DATA_DIR", str(folder))
        patch.setenv("ISOFLOP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield folder


@pytest.fixture
def copied(own_sets, tmp_path, monkeypatch):
    """The folder of a copy of the clean set, to be damaged, and an empty cache."""
    place = "own_news/clean/2.0.0"
    shutil.copytree(own_sets / place, tmp_path / place)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("ISOFLOP_CACHE", str(tmp_path / "cache"))
    return tmp_path / place


def _prepared(data):
    return prepare(data, report=lambda line: None, roots=())


def _documents(stream):
    """Bytes of each document in a stream of byte tokens; the id that closes one becomes a byte that no UTF-8 has."""
    return (np.asarray(stream) - 3).astype(np.uint8).tobytes().split(b"\xfe")[:-1]


def _own(name: str, feature: str = "body"):
    return data_config(sources=(SourceConfig("news", f"own_news/{name}", text_feature=feature),), train_tokens=1000)


def test_empty_and_repeated_rows_change_nothing_and_are_counted(own_sets):
    """Three rows in four are empty or one boilerplate text: what is packed is the clean set and that text, once."""
    clean, dirty = (_prepared(_own(name))["news"] for name in ("clean", "dirty"))
    assert clean.manifest["data_set"] == "own_news/clean/2.0.0" and dirty.is_whole("train")
    sides = {side: _documents(getattr(dirty, side)) for side in ("train", "validation")}
    for side, documents in sides.items():
        assert [text for text in documents if text != b"boilerplate"] == _documents(getattr(clean, side))
    assert sum(documents.count(b"boilerplate") for documents in sides.values()) == 1
    documents = dirty.manifest["documents"]
    assert (documents["empty"], documents["repeated"]) == (600, 299)


def test_a_byte_that_is_no_utf8_is_said_wherever_it_stands(own_sets, monkeypatch):
    """At the end of the corpus: in the tokenizer's sample, beyond it, and without such a tokenizer."""
    message = r"own_news/latin: document \S*own_news-train\S*__300 is not UTF-8: byte 3 is 0xe9"
    for changes in ({}, PIECES):
        with pytest.raises(DataError, match=message):
            _prepared(replace(_own("latin"), **changes))
    monkeypatch.setattr("research.data.packing.SAMPLE_BYTES", 2000)
    with pytest.raises(DataError, match=message):
        _prepared(replace(_own("latin"), **PIECES))


@pytest.mark.parametrize(("feature", "message"), [
    ("label", r"text_feature = 'label': must be one text per document; in own_news/clean it is .*int64"),
    ("parts", r"text_feature = 'parts': must be one text per document; in own_news/clean it is Sequence"),
    ("text", r"text_feature = 'text': must be a feature of own_news/clean. Fix: choose one of \['body', 'label'"),
])  # fmt: skip
def test_a_feature_that_is_no_text_is_refused(own_sets, feature, message):
    with pytest.raises(ConfigError, match=message):
        _prepared(_own("clean", feature))


@pytest.mark.parametrize(("name", "changes", "message"), [
    ("same", {}, r"data.sources\[news\].tfds = 'own_news/same': must hold at least two .*; it holds 1, since 0 empty "
                 "and 29 repeated ones are left out. Fix: use a larger source"),
    ("blank", {}, r"it holds 0, since 20 empty and 0 repeated"),
    ("dirty", {"validation_fraction": 1e-6},
     "validation_fraction = 1e-06: no document of source 'news' is held out at this share of 301 different ones; 600 "
     "empty and 299 repeated ones are"),
    ("blank", PIECES, r"data.sources = \['own_news/blank'\]: hold no text for SentencePiece to learn from"),
    ("blank", {**PIECES, "tokenizer_sources": (SourceConfig("one", "own_news/blank", text_feature="body"),)},
     r"data.tokenizer_sources = \['own_news/blank'\]: hold no text"),
])  # fmt: skip
def test_too_little_text_is_said_with_what_was_left_out(own_sets, name, changes, message):
    with pytest.raises(ConfigError, match=message):
        _prepared(replace(_own(name), **changes))


RECORDS = "own_news-train.tfrecord-00000-of-00001"


@pytest.mark.parametrize(("file", "damage", "message"), [
    (RECORDS, lambda b: b[:500] + bytes([b[500] ^ 1]) + b[501:], r"damaged \(DataLossError: "),
    (RECORDS, lambda b: b"", r"damaged \(FailedPreconditionError: .*300 elements"),
    ("dataset_info.json", lambda b: b"", r"damaged \(Expecting value"),
    ("dataset_info.json", lambda b: b[: len(b) // 2], r"damaged \("),
    ("dataset_info.json", None, "no such file"),
    ("features.json", lambda b: b[: len(b) // 2], r"damaged \("),
    ("features.json", None, "no such file"),
])  # fmt: skip
def test_a_damaged_data_set_is_named_with_its_file(copied, file, damage, message):
    path = copied / file
    path.write_bytes(damage(path.read_bytes())) if damage else path.unlink()
    with pytest.raises(DataError, match=rf"(?s){path}: {message}.*\. Fix: delete {copied}, and prepare or copy the"):
        _prepared(_own("clean"))


def test_a_description_that_describes_no_data_set_is_named_with_its_folder(copied):
    (copied / "dataset_info.json").write_text("{}")
    with pytest.raises(DataError, match=rf"{copied}: TFDS cannot read it \(ValueError: .*Fix: delete {copied}"):
        _prepared(_own("clean"))


@pytest.mark.parametrize(("name", "message"), [
    ("lm2b", r"TFDS knows no such data set.*Nearest: .*lm1b"),
    ("c4/en:9.9.9", r"c4.*Fix: name a config and version"),
    ("c4/en", r"not prepared in .*cannot be downloaded and prepared here .*TFDS_DATA_DIR"),  # needs Apache Beam
    ("huggingface:some/set", r"TFDS needs a package for it \(No module named .*Fix: install that, or use another"),
    ("embedded_corpus/poetry", r"the embedded corpus has the configs \['prose', 'code'\]"),
])  # fmt: skip
def test_a_source_that_cannot_be_had_says_why(own_sets, name, message):
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        _prepared(data_config(sources=(SourceConfig("text", name),)))

import hashlib
import json
import subprocess
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
from research.data.prepare import prepare
from research.data.token_file import TokenFile, folder_of


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
    return _prepared(data_config(), roots)


@pytest.fixture(scope="module")
def whole_prose(roots):
    """All of the prose, and the error for asking too much, which says how much there is."""
    with pytest.raises(ConfigError) as raised:
        _prepared(data_config(sources=(PROSE,), train_tokens=10**7, validation_tokens=10**7), roots)
    available = int(str(raised.value).split("lower data.train_tokens to ")[1].split(" ")[0])
    found = _prepared(data_config(sources=(PROSE,), train_tokens=available, validation_tokens=10**7), roots)
    return found, raised.value


@pytest.fixture(scope="module")
def whole_pieces(roots, whole_prose):
    """The same documents in SentencePiece tokens: all of the validation side, some of the training side."""
    changes = {"sources": (PROSE,), "tokenizer": "sentencepiece", "vocab_size": 400, "validation_tokens": 10**7}
    return _prepared(data_config(**changes, train_tokens=20_000), roots)


def _prepared(data, roots):
    return TokenFile.open(prepare(data, report=lambda line: None, roots=roots))


def _documents(stream):
    """Bytes of each document in a stream of byte tokens; the last element is what follows the last end."""
    ends = np.flatnonzero(stream == 1)
    return [bytes((part[part != 1] - 3).astype(np.uint8)) for part in np.split(np.asarray(stream), ends + 1)]


def _held_out_split(texts, tokens):
    held_out = set(_documents(tokens.validation["prose"]))
    return [t for t in texts if t.encode() not in held_out], [t for t in texts if t.encode() in held_out]


def test_bytes_in_are_bytes_out_and_no_document_is_cut_or_lost_or_doubled(whole_prose, corpus):
    tokens, _ = whole_prose
    *train, rest = _documents(tokens.train)
    *held_out, rest_held_out = _documents(tokens.validation["prose"])
    assert not rest and not rest_held_out
    assert Counter(train + held_out) == Counter(text.encode() for text in corpus["prose"])
    assert max(map(len, train + held_out)) > 0.8 * LONG_DOCUMENT_BYTES
    assert tokens.train.size + tokens.validation["prose"].size == sum(len(t.encode()) + 1 for t in corpus["prose"])
    counts = tokens.manifest["domains"]["prose"]
    for split, found in (("train", train), ("validation", held_out)):
        sizes = {"documents": len(found), "bytes": sum(map(len, found))}
        assert counts["available"][split] == sizes
        assert counts[split] == {**sizes, "documents_cut": 0, "tokens": sizes["bytes"] + sizes["documents"]}


def test_too_short_a_corpus_says_how_much_there_is_and_leaves_nothing(whole_prose, roots):
    tokens, error = whole_prose
    epochs = 10**7 / tokens.train.size
    assert f"{tokens.train.size:,} tokens" in str(error) and f"{epochs:.2f} epochs" in str(error)
    assert "training.max_epochs" in str(error) and "data.train_tokens = 10000000" in str(error)
    one_more = data_config(sources=(PROSE,), train_tokens=tokens.train.size + 1, validation_tokens=10**7)
    with pytest.raises(ConfigError, match="or less"):
        _prepared(one_more, roots)
    assert not list(folder_of(one_more).parent.glob(f"{folder_of(one_more).name}*"))


def test_a_corpus_too_short_at_its_rates_names_what_can_be_had(roots):
    data = data_config(sources=(PROSE, replace(CODE, rate=0.7)), train_tokens=10**7)
    with pytest.raises(ConfigError) as raised:
        _prepared(data, roots)
    available = int(str(raised.value).split("lower data.train_tokens to ")[1].split(" ")[0])
    tokens = _prepared(replace(data, train_tokens=available), roots)
    assert tokens.train.size == available


def test_split_is_disjoint_deterministic_and_about_the_fraction(whole_prose, corpus):
    train, held_out = _held_out_split(corpus["prose"], whole_prose[0])
    assert train and held_out and not set(train) & set(held_out)
    # The number held out is binomial(82, 0.2): mean 16.4, standard deviation 3.6.
    assert abs(len(held_out) - 0.2 * len(corpus["prose"])) < 4 * (len(corpus["prose"]) * 0.2 * 0.8) ** 0.5


def test_split_is_made_before_tokenising(whole_prose, whole_pieces):
    """Another tokenizer, the same documents on the same side."""
    by_bytes, by_pieces = (tokens.manifest["domains"]["prose"] for tokens in (whole_prose[0], whole_pieces))
    assert by_pieces["available"] == by_bytes["available"]
    pieces, single_bytes = by_pieces["validation"], by_bytes["validation"]
    assert (pieces["documents"], pieces["bytes"]) == (single_bytes["documents"], single_bytes["bytes"])
    assert pieces["tokens"] < single_bytes["tokens"]


def test_sentencepiece_decodes_every_document_exactly(whole_pieces, whole_prose):
    from research.data.tokenizers import ExactSentencePieceVocabulary

    vocabulary = ExactSentencePieceVocabulary(str(whole_pieces.folder / "tokenizer.model"))
    stream = np.asarray(whole_pieces.validation["prose"])
    parts = np.split(stream, np.flatnonzero(stream == 1) + 1)
    found = [vocabulary.decode(part[part != 1].tolist()).encode() for part in parts]
    assert Counter(found) == Counter(_documents(whole_prose[0].validation["prose"]))
    for text in (ODD_TEXT, "", "\u2581", " \u2581 a\u2581", "\x00\n\r\n", "plain text of a model"):
        ids = vocabulary.encode(text)
        assert vocabulary.decode(ids) == text
        assert vocabulary.encode_tf(text).numpy().tolist() == ids
        assert whole_pieces.token_bytes[ids].sum() == len(text.encode())
        assert not {0, 1, 2} & set(ids)


def test_byte_tokens_are_exact_and_ids_above_the_bytes_are_unused(roots):
    from research.data.tokenizers import byte_vocabulary, token_bytes

    vocabulary = byte_vocabulary(300)
    assert vocabulary.vocab_size == 300 and vocabulary.decode(vocabulary.encode(ODD_TEXT)) == ODD_TEXT
    assert token_bytes(vocabulary, 300)[vocabulary.encode(ODD_TEXT)].sum() == len(ODD_TEXT.encode())
    tokens = _prepared(data_config(vocab_size=300), roots)
    assert tokens.vocab_size == 300 and tokens.train.max() < 259 and tokens.token_bytes.shape == (300,)
    tokens.check_vocabulary(300)
    with pytest.raises(ConfigError, match=r"model.vocab_size = 259: must equal the vocabulary of the token file .*300"):
        tokens.check_vocabulary(259)


def test_rates_are_honoured_in_tokens(mixed):
    """The mixture is within one row of its shares at any point, and each row group of a domain ends in a padded row."""
    rows = mixed.train.size / 1024
    for domain, share in (("prose", 0.7), ("code", 0.3)):
        counts = mixed.manifest["domains"][domain]
        assert counts["share_asked"] == pytest.approx(share)
        assert counts["share_realised"] == counts["train"]["tokens"] / mixed.train.size
        assert abs(counts["share_realised"] - share) < 3 / rows
    assert sum(mixed.manifest["domains"][d]["train"]["tokens"] for d in ("prose", "code")) == mixed.train.size == 60_000


def test_documents_of_a_mixture_are_whole_but_for_the_last_of_each_domain(mixed, corpus):
    texts = {text.encode() for domain in corpus.values() for text in domain}
    *found, rest = _documents(mixed.train)
    assert not rest
    cut = [document for document in found if document not in texts]
    assert len(cut) == sum(mixed.manifest["domains"][d]["train"]["documents_cut"] for d in corpus) <= 2
    assert found[len(found) - len(cut) :] == cut
    assert len(set(found)) == len(found)
    held_out = {document for stream in mixed.validation.values() for document in _documents(stream)[:-2]}
    assert held_out and not held_out & set(found)


def test_rows_are_taken_in_proportion():
    import tensorflow as tf

    from research.data.tasks import in_proportion

    rates = [0.5, 2.0, 1.0]
    order = list(in_proportion([tf.data.Dataset.from_tensors(i).repeat() for i in range(3)], rates, 0)
                 .take(700).as_numpy_iterator())  # fmt: skip
    for n in range(1, 701):
        for i, rate in enumerate(rates):
            assert abs(order[:n].count(i) - n * rate / 3.5) < 1 + 1e-9


def test_the_manifest_states_sources_and_files_and_verifies(mixed, roots):
    mixed.verify()
    manifest = mixed.manifest
    assert manifest["domains"]["prose"]["data_set"] == "embedded_corpus/prose/1.0.0"
    assert manifest["domains"]["code"]["details"]["versions"] == {"tiny": "1.0"}
    assert manifest["domains"]["code"]["details"]["counts"]["files_not_parsed"] == 0
    assert {"train.bin", "validation_prose.bin", "validation_code.bin", "token_bytes.bin"} == set(manifest["files"])
    train = (mixed.folder / "train.bin").read_bytes()
    assert manifest["files"]["train.bin"] == {"bytes": len(train), "sha256": hashlib.sha256(train).hexdigest()}
    assert manifest["vocab_size"] == 259 and manifest["eos_id"] == 1 and manifest["python"] == sys.version.split()[0]
    for domain, stream in mixed.validation.items():
        assert mixed.validation_bytes[domain] == mixed.token_bytes[stream].sum()


def test_preparing_again_gives_the_same_bytes(mixed, roots, monkeypatch, tmp_path):
    monkeypatch.setenv("ISOFLOP_CACHE", str(tmp_path / "other"))
    assert _prepared(data_config(), roots).manifest == mixed.manifest
    other_seed = _prepared(data_config(seed=1), roots).manifest
    assert other_seed["files"]["train.bin"]["sha256"] != mixed.manifest["files"]["train.bin"]["sha256"]


def test_two_callers_at_once_build_once(roots):
    data, lines = data_config(train_tokens=50_000), []
    callers = [threading.Thread(target=prepare, args=(data, lines.append, roots)) for _ in range(2)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert sum("packed 50,000" in line for line in lines) == 1
    TokenFile.open(folder_of(data)).verify()
    assert [path.name for path in folder_of(data).parent.glob(f"{folder_of(data).name}*")] == [folder_of(data).name]


def test_a_present_file_is_used_without_tensorflow(mixed, roots):
    code = """
import sys
from research.config import DataConfig
from research.data.prepare import prepare
from research.data.token_file import TokenFile
from research.config import from_json
lines = []
TokenFile.open(prepare(from_json(DataConfig, sys.argv[1]), lines.append))
assert not {"tensorflow", "seqio", "jax"} & set(sys.modules)
print("\\n".join(lines))
"""
    result = subprocess.run([sys.executable, "-c", code, json.dumps(mixed.manifest["data"])], capture_output=True,
                            text=True, check=True, cwd=Path(__file__).parents[1])  # fmt: skip
    assert "made with other package versions (" in result.stdout and "tiny 1.0 -> None" in result.stdout


def test_a_damaged_file_is_refused(roots):
    tokens = _prepared(data_config(train_tokens=5_000), roots)
    path = tokens.folder / "train.bin"
    content = path.read_bytes()
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    with pytest.raises(ConfigError, match=r"train.bin.*has sha256 .* where the manifest says"):
        TokenFile.open(tokens.folder).verify()
    path.write_bytes(content[:-2])
    with pytest.raises(ConfigError, match=r"train.bin.*has 9998 bytes where the manifest says 10000"):
        TokenFile.open(tokens.folder)
    with pytest.raises(ConfigError, match=r"holds no manifest.json.*prepare the data first"):
        TokenFile.open(tokens.folder.parent)


def test_a_full_disk_is_said_and_leaves_nothing(roots, monkeypatch):
    data = data_config(train_tokens=40_000)
    monkeypatch.setattr(token_file, "TRAIN", "/dev/full")  # every write to it fails as on a full disk
    with pytest.raises(OSError, match=r"the disk is full \(\d+ MB free now\).*ISOFLOP_CACHE"):
        _prepared(data, roots)
    assert not list(folder_of(data).parent.glob(f"{folder_of(data).name}*"))
    monkeypatch.undo()
    _prepared(data, roots)


def test_what_a_killed_process_left_is_cleared_away(roots):
    data = data_config(train_tokens=3_000)
    left_over = folder_of(data).parent / f"{folder_of(data).name}.tmp0"
    left_over.mkdir(parents=True)
    (left_over / "train.bin").write_bytes(b"half")
    _prepared(data, roots)
    assert not left_over.exists()


def test_any_tfds_data_set_goes_the_same_way(roots):
    import tensorflow_datasets as tfds

    from research.paths import cache_dir

    class TinyNews(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("2.0.0")

        def _info(self):
            features = tfds.features.FeaturesDict({"body": tfds.features.Text()})
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for index in range(200):
                yield index, {"body": f"News {index}. " * (1 + index % 7)}

    TinyNews(data_dir=cache_dir() / "datasets").download_and_prepare()
    source = SourceConfig("news", "tiny_news", text_feature="body")
    tokens = _prepared(data_config(sources=(source,), train_tokens=1000), roots)
    assert tokens.manifest["domains"]["news"]["data_set"] == "tiny_news/2.0.0"
    assert all(document.startswith(b"News ") for document in _documents(tokens.train)[:-2])
    with pytest.raises(ConfigError, match=r"text_feature = 'text': must be a feature of tiny_news.*'body'"):
        _prepared(data_config(sources=(SourceConfig("news", "tiny_news"),)), roots)


@pytest.mark.parametrize(("name", "message"), [
    ("lm2b", r"TFDS knows no such data set.*Nearest: .*lm1b"),
    ("c4/en:9.9.9", r"c4.*Fix: name a config and version"),
    ("c4/en", r"not prepared in .*cannot be downloaded and prepared here .*TFDS_DATA_DIR"),  # needs Apache Beam
    ("embedded_corpus/poetry", r"the embedded corpus has the configs \['prose', 'code'\]"),
])  # fmt: skip
def test_a_source_that_cannot_be_had_says_why(roots, name, message):
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        _prepared(data_config(sources=(SourceConfig("text", name),)), roots)


def test_too_small_a_vocabulary_for_sentencepiece_is_said(roots):
    data = data_config(tokenizer="sentencepiece", vocab_size=300, train_tokens=1000)
    with pytest.raises(ConfigError, match=r"data.vocab_size = 300: SentencePiece cannot train"):
        _prepared(data, roots)


def test_no_held_out_document_is_an_error(roots):
    with pytest.raises(ConfigError, match=r"validation_fraction = 1e-05: no document of source 'prose' is held out"):
        _prepared(data_config(sources=(PROSE,), validation_fraction=1e-5, train_tokens=1000), roots)

"""From TFDS data sets to seqio: sources split by document hash, a task per source, a mixture at rates in tokens.

Imports tensorflow. Every source goes the same way: TFDS split `train` -> training or held-out side by a hash of the
text -> tokens -> end-of-document id -> rows of ROW_TOKENS. Text is split before any tokenizer sees it.
"""

import contextlib
import errno
import functools
import io
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

import seqio
import tensorflow as tf
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
from tensorflow_datasets.core.download.extractor import ExtractError

from research.config import ConfigError, DataConfig, SourceConfig, check, fingerprint
from research.data import corpus
from research.data.extraction import DOMAINS, Root
from research.data.tokenizers import PAD_ID

ROW_TOKENS = 1024  # the mixture draws rows, not documents, so that its rates are rates in tokens
SPLITS = ("train", "validation")
_HASH_BUCKETS = 1 << 20  # the resolution of data.validation_fraction
_SHUFFLE_DOCUMENTS = 1000  # TFDS wrote them in an order by hash already; this makes data.seed matter
_DOCUMENTS_AT_A_TIME = 64  # laid end to end; only the last row of so many is padded
_CANNOT_GET = (OSError, ImportError, AssertionError,  # no network, no Apache Beam, files that must be got by hand
               ExtractError, NonMatchingChecksumError, tfds.download.DownloadError)  # fmt: skip


def prepared_builder(source: SourceConfig, datasets: Path, roots: Sequence[Root]) -> tfds.core.DatasetBuilder:
    """The TFDS builder of a source with its data on disk under `datasets`; built or downloaded now if it is missing.

    A data set that TFDS's own folder ($TFDS_DATA_DIR or ~/tensorflow_datasets) holds is read there. `roots` are what
    the embedded corpus is taken from. Raises ConfigError for a name TFDS does not know, a data set that is missing and
    cannot be got, and one without a `train` split or without the text feature; OSError when the disk is full.
    """
    field = f"data.sources[{source.name}].tfds"
    builder = _builder(source, field, datasets, roots)
    if not _is_prepared(builder):
        _download_and_prepare(builder, source, field, datasets)
    check(
        "train" in builder.info.splits,
        field,
        source.tfds,
        f"must have a split 'train'; it has {sorted(builder.info.splits)}",
        "choose another data set",
    )
    features = list(builder.info.features)
    check(
        source.text_feature in features,
        f"data.sources[{source.name}].text_feature",
        source.text_feature,
        f"must be a feature of {source.tfds}",
        f"choose one of {features}",
    )
    return builder


def texts(builder: tfds.core.DatasetBuilder, source: SourceConfig, fraction: float, split: str,
          seed: int | None = None) -> tf.data.Dataset:  # fmt: skip
    """{"text": string}, the documents on one side of the split ("train" or "validation"), each whole.

    The side depends on the text alone, so equal documents are on the same side in every source. `fraction` is the
    held-out share. With a seed the documents are shuffled, without one they keep the data set's own (fixed) order.
    """
    held_out_below = round(fraction * _HASH_BUCKETS)

    def on_this_side(example: dict) -> tf.Tensor:
        is_held_out = tf.strings.to_hash_bucket_fast(example["text"], _HASH_BUCKETS) < held_out_below
        return is_held_out if split == "validation" else ~is_held_out

    dataset = builder.as_dataset(split="train", read_config=tfds.ReadConfig(try_autocache=False))
    dataset = dataset.map(lambda example: {"text": example[source.text_feature]}).filter(on_this_side)
    return dataset if seed is None else dataset.shuffle(_SHUFFLE_DOCUMENTS, seed, reshuffle_each_iteration=False)


def register(data: DataConfig, builders: Sequence[tfds.core.DatasetBuilder], vocabulary: seqio.Vocabulary) -> str:
    """Register one seqio task per source (`task_name`) and their mixture; returns the mixture's name.

    Names carry the fingerprint of `data`, so two configs do not collide; registering a config again replaces it, since
    the data behind it may have changed. Examples are {"targets": (ROW_TOKENS,) int32, padded with PAD_ID at the end,
    "domain": int32 index into data.sources}: the documents of a source one after another, each with its end-of-document
    id. The rates are rates in tokens, since every row has as many.
    """
    feature = {"targets": seqio.Feature(vocabulary, add_eos=True, dtype=tf.int32)}
    for index, (source, builder) in enumerate(zip(data.sources, builders, strict=True)):
        _replace(seqio.TaskRegistry, task_name(data, source), source=_source(builder, source, data),
                 output_features=feature, preprocessors=[
                     functools.partial(seqio.preprocessors.rekey, key_map={"targets": "text"}),
                     functools.partial(seqio.preprocessors.tokenize, copy_pretokenized=False),
                     seqio.preprocessors.append_eos,
                     functools.partial(_rows, domain=index)])  # fmt: skip
    name = f"mixture_{fingerprint(data)}"
    rates = [(task_name(data, source), source.rate) for source in data.sources]
    _replace(seqio.MixtureRegistry, name, rates, sample_fn=in_proportion)
    return name


def task_name(data: DataConfig, source: SourceConfig) -> str:
    """The registered name of a source's seqio task."""
    return f"{source.name}_{fingerprint(data)}"


def in_proportion(datasets: Sequence[tf.data.Dataset], rates: Sequence[float], seed: int | None) -> tf.data.Dataset:
    """Interleave in proportion to the rates at every point of the stream; it ends when a data set that is due is empty.

    Each element comes from the data set furthest behind its share. Takes the place of seqio's independent draws, whose
    shares are off by a random 1/sqrt(n); `seed` is part of seqio's signature and has nothing to decide here.
    """
    shares = tf.constant([rate / sum(rates) for rate in rates], tf.float64)

    def next_choice(given: tf.Tensor, count: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        behind = shares * tf.cast(count + 1, tf.float64) - given
        choice = tf.argmax(behind)
        return given + tf.one_hot(choice, len(rates), dtype=tf.float64), choice

    start = tf.zeros(len(rates), tf.float64)
    choices = tf.data.Dataset.counter().scan(start, next_choice)
    return tf.data.Dataset.choose_from_datasets(datasets, choices, stop_on_empty_dataset=True)


def _builder(source: SourceConfig, field: str, datasets: Path, roots: Sequence[Root]) -> tfds.core.DatasetBuilder:
    dataset, _, config = source.tfds.partition("/")
    if dataset == corpus.EmbeddedCorpus.name:
        check(config in DOMAINS, field, source.tfds, f"the embedded corpus has the configs {list(DOMAINS)}", "name one")
        return corpus.EmbeddedCorpus(config=config, roots=roots, data_dir=corpus.folder_of(roots, datasets))
    try:
        builder = tfds.builder(source.tfds, data_dir=datasets)
        elsewhere = builder if _is_prepared(builder) else tfds.builder(source.tfds)
        return elsewhere if _is_prepared(elsewhere) else builder
    except tfds.core.DatasetNotFoundError as error:
        near = get_close_matches(dataset, tfds.list_builders(), n=3) or ["embedded_corpus"]
        raise ConfigError(
            f"{field} = {source.tfds!r}: TFDS knows no such data set, and {datasets} holds none of that "
            f"name. Nearest: {', '.join(near)}. Fix: use one of these."
        ) from error
    except (ValueError, AssertionError) as error:  # what TFDS raises for an unknown config and version
        raise ConfigError(f"{field} = {source.tfds!r}: {error}. Fix: name a config and version TFDS has.") from error


def _is_prepared(builder: tfds.core.DatasetBuilder) -> bool:
    return (builder.data_path / "dataset_info.json").exists()  # builder.is_prepared() logs a warning where it is false


def _download_and_prepare(builder: tfds.core.DatasetBuilder, source: SourceConfig, field: str,
                          datasets: Path) -> None:  # fmt: skip
    is_local = isinstance(builder, corpus.EmbeddedCorpus)
    (tfds.disable_progress_bar if is_local else tfds.enable_progress_bar)()
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # TFDS prints what the caller reports in its own words
            builder.download_and_prepare()
    except (tf.errors.ResourceExhaustedError, RuntimeError) as error:  # TFDS wraps the former in the latter
        if not isinstance(error.__cause__ or error, tf.errors.ResourceExhaustedError):
            raise
        raise OSError(errno.ENOSPC, f"no space left to write {source.tfds}", str(datasets)) from error
    except _CANNOT_GET as error:
        if is_local or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ConfigError(
            f"{field} = {source.tfds!r}: not prepared in {datasets}, and it cannot be downloaded and prepared here "
            f"({type(error).__name__}: {error}). Fix: prepare it with tfds on a machine that can, and copy its folder "
            f"to {datasets}, set TFDS_DATA_DIR to where it is, or use embedded_corpus/prose."
        ) from error


def _source(builder: tfds.core.DatasetBuilder, source: SourceConfig, data: DataConfig) -> seqio.DataSource:
    def dataset_fn(split: str, shuffle_files: bool, seed: int | None = None) -> tf.data.Dataset:
        return texts(builder, source, data.validation_fraction, split, seed)

    return seqio.FunctionDataSource(dataset_fn, SPLITS)


def _rows(dataset: tf.data.Dataset, domain: int) -> tf.data.Dataset:
    """Documents of any length as rows of one length; seqio has no such step and trims what exceeds a sequence."""

    def lay_out(batch: dict) -> dict:
        tokens = batch["targets"].flat_values
        padding = -tf.size(tokens) % ROW_TOKENS
        rows = tf.reshape(tf.pad(tokens, [[0, padding]], constant_values=PAD_ID), [-1, ROW_TOKENS])
        return {"targets": rows, "domain": tf.fill([tf.shape(rows)[0]], domain)}

    return dataset.ragged_batch(_DOCUMENTS_AT_A_TIME).map(lay_out).unbatch()


def _replace(registry: type, name: str, *args, **kwargs) -> None:
    if name in registry.names():
        registry.remove(name)
    registry.add(name, *args, **kwargs)

"""From TFDS data sets to tokens: a seqio task per source. Imports tensorflow.

Every source goes the same way: TFDS split `train` -> documents in the data set's own order, split and sifted by
`splitting` -> tokens -> end-of-document id. Text is split before any tokenizer sees it.
"""

import contextlib
import errno
import functools
import io
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path

import seqio
import tensorflow as tf
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
from tensorflow_datasets.core.download.extractor import ExtractError

from research.config import ConfigError, SourceConfig, check
from research.data import corpus
from research.data.errors import DataError
from research.data.extraction import DOMAINS, Root
from research.data.splitting import Document, split

_DOCUMENTS_AT_A_TIME = 64  # of one crossing from tensorflow to numpy
_CANNOT_GET = (OSError, ImportError, AssertionError,  # no network, no Apache Beam, files that must be got by hand
               ExtractError, NonMatchingChecksumError, tfds.download.DownloadError)  # fmt: skip
_CANNOT_READ = (tf.errors.DataLossError, tf.errors.NotFoundError, tf.errors.InvalidArgumentError,
                tf.errors.FailedPreconditionError)  # fmt: skip
_INFO = "dataset_info.json"
_SAID_IN = (_INFO, "features.json")  # what TFDS knows of a data set on disk


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
    features = sorted(builder.info.features)
    check(
        source.text_feature in features,
        f"data.sources[{source.name}].text_feature",
        source.text_feature,
        f"must be a feature of {source.tfds}",
        f"choose one of {features}",
    )
    feature = builder.info.features[source.text_feature]
    check(
        isinstance(feature, tfds.features.Tensor) and feature.shape == () and feature.tf_dtype == tf.string,
        f"data.sources[{source.name}].text_feature",
        source.text_feature,
        f"must be one text per document; in {source.tfds} it is {feature!r}",
        "choose a feature that is a text, or prepare the data set anew with one",
    )
    return builder


def documents(builder: tfds.core.DatasetBuilder, source: SourceConfig, fraction: float) -> Iterator[Document]:
    """The documents of a source that are used, `fraction` of them held out; the last one is empty, and no document.

    Raises DataError, naming the document or the file, for text that is not UTF-8 and files that are damaged.
    """
    read = tfds.ReadConfig(try_autocache=False, add_tfds_id=True)  # the id says file and place
    examples = builder.as_dataset(split="train", read_config=read)
    examples = examples.map(lambda example: (example["tfds_id"], example[source.text_feature]))
    named = ((name.decode(), text) for name, text in examples.as_numpy_iterator())
    try:
        yield from split(named, fraction, source.tfds)
    except _CANNOT_READ as error:
        raise DataError(
            f"{_damaged_file(builder)}: damaged ({type(error).__name__}: {str(error).splitlines()[0]}). "
            f"Fix: delete {builder.data_path}, and prepare or copy the data set again."
        ) from error


def tokenized(
    name: str, documents: Callable[[], Iterator[Document]], vocabulary: seqio.Vocabulary
) -> tuple[Iterator[dict], list[BaseException]]:
    """The documents as tokens, and the error that ended them early, if one has.

    A dict of numpy arrays per group of D documents: targets (tokens of all,) int32, each document closed by the
    end-of-document id; ends, text_bytes, empty, repeated (D,) int64; is_held_out (D,) bool.
    """
    failures: list[BaseException] = []

    def examples() -> Iterator[dict]:
        try:
            for document in documents():
                yield {**document._asdict(), "text_bytes": len(document.text)}
        except Exception as error:  # tensorflow would make another of it, whose text is a traceback
            failures.append(error)

    kept = {"is_held_out": tf.bool, "empty": tf.int64, "repeated": tf.int64, "text_bytes": tf.int64}
    signature = {key: tf.TensorSpec((), dtype) for key, dtype in {"text": tf.string, **kept}.items()}
    task = seqio.Task(
        name,
        source=seqio.FunctionDataSource(
            lambda split, shuffle_files, seed=None: tf.data.Dataset.from_generator(
                examples, output_signature=signature
            ),
            ["train"],
        ),
        output_features={"targets": seqio.Feature(vocabulary, add_eos=True, dtype=tf.int32)},
        preprocessors=[
            functools.partial(seqio.preprocessors.rekey, key_map={"targets": "text", **{key: key for key in kept}}),
            functools.partial(seqio.preprocessors.tokenize, copy_pretokenized=False),
            seqio.preprocessors.append_eos,
        ],
    )
    dataset = task.get_dataset(sequence_length=None, split="train", shuffle=False)  # a length would trim documents
    return dataset.ragged_batch(_DOCUMENTS_AT_A_TIME).map(_laid_out).as_numpy_iterator(), failures


def _laid_out(group: dict) -> dict:
    targets = group.pop("targets")
    return {**group, "targets": targets.flat_values, "ends": targets.row_limits()}


def _builder(source: SourceConfig, field: str, datasets: Path, roots: Sequence[Root]) -> tfds.core.DatasetBuilder:
    dataset, _, config = source.tfds.partition("/")
    if dataset == corpus.EmbeddedCorpus.name:
        check(config in DOMAINS, field, source.tfds, f"the embedded corpus has the configs {list(DOMAINS)}", "name one")
        own = corpus.folder_of(roots, datasets)
        with _worded(source, field, own):
            return corpus.EmbeddedCorpus(config=config, roots=roots, data_dir=own)
    found, not_found = [], None
    for folder in (datasets, Path(os.environ.get("TFDS_DATA_DIR") or tfds.core.constants.DATA_DIR)):
        try:
            with _worded(source, field, folder):
                found.append(tfds.builder(source.tfds, data_dir=folder))
        except tfds.core.DatasetNotFoundError as error:
            not_found = error
    if not found:
        near = get_close_matches(dataset, tfds.list_builders(), n=3) or ["embedded_corpus"]
        raise ConfigError(
            f"{field} = {source.tfds!r}: TFDS knows no such data set, and neither {datasets} nor TFDS's own folder "
            f"($TFDS_DATA_DIR) holds one of that name. Nearest: {', '.join(near)}. Fix: use one of these, or set "
            "TFDS_DATA_DIR to where yours is."
        ) from not_found
    return next(filter(_is_prepared, found), found[0])


@contextlib.contextmanager
def _worded(source: SourceConfig, field: str, folder: Path) -> Iterator[None]:
    """Say what is wrong where TFDS cannot open a data set: its files in `folder`, if there are any, else its name.

    DatasetNotFoundError passes, since another folder may hold the data set.
    """
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # TFDS prints which packages it lacks
            yield
    except Exception as error:  # damaged files raise what reading them happens to: of json, protobuf or TFDS
        is_not_found = isinstance(error, tfds.core.DatasetNotFoundError)
        places = _places(folder, source.tfds)
        faults = {place: fault for place in places if (fault := _fault(place))}
        if places and not faults and not is_not_found:
            faults = {places[-1]: f"{places[-1]}: TFDS cannot read it ({type(error).__name__}: {error})"}
        for place, fault in faults.items():
            raise DataError(f"{fault}. Fix: delete {place}, and prepare or copy the data set again.") from error
        if is_not_found:
            raise
        if isinstance(error, ImportError):
            message = f"TFDS needs a package for it ({error}). Fix: install that, or use another data set."
            raise ConfigError(f"{field} = {source.tfds!r}: {message}") from error
        if isinstance(error, ValueError | AssertionError):  # what TFDS raises for an unknown config and version
            message = f"{error}. Fix: name a config and version TFDS has."
            raise ConfigError(f"{field} = {source.tfds!r}: {message}") from error
        raise


def _places(folder: Path, name: str) -> list[Path]:
    """Where a data set of this name, in any version and config that it leaves open, is on disk, whole or not."""
    if not re.fullmatch(r"\w+(/[\w.+-]+)?(:[\d.]+)?", name):
        return []
    of_name = folder.joinpath(*re.split("[/:]", name))
    return sorted({file.parent for known in _SAID_IN for file in of_name.rglob(known)})


def _fault(place: Path) -> str | None:
    """What is wrong with the files by which TFDS knows the data set in this folder; none if they can be read."""
    for file in (place / name for name in _SAID_IN):
        try:
            json.loads(file.read_bytes())
        except FileNotFoundError:
            return f"{file}: no such file"
        except (OSError, ValueError) as error:
            return f"{file}: damaged ({error})"
    return None


def _is_prepared(builder: tfds.core.DatasetBuilder) -> bool:
    return (builder.data_path / _INFO).exists()  # builder.is_prepared() logs a warning where it is false


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


def _damaged_file(builder: tfds.core.DatasetBuilder) -> str:
    """The first file of a data set that cannot be read to its end, or that holds another number of documents."""
    train = builder.info.splits["train"]
    for path, documents in zip(map(str, train.filepaths), train.shard_lengths, strict=True):
        try:
            found = sum(len(records) for records in tf.data.TFRecordDataset(path).batch(1024))
        except _CANNOT_READ:
            return path
        if found != documents:
            return path
    return str(builder.data_path)

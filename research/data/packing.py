"""Write the token file of a config: seqio rows put back together into whole documents, once, with a manifest.

Imports tensorflow; `research/data/prepare.py` imports this file only when something has to be built.
"""

import importlib.metadata
import json
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import seqio
import tensorflow as tf
import tensorflow_datasets as tfds

from research.config import DataConfig, check, to_dict
from research.data import tasks, token_file, tokenizers
from research.data.extraction import Root
from research.data.tokenizers import EOS_ID, PAD_ID, SAMPLE_BYTES

_COUNTED_BYTES = 2_000_000_000  # of a data set on disk; in a larger one the documents on each side are not counted
_SOFTWARE = ("tensorflow", "tensorflow-datasets", "tensorflow-text", "seqio", "sentencepiece", "numpy")


@dataclass
class Count:
    """Documents, those of them cut short because the file was full, tokens with end-of-document ids, bytes of text."""

    documents: int = 0
    documents_cut: int = 0
    tokens: int = 0
    bytes: int = 0


def pack(data: DataConfig, datasets: Path, models: Path, roots: Sequence[Root], folder: Path,
         report: Callable[[str], None]) -> None:  # fmt: skip
    """Fill the empty `folder` with the token file of `data` (layout: `research/data/token_file.py`).

    `datasets` and `models` are the cache folders of TFDS and of SentencePiece models. The manifest's `domains` say for
    each source how many documents and bytes its data set holds on each side of the split (`available`; none where a
    data set is too large to count) and how many went into the files. Raises ConfigError if the sources are too short.
    """
    started = time.perf_counter()
    builders = [tasks.prepared_builder(source, datasets, roots) for source in data.sources]
    report(f"data sets ready: {', '.join(builder.info.full_name for builder in builders)} ({_since(started)})")
    vocabulary, identity = _vocabulary(data, builders, models, folder, report)
    lengths = tokenizers.token_bytes(vocabulary, data.vocab_size)
    lengths.astype(token_file.TOKEN_DTYPE).tofile(folder / token_file.TOKEN_BYTES)
    started = time.perf_counter()
    mixture = tasks.register(data, builders, vocabulary)
    train = _pack_training(mixture, data, lengths, folder)
    validation = [_pack_validation(data, index, lengths, folder) for index in range(len(data.sources))]
    report(f"packed {data.train_tokens:,} training tokens ({_since(started)}): " + _shares(data, train))
    _write_manifest(data, builders, identity, train, validation, folder)


def leave_accelerators_alone() -> None:
    """Keep tensorflow from taking the memory of a GPU that the training needs; call once, before `pack`."""
    tf.config.set_visible_devices([], "GPU")


def _vocabulary(data: DataConfig, builders: Sequence[tfds.core.DatasetBuilder], models: Path, folder: Path,
                report: Callable[[str], None]) -> tuple[seqio.Vocabulary, dict]:  # fmt: skip
    """The tokenizer and its identity for the manifest; a SentencePiece model is copied next to the tokens."""
    if data.tokenizer == "bytes":
        return tokenizers.byte_vocabulary(data.vocab_size), {"kind": "bytes", "ids_used": 259}
    started = time.perf_counter()
    made_of = [(builder.info.full_name, (builder.info.metadata or {}).get("versions")) for builder in builders]
    cached = tokenizers.trained_model(data, json.dumps(made_of), _sample(data, builders), models)
    report(f"SentencePiece model: {cached} ({_since(started)})")
    model = folder / token_file.MODEL
    model.write_bytes(cached.read_bytes())
    vocabulary = tokenizers.ExactSentencePieceVocabulary(str(model))
    return vocabulary, {"kind": "sentencepiece", "ids_used": vocabulary.vocab_size, "sha256": token_file.sha256(model)}


def _sample(data: DataConfig, builders: Sequence[tfds.core.DatasetBuilder]) -> Iterator[str]:
    """Training documents, SAMPLE_BYTES of them shared out over the sources by their rates."""
    total_rate = sum(source.rate for source in data.sources)
    for source, builder in zip(data.sources, builders, strict=True):
        left = SAMPLE_BYTES * source.rate / total_rate
        for example in tasks.texts(builder, source, data.validation_fraction, "train", data.seed).as_numpy_iterator():
            if left <= 0:
                break
            left -= len(example["text"])
            yield example["text"].decode()


def _pack_training(mixture: str, data: DataConfig, lengths: np.ndarray, folder: Path) -> list[Count]:
    rows = seqio.MixtureRegistry.get(mixture).get_dataset(  # no sequence_length: seqio would trim to it
        sequence_length=None, split="train", shuffle=False, seed=data.seed, num_epochs=1,
        passthrough_features=["domain"])  # fmt: skip
    with open(folder / token_file.TRAIN, "wb") as file:
        counts = _write(rows, data.train_tokens, lengths, len(data.sources), file)
    available = sum(count.tokens for count in counts)
    check(
        available == data.train_tokens,
        "data.train_tokens",
        data.train_tokens,
        f"the sources hold {available:,} tokens at these rates ({_shares(data, counts)}) before one of them ends, so "
        f"this would take {data.train_tokens / max(available, 1):.2f} epochs",
        f"lower data.train_tokens to {available} or less; to repeat text on purpose, raise training.max_epochs too",
    )
    return counts


def _pack_validation(data: DataConfig, index: int, lengths: np.ndarray, folder: Path) -> Count:
    source = data.sources[index]
    task = seqio.TaskRegistry.get(tasks.task_name(data, source))
    rows = task.get_dataset(sequence_length=None, split="validation", shuffle=False)
    with open(folder / token_file.validation_name(source.name), "wb") as file:
        count = _write(rows, data.validation_tokens, lengths, len(data.sources), file)[index]
    check(
        count.tokens > 0,
        "data.validation_fraction",
        data.validation_fraction,
        f"no document of source {source.name!r} is held out at this share",
        "raise it, or use a larger source",
    )
    return count


def _write(rows: tf.data.Dataset, tokens: int, lengths: np.ndarray, domains: int, file: BinaryIO) -> list[Count]:
    """Write documents from the rows of all domains until `tokens` are written or the rows end; one Count a domain.

    A document goes out when its end has been read, so none is interrupted by another; those still open when the file
    is full are written as far as they were read, and closed.
    """
    counts = [Count() for _ in range(domains)]
    open_parts: list[list[np.ndarray]] = [[] for _ in range(domains)]

    def put(domain: int, stretch: np.ndarray) -> None:
        file.write(stretch.astype(token_file.TOKEN_DTYPE).tobytes())
        counts[domain].documents += int((stretch == EOS_ID).sum())
        counts[domain].tokens += stretch.size
        counts[domain].bytes += int(lengths[stretch].sum(dtype=np.int64))

    for domain, row in _unbatched(rows):
        row = row[row != PAD_ID][:tokens]
        tokens -= row.size
        closed = row.size - int(np.argmax(row[::-1] == EOS_ID)) if (row == EOS_ID).any() else 0
        open_parts[domain].append(row[:closed])
        if closed:
            put(domain, np.concatenate(open_parts[domain]))
            open_parts[domain] = []
        open_parts[domain].append(row[closed:])
        if tokens == 0:
            break
    for domain, parts in enumerate(open_parts):
        rest = np.concatenate([*parts, np.zeros(0, np.int32)])
        if rest.size:
            rest[-1] = EOS_ID
            put(domain, rest)
            counts[domain].documents_cut += 1
    return counts


def _unbatched(rows: tf.data.Dataset) -> Iterator[tuple[int, np.ndarray]]:
    for group in rows.batch(64).as_numpy_iterator():  # one crossing from tensorflow to numpy for many rows
        yield from zip(group["domain"].tolist(), group["targets"], strict=True)


def _available(data: DataConfig, index: int, builder: tfds.core.DatasetBuilder) -> dict[str, dict[str, int] | None]:
    """Documents and bytes of text on each side of the split; none for a data set too large to read through."""

    def add(total: tf.Tensor, example: dict) -> tf.Tensor:
        return total + tf.stack([1, tf.cast(tf.strings.length(example["text"]), tf.int64)])

    found = {}
    for split in tasks.SPLITS:
        if builder.info.dataset_size > _COUNTED_BYTES:
            found[split] = None
            continue
        dataset = tasks.texts(builder, data.sources[index], data.validation_fraction, split)
        documents, text_bytes = dataset.reduce(tf.zeros(2, tf.int64), add).numpy().tolist()
        found[split] = {"documents": documents, "bytes": text_bytes}
    return found


def _write_manifest(data: DataConfig, builders: Sequence[tfds.core.DatasetBuilder], identity: dict,
                    train: list[Count], validation: list[Count], folder: Path) -> None:  # fmt: skip
    total_rate = sum(source.rate for source in data.sources)
    domains = {}
    for index, (source, builder) in enumerate(zip(data.sources, builders, strict=True)):
        domains[source.name] = {
            "data_set": builder.info.full_name, "details": dict(builder.info.metadata or {}),
            "share_asked": source.rate / total_rate, "share_realised": train[index].tokens / data.train_tokens,
            "available": _available(data, index, builder),
            "train": asdict(train[index]), "validation": asdict(validation[index]),
        }  # fmt: skip
    files = {path.name: {"bytes": path.stat().st_size, "sha256": token_file.sha256(path)}
             for path in sorted(folder.iterdir())}  # fmt: skip
    manifest = {
        "format": token_file.FORMAT, "data": to_dict(data), "tokenizer": identity, "vocab_size": data.vocab_size,
        "eos_id": EOS_ID, "pad_id": PAD_ID, "domains": domains, "files": files, "python": platform.python_version(),
        "software": {name: importlib.metadata.version(name) for name in _SOFTWARE},
    }  # fmt: skip
    (folder / token_file.MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")


def _shares(data: DataConfig, counts: list[Count]) -> str:
    total = max(sum(count.tokens for count in counts), 1)
    return ", ".join(f"{source.name} {count.tokens:,} ({count.tokens / total:.4f})"
                     for source, count in zip(data.sources, counts, strict=True))  # fmt: skip


def _since(started: float) -> str:
    return f"{time.perf_counter() - started:.1f} s"

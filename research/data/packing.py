"""Write the token file of one source: its documents as tokens, once, with a manifest.

Imports tensorflow; `research/data/prepare.py` imports this file only when something has to be built.
"""

import importlib.metadata
import json
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import seqio
import tensorflow as tf
import tensorflow_datasets as tfds

from research.config import EOS_ID, PAD_ID, DataConfig, SourceConfig, check, to_dict
from research.data import sources, token_file, tokenizers
from research.data.extraction import Root
from research.data.tokenizers import SAMPLE_BYTES

_SOFTWARE = ("tensorflow", "tensorflow-datasets", "tensorflow-text", "seqio", "sentencepiece", "numpy")


@dataclass
class Side:
    """One side of the split: documents met and, of those, written, with their text's bytes and their tokens."""

    met: int = 0
    documents: int = 0
    bytes: int = 0
    tokens: int = 0
    longest_bytes: int = 0


@dataclass
class Documents:
    """What was read of a data set: both sides, what was left out between them, and whether it was read to its end."""

    train: Side
    validation: Side
    empty: int = 0
    repeated: int = 0
    is_read_to_end: bool = False


def pack(data: DataConfig, source: SourceConfig, wanted: tuple[int, int], caches: tuple[Path, Path],
         roots: Sequence[Root], folder: Path, report: Callable[[str], None]) -> None:  # fmt: skip
    """Fill the empty `folder` with the token file of a source (layout: `research/data/token_file.py`).

    At least the `wanted` numbers of training and held-out tokens go in, in whole documents in the data set's own order,
    or all that there are: a longer file begins with what a shorter one holds. `caches` are the folders of TFDS data
    sets and of SentencePiece models. The manifest's `documents` are `Documents`. Raises ConfigError for a source
    that leaves one side empty, and what `tasks` raises.
    """
    builder = sources.prepared_builder(source, caches[0], roots)
    vocabulary, tokenizer = _tokenizer(data, caches, roots, folder, report)
    lengths = tokenizers.token_bytes(vocabulary)
    lengths.astype(token_file.LENGTH_DTYPE).tofile(folder / token_file.TOKEN_BYTES)
    began = time.perf_counter()
    found = _write(data, source, wanted, builder, vocabulary, folder)
    _check_sides(data, source, found)
    manifest = {
        "format": token_file.FORMAT, "recipe": token_file.recipe(data, source), "tokenizer": tokenizer,
        "vocab_size": len(lengths), "eos_id": EOS_ID, "pad_id": PAD_ID, "source": to_dict(source),
        "data_set": builder.info.full_name, "details": dict(builder.info.metadata or {}), "documents": asdict(found),
        "files": token_file.files_of(folder), "python": platform.python_version(),
        "software": {name: importlib.metadata.version(name) for name in _SOFTWARE},
    }  # fmt: skip
    (folder / token_file.MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    report(f"{source.name}: packed {found.train.tokens:,} training tokens ({_since(began)})")


def leave_accelerators_alone() -> None:
    """Keep tensorflow from taking the memory of a GPU that the training needs; call once, before `pack`."""
    tf.config.set_visible_devices([], "GPU")


def _tokenizer(data: DataConfig, caches: tuple[Path, Path], roots: Sequence[Root], folder: Path,
               report: Callable[[str], None]) -> tuple[seqio.Vocabulary, dict]:  # fmt: skip
    """The tokenizer and what the manifest says of it; a SentencePiece model is copied next to the tokens."""
    if data.tokenizer == "bytes":
        return tokenizers.byte_vocabulary(), token_file.tokenizer_recipe(data)
    datasets, models = caches
    began = time.perf_counter()
    cached = tokenizers.trained_model(data, partial(_sample, data, datasets, roots), models)
    report(f"SentencePiece model: {cached} ({_since(began)})")
    model = folder / token_file.MODEL
    model.write_bytes(cached.read_bytes())
    identity = {**token_file.tokenizer_recipe(data), "sha256": token_file.sha256(model)}
    return tokenizers.ExactSentencePieceVocabulary(str(model)), identity


def _sample(data: DataConfig, datasets: Path, roots: Sequence[Root]) -> Iterator[str]:
    """Training documents, SAMPLE_BYTES of them shared out over the tokenizer's sources by their rates."""
    total_rate = sum(source.rate for source in data.tokenizer_mix)
    for source in data.tokenizer_mix:
        left = SAMPLE_BYTES * source.rate / total_rate
        builder = sources.prepared_builder(source, datasets, roots)
        for document in sources.documents(builder, source, data.validation_fraction):
            if left <= 0:
                break
            if not document.is_held_out:
                left -= len(document.text)
                yield document.text.decode()


def _write(data: DataConfig, source: SourceConfig, wanted: tuple[int, int], builder: tfds.core.DatasetBuilder,
           vocabulary: seqio.Vocabulary, folder: Path) -> Documents:  # fmt: skip
    dtype = token_file.token_dtype(vocabulary.vocab_size)
    found = Documents(Side(), Side())
    groups, failures = sources.tokenized(
        source.name, partial(sources.documents, builder, source, data.validation_fraction), vocabulary
    )
    with (
        open(folder / token_file.TRAIN, "wb") as train,
        open(folder / token_file.VALIDATION, "wb") as validation,
    ):
        sides = ((found.train, wanted[0], train), (found.validation, wanted[1], validation))
        for group in groups:
            for tokens, text_bytes, is_held_out in _documents_of(group, found):
                side, limit, file = sides[is_held_out]
                side.met += 1
                if side.tokens < limit:
                    _put(tokens.astype(dtype), text_bytes, side, file)
            if all(side.tokens >= limit for side, limit, _ in sides):
                return found
    if failures:
        raise failures[0]
    found.is_read_to_end = True
    return found


def _documents_of(group: dict, found: Documents) -> Iterator[tuple[np.ndarray, int, bool]]:
    """(tokens, bytes, whether held out) of each document of a group; what was left out between them goes to `found`."""
    begin = 0
    for i, end in enumerate(group["ends"].tolist()):
        found.empty, found.repeated = int(group["empty"][i]), int(group["repeated"][i])
        if group["text_bytes"][i]:  # the last of a data set is none
            yield group["targets"][begin:end], int(group["text_bytes"][i]), bool(group["is_held_out"][i])
        begin = end


def _put(tokens: np.ndarray, text_bytes: int, side: Side, file: BinaryIO) -> None:
    file.write(tokens.tobytes())
    side.documents += 1
    side.bytes += text_bytes
    side.tokens += tokens.size
    side.longest_bytes = max(side.longest_bytes, text_bytes)


def _check_sides(data: DataConfig, source: SourceConfig, found: Documents) -> None:
    distinct = found.train.met + found.validation.met
    left_out = f"{found.empty:,} empty and {found.repeated:,} repeated ones are left out"
    check(
        distinct > 1,
        f"data.sources[{source.name}].tfds",
        source.tfds,
        f"must hold at least two different documents, one to train on and one to hold out; it holds {distinct}, since "
        f"{left_out}",
        "use a larger source",
    )
    for name, side in (("held out", found.validation), ("left to train on", found.train)):
        check(
            side.documents > 0,
            "data.validation_fraction",
            data.validation_fraction,
            f"no document of source {source.name!r} is {name} at this share of {distinct:,} different ones; {left_out}",
            "choose another, or use a larger source",
        )


def _since(started: float) -> str:
    return f"{time.perf_counter() - started:.1f} s"

"""The text of one source as token ids: flat files with a manifest, read by memory map. Never imports tensorflow.

A folder `tokens/<source>-<tokenizer>-<key>/` holds train.bin and validation.bin (uint16, or uint32 for more than 65,536
ids, little endian: whole documents one after another, each closed by the end-of-document id), token_bytes.bin, for
SentencePiece tokenizer.model, and manifest.json, which `research/data/packing.py` writes and describes.

The key follows from what was asked for: data set, text feature, held-out share, tokenizer. It does not follow from the
software or the packages at hand, so that a folder made on one machine is found on any other. What is in the files is
said by their digests: in the manifest, and in every run that reads them.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import numpy as np

from research.config import DataConfig, SourceConfig, check
from research.data.errors import DataError
from research.data.extraction import RULES
from research.paths import cache_dir

FORMAT = 2  # of the folder; a new one gets a new key, so old folders are left alone
LENGTH_DTYPE = np.dtype("<u2")  # of token_bytes.bin
MANIFEST, TRAIN, VALIDATION = "manifest.json", "train.bin", "validation.bin"
TOKEN_BYTES, MODEL = "token_bytes.bin", "tokenizer.model"
_FIX = "Fix: delete the folder and prepare the data again"
_PREPARE = "Fix: `isoflop data prepare FILE`, or copy the folder from a machine that has it"
_CHUNK = 1 << 24  # bytes read at a time
# What is read of a manifest: the kind of each key's value, or the least that a whole number may be.
_SIDE = dict.fromkeys(("met", "documents", "bytes", "tokens", "longest_bytes"), 1)
_FILE = {"bytes": 1, "sha256": str}
_KEYS = {
    "vocab_size": 1, "eos_id": 0, "data_set": str, "tokenizer": dict,
    "documents": {"train": _SIDE, "validation": _SIDE, "empty": 0, "repeated": 0, "is_read_to_end": bool},
    "files": dict.fromkeys((TRAIN, VALIDATION, TOKEN_BYTES), _FILE),
}  # fmt: skip
_WORDS = {str: "a string", bool: "true or false", dict: "an object"}


def token_dtype(vocab_size: int) -> np.dtype:
    """The narrowest type for ids below `vocab_size`."""
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")


def recipe(data: DataConfig, source: SourceConfig) -> dict:
    """What decides the content of a source's token file, as far as a config says it; JSON-ready."""
    embedded = source.tfds.startswith("embedded_corpus/")
    return {
        "format": FORMAT,
        "tfds": source.tfds,
        "text_feature": source.text_feature,
        "extraction": RULES if embedded else None,
        "validation_fraction": data.validation_fraction,
        "tokenizer": tokenizer_recipe(data),
    }


def tokenizer_recipe(data: DataConfig) -> dict:
    """What decides the tokenizer. The bytes are the same for every vocabulary that holds them."""
    if data.tokenizer == "bytes":
        return {"kind": "bytes"}
    learnt_from = sorted((source.tfds, source.text_feature, source.rate) for source in data.tokenizer_mix)
    return {
        "kind": data.tokenizer,
        "vocab_size": data.vocab_size,
        "validation_fraction": data.validation_fraction,
        "learnt_from": [list(source) for source in learnt_from],
    }


def key_of(recipe: dict) -> str:
    """Twelve hex digits of a recipe."""
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:12]


def folder_of(data: DataConfig, source: SourceConfig) -> Path:
    """Where the token file of this source is, or would be once prepared."""
    readable = re.sub(r"\W+", "_", source.tfds)
    return cache_dir() / "tokens" / f"{readable}-{data.tokenizer}-{key_of(recipe(data, source))}"


@dataclass(frozen=True, eq=False)
class TokenFile:
    """Token ids of one source.

    train, validation: (tokens,) uint16 or uint32. token_bytes: (vocab_size,) uint16, the bytes of UTF-8 text each id
    stands for (0 for control ids), so the text behind any stretch of tokens is counted exactly.
    """

    folder: Path
    manifest: dict
    train: np.ndarray
    validation: np.ndarray
    token_bytes: np.ndarray

    @classmethod
    def open(cls, folder: Path) -> "TokenFile":
        """Map the files of a prepared folder. Raises DataError if it is not one, or a file's size is wrong."""
        folder = Path(folder)
        manifest = read_manifest(folder)
        for name, recorded in manifest["files"].items():
            path = folder / name
            size = path.stat().st_size if path.is_file() else "no"
            if size != recorded["bytes"]:
                raise DataError(f"{path} has {size} bytes where the manifest says {recorded['bytes']}. {_FIX}.")
        dtype = token_dtype(manifest["vocab_size"])
        train, validation = (np.memmap(folder / name, dtype, mode="r") for name in (TRAIN, VALIDATION))
        return cls(folder, manifest, train, validation, np.fromfile(folder / TOKEN_BYTES, LENGTH_DTYPE))

    @property
    def vocab_size(self) -> int:
        """Ids are below this; a model that reads the file has at least as many."""
        return self.manifest["vocab_size"]

    @property
    def end_id(self) -> int:
        """The id that closes every document."""
        return self.manifest["eos_id"]

    def is_whole(self, side: str) -> bool:
        """Whether the data set holds no more text of this side ("train" or "validation") than the file does."""
        documents = self.manifest["documents"]
        return documents["is_read_to_end"] and documents[side]["documents"] == documents[side]["met"]

    def check_vocabulary(self, vocab_size: int) -> None:
        """Raise ConfigError unless a model with this vocabulary can be trained on this file."""
        check(
            vocab_size >= self.vocab_size,
            "model.vocab_size",
            vocab_size,
            f"must be at least the {self.vocab_size} ids of the token file {self.folder}",
            f"set model.vocab_size and data.vocab_size to {self.vocab_size} or more",
        )

    def verify(self) -> None:
        """Read every file, compare its sha256 with the manifest's, and look for ids beyond the vocabulary.

        Raises DataError for the first fault, with the file and, for an id, its place.
        """
        for name, recorded in self.manifest["files"].items():
            found = sha256(self.folder / name)
            if found != recorded["sha256"]:
                raise DataError(
                    f"{self.folder / name} has sha256 {found} where the manifest says {recorded['sha256']}: "
                    f"its content has changed. {_FIX}."
                )
        for name, stream in ((TRAIN, self.train), (VALIDATION, self.validation)):
            for start in range(0, stream.size, _CHUNK):
                chunk = stream[start : start + _CHUNK]
                if chunk.max() >= self.vocab_size:
                    offset = int(np.argmax(chunk >= self.vocab_size))
                    raise DataError(
                        f"{self.folder / name}: token {start + offset:,} is {chunk[offset]}, beyond the vocabulary of "
                        f"{self.vocab_size} ids. {_FIX}."
                    )


def read_manifest(folder: Path) -> dict:
    """The manifest of a token file's folder. Raises DataError where there is none, or it is not what it should be."""
    path = Path(folder) / MANIFEST
    if not path.exists():
        raise DataError(f"{folder} holds no {MANIFEST}: this text has not been prepared here. {_PREPARE}.")
    if not path.is_file():
        raise DataError(f"{path} is no file. {_FIX}.")
    try:
        manifest = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is damaged ({error}). {_FIX}.") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise DataError(f"{path} is not a manifest of format {FORMAT}. {_FIX}.")
    _check_keys(path, manifest, _KEYS)
    _check_keys(path, manifest["files"], dict.fromkeys(manifest["files"], _FILE), "files.")
    _check_sizes(path, manifest)
    return manifest


def _check_keys(path: Path, found: Mapping, wanted: Mapping, within: str = "") -> None:
    """Raise DataError unless every key that is wanted is there with a value of its kind (see _KEYS)."""
    for key, kind in wanted.items():
        if key not in found:
            raise DataError(f"{path}: {within}{key} is missing. {_FIX}.")
        value = found[key]
        if type(kind) is int:
            fits, rule = type(value) is int and value >= kind, f"a whole number of at least {kind}"
        else:
            of = dict if isinstance(kind, dict) else kind
            fits, rule = isinstance(value, of), _WORDS[of]
        if not fits:
            raise DataError(f"{path}: {within}{key} = {value!r}: must be {rule}. {_FIX}.")
        if isinstance(kind, dict):
            _check_keys(path, value, kind, f"{within}{key}.")


def _check_sizes(path: Path, manifest: Mapping) -> None:
    """Raise DataError unless each file has the bytes of as many numbers as the manifest says it holds."""
    ids, sides = manifest["vocab_size"], manifest["documents"]
    said = {
        TOKEN_BYTES: ("vocab_size", ids, LENGTH_DTYPE),
        TRAIN: ("documents.train.tokens", sides["train"]["tokens"], token_dtype(ids)),
        VALIDATION: ("documents.validation.tokens", sides["validation"]["tokens"], token_dtype(ids)),
    }
    for name, (key, count, dtype) in said.items():
        size = manifest["files"][name]["bytes"]
        if size != count * dtype.itemsize:
            rule = f"must be the numbers of {dtype.itemsize} bytes in {name}, which has {size} bytes"
            raise DataError(f"{path}: {key} = {count}: {rule}. {_FIX}.")


def open_files(data: DataConfig) -> dict[str, TokenFile]:
    """Source name -> its token file, verified the first time this process opens it.

    Raises DataError for one that is missing, damaged, or made by another tokenizer than the first.
    """
    files = {source.name: TokenFile.open(folder_of(data, source)) for source in data.sources}
    for file in files.values():
        _verify_once(file.folder, (file.folder / MANIFEST).stat().st_mtime_ns)
    check_one_tokenizer(files)
    return files


def check_one_tokenizer(files: Mapping[str, TokenFile]) -> None:
    """Raise DataError unless the ids of all files mean the same."""
    digests = {file.manifest["tokenizer"].get("sha256"): file.folder for file in files.values()}
    if len(digests) > 1:
        raise DataError(
            f"{' and '.join(map(str, digests.values()))} were made with different SentencePiece models, so the same id "
            "means different text. Fix: delete all of them and prepare the data again."
        )


@cache
def _verify_once(folder: Path, manifest_time: int) -> None:
    TokenFile.open(folder).verify()


@lru_cache(maxsize=64)
def text_digest(file: TokenFile, side: str, tokens: int) -> str:
    """Hex sha256 of the first `tokens` ids of a side ("train" or "validation"), as they are stored."""
    return hashlib.sha256(np.ascontiguousarray(getattr(file, side)[:tokens])).hexdigest()


def sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_of(folder: Path) -> dict[str, dict]:
    """Name -> size and digest of every file in a folder, for its manifest."""
    return {
        path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)}
        for path in sorted(folder.iterdir())
        if path.name != MANIFEST
    }

"""The packed text of a run: flat files of token ids with a manifest, read by memory map. Never imports tensorflow.

A folder `tokens/<key>/` holds train.bin and validation_<domain>.bin (uint16, little endian: documents one after
another, each closed by the end-of-document id, none trimmed), token_bytes.bin, for SentencePiece tokenizer.model, and
manifest.json, which `research/data/packing.py` writes and describes.
"""

import hashlib
import json
import types
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from research.config import DataConfig, check, fingerprint
from research.paths import cache_dir

FORMAT = 1  # of the folder; a new one gets a new key, so old folders are left alone
TOKEN_DTYPE = np.dtype("<u2")
_FIX = "delete the folder and prepare the data again"
MANIFEST, TRAIN, TOKEN_BYTES, MODEL = "manifest.json", "train.bin", "token_bytes.bin", "tokenizer.model"


def validation_name(domain: str) -> str:
    """The file that holds a domain's held-out tokens."""
    return f"validation_{domain}.bin"


def folder_of(data: DataConfig) -> Path:
    """Where the token file of this config is, or would be once prepared."""
    return cache_dir() / "tokens" / f"{fingerprint(data)}-v{FORMAT}"


@dataclass(frozen=True)
class TokenFile:
    """Token ids of a prepared config.

    train: (tokens,) uint16. validation: domain -> (tokens,) uint16. token_bytes: (vocabulary,) uint16, the bytes of
    UTF-8 text each id stands for (0 for control ids), so the text behind any stretch of tokens is counted exactly.
    """

    folder: Path
    manifest: dict
    train: np.memmap
    validation: Mapping[str, np.memmap]
    token_bytes: np.ndarray

    @classmethod
    def open(cls, folder: Path) -> "TokenFile":
        """Map the files of a prepared folder. Raises ConfigError if it is not one, or a file's size is wrong."""
        folder = Path(folder)
        check(
            (folder / MANIFEST).is_file(),
            "token file",
            str(folder),
            "holds no manifest.json",
            "prepare the data first: `isoflop run` does, and so does research.data.prepare.prepare",
        )
        manifest = json.loads((folder / MANIFEST).read_text())
        check(
            manifest.get("format") == FORMAT,
            "token file",
            str(folder),
            f"has format {manifest.get('format')!r}, this version reads {FORMAT}",
            _FIX,
        )
        for name, recorded in manifest["files"].items():
            path = folder / name
            size = path.stat().st_size if path.is_file() else None
            check(
                size == recorded["bytes"],
                "token file",
                str(path),
                f"has {size} bytes where the manifest says {recorded['bytes']}",
                _FIX,
            )
        validation = {domain: _map(folder / validation_name(domain)) for domain in manifest["domains"]}
        return cls(
            folder,
            manifest,
            _map(folder / TRAIN),
            types.MappingProxyType(validation),
            np.fromfile(folder / TOKEN_BYTES, TOKEN_DTYPE),
        )

    @property
    def vocab_size(self) -> int:
        """Ids are below this; a model that reads the file has as many."""
        return self.manifest["vocab_size"]

    @property
    def end_id(self) -> int:
        """The id that closes every document."""
        return self.manifest["eos_id"]

    @property
    def validation_bytes(self) -> dict[str, int]:
        """Bytes of text in each domain's validation file."""
        return {domain: counts["validation"]["bytes"] for domain, counts in self.manifest["domains"].items()}

    def check_vocabulary(self, vocab_size: int) -> None:
        """Raise ConfigError unless a model with this vocabulary can be trained on this file."""
        check(
            vocab_size == self.vocab_size,
            "model.vocab_size",
            vocab_size,
            f"must equal the vocabulary of the token file {self.folder}, {self.vocab_size} ids",
            f"set model.vocab_size and data.vocab_size to {self.vocab_size}, or prepare the data for {vocab_size}",
        )

    def verify(self) -> None:
        """Read every file and compare its sha256 with the manifest's. Raises ConfigError for the first that differs."""
        for name, recorded in self.manifest["files"].items():
            found = sha256(self.folder / name)
            check(
                found == recorded["sha256"],
                "token file",
                str(self.folder / name),
                f"has sha256 {found} where the manifest says {recorded['sha256']}",
                _FIX,
            )


def sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _map(path: Path) -> np.memmap:
    return np.memmap(path, TOKEN_DTYPE, mode="r")

"""One call that makes sure the token files of a config exist. Imports tensorflow only when it has to build one."""

import contextlib
import errno
import fcntl
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from research.config import DataConfig, SourceConfig, check
from research.data import extraction
from research.data.describe import described
from research.data.errors import DataError
from research.data.extraction import Root
from research.data.token_file import MANIFEST, TokenFile, folder_of, open_files
from research.paths import cache_dir

# Packed beyond a source's share of data.train_tokens, for the windows that its share ends in: two of the longest.
SPARE_TOKENS = 1 << 17
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_UNFINISHED = ("tokens/*.tmp*", "tokenizers/*.tmp*", "datasets/installed-*/extracted.tmp*",
               "datasets/installed-*/embedded_corpus/*/incomplete.*")  # fmt: skip


def prepare(data: DataConfig, report: Callable[[str], None] = print,
            roots: Sequence[Root] | None = None) -> dict[str, TokenFile]:  # fmt: skip
    """Source name -> its token file, verified; those that are missing or too short are built now.

    Building prepares the TFDS data sets, trains the tokenizer if there is one to train, and packs; all are cached under
    `research.paths.cache_dir()`. A folder appears whole or not at all, and processes that call this at once take turns.
    Files that are there need neither tensorflow nor the packages that their text is from. `report` is given a line of
    text for each stage. `roots` replaces the installed packages as the embedded corpus. Large corpora are parsed in
    spawned processes, so a script needs the usual `if __name__ == "__main__"` around this.

    Raises ConfigError for a source that cannot be had, or that is shorter than its share of data.train_tokens (with
    the number of tokens there are); DataError for what is damaged or not UTF-8, and a file system without locks;
    OSError, with what to do, when the disk is full.
    """
    if _unprepared(data):
        tokens_dir = cache_dir() / "tokens"
        tokens_dir.mkdir(parents=True, exist_ok=True)
        with _clear_disk_errors(tokens_dir), _turn(cache_dir() / "prepare.lock", report):
            _build_missing(data, roots, report)
    files = open_files(data)
    for line in described(data, files):
        report(line)
    _check_length(data, files)
    return files


def _unprepared(data: DataConfig) -> list[SourceConfig]:
    """Sources whose token file is missing, or shorter than what is asked while the data set holds more."""
    return [source for source in data.sources if _tokens_to_pack(data, source) is not None]


def _tokens_to_pack(data: DataConfig, source: SourceConfig) -> tuple[int, int] | None:
    """Training and held-out tokens to pack for a source, no fewer than are there; none if what is there will do."""
    asked = data.source_tokens(source.name) + SPARE_TOKENS, data.validation_tokens
    folder = folder_of(data, source)
    if not (folder / MANIFEST).exists():
        return asked
    tokens = TokenFile.open(folder)
    there = tokens.train.size, tokens.validation.size
    whole = tokens.is_whole("train"), tokens.is_whole("validation")
    is_enough = all(has or size >= least for has, size, least in zip(whole, there, asked, strict=True))
    return None if is_enough else (max(asked[0], there[0]), max(asked[1], there[1]))


def _check_length(data: DataConfig, files: Mapping[str, TokenFile]) -> None:
    shares = data.mean_shares
    most = min(int(file.train.size / shares[name]) for name, file in files.items() if shares[name] > 0)
    for name, file in files.items():
        wanted = data.source_tokens(name)
        check(
            file.train.size >= wanted,
            "data.train_tokens",
            data.train_tokens,
            f"source {name!r} holds {file.train.size:,} tokens, and its share of {shares[name]:.4f} takes {wanted:,}, "
            f"{wanted / file.train.size:.2f} epochs of it",
            f"lower data.train_tokens to {most} or less; to repeat text on purpose, raise training.max_epochs too",
        )


def _build_missing(data: DataConfig, roots: Sequence[Root] | None, report: Callable[[str], None]) -> None:
    """Build what is still missing now that this process has its turn."""
    if not _unprepared(data):
        return
    report("preparing data (once): importing tensorflow")
    with _held_back_stderr():
        from research.data import packing

        packing.leave_accelerators_alone()
    cache = cache_dir()
    for pattern in _UNFINISHED:
        for left_over in cache.glob(pattern):  # of a process that was killed: whoever is at work holds the lock we hold
            shutil.rmtree(left_over)
    embedded = any(source.tfds.startswith("embedded_corpus/") for source in (*data.sources, *data.tokenizer_mix))
    if roots is None:
        roots = extraction.installed_roots() if embedded else ()
    caches = (cache / "datasets", cache / "tokenizers")
    for source in data.sources:  # two of them may share a folder
        if (wanted := _tokens_to_pack(data, source)) is not None:
            folder = folder_of(data, source)
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}.tmp") as made:
                staged = Path(made) / folder.name
                staged.mkdir()
                packing.pack(data, source, wanted, caches, roots, staged, report)
                _sync(staged)
                _replace(folder, staged, report)


def _replace(folder: Path, staged: Path, report: Callable[[str], None]) -> None:
    """Put `staged` in the place of `folder`; says so where it does not begin with what was there."""
    if (folder / MANIFEST).exists():
        before, after = TokenFile.open(folder), TokenFile.open(staged)
        for old, new in ((before.train, after.train), (before.validation, after.validation)):
            if not np.array_equal(old, new[: old.size]):
                report(f"{folder.name}: the data set has changed since it was packed; runs begun on the text before "
                       "are refused")  # fmt: skip
                break
    if folder.exists():
        folder.rename(staged.with_name(f"{folder.name}.old"))
    staged.rename(folder)


@contextlib.contextmanager
def _turn(lock: Path, report: Callable[[str], None]) -> Iterator[None]:
    """Hold `lock`; the system frees it when the process ends, however it ends."""
    with open(lock, "w") as file:
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                report(f"another process is preparing data; waiting for it ({lock})")
                fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            raise DataError(
                f"{lock}: its file system cannot lock files (flock: {error.strerror}), and without locks two processes "
                "might write one token file. Fix: set ISOFLOP_CACHE to a folder on a local disk, or mount the file "
                "system with flock."
            ) from error
        yield


@contextlib.contextmanager
def _clear_disk_errors(tokens_dir: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK_FULL:
            raise
        free = shutil.disk_usage(tokens_dir).free
        message = (f"the disk is full ({free / 1e6:.0f} MB free now): the token file was not made, no part is left. "
                   "Fix: free some space, or set ISOFLOP_CACHE to a folder on a larger disk")  # fmt: skip
        raise OSError(error.errno, message, str(tokens_dir)) from error


@contextlib.contextmanager
def _held_back_stderr() -> Iterator[None]:
    """Keep what C++ libraries write while they load (tensorflow: ten lines) off the terminal, unless loading fails."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(kept, held.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _sync(folder: Path) -> None:
    """Everything in the folder is on disk before its name appears."""
    for path in (*folder.iterdir(), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

"""One call that makes sure a config's token file exists. Imports tensorflow only when it has to build one."""

import contextlib
import errno
import fcntl
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from research.config import DataConfig, differences
from research.data import extraction
from research.data.extraction import Root
from research.data.token_file import MANIFEST, TokenFile, folder_of
from research.paths import cache_dir

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_UNFINISHED = ("tokens/*.tmp*", "datasets/installed-*/extracted.tmp*",
               "datasets/installed-*/embedded_corpus/*/incomplete.*")  # fmt: skip


def prepare(data: DataConfig, report: Callable[[str], None] = print, roots: Sequence[Root] | None = None) -> Path:
    """The folder of the token file of `data`, built now if it is missing; read it with `TokenFile.open`.

    Building prepares the TFDS data sets, trains the tokenizer if there is one to train, and packs; all are cached under
    `research.paths.cache_dir()`. A folder appears whole or not at all, and processes that call this at once take turns.
    `report` is given a line of text for each stage. `roots` replaces the installed packages as the embedded corpus.
    Large corpora are parsed in spawned processes, so a script needs the usual `if __name__ == "__main__"` around this.

    Raises ConfigError for a source that cannot be had, or sources shorter than data.train_tokens at their rates (with
    the number of tokens there are); OSError, with what to do, when the disk is full.
    """
    folder = folder_of(data)
    if not (folder / MANIFEST).exists():
        roots = extraction.installed_roots() if roots is None else tuple(roots)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _clear_disk_errors(folder), _turn(cache_dir() / "prepare.lock", report):
            if not (folder / MANIFEST).exists():
                _build(data, roots, folder, report)
    elif roots is None:
        _report_other_versions(TokenFile.open(folder), report)
    return folder


def _build(data: DataConfig, roots: Sequence[Root], folder: Path, report: Callable[[str], None]) -> None:
    report("preparing data (once): importing tensorflow")
    with _held_back_stderr():
        from research.data import packing

        packing.leave_accelerators_alone()
    cache = cache_dir()
    for pattern in _UNFINISHED:
        for left_over in cache.glob(pattern):  # of a process that was killed: whoever is at work holds the lock we hold
            shutil.rmtree(left_over)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}.tmp") as made:
        staged = Path(made) / folder.name
        staged.mkdir()
        packing.pack(data, cache / "datasets", cache / "tokenizers", roots, staged, report)
        _sync(staged)
        if folder.exists():  # without a manifest: not a token file
            shutil.rmtree(folder)
        staged.rename(folder)
    size = sum(path.stat().st_size for path in folder.iterdir())
    report(f"token file: {folder} ({size / 1e6:.1f} MB)")


def _report_other_versions(tokens: TokenFile, report: Callable[[str], None]) -> None:
    """Say so where the embedded corpus came from other package versions than are installed now; it is kept."""
    now = extraction.versions(extraction.installed_roots())
    for domain, found in tokens.manifest["domains"].items():
        then = found["details"].get("versions", now)
        changed = [f"{name} {old} -> {new}" for name, old, new in differences(then, now)]
        if changed:
            report(f"{domain}: the token file was made with other package versions ({', '.join(changed)}); it is used "
                   f"as it is. To make it anew delete {tokens.folder}")  # fmt: skip


@contextlib.contextmanager
def _turn(lock: Path, report: Callable[[str], None]) -> Iterator[None]:
    """Hold `lock`; the system frees it when the process ends, however it ends."""
    with open(lock, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report(f"another process is preparing data; waiting for it ({lock})")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _clear_disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK_FULL:
            raise
        free = shutil.disk_usage(folder.parent).free
        message = (f"the disk is full ({free / 1e6:.0f} MB free now): the token file was not made, no part is left. "
                   "Fix: free some space, or set ISOFLOP_CACHE to a folder on a larger disk")  # fmt: skip
        raise OSError(error.errno, message, str(folder)) from error


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

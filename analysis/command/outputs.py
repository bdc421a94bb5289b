"""Where the verbs on a table put what they found: standard output, and files that are checked before any work."""

import errno
import os
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

PIPE_WIDTH = 1000  # columns of output that no terminal shows


class OutputError(ValueError):
    """A file cannot be written; the message names the option, the path, the reason and the fix."""


def standard_output() -> Console:
    """Standard output; a pipe or a file has no width, so nothing is wrapped there unless COLUMNS asks for it.

    A character that its encoding lacks, as in the name of a run, is printed as a question mark.
    """
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
    is_narrow = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console() if is_narrow else Console(width=PIPE_WIDTH)


def announce(console: Console, paths: Iterable[Path]) -> None:
    """Print the path of each file that was written, on a line of its own."""
    for path in paths:
        console.print(f"wrote {path}", style="dim", highlight=False, markup=False, soft_wrap=True)


def check_file(option: str, path: Path | None) -> None:
    """Raise OutputError unless a file can be written at the `path` that an option gives, if it does.

    Nothing is left behind: folders that are not there yet are made when the file is written.
    """
    if path is None:
        return
    with writing(option, path):
        if _exists(path) and not stat.S_ISREG(path.stat().st_mode):
            raise OSError(errno.EISDIR, "is a folder" if path.is_dir() else "is no regular file")
        _check_place(path.parent)


def check_folder(option: str, path: Path | None) -> None:
    """Raise OutputError unless files can be written into the folder that an option gives, if it does."""
    if path is not None:
        with writing(option, path):
            _check_place(path)


def write_json(console: Console, path: Path | None, value: Any) -> None:
    """Write a value's JSON to the `path` that --json gives, whose folders are made, and say so; nothing without one."""
    from analysis import json_values
    from analysis.files import write_atomically

    if path is not None:
        with writing("--json", path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, json_values.dumps(value).encode())
        announce(console, [path])


@contextmanager
def writing(option: str, path: Path) -> Iterator[None]:
    """Inside, what the system refuses raises OutputError; a full disk, for which the command has words, stays one."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise OutputError(
            f"{option} = {str(path)!r}: cannot be written ({error.strerror or error}). Fix: give another path, in a "
            "folder that can be written."
        ) from error


def _exists(path: Path) -> bool:
    """Whether anything is at a path. Raises OSError for one at which nothing can be: below a file, or too long."""
    try:
        path.stat()
    except FileNotFoundError:
        return False
    return True


def _check_place(folder: Path) -> None:
    """Raise OSError where no file can be made in `folder`, or in the nearest one above that is there."""
    while not _exists(folder) and folder != folder.parent:
        folder = folder.parent
    with tempfile.TemporaryFile(dir=folder):
        pass

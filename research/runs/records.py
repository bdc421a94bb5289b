"""Reading what a run left as JSON. A file that a crash, a full disk or a bad copy damaged is named, never guessed at.

Whole files (result.json) raise DamagedFileError. Of files that grow by lines (metrics.jsonl, timings.jsonl) every good
line is kept: a full disk leaves half a line, which the next start follows with good ones. What is left out is said in
the log.
"""

import json
import logging
import os
from pathlib import Path
from typing import Any, NoReturn

TAIL_BYTES = 4096


class DamagedFileError(ValueError):
    """A file that this project wrote does not read back; the message names it and what is wrong."""


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in the file at `path`, every number in it finite.

    Raises DamagedFileError for a file that is empty, cut off, no UTF-8, no JSON or no object; FileNotFoundError.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except IsADirectoryError as error:
        raise DamagedFileError(f"{path}: is no file ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DamagedFileError(f"{path}: is damaged, byte {error.start} is no UTF-8") from error
    if not text.strip("\0 \n"):
        raise DamagedFileError(f"{path}: is empty")
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except ValueError as error:  # its message: what was expected, with line and column
        raise DamagedFileError(f"{path}: is damaged, {error}") from error
    if not isinstance(value, dict):
        raise DamagedFileError(f"{path}: must hold a JSON object, and holds {value!r:.40}")
    return value


def read_lines(path: Path, needed: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file that have the keys `needed`, oldest first; none if there is no file.

    A last line without its line end is still being written, or was cut off by a crash: it is left out without a word.
    Any other line that does not read back is left out with a warning in the log that names file and line.
    """
    if not path.exists():
        return []
    numbered = enumerate(path.read_bytes().splitlines(keepends=True), 1)
    read = [(number, _record(line, needed)) for number, line in numbered if line.endswith(b"\n")]
    for number, record in read:
        if record is None:
            logging.getLogger(__name__).warning("%s: line %d is damaged and left out", path, number)
    return [record for _, record in read if record is not None]


def read_last_line(path: Path, kind: str, needed: tuple[str, ...]) -> dict[str, Any] | None:
    """The newest object of a JSON-lines file that has this `kind` and the keys `needed`; None if there is none.

    Reads from the end, so that it costs the same whatever the file's length. Damaged lines are passed over.
    """
    if not path.exists():
        return None
    with open(path, "rb") as file:
        length = file.seek(0, os.SEEK_END)
        window = min(length, TAIL_BYTES)
        while True:
            file.seek(length - window)
            lines = file.read(window).split(b"\n")[:-1]  # what follows the last line end is no complete line
            for line in reversed(lines if window == length else lines[1:]):
                record = _record(line, ("kind", *needed))
                if record is not None and record["kind"] == kind:
                    return record
            if window == length:
                return None
            window = min(length, 16 * window)


def append_line(path: Path, record: dict[str, Any]) -> None:
    """Add one object to a JSON-lines file, on a line of its own even after one that was cut off."""
    text = json.dumps(record, allow_nan=False) + "\n"
    with open(path, "ab+") as file:
        file.seek(0, os.SEEK_END)
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                text = "\n" + text
        file.write(text.encode())


def _record(line: bytes, needed: tuple[str, ...]) -> dict[str, Any] | None:
    try:
        record = json.loads(line, parse_constant=_refuse_constant)
    except ValueError:  # no UTF-8, no JSON, or a number that is not finite
        return None
    return record if isinstance(record, dict) and all(name in record for name in needed) else None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")

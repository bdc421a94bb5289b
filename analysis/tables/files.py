"""Tables in files: text with any separator, plain or compressed, and Parquet, with every fault of a file in words."""

import bz2
import csv
import gzip
import io
import lzma
import os
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from analysis.tables import numbers

TEXT_ENDINGS, PARQUET_ENDINGS = (".csv", ".tsv", ".txt"), (".parquet", ".pq")
SEPARATORS = (",", ";", "\t", "|")
BYTE_ORDER_MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
DAMAGE = (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)  # gzip's and bz2's are OSErrors
NOTES = "table_notes"  # in `attrs` of a table: what was concluded while it was read, to be said beside any result
LAYOUT_ROWS, LAYOUT_CHARACTERS = 20, 2**20  # read to find the separator
READ = ".csv, .tsv, .txt (also .gz, .bz2, .xz or .zip) or .parquet"


class TableError(ValueError):
    """A table is wrong; the message names the file or the column, its value, the rule and the fix."""


def notes_of(table: pd.DataFrame) -> tuple[str, ...]:
    """What was concluded while a table was read; nothing for one that was made otherwise."""
    return tuple(table.attrs.get(NOTES, ()))


def with_notes(table: pd.DataFrame, notes: Sequence[str]) -> pd.DataFrame:
    """The table with these notes, in place of those it has."""
    table.attrs = {**table.attrs, NOTES: list(dict.fromkeys(notes))}
    return table


def read_file(path: Path | str, decimal: str = "") -> pd.DataFrame:
    """Any table in a text or Parquet file, as it is; `complete`, `adopt` or `validate` checks it.

    The separator is the one of comma, semicolon, tab and bar that parts the header. Numbers with commas are read as
    `numbers` says; decimal: the file's decimal mark, "." or ",", where it is to be stated. The encoding is UTF-8,
    UTF-16 by its mark, and else Latin-1, which `notes_of` says.
    Raises TableError if the file is absent, empty, damaged, no text, or of another kind, and for a header that does not
    name each field of its rows once.
    """
    path = Path(path)
    if decimal not in ("", *numbers.MARKS):
        raise TableError(f"decimal = {decimal!r}: must be one of '.' and ','. Fix: choose one.")
    if not os.path.isfile(path):  # False for any path that no file can have, too, where Path.is_file may raise
        state = "is a folder" if os.path.isdir(path) else "no such file"
        raise TableError(f"table = {str(path)!r}: {state}. Fix: give the path of a .csv or .parquet file.")
    name = path.name.lower()
    if name.endswith(PARQUET_ENDINGS):
        return _parquet(path)
    bare, ending = os.path.splitext(name)
    if ending not in DECOMPRESS:
        bare, ending = name, ""
    if bare.endswith(TEXT_ENDINGS):
        return _text(path, ending, decimal)
    raise TableError(f"table = {str(path)!r}: must be {READ}. Fix: convert it.")


def _text(path: Path, compression: str, decimal: str) -> pd.DataFrame:
    try:
        content = DECOMPRESS[compression](path.read_bytes())
    except (*DAMAGE, ValueError, RuntimeError) as error:  # the last two: of half a .bz2, of a .zip with a password
        raise TableError(f"table = {str(path)!r}: is damaged ({error}). Fix: copy or write it again.") from error
    text, notes = _decoded(path, content)
    try:
        separator, names, row = _layout(text)
        _check_header(path, names, row)
        frame = _frame(text, separator)
        if decimal == "," or numbers.has_comma_numbers(frame):
            as_written = _frame(text, separator, dtype="string")
            frame, concluded = numbers.with_numbers(frame, as_written, separator, decimal)
            notes += concluded
    except (pd.errors.EmptyDataError, pd.errors.ParserError, csv.Error) as error:
        said = str(error).strip()
        raise TableError(f"table = {str(path)!r}: {said}. Fix: write a header line, then one row per run.") from error
    return with_notes(frame, notes) if notes else frame


def _frame(text: str, separator: str, **options) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(text), sep=separator, skipinitialspace=True, **options)


def _unzipped(content: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = [name for name in archive.namelist() if name.lower().endswith(TEXT_ENDINGS)]
        if len(names) != 1:
            raise zipfile.BadZipFile(f"it holds {len(names)} tables, and one is read")
        return archive.read(names[0])


DECOMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.decompress,
    ".bz2": bz2.decompress,
    ".xz": lzma.decompress,
    ".zip": _unzipped,
}


def _decoded(path: Path, content: bytes) -> tuple[str, tuple[str, ...]]:
    """A file's text, and a note where its encoding is a guess: numbers and ASCII names are the same in any case."""
    mark = next((mark for mark in BYTE_ORDER_MARKS if content.startswith(mark)), None)
    try:
        if b"\0" in content and mark not in (b"\xff\xfe", b"\xfe\xff"):
            raise TableError(
                f"table = {str(path)!r}: holds zero bytes and is no text, or UTF-16 without its mark. Fix: save it as "
                "UTF-8 text."
            )
        return content.decode(BYTE_ORDER_MARKS[mark] if mark else "utf-8"), ()
    except UnicodeDecodeError as error:
        if mark:
            raise TableError(
                f"table = {str(path)!r}: is damaged ({error.reason} at byte {error.start}). Fix: copy or write it "
                "again."
            ) from error
    return content.decode("latin-1"), (f"table {path.name!r}: is not UTF-8; its text was read as Latin-1",)


def _layout(text: str) -> tuple[str, list[str], list[str]]:
    """The separator, the header and the row after it as they are written; empty where there is none.

    The separator is the one under which the header has most names, of those under which rows have as many fields.
    """
    best: tuple[tuple[bool, int], str, list[list[str]]] | None = None
    beginning = text[:LAYOUT_CHARACTERS]
    for separator in SEPARATORS:
        reader = csv.reader(io.StringIO(beginning), delimiter=separator, skipinitialspace=True)
        rows = []
        for row in reader:
            if len(row) > 1 or "".join(row).strip():
                rows.append(row)
            if len(rows) == LAYOUT_ROWS:
                break
        width = len(rows[0]) if rows else 0
        key = (width > 1 and all(len(row) <= width for row in rows), width)
        if best is None or key > best[0]:
            best = key, separator, rows
    _, separator, rows = best or ((False, 0), ",", [])
    return separator, rows[0] if rows else [], rows[1] if len(rows) > 1 else []


def _check_header(path: Path, names: Sequence[str], row: Sequence[str]) -> None:
    """Raise TableError for what pandas would read in its own way and say nothing.

    It takes the first field of every row for the row's name where there is one more than the header has, and renames
    the second of two columns of one name. Columns without a name may be many: nothing reads them.
    """
    if len(row) > len(names):
        raise TableError(
            f"table = {str(path)!r}: the header has names for {len(names)} of the {len(row)} fields of a row. Fix: "
            "name every column, and end no row with a separator."
        )
    twice = [name for name in names if name and names.count(name) > 1]
    if twice:
        raise TableError(
            f"table = {str(path)!r}: column {twice[0]!r} is there {names.count(twice[0])} times. Fix: keep one of them."
        )


def _parquet(path: Path) -> pd.DataFrame:
    import pyarrow

    try:
        return pd.read_parquet(path)
    except (pyarrow.ArrowException, *DAMAGE) as error:
        raise TableError(
            f"table = {str(path)!r}: is no readable Parquet file ({error}). Fix: write it again, or name it .csv if "
            "it is text."
        ) from error

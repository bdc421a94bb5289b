"""Tables in files: text with any separator, plain or compressed, and Parquet, with every fault of a file in words."""

import bz2
import csv
import gzip
import io
import json
import lzma
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from analysis.tables import numbers

TEXT_ENDINGS, PARQUET_ENDINGS = (".csv", ".tsv", ".txt"), (".parquet", ".pq")
SEPARATORS = (",", ";", "\t", "|")
BLANKS = r"\s+"  # between fields that none of the separators parts
BYTE_ORDER_MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
DAMAGE = (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)  # gzip's and bz2's are OSErrors
NAMED_MEMBERS = 5  # of a .zip that does not hold one table
NOTES = "table_notes"  # in `attrs` of a table: what was concluded while it was read, to be said beside any result
WORDS = "words_read_as_missing"  # in `attrs`, too, as one text: pandas copies attrs deeply with every table
LAYOUT_ROWS, LAYOUT_CHARACTERS = 20, 2**20  # read to find the separator
READ = ".csv, .tsv, .txt (also .gz, .bz2, .xz or .zip) or .parquet"


class TableError(ValueError):
    """A table is wrong; the message names the file or the column, its value, the rule and the fix."""


class _NotOneTable(Exception):
    """A .zip that is whole holds no table, or several."""


def notes_of(table: pd.DataFrame) -> tuple[str, ...]:
    """What was concluded while a table was read; nothing for one that was made otherwise."""
    return tuple(table.attrs.get(NOTES, ()))


def with_notes(table: pd.DataFrame, notes: Sequence[str]) -> pd.DataFrame:
    """The table with these notes, in place of those it has."""
    table.attrs = {**table.attrs, NOTES: list(dict.fromkeys(notes))}
    return table


def words_of(table: pd.DataFrame) -> dict[str, dict[int, str]]:
    """For each column, the words that its cells held before they were read as missing, by the rows' index labels."""
    known = json.loads(table.attrs.get(WORDS, "{}"))
    return {name: {int(label): word for label, word in words.items()} for name, words in known.items()}


def with_words(table: pd.DataFrame, words: Mapping[str, Mapping[int, str]]) -> pd.DataFrame:
    """The table with these words, by its index labels, in place of those it has."""
    table.attrs = {**table.attrs, WORDS: json.dumps(words)}
    return table


def renumbered(frame: pd.DataFrame) -> pd.DataFrame:
    """A copy whose index counts the rows from 0, its words with it."""
    table, words = frame.reset_index(drop=True), words_of(frame)
    if not words:
        return table
    rows = list(enumerate(frame.index))
    return with_words(
        table, {name: {i: old[label] for i, label in rows if label in old} for name, old in words.items()}
    )


def read_file(path: Path | str, decimal: str = "") -> pd.DataFrame:
    """Any table in a text or Parquet file, as it is; `complete`, `adopt` or `validate` checks it.

    The separator is the one of comma, semicolon, tab and bar that parts the header, or blanks where none of them does
    and every row has as many words as the header. Numbers with commas are read as `numbers` says; decimal: the file's
    decimal mark, "." or ",", where it is to be stated. The encoding is UTF-8,
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
    if bare.endswith(TEXT_ENDINGS) or ending == ".zip":  # whose members have endings of their own
        return _text(path, ending, decimal)
    raise TableError(f"table = {str(path)!r}: must be {READ}. Fix: convert it.")


def _text(path: Path, compression: str, decimal: str) -> pd.DataFrame:
    try:
        content = DECOMPRESS[compression](path.read_bytes())
    except _NotOneTable as error:
        raise TableError(f"table = {str(path)!r}: {error}") from error
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
        raise TableError(f"table = {str(path)!r}: {_unreadable(str(error))}") from error
    return with_notes(frame, notes) if notes else frame


def _unreadable(said: str) -> str:
    """What pandas or csv says of a text that is no table, with the line where it knows one, and the fix."""
    if ragged := re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", said):
        names, line, fields = ragged.groups()
        return (
            f"line {line} has {fields} fields, and the header names {names}. Fix: write {names} there; a text that "
            "holds the separator goes in quotes."
        )
    if unclosed := re.search(r"EOF inside string starting at row (\d+)", said):
        return f"a quote that is opened in row {unclosed[1]} is not closed. Fix: close it, or take it out."
    if said.startswith("No columns"):
        return "is empty. Fix: write a header line, then one row per run."
    return f"{said.removeprefix('Error tokenizing data. C error: ').strip()}. Fix: write one row per run, a line each."


def _frame(text: str, separator: str, **options) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(text), sep=separator, skipinitialspace=True, **options)


def _unzipped(content: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [name for name in archive.namelist() if not name.startswith("__MACOSX/")]  # what Finder adds
        names = [name for name in members if name.lower().endswith(TEXT_ENDINGS)]
        if len(names) == 1:
            return archive.read(names[0])
        if names:
            found = (
                f"holds {len(names)} tables, {_some(names)}, and one is read. Fix: unpack it, and give the path of one."
            )
        else:
            holds = _some(members) if members else "nothing"
            found = f"holds no {', '.join(TEXT_ENDINGS)} but {holds}. Fix: give a table's own path."
        raise _NotOneTable(found)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED_MEMBERS} more" if len(names) > NAMED_MEMBERS else ""
    return f"{', '.join(names[:NAMED_MEMBERS])}{more}"


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

    The separator is the one under which the header has most names, of those under which rows have as many fields;
    BLANKS where there is none such and rows have as many words as the header.
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
    if rows and len(rows[0]) == 1:
        words = [line.split() for line in beginning.splitlines() if line.strip()][:LAYOUT_ROWS]
        if len(words[0]) > 1 and len(words) > 1 and all(len(row) == len(words[0]) for row in words):
            separator, rows = BLANKS, words
    return separator, rows[0] if rows else [], rows[1] if len(rows) > 1 else []


def _check_header(path: Path, names: Sequence[str], row: Sequence[str]) -> None:
    """Raise TableError for what pandas would read in its own way and say nothing.

    It takes the first field of every row for the row's name where there is one more than the header has, and renames
    the second of two columns of one name. Columns without a name may be many: nothing reads them. A header of several
    names that no separator parts would be one column.
    """
    if len(names) == 1 and len(re.findall(r"[^\W\d]\w*", names[0])) > 1 and re.search(r"[\s:/]", names[0]):
        raise TableError(
            f"table = {str(path)!r}: the header is one name, {names[0]!r}: fields are parted by comma, semicolon, tab, "
            "bar or blanks. Fix: write one of these between them, in every row alike."
        )
    if len(row) > len(names):
        raise TableError(
            f"table = {str(path)!r}: the header has names for {len(names)} of the {len(row)} fields of a row. Fix: "
            "name every column, and end no row with a separator."
        )
    _check_once(path, [name for name in names if name])


def _check_once(path: Path, names: Sequence[str]) -> None:
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise TableError(
            f"table = {str(path)!r}: column {twice[0]!r} is there {names.count(twice[0])} times. Fix: keep one of them."
        )


def _parquet(path: Path) -> pd.DataFrame:
    import pyarrow
    import pyarrow.parquet

    try:
        _check_once(path, pyarrow.parquet.read_schema(path).names)
        return pd.read_parquet(path)
    except (pyarrow.ArrowException, *DAMAGE) as error:
        raise TableError(
            f"table = {str(path)!r}: is no readable Parquet file ({error}). Fix: write it again, or name it .csv if "
            "it is text."
        ) from error

"""Tables in files: CSV (plain or gzipped) and Parquet, read as they are, with every fault of a file in words."""

import csv
import gzip
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pandas as pd

CSV_ENDINGS, PARQUET_ENDING = (".csv", ".csv.gz"), ".parquet"
OTHER_SEPARATORS = {";": "';'", "\t": "tabs"}
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
DAMAGE = (OSError, EOFError, zlib.error)  # gzip's BadGzipFile is an OSError


class TableError(ValueError):
    """A table is wrong; the message names the file or the column, its value, the rule and the fix."""


def read_file(path: Path | str) -> pd.DataFrame:
    """Any table in a `.csv`, `.csv.gz` or `.parquet` file, as it is; `complete`, `adopt` or `validate` checks it.

    Raises TableError if the file is absent, empty, damaged, in another encoding than UTF-8, or of another kind, and for
    a CSV whose header does not name each field of its rows once.
    """
    path = Path(path)
    if not os.path.isfile(path):  # False for any path that no file can have, too, where Path.is_file may raise
        state = "is a folder" if os.path.isdir(path) else "no such file"
        raise TableError(f"table = {str(path)!r}: {state}. Fix: give the path of a .csv or .parquet file.")
    name = path.name.lower()
    if name.endswith(PARQUET_ENDING):
        return _parquet(path)
    if name.endswith(CSV_ENDINGS):
        return _csv(path, "gzip" if name.endswith(".gz") else None)
    raise TableError(f"table = {str(path)!r}: must be .csv or .parquet (.csv.gz is read, too). Fix: convert it.")


def _csv(path: Path, compression: Literal["gzip"] | None) -> pd.DataFrame:
    try:
        _check_header(path, *_first_rows(path, compression))
        return pd.read_csv(path, compression=compression)
    except (pd.errors.EmptyDataError, pd.errors.ParserError, csv.Error) as error:
        said = str(error).strip()
        raise TableError(f"table = {str(path)!r}: {said}. Fix: write a header line, then one row per run.") from error
    except UnicodeDecodeError as error:
        encoding = "UTF-16" if path.read_bytes()[:2] in UTF16_MARKS else "LATIN1"
        raise TableError(
            f"table = {str(path)!r}: is not UTF-8, but perhaps {encoding}. Fix: convert it, as iconv -f {encoding} -t "
            f"UTF-8 {path.name} > utf8.csv."
        ) from error
    except DAMAGE as error:
        raise TableError(f"table = {str(path)!r}: is damaged ({error}). Fix: copy or write it again.") from error


def _first_rows(path: Path, compression: Literal["gzip"] | None) -> tuple[list[str], list[str]]:
    """The header and the row after it, as they are in the file; empty where there is none."""
    opener = gzip.open if compression else open
    with opener(path, "rt", encoding="utf-8-sig", newline="") as file:
        rows = (row for row in csv.reader(file) if len(row) > 1 or "".join(row).strip())
        return next(rows, []), next(rows, [])


def _check_header(path: Path, names: Sequence[str], row: Sequence[str]) -> None:
    """Raise TableError for what pandas would read in its own way and say nothing.

    It takes the first field of every row for the row's name where there is one more than the header has, and renames
    the second of two columns of one name. Columns without a name may be many: nothing reads them.
    """
    separator = next((mark for mark in OTHER_SEPARATORS if len(names) == 1 and mark in names[0]), None)
    if separator:
        raise TableError(
            f"table = {str(path)!r}: is separated by {OTHER_SEPARATORS[separator]}. Fix: save it with commas between "
            "the fields, and points in the numbers."
        )
    if len(row) > len(names):
        raise TableError(
            f"table = {str(path)!r}: the header has names for {len(names)} of the {len(row)} fields of a row. Fix: "
            "name every column, and end no row with a comma."
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

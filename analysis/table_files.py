"""Tables in files: CSV (plain or gzipped) and Parquet, read as they are, with every fault of a file in words."""

import zlib
from pathlib import Path

import pandas as pd

CSV_ENDINGS, PARQUET_ENDING = (".csv", ".csv.gz"), ".parquet"
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
DAMAGE = (OSError, EOFError, zlib.error)  # gzip's BadGzipFile is an OSError


class TableError(ValueError):
    """A table is wrong; the message names the file or the column, its value, the rule and the fix."""


def read_file(path: Path | str) -> pd.DataFrame:
    """Any table in a `.csv`, `.csv.gz` or `.parquet` file, as it is; `complete`, `adopt` or `validate` checks it.

    Raises TableError if the file is absent, empty, damaged, in another encoding than UTF-8, or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise TableError(f"table = {str(path)!r}: no such file. Fix: give the path of a .csv or .parquet file.")
    name = path.name.lower()
    if name.endswith(PARQUET_ENDING):
        return _parquet(path)
    if name.endswith(CSV_ENDINGS):
        return _csv(path, "gzip" if name.endswith(".gz") else None)
    raise TableError(f"table = {str(path)!r}: must be .csv or .parquet (.csv.gz is read, too). Fix: convert it.")


def _csv(path: Path, compression: str | None) -> pd.DataFrame:
    try:
        return pd.read_csv(path, compression=compression)
    except (pd.errors.EmptyDataError, pd.errors.ParserError) as error:
        raise TableError(f"table = {str(path)!r}: {error}. Fix: write a header line, then one row per run.") from error
    except UnicodeDecodeError as error:
        encoding = "UTF-16" if path.read_bytes()[:2] in UTF16_MARKS else "LATIN1"
        raise TableError(
            f"table = {str(path)!r}: is not UTF-8, but perhaps {encoding}. Fix: convert it, as iconv -f {encoding} -t "
            f"UTF-8 {path.name} > utf8.csv."
        ) from error
    except DAMAGE as error:
        raise TableError(f"table = {str(path)!r}: is damaged ({error}). Fix: copy or write it again.") from error


def _parquet(path: Path) -> pd.DataFrame:
    import pyarrow

    try:
        return pd.read_parquet(path)
    except (pyarrow.ArrowException, *DAMAGE) as error:
        raise TableError(
            f"table = {str(path)!r}: is no readable Parquet file ({error}). Fix: write it again, or name it .csv if "
            "it is text."
        ) from error

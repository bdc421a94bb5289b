"""One column of a table as values of its type: what a cell of text, a tracker's word or a number stands for."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from analysis.lifecycle import Status
from analysis.tables.files import TableError
from analysis.tables.numbers import COMMA_NUMBER

# What other trackers call a run's end, such as the states of Weights & Biases.
STATUS_WORDS = {
    **dict.fromkeys(("finished", "completed", "complete", "succeeded", "success"), "done"),
    **dict.fromkeys(("crashed", "killed", "error", "cancelled", "canceled", "preempted", "timeout"), "failed"),
    **dict.fromkeys(("queued", "scheduled"), "pending"),
}
TRUTH_WORDS = {
    **dict.fromkeys(("true", "yes", "y", "t", "1", "1.0"), True),
    **dict.fromkeys(("false", "no", "n", "f", "0", "0.0"), False),
}
PANDAS_DTYPES = {"string": "string", "bool": "bool", "integer": "Int64", "number": "float64"}
NAMED_CELLS = 3  # of those that hold words


@dataclass(frozen=True)
class Column:
    """One column: `dtype` is string, bool, integer (may be missing) or number (float64, NaN when missing)."""

    name: str
    dtype: Literal["string", "bool", "integer", "number"]
    unit: str
    meaning: str
    required: bool = False

    def matches(self, name: str) -> bool:
        """Whether a table's column is this one; `<domain>` in the schema's name stands for any domain."""
        prefix, pattern, _ = self.name.partition("<")
        return name.startswith(prefix) and len(name) > len(prefix) if pattern else name == self.name


def truth_of(value: object) -> object:
    """True or false for a word that means it, false for an empty cell; any other value as it is."""
    return False if pd.isna(value) else TRUTH_WORDS.get(str(value).strip().lower(), value)


def status_of(value: object) -> object:
    """The status that a tracker's word means; any other value as it is."""
    if pd.isna(value):
        return pd.NA
    word = str(value).strip().lower()
    return word if word in set(Status) else STATUS_WORDS.get(word, value)


def cell_by_cell(column: pd.Series, function: Callable[[object], object]) -> pd.Series:
    """`column.map(function)`, with one call for all cells that are equal: a million rows have a few statuses."""
    try:
        codes, different = pd.factorize(column, use_na_sentinel=False)
    except TypeError:  # lists and the like, which have no hash
        return column.map(function)
    return pd.Series([function(value) for value in different]).take(codes).set_axis(column.index)


def converted(
    values: pd.Series, column: Column, *, words_allowed: bool = False, whole: bool = True
) -> tuple[pd.Series, pd.Series]:
    """A column of a table in the dtype of the schema's, and the cells that were read as missing.

    words_allowed: cells of a column of numbers that hold a word ("diverged", "-") become empty, and are those cells.
    whole: whether the numbers of an integer column must be.
    Raises TableError for a value that does not fit, for a column of numbers that holds words alone, and for a number
    that can be read in two ways.
    """
    fix = f"Fix: write {column.dtype} values in {column.name}"
    if column.dtype == "bool":
        truth = values.map({True: True, False: False, "True": True, "False": False, "true": True, "false": False})
        if truth.isna().any():
            raise TableError(f"{column.name} = {values[truth.isna()].iloc[0]!r}: must be true or false. {fix}.")
        return truth.astype("bool"), values[:0]
    if column.dtype == "string":
        return values.astype("string"), values[:0]
    plain = isinstance(values.dtype, np.dtype) and values.dtype.kind in "fiu"
    numbers = (values if plain else pd.to_numeric(values.astype(object), errors="coerce")).astype("float64")
    wrong = values[numbers.isna() & values.notna()]
    _check_commas(wrong, column.name)
    if len(wrong) and not (words_allowed and numbers.notna().any()):
        raise TableError(
            f"{column.name} = {wrong.iloc[0]!r} in row {wrong.index[0]}: must be a number. {fix}; leave it empty when "
            "unknown."
        )
    if column.dtype == "integer" and (numbers.dropna() % 1 != 0).any():
        if not whole:
            return numbers, wrong
        raise TableError(f"{column.name} = {numbers[numbers % 1 != 0].dropna().iloc[0]:g}: must be whole. {fix}.")
    return numbers.astype(PANDAS_DTYPES[column.dtype]), wrong


def _check_commas(words: pd.Series, name: str) -> None:
    for row, cell in words.items():
        if isinstance(cell, str) and COMMA_NUMBER.fullmatch(cell):
            raise TableError(
                f"{name} = {cell!r} in row {row}: the table does not tell whether its comma is the decimal mark. Fix: "
                "say so, as --decimal , or --decimal . where commas part thousands."
            )


def words_note(words: pd.Series, name: str) -> str:
    """What is said of cells of a column of numbers that hold words."""
    cells = [f"{cell!r} in row {row}" for row, cell in words.items()]
    more = f" and {len(cells) - NAMED_CELLS} more" if len(cells) > NAMED_CELLS else ""
    return f"{name} = {', '.join(cells[:NAMED_CELLS])}{more}: no number, read as missing"

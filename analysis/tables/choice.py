"""Which rows of a file are read, and in which unit its columns are: what a user says of a table that no table says."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from analysis.tables.columns import some_of
from analysis.tables.files import TableError

NAMED_VALUES = 8


def chosen_rows(frame: pd.DataFrame, wanted: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """The rows whose every named column has one of the values wanted of it. Numbers compare as numbers.

    Raises TableError for a column that is absent, and where no row is left, naming the values that are there.
    """
    for name, values in wanted.items():
        cells = _column(frame, name, "--where")
        frame = frame[np.any([_equals(cells, value) for value in values], axis=0)]
        if frame.empty:
            there = [str(value) for value in dict.fromkeys(cells.dropna())]
            more = f" and {len(there) - NAMED_VALUES} more" if len(there) > NAMED_VALUES else ""
            raise TableError(
                f"--where {name}={' or '.join(values)}: no row has it; there are {', '.join(there[:NAMED_VALUES])}"
                f"{more}. Fix: name one of these."
            )
    return frame


def in_units(frame: pd.DataFrame, units: Mapping[str, float]) -> pd.DataFrame:
    """The table with each named column multiplied by its unit; cells that are no numbers stay.

    Raises TableError for a column that is absent, and a unit that is not positive and finite.
    """
    for name, unit in units.items():
        cells = _column(frame, name, "--unit")
        if not (np.isfinite(unit) and unit > 0):
            raise TableError(f"--unit {name} = {unit:g}: must be positive and finite. Fix: write one, as 1e9.")
        numbers = pd.to_numeric(cells.astype(object), errors="coerce").astype("float64") * unit
        words = numbers.isna() & cells.notna()
        frame = frame.assign(**{name: numbers.astype(object).where(~words, cells) if words.any() else numbers})
    return frame


def check_columns(frame: pd.DataFrame, names: Iterable[str], option: str) -> None:
    """Raise TableError for a column that is absent, naming those that are there."""
    for name in names:
        _column(frame, name, option)


def _column(frame: pd.DataFrame, name: str, option: str) -> pd.Series:
    if name not in frame.columns:
        raise TableError(f"{option} {name}: no such column; present: {some_of(frame.columns, name)}. Fix: name one.")
    return frame[name]


def _equals(cells: pd.Series, value: str) -> np.ndarray:
    same = cells.astype(str).str.strip().eq(value.strip()).to_numpy(bool)
    try:
        number = float(value)
    except ValueError:
        return same
    numbers = pd.to_numeric(cells.astype(object), errors="coerce").to_numpy(np.float64, na_value=np.nan)
    return same | np.isclose(numbers, number, rtol=1e-9, atol=0.0)

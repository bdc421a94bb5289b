"""Numbers that a text file writes with commas, as 10,954,451 or 3,9132: read where the file says what its commas are.

One file has one decimal mark. A column says which by a cell that only one reading allows: 10,954,451 has thousands
commas, 3,9132 and 1.234.567 belong to decimal commas. A column that has nothing but cells like 1,234 takes the mark of
the other columns, said in a note; without any it stays text, and a fit that needs it is refused.
"""

import re
from collections.abc import Mapping, Sequence

import pandas as pd

MARKS = (".", ",")  # decimal marks; the other one then parts thousands


def _pattern(decimal: str, thousands: str) -> str:
    plain = rf"(?:\d+(?:{decimal}\d*)?|{decimal}\d+)(?:[eE][+-]?\d+)?"
    return rf"\s*[+-]?(?:{plain}|[1-9]\d{{0,2}}(?:{thousands}\d{{3}})+(?:{decimal}\d+)?)\s*"


PATTERNS = {".": _pattern(r"\.", ","), ",": _pattern(",", r"\.")}
COMMA_NUMBER = re.compile(rf"(?=.*,)(?:{PATTERNS['.']}|{PATTERNS[',']})")


def has_comma_numbers(frame: pd.DataFrame) -> bool:
    """Whether any cell of text is a number with a comma in it."""
    for _, values in frame.items():
        if pd.api.types.is_string_dtype(values) or values.dtype == object:
            with_comma = values[values.astype("string").str.contains(",", regex=False, na=False)]
            if any(COMMA_NUMBER.fullmatch(str(cell)) for cell in with_comma):
                return True
    return False


def is_ambiguous(cell: object) -> bool:
    """Whether a cell of text is a number under both marks, and not the same one: 1,234 and 1.234."""
    return (
        isinstance(cell, str)
        and ("," in cell or "." in cell)
        and all(re.fullmatch(pattern, cell) for pattern in PATTERNS.values())
    )


def with_numbers(
    frame: pd.DataFrame, text: pd.DataFrame, separator: str, decimal: str = ""
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """`frame` with the columns that commas kept as text turned into numbers, and what had to be concluded from others.

    text: the same table with every cell as it is written. decimal: the file's mark, where it is known; without it, it
    is concluded as the module says, and where only cells like 1,234 are there, a file separated by semicolons has
    decimal commas: spreadsheets write it where the comma is taken. Cells that are no numbers stay.
    """
    found = {name: _marks(cells) for name, cells in text.items()}
    certain = {marks[0] for marks in found.values() if len(marks) == 1}
    by_file = next(iter(certain)) if len(certain) == 1 else ""
    if separator == ";" and by_file != ",":
        by_file = "" if by_file or certain else ","
    columns, notes = {}, []
    for name, cells in text.items():
        mark = decimal or _mark_of(found[name], by_file)
        if not mark or (mark == "." and pd.api.types.is_numeric_dtype(frame[name])):
            continue  # without commas, pandas has read it
        columns[name] = _converted(cells, mark)
        if not decimal and len(found[name]) == 2:
            notes.append(_note(name, cells, mark))
    return frame.assign(**columns), tuple(notes)


def _marks(cells: pd.Series) -> Sequence[str]:
    """The decimal marks that a column's numbers allow; none for a column of text or of plain whole numbers."""
    marked = cells[cells.str.contains(r"[.,]", na=False)]
    allowed: Mapping[str, pd.Series] = {mark: marked.str.fullmatch(pattern) for mark, pattern in PATTERNS.items()}
    only = {mark for mark, other in zip(MARKS, MARKS[::-1], strict=True) if (allowed[mark] & ~allowed[other]).any()}
    if len(only) == 2:
        return ()
    return tuple(only) or (MARKS if (allowed["."] & allowed[","]).any() else ())


def _mark_of(marks: Sequence[str], by_file: str) -> str:
    return by_file if len(marks) == 2 else next(iter(marks), "")


def _converted(cells: pd.Series, mark: str) -> pd.Series:
    """Numbers where cells are numbers under the mark; a column of numbers alone has a number's type."""
    is_number = cells.str.fullmatch(PATTERNS[mark]).fillna(False).astype(bool)
    if not is_number.any():
        return cells
    thousands = MARKS[1 - MARKS.index(mark)]
    plain = cells[is_number].str.replace(thousands, "", regex=False).str.replace(mark, ".", regex=False)
    numbers = pd.to_numeric(plain.astype(object)).reindex(cells.index)
    if (is_number | cells.isna()).all():
        return numbers
    return cells.astype(object).where(~is_number, numbers)


def _note(name: object, cells: pd.Series, mark: str) -> str:
    cell = next(cell for cell in cells.dropna() if is_ambiguous(cell))
    value = _converted(pd.Series([cell]), mark).iloc[0]
    return f"column {name!r}: {cell} is read as {value:.10g}, by the decimal mark that the file has elsewhere"

"""A report as values: sections of paragraphs, lists, tables and figures, whose numbers are still numbers.

Nothing here is escaped or laid out: each writer (`markdown`, `terminal`) does that for its own medium, so that
every medium shows the same tables. A number in a report is a `Number` and never a piece of text, so that a test can
look each one up in the JSON file that is written beside the report.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import TypeAlias

from analysis.intervals import Interval
from analysis.intervals.interval import AT_BOUND, DEGENERATE, NOT_DETERMINED, NOTES, OPEN_ABOVE
from analysis.quantities import GRAIN
from analysis.tables.runs import rows_or_runs


@dataclass(frozen=True)
class Number:
    """A value and its format specification, as in `format(value, form)`; unit: printed after it, may be empty.

    below: magnitudes under it are printed as 0. A share that would print as 0% though it is none gets a digit.
    """

    value: float
    form: str = ".4g"
    unit: str = ""
    below: float = 0.0

    def __str__(self) -> str:
        value = 0 if abs(self.value) < self.below else self.value
        text = f"{value:{self.form}}"
        if value and self.form.endswith("%") and not set(text) & set("123456789"):
            text = f"{100 * value:.1g}%"
        return f"{text} {self.unit}" if self.unit else text


@dataclass(frozen=True)
class Span:
    """A value with the ends of its interval, all in one format; what stands for them where they are no two numbers."""

    value: Number
    ends: "Content"


@dataclass(frozen=True)
class Strong:
    """What must not be overlooked."""

    content: "Content"


@dataclass(frozen=True)
class Code:
    """A formula or another text that is shown letter by letter."""

    text: str


@dataclass(frozen=True)
class Link:
    """A file beside the report."""

    text: str
    path: str


Content: TypeAlias = "str | Number | Span | Strong | Code | Link | tuple[Content, ...]"


@dataclass(frozen=True)
class Paragraph:
    """Running text."""

    content: Content


@dataclass(frozen=True)
class Bullets:
    """A list, one line or so per item."""

    items: tuple[Content, ...]


@dataclass(frozen=True)
class Table:
    """Rows of cells under `columns`; every row has as many cells.

    grouped: rows with equal first cells belong together. A terminal separates the groups and prints what a row's first
    cells share with the row above once. terminal_rows: a terminal shows so many and says how many there are more.
    """

    columns: tuple[Content, ...]
    rows: tuple[tuple[Content, ...], ...]
    grouped: bool = False
    terminal_rows: int | None = None

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(
                    f"row = {row!r}: has {len(row)} cells under {len(self.columns)} columns. Fix: fill every cell."
                )


@dataclass(frozen=True)
class Figure:
    """An image, `figures/<name>.png`, with `figures/<name>.pdf` beside it."""

    name: str
    title: str
    caption: Content


@dataclass(frozen=True)
class Section:
    """A title and what stands under it; a whole report is one section, whose sections are one level deeper."""

    title: Content
    blocks: tuple["Block", ...]


Block = Paragraph | Bullets | Table | Figure | Section


def span(interval: Interval, form: str = ".4g", unit: str = "") -> Span | str:
    """An interval for printing; an end at a bound of zero is printed as 0, however close to it the fit came.

    A value that is not determined has no more than two digits, and where there is none only its note is printed.
    """
    if interval.note == NOT_DETERMINED and math.isnan(interval.value):
        return interval.note
    form = ".2g" if interval.note == NOT_DETERMINED else form
    return Span(Number(interval.value, form, unit, interval.zero), ends(interval, form, unit))


def residue(value: float, form: str, unit: str = "", of: float = 1.0) -> Number:
    """What is left over or scatters, for printing: 0 where it is rounding beside `of`, the size of what it is left by.

    A share, or a difference of logarithms or exponents, is beside 1.
    """
    return Number(value, form, unit, below=GRAIN * abs(of) * (1 + 1e-9))


def ends(interval: Interval, form: str = ".4g", unit: str = "") -> Content:
    """The two ends of an interval alone, or what its note says of them."""
    if interval.note in (DEGENERATE, NOT_DETERMINED):
        return interval.note
    both = (interval.low, interval.high)
    low, high = (Number(end, form, unit, interval.zero) if math.isfinite(end) else "open" for end in both)
    if interval.note == AT_BOUND:
        return (f"{AT_BOUND}, below ", high) if isinstance(high, Number) else f"{AT_BOUND}, {NOT_DETERMINED}"
    note = "" if interval.note in ("", OPEN_ABOVE) else f", {interval.note}"  # that end is printed as open
    both = between(low, high)
    return (both, note) if note else both


def between(low: Number | str, high: Number | str) -> Content:
    """A range; one number where both ends print alike."""
    low_text, high_text = (str(replace(end, unit="")) if isinstance(end, Number) else "" for end in (low, high))
    return high if low_text and low_text == high_text else (low, " to ", high)


def notes_on(intervals: Iterable[Interval]) -> tuple["Paragraph", ...]:
    """What the notes of these intervals mean, once each, if there are any."""
    present = {interval.note for interval in intervals}
    found = [note for note in NOTES if note in present]
    text = "; ".join(f"{note}: {NOTES[note]}" for note in found)
    return (Paragraph(f"Intervals that are not as the others. {text[0].upper()}{text[1:]}."),) if found else ()


def rows_of_runs(rows: int, runs: int, kind: str = "") -> Content:
    """So many runs of a `kind`, or rows of so many, where runs have several: "18 fitted runs", "40 fitted rows of 8
    runs"."""
    of_runs: Content = () if rows == runs else (" of ", Number(runs, "d"), " runs")
    return (Number(rows, "d"), f" {kind}{rows_or_runs(rows, runs)}", *of_runs)


def one_line(text: str) -> str:
    """A piece of text without line breaks and control characters, which a table or a terminal would act on."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def leaves(node: "Block | Content") -> Iterator[str | Number]:
    """Every number and every piece of text in a block, in the order of reading."""
    if isinstance(node, (str, Number)):
        yield node
    elif isinstance(node, tuple):
        for item in node:
            yield from leaves(item)
    elif is_dataclass(node):
        for field in fields(node):
            yield from leaves(getattr(node, field.name))

"""A table as lines of text: fast for tens of thousands of rows, and never narrower than its numbers.

Reports print their tables by analysis/report/terminal.py.

Rich's tables take a millisecond per row and cut their cells at 80 columns when the output is a pipe. Here a pipe gets
every character; in a terminal too narrow for the table, the columns that may be cut are.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from rich.console import COLOR_SYSTEMS, Console
from rich.style import Style

GAP = "  "
Cell = str | tuple[str, str]
Paint = Callable[[str, str], str]  # (text, style) -> text with the terminal's codes around it
NARROWEST = 8  # cells that are left of a column that is cut


@dataclass(frozen=True)
class Column:
    """`heading` may have several lines. `may_be_cut`: its texts lose their ends where the terminal is narrow."""

    heading: str
    is_number: bool = True
    may_be_cut: bool = False


@dataclass(frozen=True)
class TextTable:
    """Rows of cells, each a text or a (text, style); a row None is an empty line between groups."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...] | None, ...]
    title: str = ""
    caption: str = ""


def print_table(table: TextTable, console: Console) -> None:
    """Print title, headings, rows and caption; one write, so that a large table costs no more than its characters."""
    headings = [column.heading.split("\n") for column in table.columns]
    height = max(len(lines) for lines in headings)
    heads = list(zip(*([""] * (height - len(lines)) + lines for lines in headings)))
    rows = [*heads, *(row for row in table.rows if row is not None)]
    widths = _widths(table.columns, rows, console.width if console.is_terminal else None)
    paint = _painter(console)
    cells = [_column(column, texts, width, paint) for column, texts, width in zip(table.columns, zip(*rows), widths)]
    lines = [GAP.join(line).rstrip() for line in zip(*cells)]
    body = iter(lines[height:])
    printed = [paint(table.title, "italic")] if table.title else []
    printed += [paint(line, "bold") for line in lines[:height]]
    printed.append("─" * (sum(widths) + len(GAP) * (len(widths) - 1)))
    printed += ["" if row is None else next(body) for row in table.rows]
    if table.caption:
        printed += ["", table.caption]
    console.out("\n".join(printed), highlight=False)


def _widths(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], available: int | None) -> list[int]:
    widths = [max(map(_length, texts)) for texts in zip(*rows)]
    excess = 0 if available is None else sum(widths) + len(GAP) * (len(widths) - 1) - available
    for index in reversed(range(len(widths))):
        if columns[index].may_be_cut and excess > 0:
            cut = min(excess, max(0, widths[index] - NARROWEST))
            widths[index] -= cut
            excess -= cut
    return widths


def _column(column: Column, cells: Sequence[Cell], width: int, paint: Paint) -> list[str]:
    """Every cell at the column's width, numbers to the right."""
    padded = []
    for cell in cells:
        text, style = (cell, "") if isinstance(cell, str) else cell
        length = _length(text)
        if length > width:
            text, length = set_cell_size(text, width - 1) + "…", width
        gap = " " * (width - length)
        painted = paint(text, style) if style else text
        padded.append(gap + painted if column.is_number else painted + gap)
    return padded


def _length(cell: Cell) -> int:
    text = cell if isinstance(cell, str) else cell[0]
    return len(text) if text.isascii() else cell_len(text)


def _painter(console: Console) -> Paint:
    if console.no_color or console.color_system is None:
        return lambda text, style: text
    system = COLOR_SYSTEMS[console.color_system]
    return lambda text, style: Style.parse(style).render(text, color_system=system)

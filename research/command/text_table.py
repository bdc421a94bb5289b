"""A table as lines of text: fast for tens of thousands of rows, and never narrower than its numbers.

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
    widths = _widths(table, heads, console.width if console.is_terminal else None)
    paint = _painter(console)
    lines = [paint(table.title, "italic")] if table.title else []
    lines += [paint(_line(table.columns, head, widths), "bold") for head in heads]
    lines.append("─" * (sum(widths) + len(GAP) * (len(widths) - 1)))
    for row in table.rows:
        lines.append("" if row is None else _line(table.columns, row, widths, paint))
    if table.caption:
        lines += ["", table.caption]
    console.out("\n".join(lines), highlight=False)


def _widths(table: TextTable, heads: Sequence[tuple[str, ...]], available: int | None) -> list[int]:
    columns = zip(*heads, *(row for row in table.rows if row is not None))
    widths = [max(map(_length, column)) for column in columns]
    excess = 0 if available is None else sum(widths) + len(GAP) * (len(widths) - 1) - available
    for index in reversed(range(len(widths))):
        if table.columns[index].may_be_cut and excess > 0:
            cut = min(excess, max(0, widths[index] - NARROWEST))
            widths[index] -= cut
            excess -= cut
    return widths


def _line(columns: Sequence[Column], row: Sequence[Cell], widths: Sequence[int], paint: Paint | None = None) -> str:
    cells = []
    for column, cell, width in zip(columns, row, widths):
        text, style = (cell, "") if isinstance(cell, str) else cell
        length = _length(text)
        if length > width:
            text, length = set_cell_size(text, width - 1) + "…", width
        padding = " " * (width - length)
        if style and paint:
            text = paint(text, style)
        cells.append(padding + text if column.is_number else text + padding)
    return GAP.join(cells).rstrip()


def _length(cell: Cell) -> int:
    text = cell if isinstance(cell, str) else cell[0]
    return len(text) if text.isascii() else cell_len(text)


def _painter(console: Console) -> Paint:
    """A function that puts a style's codes around a text; none where the output takes no colour."""
    system = None if console.no_color or console.color_system is None else COLOR_SYSTEMS[console.color_system]
    return lambda text, style: Style.parse(style).render(text, color_system=system)

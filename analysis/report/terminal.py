"""Documents on a terminal, through rich. Text is never read as rich's markup, and no number is cut at the margin.

The long tables of `isoflop plan` and `status` are research/command/text_table.py's.
"""

import itertools
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from analysis.report.column_widths import Column, column, fitted, parts, total
from analysis.report.document import (
    Block,
    Bullets,
    Code,
    Content,
    Figure,
    Link,
    Number,
    Paragraph,
    Section,
    Span,
    Strong,
    Table,
    one_line,
)


def show(console: Console, *blocks: Block) -> None:
    """Print blocks one below the other. Figures are files and are left out."""
    for block in blocks:
        match block:
            case Section():
                console.print(_inline(block.title, "bold"))
                for inner in block.blocks:
                    show(console, inner)
                console.print()
            case Paragraph():
                console.print(_inline(block.content))
            case Bullets():
                for item in block.items:
                    for i, line in enumerate(_inline(item).wrap(console, max(console.width - 2, 1))):
                        line.rstrip()
                        console.print(Text("  " if i else "- ").append_text(line))
            case Table():
                _show_table(console, block)
            case Figure():
                pass
            case _:
                raise TypeError(f"block = {block!r}: is no block of a document. Fix: use one of those in document.py.")


def _inline(content: Content, style: str = "", in_cell: bool = False) -> Text:
    match content:
        case str():
            return Text(one_line(content), style)
        case Number():
            return Text(str(content), style)
        case Span():
            first, last = ("\n", "") if in_cell else (" (", ")")
            return Text().join([_inline(content.value, style), Text(first), _inline(content.ends, style), Text(last)])
        case Strong():
            return _inline(content.content, "bold", in_cell)
        case Code() | Link():
            return Text(one_line(content.text), style)
        case tuple():
            return Text().join([_inline(part, style, in_cell) for part in content])
    raise TypeError(f"content = {content!r}: is none of a document. Fix: use text or a value of document.py.")


def _show_table(console: Console, table: Table) -> None:
    rows = table.rows[: table.terminal_rows]
    columns = [_column(head, [row[index] for row in rows]) for index, head in enumerate(table.columns)]
    columns = fitted(columns, console.width)
    for i, part in enumerate(parts(columns, _keys(table, rows), console.width)):
        if i:
            console.print()
        own = fitted([columns[j] for j in part], console.width)
        _show_columns(console, own, [tuple(row[j] for j in part) for row in rows], table.grouped)
    if len(rows) < len(table.rows):
        console.print(Text(f"... and {len(table.rows) - len(rows)} more, which the JSON file and report.md have"))


def _keys(table: Table, rows: Sequence[tuple[Content, ...]]) -> int:
    """How many columns tell the rows apart: the first alone, or as many as the rows of a group share, and one."""
    if not table.grouped:
        return 1
    shared = (
        sum(1 for _ in itertools.takewhile(lambda x: x[0] == x[1], zip(*two))) for two in itertools.pairwise(rows)
    )
    return min(1 + max(shared, default=0), len(table.columns))


def _show_columns(
    console: Console, columns: Sequence[Column], rows: Sequence[tuple[Content, ...]], grouped: bool
) -> None:
    shown = RichTable(box=box.SIMPLE_HEAD, show_edge=False, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    shown.width = total(columns)  # or rich narrows numbers, too; a line that the terminal itself breaks is still whole
    for one in columns:
        shown.add_column(
            Text("\n".join(one.lines)), justify="right" if one.numeric else "left", width=one.width, overflow="fold"
        )
    above: tuple[Content, ...] = ()
    for row in rows:
        shared = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(row, above)))
        if grouped and above and not shared:
            shown.add_section()
        blank = min(shared, len(row) - 1) if grouped else 0
        shown.add_row(*[""] * blank, *(_inline(cell, in_cell=True) for cell in row[blank:]))
        above = row
    console.print(shown, crop=False)


def _column(head: Content, cells: Sequence[Content]) -> Column:
    lines = [line for cell in cells for line in _inline(cell, in_cell=True).plain.splitlines()]
    return column(_inline(head).plain, lines, numeric=2 * sum(map(_is_numeric, cells)) > len(cells))


def _is_numeric(cell: Content) -> bool:
    if isinstance(cell, tuple):
        return any(map(_is_numeric, cell))
    return _is_numeric(cell.content) if isinstance(cell, Strong) else isinstance(cell, (Number, Span))

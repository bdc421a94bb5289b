"""How wide each column of a table is on a terminal.

Numbers are never broken, so that a table of many is as wide as they are; where that is more than a line, columns go on
below. Texts have what is left, and headings of numbers, which would else stand in five lines over four digits, are in
two where there is room.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace

GAP = 2  # blanks between columns
FLAT = 2  # lines of a heading that is not worth more room
LONGEST_WORD = 28  # that stays whole in a column of text
SHORTEST_TEXT = 12  # width down to which a text gives way, words or not
PROSE = 30  # width at which a text has enough, where headings need room


@dataclass(frozen=True)
class Column:
    """A heading and the widths of its column: the least, and what the longest line takes."""

    head: str
    numeric: bool
    width: int
    longest: int

    @property
    def lines(self) -> list[str]:
        """The heading in lines of that width."""
        return textwrap.wrap(self.head, self.width)

    def flatter(self) -> "Column":
        """The column just wide enough for a heading of a line less."""
        width = self.width
        while len(textwrap.wrap(self.head, width)) >= len(self.lines):
            width += 1
        return replace(self, width=width)


def column(head: str, lines: Sequence[str], numeric: bool) -> Column:
    """The column of a heading and its cells' lines, as narrow as it may be."""
    word = max(map(len, head.split()), default=1)
    longest = max((len(line) for line in lines), default=1)
    if numeric:
        return Column(head, True, max(word, longest), max(word, longest))
    inner = max((len(part) for line in lines for part in line.split()), default=1)
    return Column(head, False, max(word, min(inner, LONGEST_WORD)), max(len(head), longest))


def fitted(columns: Sequence[Column], width: int) -> list[Column]:
    """The columns with the widths they get where `width` letters are one line, which many numbers may go beyond."""
    columns = _narrowed(columns, width)
    return _filled(_flattened(columns, width), width)


def total(columns: Sequence[Column]) -> int:
    """The width of a table of these columns."""
    return sum(column.width for column in columns) + GAP * (len(columns) - 1)


def parts(columns: Sequence[Column], keys: int, width: int) -> list[list[int]]:
    """The places of the columns in each of the tables, one below the other, that a line of `width` letters can hold.

    Each begins with the first `keys` columns, which say what a row is; they are about as wide as each other, so that
    headings have room in all. One table where the keys leave no room for any other column.
    """
    widest = max((total([*columns[:keys], column]) for column in columns[keys:]), default=0)
    if total(columns) <= width or widest > width:
        return [list(range(len(columns)))]
    fewest = len(_broken(columns, keys, width))
    return next(found for w in range(widest, width + 1) if len(found := _broken(columns, keys, w)) == fewest)


def _broken(columns: Sequence[Column], keys: int, width: int) -> list[list[int]]:
    found = [list(range(keys))]
    for i in range(keys, len(columns)):
        if len(found[-1]) > keys and total([columns[j] for j in (*found[-1], i)]) > width:
            found.append(list(range(keys)))
        found[-1].append(i)
    return found


def _narrowed(columns: Sequence[Column], width: int) -> list[Column]:
    """Texts, the widest first, broken inside a word where that brings a table that is wider than a line into it."""
    narrow = list(columns)
    for i in sorted(range(len(columns)), key=lambda i: -columns[i].width):
        over = total(narrow) - width
        if over > 0 and not columns[i].numeric:
            least = min(columns[i].width, SHORTEST_TEXT)
            narrow[i] = replace(columns[i], width=max(columns[i].width - over, least))
    return narrow if total(narrow) <= width else list(columns)


def _flattened(columns: Sequence[Column], width: int) -> list[Column]:
    """Columns of numbers widened, the one with the tallest heading first, by what texts can do without."""
    columns = list(columns)
    wanted = [column.width if column.numeric else max(column.width, min(column.longest, PROSE)) for column in columns]
    spare = width - sum(wanted) - GAP * (len(columns) - 1)
    of_numbers = [i for i, column in enumerate(columns) if column.numeric]
    while of_numbers:
        tallest = max(of_numbers, key=lambda i: len(columns[i].lines))
        wider = columns[tallest].flatter() if len(columns[tallest].lines) > FLAT else columns[tallest]
        spare -= wider.width - columns[tallest].width
        if spare < 0 or wider == columns[tallest]:
            break
        columns[tallest] = wider
    return columns


def _filled(columns: Sequence[Column], width: int) -> list[Column]:
    """Texts widened to their longest line, in equal parts of what is left."""
    columns = list(columns)
    while narrow := [i for i, column in enumerate(columns) if not column.numeric and column.width < column.longest]:
        part = (width - total(columns)) // len(narrow)
        if part <= 0:
            break
        for i in narrow:
            columns[i] = replace(columns[i], width=min(columns[i].width + part, columns[i].longest))
    return columns

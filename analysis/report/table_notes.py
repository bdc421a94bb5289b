"""What every verb on a table says of the table itself: what to know before any result, and the rows left out of it."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from analysis.fit import LeftOut
from analysis.report.document import Bullets, Content, Number, Paragraph, Section, Table

SHOWN_ROWS = 20  # of those left out, on a terminal


def notes_block(notes: Sequence[str]) -> tuple[Section, ...]:
    """What is to be known of a table before any result from it; nothing where nothing is."""
    return (Section("Of the table, first", (Bullets(tuple(notes)), *counted_rows(notes))),) if notes else ()


def counted_rows(texts: Iterable[str]) -> tuple[Paragraph, ...]:
    """What the number of a row means, where any of the texts has one."""
    numbered = any(re.search(r"\brow \d", text) for text in texts)
    return (Paragraph("Rows are counted from 0: row 3 is the fourth below the header."),) if numbered else ()


def starred(content: Content, is_at_edge: bool) -> Content:
    """What rests on the best of a sweep, with a star where that lies at an end of what was swept (`edge_note`)."""
    return (content, " *") if is_at_edge else content


def edge_note(is_starred: bool, subject: str = "the cell") -> tuple[Paragraph, ...]:
    """What `starred` means, below a table that has it anywhere."""
    text = f"* the best lies at an end of the values that were run: {subject} may do better beyond it."
    return (Paragraph(text),) if is_starred else ()


def left_out_table(left_out: Sequence[LeftOut], kind: str = "run") -> tuple[Table | Paragraph, ...]:
    """The rows that took no part, with reasons, those of one name and one reason together; nothing without any.

    kind: what the names are of.
    """
    alike = Counter((item.run, item.reason) for item in left_out)
    rows = tuple(
        (run, reason if count == 1 else (f"{reason} (", Number(count, "d"), " rows)"))
        for (run, reason), count in alike.items()
    )
    table = Table((f"{kind} left out", "reason"), rows, terminal_rows=SHOWN_ROWS)
    return (table, *counted_rows(run for run, _ in alike)) if rows else ()


def left_out_section(left_out: Sequence[LeftOut], kind: str = "run") -> tuple[Section, ...]:
    """`left_out_table` under a title of its own."""
    return (Section(f"{kind.capitalize()}s left out", left_out_table(left_out, kind)),) if left_out else ()

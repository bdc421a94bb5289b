"""What every verb on a table says of the table itself: what to know before any result, and the rows left out of it."""

from collections import Counter
from collections.abc import Sequence

from analysis.fit import LeftOut
from analysis.report.document import Bullets, Number, Section, Table

SHOWN_ROWS = 20  # of those left out, on a terminal


def notes_block(notes: Sequence[str]) -> tuple[Section, ...]:
    """What is to be known of a table before any result from it; nothing where nothing is."""
    return (Section("Of the table, first", (Bullets(tuple(notes)),)),) if notes else ()


def left_out_table(left_out: Sequence[LeftOut]) -> tuple[Table, ...]:
    """The rows that took no part, with reasons, those of one run and one reason together; nothing without any."""
    alike = Counter((item.run, item.reason) for item in left_out)
    rows = tuple(
        (run, reason if count == 1 else (f"{reason} (", Number(count, "d"), " rows)"))
        for (run, reason), count in alike.items()
    )
    return (Table(("run left out", "reason"), rows, terminal_rows=SHOWN_ROWS),) if rows else ()


def left_out_section(left_out: Sequence[LeftOut]) -> tuple[Section, ...]:
    """`left_out_table` under a title of its own."""
    return (Section("Runs left out", left_out_table(left_out)),) if left_out else ()

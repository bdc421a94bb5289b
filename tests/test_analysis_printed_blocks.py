"""Blocks of a report as Markdown and as terminals show them: names that would break either, widths, long tables."""

import io
import re
import textwrap

import pytest
from rich.console import Console

from analysis.intervals import Interval
from analysis.report import show
from analysis.report.document import (
    Bullets,
    Code,
    Number,
    Paragraph,
    Section,
    Strong,
    Table,
    between,
    span,
)
from analysis.report.markdown import markdown

HOSTILE = "a|b [bold]c[/bold] <d> `e` *f* _g_"


def printed(*blocks, width=80):
    text = io.StringIO()
    show(Console(file=text, width=width), *blocks)
    return text.getvalue()


def test_names_break_neither_a_table_nor_the_terminal():
    row = ("x", HOSTILE + "\nsecond line")
    document = Section(HOSTILE, (Table(("name", HOSTILE), (row,)), Paragraph(HOSTILE), Bullets((HOSTILE,))))
    text = markdown(document)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 3 and all(len(re.findall(r"(?<!\\)\|", line)) == 3 for line in lines)
    assert r"a\|b \[bold\]c\[/bold\] \<d\> \`e\` \*f\* \_g\_" in text
    assert printed(document).count(HOSTILE) == 5  # title, header, cell, paragraph, item: letter by letter


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        ("loss_nats of _this_", r"loss_nats of \_this\_"),
        ("# no heading", r"\# no heading"),
        ("3. no list", r"3\. no list"),
        ("3.5 stays", "3.5 stays"),
        ("- 1", r"\- 1"),
        ("&lt; and a & b", r"\&lt; and a & b"),
        (Code("a ` b"), "`` a ` b ``"),
        (("at ", Strong(Number(0.125, ".1%")), "."), "at **12.5%**."),
        (span(Interval(2.0, 1e-13, 3.0)), "2 (0 to 3)"),
        (span(Interval(2e-12, 1e-13, 3e-12)), "2e-12 (1e-13 to 3e-12)"),
        (span(Interval(1e-13, -1.0, 3.0)), "1e-13 (-1 to 3)"),
        (span(Interval(3.0, 2.99999, 3.00001)), "3 (3)"),
        (span(Interval(3.0, 2.99, 3.01)), "3 (2.99 to 3.01)"),
        (between(Number(3.0), Number(3.0, unit="tokens")), "3 tokens"),
        (between(Number(3.0), Number(4.0, unit="tokens")), "3 to 4 tokens"),
    ],
)
def test_content_as_markdown(content, wanted):
    assert markdown(Paragraph(content)) == wanted + "\n"


def test_code_in_a_table_keeps_its_bars():
    assert r"| `a\|b` |" in markdown(Table(("formula",), ((Code("a|b"),),))) and "`a|b`" in markdown(
        Paragraph(Code("a|b"))
    )


def test_no_number_is_cut_on_a_narrow_terminal():
    wide = Interval(1.234e-100, 1.432e-101, 1.346e-99)
    columns = ("budget (FLOP)", *(f"column {i}" for i in range(6)))
    lines = printed(Table(columns, ((Number(1e15), *[span(wide)] * 6),)), width=40).splitlines()
    assert sum(line.count("1.234e-100") for line in lines) == 6
    assert sum(line.count("1.432e-101 to 1.346e-99") for line in lines) == 6 and "…" not in "".join(lines)


def test_headings_are_flat_where_there_is_room_and_words_whole():
    """A heading of nine words over three digits, beside names and prose: on a wide, a usual and a narrow terminal."""
    head, prose = "mean absolute error of the loss (nats per token), relative", "no run tests the law this far out " * 3
    table = Table((head, "run", "why"), ((Number(0.25), "a_name_of_twenty_odd", prose),))

    def tall(width):
        return next(i for i, line in enumerate(printed(table, width=width).splitlines()) if "──" in line)

    assert tall(160) == 2 and tall(80) < tall(62) == tall(44)  # as high as its longest word makes it, and no higher
    assert tall(44) == len(textwrap.wrap(head, len("absolute")))
    for width in (160, 80, 62):
        lines = printed(table, width=width).splitlines()
        assert "a_name_of_twenty_odd" in "".join(lines) and max(map(len, lines)) <= width
        assert " ".join(lines[-1].split()).endswith("out")


def test_columns_that_a_line_cannot_hold_go_on_below_beside_what_a_row_is():
    numbers = tuple(Number(1.5) for _ in range(8))
    columns = ("law", *(f"quantity_{i}" for i in range(8)))
    table = Table(columns, (("first", *numbers), ("second", *numbers)))
    assert max(map(len, printed(table, width=110).splitlines())) > 80 and printed(table, width=110).count("law") == 1
    text = printed(table, width=80)
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("law") == text.count("first") == text.count("second") == 2
    assert [text.count(name) for name in columns[1:]] == [1] * 8 and text.count("1.5") == 16
    # A row of a group is told by all that the rows of one share, and its own cell.
    rows = tuple((Number(budget), name, *numbers) for budget in (1e12, 2e12) for name in ("params", "tokens"))
    text = printed(Table(("budget", "optimal", *columns[1:]), rows, grouped=True), width=80)
    assert text.count("optimal") == text.count("1e+12") == 2 and text.count("params") == text.count("tokens") == 4


def test_a_name_that_would_make_the_table_too_wide_is_broken_where_that_helps():
    table = Table(("unit", "x"), (("parameters^-params_exponent", Number(1.0)),))
    assert "parameters^-params_exponent" in printed(table, width=40)
    assert max(map(len, printed(table, width=24).splitlines())) <= 24
    # In vain for ten letters: then it stays whole.
    assert "parameters^-params_exponent" in printed(table, width=10)


def test_an_item_of_a_list_hangs_by_its_dash():
    lines = printed(Bullets(("one two three four five", "six")), width=12).splitlines()
    assert lines == ["- one two", "  three four", "  five", "- six"]


def test_groups_say_once_what_they_share_and_long_tables_how_much_is_missing():
    rows = tuple((Number(budget), name, Number(3.0)) for budget in (1e12, 2e12) for name in ("params", "tokens"))
    text = printed(Table(("budget", "optimal", "value"), rows, grouped=True))
    assert text.count("1e+12") == text.count("2e+12") == 1 and text.count("params") == 2
    assert markdown(Table(("budget", "optimal", "value"), rows, grouped=True)).count("1e+12") == 2
    long = printed(Table(("run",), tuple((f"run-{i}",) for i in range(30)), terminal_rows=20))
    assert "run-19" in long and "run-20" not in long and "10 more" in long


def test_a_table_needs_all_its_cells():
    with pytest.raises(ValueError, match="has 1 cells under 2 columns. Fix: fill every cell"):
        Table(("a", "b"), (("c",),))

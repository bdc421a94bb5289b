"""A comparison of families as a document: each at its best learning rate, its law of compute, and what was left out."""

from collections.abc import Sequence

from analysis.quantities import QUANTITY
from analysis.report.document import (
    Code,
    Content,
    Figure,
    Number,
    Paragraph,
    Section,
    Span,
    Table,
    between,
    span,
)
from analysis.report.fitted_law import constants_table, weakly_identified
from analysis.report.table_notes import edge_note, starred
from analysis.studies import MEASURES_BY_LENGTH, Cell, Comparison, Family, by_length


def comparison_document(title: str, question: str, comparison: Comparison, figures: Sequence[Figure] = ()) -> Section:
    """The whole report on a comparison; figures: those that were drawn for it."""
    sections = [cells_section(comparison), *_laws(comparison), *_joint(comparison), *_lengths(comparison)]
    if figures:
        sections.append(Section("Figures", tuple(figures)))
    return Section(title, (Paragraph(question), *sections, *_left_out(comparison)))


def cells_section(comparison: Comparison) -> Section:
    """Every family at every budget, at its best learning rate."""
    cells = [cell for family in comparison.families for cell in family.cells]
    has_budgets = any(cell.budget_flops is not None for cell in cells)
    is_task = any(len(by_length(cell, "exact_match")[0]) for cell in cells)  # no text is ever predicted exactly
    columns = (
        "family",
        *(["budget (FLOP)"] if has_budgets else []),
        "params",
        "active params",
        "learning rate",
        "rates tried",
        "seeds",
        "loss, lowest to highest seed (nats per token)",
        *(["exact match (share)"] if is_task else []),
    )
    rows = tuple(_cell(f, c, has_budgets, is_task) for f in comparison.families for c in f.cells)
    note = edge_note(any(cell.at_edge for cell in cells), "the family")
    return Section("Each family at its best learning rate", (Table(columns, rows, grouped=True), *note))


def _cell(family: Family, cell: Cell, has_budgets: bool, is_task: bool) -> tuple[Content, ...]:
    rate = Number(cell.learning_rate, ".3g")
    row: list[Content] = [family.name]
    if has_budgets:
        row.append("-" if cell.budget_flops is None else Number(cell.budget_flops, ".3g"))
    row += [
        Number(cell.params),
        Number(cell.active_params),
        starred(rate, cell.at_edge),
        Number(cell.rates, "d"),
        Number(len(cell.runs), "d"),
        Span(Number(cell.loss_nats, QUANTITY), between(Number(cell.lowest, QUANTITY), Number(cell.highest, QUANTITY))),
    ]
    if is_task:
        row.append(Number(cell.measures["exact_match"], ".3f") if "exact_match" in cell.measures else "-")
    return tuple(row)


def _laws(comparison: Comparison) -> list[Section]:
    if not any(family.law for family in comparison.families):
        return []
    rows: list[tuple[Content, ...]] = [
        (family.name, f"not fitted: {family.law_note}", "-")
        if family.law is None
        else (_name(family), span(family.law.intervals["alpha"]), Number(family.law.fit.residual_scale, ".2%"))
        for family in comparison.families
    ]
    text = (
        Code("loss = (flops_scale / flops)^alpha"), " over the budgets trained, with ",
        Number(comparison.level, ".0%"), " intervals.",
    )  # fmt: skip
    table = Table(("family", "alpha", "residual scale"), tuple(rows))
    note = edge_note(any(family.law and _is_at_edge(family.cells) for family in comparison.families), "the family")
    return [Section("Loss against compute", (Paragraph(text), table, *note))]


def _is_at_edge(cells: Sequence[Cell]) -> bool:
    return any(cell.at_edge for cell in cells)


def _name(family: Family, cells: Sequence[Cell] | None = None) -> Content:
    """A family's name, starred where one of the cells (by default all its cells) is at the edge of its sweep."""
    return starred(family.name, _is_at_edge(family.cells if cells is None else cells))


def _joint(comparison: Comparison) -> list[Section]:
    title, joint = "All families together", comparison.joint
    if joint is None:
        text = f"Not fitted: {comparison.joint_note}"
        return [Section(title, (Paragraph(text),))] if comparison.joint_note else []
    law = joint.fit.law
    return [
        Section(
            title,
            (
                Paragraph((Code(law.formula), f" ({law.citation}), by {joint.fit.objective}.")),
                constants_table(law, joint.intervals, comparison.level),
                Paragraph(("Residual scale ", Number(joint.fit.residual_scale, ".2%"), ".")),
                *weakly_identified(joint.weakly_identified),
                *_edges_in_joint(comparison),
            ),
        )
    ]


def _edges_in_joint(comparison: Comparison) -> tuple[Paragraph, ...]:
    cells = [cell for family in comparison.families for cell in family.cells]
    count = Number(sum(cell.at_edge for cell in cells), "d")
    text = ("In ", count, " of its ", Number(len(cells), "d"), " cells the best rate lies at an end of the sweep.")
    return (Paragraph(text),) if _is_at_edge(cells) else ()


def _lengths(comparison: Comparison) -> list[Section]:
    """One table per measure: families down, lengths across."""
    sections = []
    for measure in MEASURES_BY_LENGTH:
        shown = [family for family in comparison.families if family.cells]
        curves = [(family, *by_length(family.cells[-1], measure)) for family in shown]
        curves = [(family, dict(zip(map(int, at), map(float, values)))) for family, at, values in curves if len(at)]
        lengths = sorted({length for _, values in curves for length in values})
        rows = tuple(
            (
                _name(family, family.cells[-1:]),
                *(Number(values[length], ".3f") if length in values else "-" for length in lengths),
            )
            for family, values in curves
        )
        note = edge_note(any(_is_at_edge(family.cells[-1:]) for family, _ in curves), "the family")
        if lengths:
            sections.append(Section(f"{measure} by length", (Table(("family", *map(str, lengths)), rows), *note)))
    return sections


def _left_out(comparison: Comparison) -> list[Section]:
    rows = tuple((family.name, item.run, item.reason) for family in comparison.families for item in family.left_out)
    return [Section("Runs left out", (Table(("family", "run", "reason"), rows, terminal_rows=20),))] if rows else []

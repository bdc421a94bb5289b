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
    edge = "* the best rate is an end of the sweep: the family may do better beyond it."
    note = [Paragraph(edge)] if any(cell.at_edge for cell in cells) else []
    return Section("Each family at its best learning rate", (Table(columns, rows, grouped=True), *note))


def _cell(family: Family, cell: Cell, has_budgets: bool, is_task: bool) -> tuple[Content, ...]:
    rate = Number(cell.learning_rate, ".3g")
    row: list[Content] = [family.name]
    if has_budgets:
        row.append("-" if cell.budget_flops is None else Number(cell.budget_flops, ".3g"))
    row += [
        Number(cell.params),
        Number(cell.active_params),
        (rate, " *") if cell.at_edge else rate,
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
        else (family.name, span(family.law.intervals["alpha"]), Number(family.law.fit.residual_scale, ".2%"))
        for family in comparison.families
    ]
    text = (
        Code("loss = (flops_scale / flops)^alpha"), " over the budgets trained, with ",
        Number(comparison.level, ".0%"), " intervals.",
    )  # fmt: skip
    return [
        Section("Loss against compute", (Paragraph(text), Table(("family", "alpha", "residual scale"), tuple(rows))))
    ]


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
            ),
        )
    ]


def _lengths(comparison: Comparison) -> list[Section]:
    """One table per measure: families down, lengths across."""
    sections = []
    for measure in MEASURES_BY_LENGTH:
        curves = {family.name: by_length(family.cells[-1], measure) for family in comparison.families if family.cells}
        lengths = sorted({int(length) for at, _ in curves.values() for length in at})
        if lengths:
            found = {name: dict(zip(map(int, at), map(float, values))) for name, (at, values) in curves.items()}
            rows = tuple(
                (name, *(Number(values[length], ".3f") if length in values else "-" for length in lengths))
                for name, values in found.items()
                if values
            )
            sections.append(Section(f"{measure} by length", (Table(("family", *map(str, lengths)), rows),)))
    return sections


def _left_out(comparison: Comparison) -> list[Section]:
    rows = tuple((family.name, item.run, item.reason) for family in comparison.families for item in family.left_out)
    return [Section("Runs left out", (Table(("family", "run", "reason"), rows, terminal_rows=20),))] if rows else []

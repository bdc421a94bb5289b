"""A sweep of hyperparameters as a document: the best of each cell, the laws of them, and what following those costs."""

from collections.abc import Mapping

import numpy as np

from analysis.compute import Reach
from analysis.quantities import QUANTITY, with_unit
from analysis.report.document import (
    Block,
    Bullets,
    Code,
    Content,
    Number,
    Paragraph,
    Section,
    Span,
    Strong,
    Table,
    ends,
    notes_on,
    span,
)
from analysis.report.fitted_law import constants_table, fit_quality, weak_constants, weakly_identified
from analysis.report.table_notes import left_out_section, notes_block
from analysis.runs_table import unit_of
from analysis.studies.sweep_laws import Advice, Followed, SweepLaws


def sweep_sections(found: SweepLaws) -> tuple[Section, ...]:
    """All that `isoflop bowls` prints."""
    laws = (_law(found, axis) for axis in found.axes)
    advice = [_advice(found.advice, found.level)] if found.advice else []
    notes, left_out = notes_block(found.table_notes), left_out_section(found.left_out)
    return (*notes, _optima(found), *laws, _followed(found), *advice, *left_out)


def _optima(found: SweepLaws) -> Section:
    columns = (
        *found.cell,
        "runs",
        *(f"best {with_unit(axis)}" for axis in found.axes),
        f"loss there ({unit_of('loss_nats')})",
        "why there is none",
    )
    rows = []
    for bowl in found.bowls:
        best = [Number(bowl.optimum[axis]) for axis in found.axes] if not bowl.reason else ["none"] * len(found.axes)
        loss: Content = "" if bowl.reason else Number(bowl.loss_nats, QUANTITY)
        rows.append((*_cell(bowl.cell), Number(bowl.runs, "d"), *best, loss, bowl.reason))
    text = "A quadratic of log loss in the logarithms of the hyperparameters, weighted towards the lowest run."
    return Section("The best settings of each cell", (Paragraph(text), Table(columns, tuple(rows))))


def _law(found: SweepLaws, axis: str) -> Section:
    title = f"The law of {axis}"
    if axis not in found.laws:
        return Section(title, (Paragraph(f"There is none: {found.law_notes[axis]}"),))
    law = found.laws[axis]
    return Section(
        title,
        (
            Paragraph(
                (Code(law.fit.law.formula), f" ({law.fit.law.citation}); isoflop fit calls it {law.fit.law.name}")
            ),
            constants_table(law, found.level),
            *notes_on(law.intervals.values()),
            Paragraph(fit_quality(law)),
            *weakly_identified(weak_constants(law)),
        ),
    )


def _followed(found: SweepLaws) -> Section:
    title = "What following the laws costs"
    if found.law_notes:
        missing = ", ".join(found.law_notes)
        return Section(title, (Paragraph(f"Not known: there is no law of {missing}, and a run needs them all."),))
    columns = (
        *found.cell,
        *(f"{with_unit(axis)} by the other cells" for axis in found.axes),
        "nearest run",
        "its loss above the cell's best (relative)",
        "times beyond the other cells",
        *(["outside the values run here"] if any(one.outside for one in found.followed) else []),
    )
    rows = tuple((*_cell(one.cell), *_outcome(one, found.axes))[: len(columns)] for one in found.followed)
    blocks: list[Block] = [
        Paragraph(
            "In each cell, laws fitted to the other cells alone are followed to the run nearest to what they say. The "
            "cell's best run is the luckiest of many, so that the excess is not zero for the true optimum either."
        ),
        Table(columns, rows),
    ]
    reasons = tuple(dict.fromkeys(one.reason for one in found.followed if one.reason))
    if reasons:
        blocks.append(Bullets(tuple(f"A cell is not followed: {reason}" for reason in reasons)))
    if len(found.excess):
        blocks.append(
            Paragraph(
                (
                    "Excess loss over ", Number(len(found.excess), "d"), " cells: mean ",
                    Number(float(np.mean(found.excess)), ".3g"), ", median ",
                    Number(float(np.median(found.excess)), ".3g"), ", worst ",
                    Number(float(np.max(found.excess)), ".3g"), " of the best run's loss.",
                )
            )
        )  # fmt: skip
    return Section(title, tuple(blocks))


def _outcome(one: Followed, axes: tuple[str, ...]) -> tuple[Content, ...]:
    if one.reason:
        return (*[""] * len(axes), "none", "", "no laws without it", "")
    wanted = tuple(Number(one.recommended[axis]) for axis in axes)
    return (*wanted, one.nearest_run, Number(one.excess, ".3g"), _distance(one.reach), Strong(", ".join(one.outside)))


def _distance(reach: Reach) -> Content:
    """How far a cell lies outside the others, nothing for one that lies inside."""
    if reach.factor <= 1:
        return ""
    far = Span(Number(reach.factor, ".3g"), reach.quantity)
    return Strong(far) if reach.warning else far


def _advice(advice: Advice, level: float) -> Section:
    at = tuple((name, Number(value)) for name, value in advice.at.items())
    title = ("By the laws of all cells, at ", *[part for name, value in at for part in (", ", f"{name} ", value)][1:])
    rows = tuple((with_unit(axis), span(value).value, ends(value)) for axis, value in advice.values.items())
    warning = [Bullets((Strong(f"This {advice.reach.warning}."),))] if advice.reach.warning else []
    return Section(
        title,
        (
            Table(("setting", "value", (Number(level, ".0%"), " interval of the laws")), rows),
            *warning,
            *notes_on(advice.values.values()),
        ),
    )


def _cell(cell: Mapping[str, float | str]) -> tuple[Content, ...]:
    return tuple(value if isinstance(value, str) else Number(value) for value in cell.values())

"""A sweep of hyperparameters as a document: the best of each cell, the laws of them, and what following those costs."""

from collections.abc import Mapping, Sequence

import numpy as np

from analysis.compute import Reach
from analysis.intervals import wide_constants
from analysis.quantities import QUANTITY, counted, with_unit
from analysis.report.document import (
    Block,
    Bullets,
    Code,
    Content,
    Figure,
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
from analysis.report.fitted_law import constants_table, weakly_identified
from analysis.report.table_notes import edge_note, left_out_section, notes_block, starred
from analysis.runs_table import unit_of
from analysis.studies.hyperparameters import Bowl
from analysis.studies.sweep_laws import WAYS, Advice, Followed, SweepLaws


def sweep_sections(found: SweepLaws) -> tuple[Section, ...]:
    """All that `isoflop bowls` prints."""
    laws = (*(_law(found, axis) for axis in found.axes), *_shape(found))
    advice = [_advice(found.advice, found.level)] if found.advice else []
    notes, left_out = notes_block(found.table_notes), left_out_section(found.left_out)
    return (*notes, best_runs_section(found), optima_section(found), *laws, _followed(found), *advice, *left_out)


def sweep_document(title: str, question: str, found: SweepLaws, figures: Sequence[Figure] = ()) -> Section:
    """The whole report on a search of settings; figures: those that were drawn for it."""
    drawn = [Section("Figures", tuple(figures))] if figures else []
    return Section(title, (Paragraph(question), *sweep_sections(found), *drawn))


def optima_section(found: SweepLaws) -> Section:
    """The best settings of each cell, by its own runs."""
    columns = (
        *found.cell,
        "runs",
        *(
            part
            for axis in found.axes
            for part in (f"best {with_unit(axis)}", (Number(found.level, ".0%"), " interval"))
        ),
        f"loss there ({unit_of('loss_nats')})",
        "why there is none",
    )
    rows = []
    for bowl in found.bowls:
        best = [part for axis in found.axes for part in (starred("none", axis in bowl.at_edge), "")]
        if not bowl.reason:
            optima = {axis: starred(Number(bowl.optimum[axis]), axis in bowl.at_edge) for axis in found.axes}
            best = [part for axis in found.axes for part in (optima[axis], ends(bowl.intervals[axis]))]
        loss: Content = "" if bowl.reason else Number(bowl.loss_nats, QUANTITY)
        rows.append((*_cell(bowl.cell), Number(bowl.runs, "d"), *best, loss, bowl.reason))
    text = (
        "By each cell's own runs: a quadratic of log loss in the logarithms of the hyperparameters, weighted towards "
        "the lowest run. The intervals hold the noise of those runs around it."
    )
    notes = notes_on(interval for bowl in found.bowls if not bowl.reason for interval in bowl.intervals.values())
    table, edges = Table(columns, tuple(rows)), edge_note(any(bowl.at_edge for bowl in found.bowls))
    return Section("The best settings of each cell", (Paragraph(text), table, *edges, *notes))


def best_runs_section(found: SweepLaws) -> Section:
    """The settings of the best runs of each cell, as they were measured."""
    loss = f"their loss ({unit_of('loss_nats')})"
    columns = (*found.cell, "runs", *(with_unit(axis) for axis in found.axes), loss)
    rows = []
    for bowl in found.bowls:
        best = (starred(Number(bowl.best_settings[axis]), axis in bowl.at_edge) for axis in found.axes)
        rows.append((*_cell(bowl.cell), Number(bowl.runs, "d"), *best, Number(bowl.best_mean_nats, QUANTITY)))
    edges = edge_note(any(bowl.at_edge for bowl in found.bowls))
    text = "Those of the least loss, by its mean over runs of equal settings."
    return Section("The best runs of each cell", (Paragraph(text), Table(columns, tuple(rows)), *edges))


def _law(found: SweepLaws, axis: str) -> Section:
    title = f"The law of {axis}"
    if axis in found.law_notes or found.joint is None:
        return Section(title, (Paragraph(f"There is none: {found.law_notes[axis]}"),))
    own = found.joint.laws[axis]
    return Section(
        title,
        (
            Paragraph((Code(own.law.formula), f" ({own.law.citation}); isoflop fit calls it {own.law.name}")),
            constants_table(own.law, own.intervals, found.level),
            *notes_on(own.intervals.values()),
            *weakly_identified(wide_constants(own.law, own.intervals, found.level)),
        ),
    )


def _shape(found: SweepLaws) -> tuple[Section, ...]:
    """The bowl that all cells share, and how the laws through it were fitted."""
    if found.joint is None:
        return ()
    joint = found.joint
    at = tuple(part for name, value in joint.centre.items() for part in (", ", f"{name} ", Number(value)))[1:]
    curved = tuple((axis, *map(Number, row)) for axis, row in zip(found.axes, joint.curvature, strict=True))
    powers = tuple((name, span(power).value, ends(power)) for name, power in joint.exponents.items())
    text = (
        "The laws are fitted to the runs of all cells, cells without an optimum of their own among them: near what the "
        "laws say, log loss is a quadratic of one shape, whose size is a power of the laws' inputs. Standard deviation "
        "of log loss around it ", Number(joint.noise, ".2e"), f". Intervals: {joint.method}.",
    )  # fmt: skip
    size = Table(("input", "exponent of the curvature", (Number(found.level, ".0%"), " interval")), powers)
    return (
        Section(
            "The bowl of all cells",
            (
                Paragraph(text),
                Paragraph(("Curvature of log loss by the logarithms of two settings, at ", *at, ":")),
                Table(("", *found.axes), curved),
                size,
                *notes_on(joint.exponents.values()),
            ),
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
    rows = tuple(
        (*_cell(one.cell), *_outcome(one, bowl, found.axes))[: len(columns)]
        for one, bowl in zip(found.followed, found.bowls, strict=True)
    )
    blocks: list[Block] = [
        Paragraph(
            "In each cell, laws fitted to the other cells alone are followed to the run nearest to what they say. The "
            "cell's best run is the luckiest of many, so that the excess is not zero for the true optimum either."
        ),
        Table(columns, rows),
        *edge_note(any(bowl.at_edge and not one.reason for one, bowl in zip(found.followed, found.bowls))),
    ]
    reasons = tuple(dict.fromkeys(one.reason for one in found.followed if one.reason))
    if reasons:
        blocks.append(Bullets(tuple(f"A cell is not followed: {reason}" for reason in reasons)))
    known = found.excess
    if known:
        ways = tuple(
            (way, *(Number(float(of(excess)), ".3g") for of in (np.mean, np.median, np.max)))
            for way, excess in known.items()
        )
        count = counted(len(next(iter(known.values()))), "cell")
        blocks.append(Paragraph(f"Excess loss over {count}, relative, by what of the other cells is followed:"))
        blocks.append(Table(("followed", "mean", "median", "worst"), ways))
        # Neighbours there always are, and joint laws where cells are followed at all.
        if len(known) < len(WAYS):
            blocks.append(Paragraph("Laws of the cells' optima are not followed: too few other cells have one."))
    return Section(title, tuple(blocks))


def _outcome(one: Followed, bowl: Bowl, axes: tuple[str, ...]) -> tuple[Content, ...]:
    if one.reason:
        return (*[""] * len(axes), "none", "", "no laws without it", "")
    wanted = tuple(Number(one.recommended[axis]) for axis in axes)
    excess = starred(Number(one.excess, ".3g"), bool(bowl.at_edge))
    return (*wanted, one.nearest_run, excess, _distance(one.reach), Strong(", ".join(one.outside)))


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

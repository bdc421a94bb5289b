"""The section on the parametric law: its constants (approach 3), and how well the runs determine them."""

from collections.abc import Mapping

from analysis.fit import Fit
from analysis.intervals import Estimate, Interval
from analysis.intervals.interval import NOT_DETERMINED, NOTES, OPEN_ABOVE, OPEN_BELOW
from analysis.laws import Law
from analysis.report.document import (
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
    residue,
    span,
)
from analysis.runs_table import unit_of
from analysis.studies import Study


def law_section(study: Study) -> Section:
    """The parametric law, its constants, how well it was fitted and how well the runs determine it."""
    law = study.law.fit.law
    return Section(
        "The parametric law (approach 3)" if law.name == "chinchilla" else "The parametric law",
        (
            Paragraph((Code(law.formula), f" ({law.citation})")),
            constants_table(law, study.law.intervals, study.level),
            *notes_on(study.law.intervals.values()),
            Paragraph(fit_quality(study.law)),
            *([Bullets(tuple(Strong(f"{caveat}.") for caveat in study.caveats))] if study.caveats else []),
            *weakly_identified(study.weakly_identified),
        ),
    )


def constants_table(law: Law, intervals: Mapping[str, Interval], level: float) -> Table:
    """The law's constants, fitted and held."""
    rows: list[tuple[Content, ...]] = []
    for parameter in law.parameters:
        interval = intervals[parameter.name]
        rows.append((parameter.name, _value(interval), ends(interval), parameter.unit, parameter.meaning))
    rows += [(name, Number(value, ".5g"), "held", "", "") for name, value in law.fixed]
    return Table(("constant", "value", (Number(level, ".0%"), " interval"), "unit", "meaning"), tuple(rows))


def _value(interval: Interval) -> Content:
    shown = span(interval, ".5g")
    return shown.value if isinstance(shown, Span) else shown


def fit_quality(estimate: Estimate) -> Content:
    """One sentence each on the objective, the search, the conditioning, the residuals and the intervals."""
    fit, law = estimate.fit, estimate.fit.law
    logarithmic = law.residual == "log"
    points: Content = (
        f" points on {'the log of ' if logarithmic else ''}{law.output}: ",
        Number(fit.objective_value, ".6g"),
    )
    scale: Content = () if fit.scale is None else (" Fitted scale of the residuals ", Number(fit.scale), ".")
    residual = residue(fit.residual_scale, *shown_residual(fit))
    return (
        f"Objective {fit.objective}, summed over ", Number(len(fit.used), "d"), points, ". ",
        Number(fit.starts_at_optimum, "d"), " of ", Number(fit.starts, "d"), " starts reached this minimum; largest "
        "gradient ", Number(fit.gradient_norm, ".1e"), "; condition number ", Number(fit.condition_number, ".3g"), ".",
        scale, " Standard deviation of the residuals ", residual, f". Intervals: {estimate.method}.",
    )  # fmt: skip


def shown_residual(fit: Fit) -> tuple:
    """How a residual of the fit is printed, after its value, as `residue` takes it."""
    if fit.law.residual == "log":
        return (".2%",)
    return (".3g", unit_of(fit.law.output), max(map(abs, fit.ranges[fit.law.output])))


def weak_constants(estimate: Estimate) -> dict[str, str]:
    """For each constant that the points do not pin down, why; for an estimate that no study with profiles holds."""
    is_open = (OPEN_BELOW, OPEN_ABOVE, NOT_DETERMINED)
    notes = {name: interval.note for name, interval in estimate.intervals.items()}
    return {**{name: NOTES[note] for name, note in notes.items() if note in is_open}, **estimate.weakly_identified}


def weakly_identified(reasons: dict[str, str]) -> tuple[Bullets, ...]:
    """A warning for each constant that the runs do not pin down; nothing where they pin down all."""
    items = tuple(
        (Strong(f"{name} is weakly identified"), f": {reason}. Do not read it on its own.")
        for name, reason in reasons.items()
    )
    return (Bullets(items),) if items else ()

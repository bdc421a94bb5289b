"""The laws themselves as a document: each with its formula, inputs, output, constants and where it comes from."""

from collections.abc import Iterable

from analysis.laws import Law, Parameter
from analysis.quantities import meaning_of, with_unit
from analysis.report.document import Bullets, Code, Content, Number, Paragraph, Section, Table
from analysis.runs_table import unit_of

RESIDUALS = {
    "log": "log(law) - log(measured), so that errors count in percent; the output must be positive",
    "linear": "law - measured, in the output's own unit; the output may be zero or negative",
}


def laws_section(laws: Iterable[Law]) -> Section:
    """Every law in a few lines."""
    return Section("Laws", tuple(_in_short(law) for law in laws))


def law_in_full(law: Law) -> Section:
    """All that one law's definition says."""
    columns = tuple(
        (name, role, unit_of(name), meaning_of(name))
        for role, names in (("input", law.inputs), ("output", (law.output,)))
        for name in names
    )
    zero = f", or zero for {', '.join(law.may_be_zero)}" if law.may_be_zero else ""
    return Section(
        law.name,
        (
            Paragraph(Code(law.formula)),
            Paragraph(law.citation),
            Table(("column", "is", "unit", "meaning"), columns),
            Table(("constant", "unit", "bounds", "meaning"), tuple(map(_constant, law.parameters))),
            Bullets(
                (
                    f"inputs are positive numbers{zero}",
                    f"a fit makes {RESIDUALS[law.residual]}",
                    ("needs at least ", Number(len(law.parameters) + 1, "d"), " runs"),
                )
            ),
        ),
    )


def _in_short(law: Law) -> Section:
    constants = "; ".join(f"{parameter.name} ({parameter.unit})" for parameter in law.parameters)
    lines: tuple[Content, ...] = (
        Code(law.formula),
        f"output {with_unit(law.output)}; inputs {', '.join(map(with_unit, law.inputs))}",
        f"constants {constants}",
        law.citation,
    )
    return Section(law.name, (Bullets(lines),))


def _constant(parameter: Parameter) -> tuple[Content, ...]:
    bounds = (Number(parameter.low, "g"), " to ", Number(parameter.high, "g"))
    return (parameter.name, parameter.unit, bounds, parameter.meaning)

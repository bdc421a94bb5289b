"""The section on what the residuals say: outliers, lack of fit, columns that explain what the law leaves over."""

import math

from analysis.fit import Fit
from analysis.report.document import Bullets, Content, Number, Paragraph, Section, Strong, Table
from analysis.runs_table import unit_of
from analysis.studies import LackOfFit, ResidualChecks

MOST_COLUMNS = 3  # that are printed; the JSON file has all
LACKING = 0.01  # p value below which the law is said to miss the runs by more than their noise: the level of the test


def checks_section(checks: ResidualChecks, fit: Fit) -> Section:
    """Every check with what it found; one that found nothing says how much it looked at."""
    lines: list[Content] = []
    if math.isinf(checks.outlier_factor):
        lines.append("Too few runs to tell an outlier.")
    elif not checks.outliers:
        lines.append(("No run is an outlier (none is further off than ", Number(checks.outlier_factor, ".3g"),
                      " robust residual scales)."))  # fmt: skip
    if checks.lack_of_fit is not None:
        lines += _lack_of_fit(checks.lack_of_fit, fit)
    for found in checks.explained[:MOST_COLUMNS]:
        lines.append(
            (
                Strong(f"Column {found.column} explains residuals"), ", though the law does not read it: ",
                Number(found.share, ".0%"), " of their variance (in ranks), p = ", Number(found.p_value, ".1e"),
                " after correction for ", Number(checks.tested, "d"), " columns.",
            )
        )  # fmt: skip
    if checks.tested and not checks.explained:
        lines.append(("No column that the law does not read explains its residuals (", Number(checks.tested, "d"),
                      " tested)."))  # fmt: skip
    return Section("What the residuals say", (*_outliers(checks, fit), *([Bullets(tuple(lines))] if lines else [])))


def _outliers(checks: ResidualChecks, fit: Fit) -> tuple[Paragraph | Table, ...]:
    if not checks.outliers:
        return ()
    law = fit.law
    logarithmic = law.residual == "log"
    unit = f" ({unit_of(law.output)})" if unit_of(law.output) else ""
    rows = tuple(
        (
            one.run,
            Number(one.measured),
            Number(one.fitted),
            Number(one.residual, "+.3g"),
            Number(one.factor, ".3g"),
        )
        for one in checks.outliers
    )
    residual = f"log of measured {law.output} over fitted" if logarithmic else f"measured minus fitted{unit}"
    columns = ("outlier", f"measured{unit}", f"fitted{unit}", residual, "times the robust scale")
    text = (
        Strong(("Outliers: ", Number(len(rows), "d"), " of ", Number(len(fit.used), "d"), " fitted runs")),
        ". Each is further from the law than ", Number(checks.outlier_factor, ".3g"), " robust scales of the residuals,"
        " further than normal noise puts any run of a table of this size. They were fitted; "
        f"objective {fit.objective.name} " + ("lets them pull at full weight." if fit.objective.delta is None else
        "bounds their pull.") + " Approach 2 leaves out those far above their neighbours. Look at them, and leave out "
        "(held_out, or status failed) what has diverged.",
    )  # fmt: skip
    return (Paragraph(text), Table(columns, rows, terminal_rows=20))


def _lack_of_fit(found: LackOfFit, fit: Fit) -> list[Content]:
    logarithmic = fit.law.residual == "log"
    relative: Content = (" (", Number(found.noise_residual, ".2%"), ")") if logarithmic else ""
    differ = f" They differ in {', '.join(found.differ_in)}." if found.differ_in else ""
    lines: list[Content] = [
        (
            "Runs of equal inputs scatter by ", Number(found.noise, ".3g", unit_of(fit.law.output)), relative,
            ", standard deviation with ", Number(found.freedom, "d"), " degrees of freedom from ",
            Number(found.groups, "d"), " groups: noise that no law of these inputs explains.", differ,
        )
    ]  # fmt: skip
    if found.ratio is None or found.p_value is None:
        reason = "the law has a constant for each group" if found.lack_freedom == 0 else "there is no noise to test by"
        return [*lines, f"Lack of fit is not tested: {reason}."]
    test: Content = (
        "F = ", Number(found.ratio, ".3g"), " of ", Number(found.lack_freedom, "d"), " and ",
        Number(found.freedom, "d"), " degrees of freedom, p = ", Number(found.p_value, ".2g"), ".",
    )  # fmt: skip
    if found.p_value < LACKING:
        missed = Strong("The law misses them by more than that noise")
        return [*lines, (missed, ": it has the wrong shape, at the ", Number(LACKING, ".0%"), " level. ", test)]
    return [*lines, ("No lack of fit at the ", Number(LACKING, ".0%"), " level: ", test)]

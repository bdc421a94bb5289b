"""The section on what the residuals say: outliers, lack of fit, columns that explain what the law leaves over."""

import math

from analysis.fit import Fit
from analysis.report.document import Bullets, Content, Number, Paragraph, Section, Strong, Table, residue
from analysis.report.fitted_law import shown_residual
from analysis.report.table_notes import counted_rows
from analysis.runs_table import unit_of
from analysis.studies import LackOfFit, ResidualChecks

MOST_COLUMNS = 3  # that are printed; the JSON file has all
TELLING = 10.0  # robust scales: a limit further out than that finds nothing but what anyone sees
LACKING = 0.01  # p value below which the law is said to miss the runs by more than their noise: the level of the test


def checks_section(checks: ResidualChecks, fit: Fit) -> Section:
    """Every check with what it found; one that found nothing says how much it looked at."""
    by_run = checks.run_factor is not None
    lines: list[Content] = []
    scale = residue(checks.robust_scale, *shown_residual(fit))
    is_rounding = scale.value < scale.below
    if is_rounding:
        lines.append("Most of what the law leaves over is rounding: these runs have no noise to speak of.")
    elif by_run and not checks.outlying_runs:
        lines.append(_none_apart("run", "is an outlier by the middle residual of its rows", checks.run_factor,
                                 checks.furthest_run))  # fmt: skip
    if not checks.outliers and not is_rounding:
        row, apart = ("row", "lies apart from the others of its run") if by_run else ("run", "is an outlier")
        lines.append(_none_apart(row, apart, checks.outlier_factor, checks.furthest))
    if math.isfinite(checks.robust_scale) and not is_rounding:
        lines.append(
            (
                f"The robust scale of the residuals{' within runs' if by_run else ''}, by their median size, is ",
                scale,
                "; their standard deviation, which outliers widen, stands with the law.",
            )
        )  # fmt: skip
    if checks.lack_of_fit is not None:
        lines += _lack_of_fit(checks.lack_of_fit, fit, by_run)
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
    apart_from = (*_outlying_runs(checks, fit), *_outliers(checks, fit))
    return Section("What the residuals say", (*apart_from, *([Bullets(tuple(lines))] if lines else [])))


def _none_apart(one: str, is_apart: str, limit: float, furthest: float | None) -> Content:
    if math.isinf(limit) or furthest is None:
        return f"Too few {one}s to tell whether one {is_apart}."
    if limit > TELLING:
        few, end = f"Too few {one}s to tell whether one {is_apart}: ", " of them would show it."
        return (
            few,
            "the furthest is ",
            Number(furthest, ".3g"),
            " robust scales off, and only ",
            Number(limit, ".3g"),
            end,
        )
    off = (
        ": the furthest is ",
        Number(furthest, ".3g"),
        " robust scales off; the limit is ",
        Number(limit, ".3g"),
        ".",
    )
    return (f"No {one} {is_apart}", *off)


def _outlying_runs(checks: ResidualChecks, fit: Fit) -> tuple[Paragraph | Table, ...]:
    if not checks.outlying_runs or checks.run_factor is None:
        return ()
    found = checks.outlying_runs
    rows = tuple(
        (one.run, Number(one.rows, "d"), Number(one.residual, "+.3g"), Number(one.factor, ".3g")) for one in found
    )
    text = (
        Strong(("Outliers: ", Number(len(rows), "d"), " of ", Number(len(set(fit.used)), "d"), " fitted runs")),
        ". The middle residual of the rows of each is further from the law than ", Number(checks.run_factor, ".3g"),
        " robust scales of those of all runs, further than normal noise puts any of so many runs. ", _what_to_do(fit),
    )  # fmt: skip
    columns = ("outlier", "rows", f"middle {_residual(fit)}", "times the robust scale of runs")
    return (Paragraph(text), Table(columns, rows, terminal_rows=20))


def _outliers(checks: ResidualChecks, fit: Fit) -> tuple[Paragraph | Table, ...]:
    if not checks.outliers:
        return ()
    by_run, unit = checks.run_factor is not None, f" ({unit_of(fit.law.output)})" if unit_of(fit.law.output) else ""
    inputs = fit.law.inputs if by_run else ()  # of runs of one row each, the name says which
    rows = tuple(
        (
            one.run,
            *(Number(one.inputs[name]) for name in inputs),
            Number(one.measured),
            Number(one.fitted),
            Number(one.residual, "+.3g"),
            Number(one.factor, ".3g"),
        )
        for one in checks.outliers
    )
    title, from_what = ("Rows apart", "other rows of its run") if by_run else ("Outliers", "law")
    text = (
        Strong((f"{title}: ", Number(len(rows), "d"), " of ", Number(len(fit.used), "d"),
                f" fitted {fit.counted}")),
        f". Each is further from the {from_what} than ", Number(checks.outlier_factor, ".3g"), " robust scales of the "
        f"residuals{' of all' if by_run else ''}, further than normal noise puts any "
        f"{'row' if by_run else 'run'} of a table of this size. ", _what_to_do(fit),
    )  # fmt: skip
    left = f"{_residual(fit)}, less its run's middle one" if by_run else _residual(fit)
    columns = ("outlier", *inputs, f"measured{unit}", f"fitted{unit}", left, "times the robust scale")
    return (Paragraph(text), Table(columns, rows, terminal_rows=20), *counted_rows(one.run for one in checks.outliers))


def _residual(fit: Fit) -> str:
    output = fit.law.output
    if fit.law.residual == "log":
        return f"log of measured {output} over fitted"
    return f"measured minus fitted{f' ({unit_of(output)})' if unit_of(output) else ''}"


def _what_to_do(fit: Fit) -> str:
    pull = "lets them pull at full weight" if fit.objective.delta is None else "bounds their pull"
    return (
        f"They were fitted; objective {fit.objective.name} {pull}. Approach 2 leaves out those far above their "
        "neighbours. Look at them, and leave out (held_out, or status failed) what has diverged."
    )


def _lack_of_fit(found: LackOfFit, fit: Fit, by_run: bool) -> list[Content]:
    logarithmic = fit.law.residual == "log"
    relative: Content = (" (", Number(found.noise_residual, ".2%"), ")") if logarithmic else ""
    differ = f" They differ in {', '.join(found.differ_in)}." if found.differ_in else ""
    lines: list[Content] = [
        (
            f"{'The last rows of runs' if by_run else 'Runs'} of equal inputs scatter by ",
            Number(found.noise, ".3g", unit_of(fit.law.output)), relative, ", standard deviation with ",
            Number(found.freedom, "d"), " degrees of freedom from ", Number(found.groups, "d"),
            " groups: noise that no law of these inputs explains.", differ,
        )
    ]  # fmt: skip
    if found.ratio is None or found.p_value is None:
        reason = "the law has a constant for each group" if found.lack_freedom == 0 else "there is no noise to test by"
        reason = "rows of one run are not independent" if by_run else reason
        return [*lines, f"Lack of fit is not tested: {reason}."]
    test: Content = (
        "F = ", Number(found.ratio, ".3g"), " of ", Number(found.lack_freedom, "d"), " and ",
        Number(found.freedom, "d"), " degrees of freedom, p = ", Number(found.p_value, ".2g"), ".",
    )  # fmt: skip
    if found.p_value < LACKING:
        missed = Strong("The law misses them by more than that noise")
        return [*lines, (missed, ": it has the wrong shape, at the ", Number(LACKING, ".0%"), " level. ", test)]
    return [*lines, ("No lack of fit at the ", Number(LACKING, ".0%"), " level: ", test)]

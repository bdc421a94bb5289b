"""Several laws on one table as a document: ranked by back-test, cut by cut, and which differences are within noise."""

import numpy as np

from analysis.quantities import GRAIN, counted, plural, with_unit
from analysis.report.beyond_the_runs import cut_cells, cut_columns, few_fitted
from analysis.report.document import Bullets, Content, Number, Paragraph, Section, Strong, Table, ends, residue, span
from analysis.report.table_notes import left_out_section, notes_block
from analysis.runs_table import unit_of
from analysis.studies import Cut
from analysis.studies.law_ranking import RankedLaw, Ranking, fewest_runs


def ranking_sections(ranking: Ranking) -> tuple[Section, ...]:
    """All that `isoflop compare` prints."""
    notes, left_out = notes_block(ranking.table_notes), left_out_section(ranking.left_out)
    return (*notes, _ranking(ranking), _cuts(ranking), *_unranked(ranking), *left_out)


def _ranking(ranking: Ranking) -> Section:
    output = with_unit(ranking.output)
    text = (
        f"Each law was fitted below {counted(len(ranking.cuts), 'cut')} of {ranking.by} and scored on the same runs "
        "above: ", Number(ranking.scored, "d"), f" {plural('prediction', ranking.scored)} of ",
        Number(ranking.runs, "d"), f" {plural('run', ranking.runs)}, objective ",
        f"{ranking.objective}. The residual scale is of the fit to all runs and ranks nothing: more constants always "
        "fit more closely.",
        (" ", Number(ranking.without, "d"), f" {plural('row', ranking.without)} that not every law can use "
         f"{'was' if ranking.without == 1 else 'were'} left out for all.")
        if ranking.without else "",
    )  # fmt: skip
    columns = (
        "law",
        "constants",
        f"residual scale ({_residual_unit(ranking)})",
        f"back-test: mean absolute error of {output}",
        "relative",
        ("inside the ", Number(ranking.level, ".0%"), " interval"),
        f"worse than the best by{f' ({unit_of(ranking.output)})' if unit_of(ranking.output) else ''}",
        (Number(ranking.level, ".0%"), " interval over runs"),
    )
    rows = tuple(_row(one) for one in ranking.ranked)
    return Section("Laws by their extrapolations", (Paragraph(text), Table(columns, rows), Bullets(_verdicts(ranking))))


def _residual_unit(ranking: Ranking) -> str:
    """What residuals of the ranked laws, which give one output, are in."""
    logarithmic = {one.law.residual for one in ranking.ranked} == {"log"}
    return f"of log {ranking.output}" if logarithmic else unit_of(ranking.output) or "1"


def _row(one: RankedLaw) -> tuple[Content, ...]:
    worse: tuple[Content, Content] = ("", "") if one.worse is None else (span(one.worse).value, ends(one.worse))
    return (
        one.law.name,
        Number(one.constants, "d"),
        residue(one.residual_scale, ".3g"),
        residue(one.mean_absolute_error, ".4g", of=max(_size(cut) for cut in one.backtest.cuts if not cut.reason)),
        residue(one.mean_relative_error, ".2%"),
        "no noise" if one.mean_relative_error < GRAIN else Number(one.hit_rate, ".0%"),
        *worse,
    )


def _verdicts(ranking: Ranking) -> tuple[Content, ...]:
    """Which laws the best one is told apart from, and how far the cuts were from the runs that they predicted."""
    best, *others = ranking.ranked
    level: Content = ("the ", Number(ranking.level, ".0%"), " interval of the difference")
    apart = [one.law.name for one in others if one.apart]
    alike = [one.law.name for one in others if not one.apart]
    lines: list[Content] = []
    if ranking.runs < (fewest := fewest_runs(ranking.level)):
        lines.append(
            (
                Strong("No law is called better than another"), ": ", Number(ranking.runs, "d"),
                f" {plural('run', ranking.runs)} predicted, and of two equally good laws one is nearer in every one of "
                "fewer than ", Number(fewest, "d"), " runs too often by chance.",
            )
        )  # fmt: skip
    elif apart:
        lines.append((f"{best.law.name} extrapolates better than {', '.join(apart)}: ", level, " lies above zero."))
    if alike and ranking.runs >= fewest:
        text = f"{best.law.name} and {', '.join(alike)} cannot be told apart on these runs"
        lines.append((Strong(text), ": ", level, " holds zero."))
    lines += _by_cut(ranking)
    furthest = max(cut.furthest for cut in best.backtest.cuts if cut.below in ranking.cuts)
    lines.append(
        (
            "The furthest run scored lies ", Number(furthest, ".3g"), f" times beyond the largest {ranking.by} fitted "
            "below its cut; further out than that nothing here says which law is better.",
        )
    )  # fmt: skip
    return tuple(lines)


def _by_cut(ranking: Ranking) -> list[Content]:
    """What the verdict is once every cut counts alike: its pairs are mostly of the lowest cuts."""
    if len(ranking.cuts) < 2:
        return []
    best = ranking.ranked[0]
    errors = np.stack([ranking.by_cut(one) for one in ranking.ranked])
    least = int(np.argmin(errors.mean(axis=1)))
    won = int(np.sum(errors[0] <= errors.min(axis=0)))
    size = max(_size(cut) for cut in best.backtest.cuts if cut.below in ranking.cuts)
    half, cuts = Number(ranking.lowest_half, "d"), Number(len(ranking.cuts), "d")
    means = [part for one, row in zip(ranking.ranked, errors, strict=True)
             for part in (", ", one.law.name, " ", residue(float(row.mean()), ".4g", of=size))]  # fmt: skip
    equally: Content = (
        "Half of the predictions or more are of the ", half, " lowest of ", cuts, " cuts. With cuts weighted equally ",
        f"{ranking.ranked[least].law.name} has the least mean absolute error (", *means[1:], f"); {best.law.name} is "
        "best or level above ", Number(won, "d"), " of ", cuts, " cuts.",
    )  # fmt: skip
    return [equally if least == 0 else Strong(equally)]


def _size(cut: Cut) -> float:
    """The largest output scored above a cut, beside which an error may be rounding."""
    return float(np.max(np.abs(cut.measured)))


def _cuts(ranking: Ranking) -> Section:
    """Mean absolute error of each law above each cut; laws have no number where they have no fit."""
    tests = [one.backtest for one in ranking.ranked]
    rows = []
    for i, cut in enumerate(tests[0].cuts):
        found = [test.cuts[i] for test in tests]
        errors = ("no fit" if c.reason else residue(c.mean_absolute_error, ".4g", of=_size(c)) for c in found)
        rows.append((*cut_cells(cut, next((c for c in found if not c.reason), cut)), *errors))
    columns = (
        *cut_columns(ranking.by),
        *(one.law.name for one in ranking.ranked),
    )
    reasons = tuple(
        (f"{test.law.name} has no fit below ", Number(cut.below), f": {cut.reason}")
        for test in tests for cut in test.cuts if cut.reason
    )  # fmt: skip
    notes: list[Content] = [*reasons, "A cut below which some law has no fit does not count above."] if reasons else []
    notes += [note for test in tests for note in few_fitted(test)]
    note = [Bullets(tuple(notes))] if notes else []
    return Section(f"Mean absolute error of {with_unit(ranking.output)} by cut", (Table(columns, tuple(rows)), *note))


def _unranked(ranking: Ranking) -> tuple[Section, ...]:
    if not ranking.unranked:
        return ()
    return (Section("Laws without a place", (Table(("law", "reason"), ranking.unranked),)),)

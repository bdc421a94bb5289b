"""What more samples buy, as a document: success by way of choosing, where it ends, the laws, and what it is worth."""

import math
from collections.abc import Sequence

from analysis.intervals import Interval
from analysis.report.document import (
    Content,
    Figure,
    Number,
    Paragraph,
    Section,
    Strong,
    Table,
    ends,
    notes_on,
    span,
)
from analysis.report.table_notes import left_out_section, left_out_table, notes_block
from analysis.studies import WAYS, Answered, Curve, SampleStudy, Worth

SHARE = ".1%"


def sample_document(title: str, found: SampleStudy, figures: Sequence[Figure] = ()) -> Section:
    """The whole report on a table of samples; figures: those that were drawn for it."""
    drawn = [Section("Figures", tuple(figures))] if figures else []
    return Section(title, (*sample_sections(found), *drawn))


def sample_sections(found: SampleStudy) -> tuple[Section, ...]:
    """All that `isoflop samples` prints."""
    worth = () if found.worth is None else (_factors(found.worth, found), _trade(found.worth, found))
    unscored = tuple(one for at in found.answered for one in at.short)
    short = (Section("Problems without scores", left_out_table(unscored, "problem")),) if unscored else ()
    sections = (_success(found), _turns(found), _coverage_laws(found), *_best_laws(found), *worth)
    return (*notes_block(found.table_notes), *sections, *short, *left_out_section(found.left_out, "sample"))


def _success(found: SampleStudy) -> Section:
    ways = [way for way in WAYS if any(curve.way == way for at in found.answered for curve in at.curves)]
    columns = (*found.cell, "samples", "problems", "without as many", *(WAYS[way] for way in ways))
    rows, shown = [], []
    for at in found.answered:
        curves = {curve.way: curve for curve in at.curves}
        for i, point in enumerate(curves["coverage"].points):
            success = [_point(curves.get(way), i, point.samples) for way in ways]
            shown += [one for one in success if one]
            counts = (
                Number(point.samples, "d"),
                Number(point.problems, "d"),
                Number(at.problems - point.problems, "d"),
            )
            rows.append((*_cell(at), *counts, *(span(one, SHARE) if one else "" for one in success)))
        if any(curve.plateau for curve in at.curves):
            plateaus = [curves[way].plateau if way in curves else None for way in ways]
            limits = (span(one, SHARE) if one else "" for one in plateaus)
            rows.append((*_cell(at), "without end", Number(at.problems, "d"), "", *limits))
    text = (
        "Share of problems solved by k samples, the mean over all subsets of k of each problem's pool (unbiased; Chen "
        "et al. 2021 for any of them), with ", Number(found.level, ".0%"), " intervals over problems. A problem with "
        "fewer than k samples is left out at k. Ties are shared. Without end: what a vote comes to where the pool's "
        "own shares are the truth.",
    )  # fmt: skip
    table = Table(columns, tuple(rows), grouped=bool(found.cell))
    return Section("Success against samples", (Paragraph(text), table, *notes_on(shown)))


def _point(curve: Curve | None, i: int, samples: int) -> Interval | None:
    """Success at the i-th number of samples, which is `samples` for every way that has got so far."""
    has = curve is not None and i < len(curve.points) and curve.points[i].samples == samples
    return curve.points[i].success if has else None


def _turns(found: SampleStudy) -> Section:
    columns = (
        *found.cell,
        "way of choosing",
        "greatest at (samples)",
        "success there",
        "no gain shown beyond",
        "falls",
    )
    rows = []
    for at in found.answered:
        for curve in at.curves:
            best = next(point.success for point in curve.points if point.samples == curve.best)
            enough: Content = "still gains" if curve.enough is None else Number(curve.enough, "d")
            fall: Content = "" if curve.fall is None else Strong(("by ", span(_turned(curve.fall), SHARE)))
            rows.append((*_cell(at), WAYS[curve.way], Number(curve.best, "d"), Number(best.value, SHARE), enough, fall))
    text = (
        "Numbers of samples are compared on the same problems, at a level that allows for all comparisons of a curve: "
        "beyond the one named, no larger number is better by more than the noise of the problems. A way falls where "
        "its last number is worse than its best by more than that."
    )
    return Section("Where more samples stop helping", (Paragraph(text), Table(columns, tuple(rows))))


def _turned(fall: Interval) -> Interval:
    return Interval(-fall.value, -fall.high, -fall.low, fall.note)


def _coverage_laws(found: SampleStudy) -> Section:
    interval = (Number(found.level, ".0%"), " interval")
    columns = (
        *found.cell,
        "a",
        interval,
        "b",
        interval,
        "alpha (tail)",
        interval,
        "beta",
        interval,
        "why there is none",
    )
    rows, shown = [], []
    for at, laws in zip(found.answered, found.laws, strict=True):
        power = laws.power.intervals if laws.power else {}
        values = [power.get("a"), power.get("b"), laws.alpha, laws.beta]
        shown += [value for value in values if value]
        notes = "; ".join(note for note in (laws.power_note, laws.difficulty_note) if note)
        rows.append((*_cell(at), *(part for value in values for part in _parts(value)), notes))
    text = (
        "Coverage as log coverage = a samples^b (Brown et al. 2024), by least squares on the curve; and with success "
        "rates of problems p ~ Beta(alpha, beta) (Schaeffer et al. 2025), by the likelihood of each problem's "
        "successes: what stays unsolved falls as samples^-alpha. The points of a curve come from one pool and are not "
        "independent, so all intervals are from resampled problems."
    )
    return Section("Laws of coverage", (Paragraph(text), Table(columns, tuple(rows)), *notes_on(shown)))


def _best_laws(found: SampleStudy) -> tuple[Section, ...]:
    if not any(laws.best or laws.best_note != "no scores" for laws in found.laws):
        return ()
    interval = (Number(found.level, ".0%"), " interval")
    columns = (*found.cell, "alpha", interval, "beta", interval, "turns at (samples)", interval, "why there is none")
    rows, shown = [], []
    for at, laws in zip(found.answered, found.laws, strict=True):
        values = [laws.best.intervals[name] for name in ("alpha", "beta")] if laws.best else [None, None]
        shown += [value for value in (*values, laws.peak) if value]
        peak = _peak(laws.peak, at) if laws.peak else ("none", "")
        rows.append((*_cell(at), *(part for value in values for part in _parts(value)), *peak, laws.best_note))
    text = (
        "The gain of the best by score over one sample as d (alpha - beta d), with d^2 = log n - (n - 1) / n (Gao et "
        "al. 2022, for scores without ties). beta is positive where the score is not the aim, and also because success "
        "ends at 1. A turn beyond the samples drawn is extrapolated."
    )
    return (Section("Law of the best by score", (Paragraph(text), Table(columns, tuple(rows)), *notes_on(shown))),)


def _peak(peak: Interval, at: Answered) -> tuple[Content, Content]:
    if not math.isfinite(peak.value):
        return "never", ends(peak)
    flag = " (extrapolated)" if peak.value > at.samples[1] else ""
    return (Number(peak.value, ".3g"), flag) if flag else Number(peak.value, ".3g"), ends(peak, ".3g")


def _factors(worth: Worth, found: SampleStudy) -> Section:
    title = f"What samples are worth in {worth.size or 'size'}"
    if worth.note:
        return Section(title, (Paragraph(f"None: {worth.note}."),))
    ways = list(dict.fromkeys(factor.way for factor in worth.factors))
    by_row = {(one.title, one.samples, one.way): one for one in worth.factors}
    rows, shown, stars = [], [], False
    for title_of, samples in dict.fromkeys((one.title, one.samples) for one in worth.factors):
        cells = []
        for way in ways:
            one = by_row.get((title_of, samples, way))
            shown += [one.factor] if one else []
            stars |= bool(one and one.extrapolated)
            cells.append(_factor(one.factor, one.extrapolated) if one else "")
        rows.append((title_of, Number(samples, "d"), *cells))
    text = (
        f"How many times the {worth.size} a model has whose one sample succeeds as often, with ",
        Number(found.level, ".0%"), " intervals over problems: read between the sizes of this table by straight lines "
        f"of the logit of success in log {worth.size}.",
    )  # fmt: skip
    blocks = [Paragraph(text), Table(("size", "samples", *(WAYS[way] for way in ways)), tuple(rows), grouped=True)]
    if stars:
        told = "* extrapolated along the line through all sizes: none of them succeeds as often with one sample."
        blocks.append(Paragraph(told))
    return Section(title, (*blocks, *notes_on(shown)))


def _factor(factor: Interval, is_extrapolated: bool) -> Content:
    if not math.isfinite(factor.value):
        return "beyond every size *" if is_extrapolated else "not determined"
    shown = span(factor, ".3g")
    return (shown, " *") if is_extrapolated else shown


def _trade(worth: Worth, found: SampleStudy) -> Section:
    interval = (Number(found.level, ".0%"), " interval")
    rows, shown = [], []
    for way, law in worth.laws.items():
        values = [law.intervals[name] for name in ("worth", "k", "middle")] if law else [None] * 3
        shown += [value for value in values if value]
        rows.append((WAYS[way], *(part for value in values for part in _parts(value)), worth.law_notes[way]))
    columns = ("way of choosing", "worth", interval, "k", interval, "middle (FLOP)", interval, "why there is none")
    text = (
        "Odds of success as powers of training FLOPs and of samples: success = 1 / (1 + (middle / (flops "
        "samples^worth))^k), so that n samples are worth n^worth times the training FLOPs at equal success. It holds "
        "between the sizes and samples of this table at best, since votes end at a plateau; and any of them counts "
        "only where whoever asks can tell a right answer."
    )
    blocks = [Paragraph(text), Table(columns, tuple(rows)), *notes_on(shown)]
    if worth.matches:
        blocks += [_matched(worth), Paragraph(MATCHED)]
    return Section("Training FLOPs against samples", tuple(blocks))


MATCHED = (
    "Samples by which a smaller size matches one sample of the largest, by that law; * more than were drawn. Sampling "
    "counts 2 * params a token of the sample, without the prompt. Training the larger is the cheaper way beyond so "
    "many problems."
)


def _matched(worth: Worth) -> Table:
    columns = ("size", "way of choosing", "samples", "FLOP a problem", "the largest's", "problems")
    rows = []
    for one in worth.matches:
        samples: Content = span(one.samples, ".3g") if math.isfinite(one.samples.value) else "never"
        flops = (_known(flops, ".3g") for flops in one.flops_per_problem)
        problems: Content = "always sample" if one.problems == math.inf else _known(one.problems, ".3g")
        rows.append((one.title, WAYS[one.way], (samples, " *") if one.extrapolated else samples, *flops, problems))
    return Table(columns, tuple(rows), grouped=True)


def _parts(interval: Interval | None) -> tuple[Content, Content]:
    return ("none", "") if interval is None else (Number(interval.value), ends(interval))


def _cell(at: Answered) -> tuple[Content, ...]:
    return tuple(value if isinstance(value, str) else Number(value) for value in at.cell.values())


def _known(value: float, form: str) -> Content:
    return Number(value, form) if math.isfinite(value) else ""

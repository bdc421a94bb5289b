"""The sections on runs that were not fitted: predictions, optima and departures from them, serving, back-tests."""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from analysis.compute import FlopRule
from analysis.intervals import NOT_DETERMINED, Interval
from analysis.quantities import GRAIN, QUANTITY, with_unit
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
    notes_on,
    residue,
    rows_of_runs,
    span,
)
from analysis.runs_table import unit_of
from analysis.studies import Backtest, Cut, Departure, Lifetime, Optimum, Prediction, Score
from analysis.studies.caveats import RUNS, SINGLE, are_few, coverage_of_few

DIFFERENCE = "+.3g"


def held_out_section(prediction: Prediction, score: Score | None) -> Section:
    """A prediction of one run and, once that is measured, how it came out."""
    unit, reach = prediction.unit, prediction.reach
    rows: list[tuple[Content, ...]] = [
        (name, Number(value, ",.0f" if value % 1 == 0 and 1000 <= value < 1e15 else ".6g"), unit_of(name))
        for name, value in prediction.inputs.items()
    ]
    if prediction.flops is not None:
        rows.append(("training compute", Number(prediction.flops), "FLOP"))
    found = Interval(prediction.value, prediction.low, prediction.high, "" if prediction.determined else NOT_DETERMINED)
    predicted = span(found, QUANTITY)
    rows += [
        ("extrapolation", Number(reach.factor, ".3g"), f"times the fitted {reach.quantity}"),
        (f"predicted {prediction.output}", predicted.value, unit),
        (
            (Number(prediction.level, ".0%"), " predictive interval"),
            predicted.ends,
            unit if prediction.determined else "",
        ),
    ]
    notes: list[Content] = []
    if reach.warning:
        notes.append(Strong(f"This run {reach.warning}."))
    if prediction.measured_before:
        notes.append(Strong("The run had been measured when this was written: it is no test of the law."))
    elif score is None:
        notes.append("The run has not been measured yet.")
    if score is not None:
        rows += [
            (f"measured {prediction.output}", Number(score.measured, QUANTITY), unit),
            ("predicted minus measured", Number(score.error, DIFFERENCE), unit),
            ("relative error", Number(score.relative_error, "+.2%"), "of the measured value"),
        ]
        notes.append(_verdict(score))
    origin = (
        "Law ", Code(prediction.formula), ", fitted to ", rows_of_runs(prediction.points, prediction.fitted_runs), " (",
        Number(prediction.left_out, "d"), " left out).",
    )  # fmt: skip
    return Section(
        f"Prediction of {prediction.run or 'a run'}, which no fit has seen",
        (Paragraph(origin), Table(("quantity", "value", "unit"), tuple(rows)), *map(Paragraph, notes)),
    )


def _verdict(score: Score) -> Content:
    prediction = score.prediction
    side = "above" if score.measured > prediction.high else "below"
    if score.inside is None:
        return (
            f"The measured {prediction.output} is ", Number(score.measured, QUANTITY, prediction.unit), "; the "
            "interval is not determined, and this is no test of the law.",
        )  # fmt: skip
    place = (Strong("inside"), " the interval") if score.inside else (Strong("outside"), f" the interval, {side} it")
    return (
        f"The measured {prediction.output}, ", Number(score.measured, QUANTITY, prediction.unit), ", is ", place,
        "; the prediction is off by ", Number(score.relative_error, "+.2%"), " of it.",
    )  # fmt: skip


def _counting(rule: FlopRule) -> Content:
    error = rule.largest_error
    accuracy = (" (largest error over the runs ", Number(error, ".2%"), ")") if error > 5e-5 else ""
    return "Compute is counted as ", Code(str(rule)), ", with params and tokens as counts", accuracy, "."


def _warnings(optima: Sequence[Optimum]) -> tuple[Content, ...]:
    """That an optimum, or a hyperparameter at it, lies far beyond what was run."""
    far = {best.flops: best.reach.warning for best in optima if best.reach.warning}
    warnings = tuple(Strong((Number(flops), f" FLOP {warning}.")) for flops, warning in far.items())
    return warnings + tuple(
        Strong((f"{name} at approach {best.approach}'s optimum of ", Number(best.flops), f" FLOP {found.warning}."))
        for best in optima
        for name, found in best.hyperparameter_reach.items()
        if found.warning
    )


def optima_section(
    optima: Sequence[Optimum],
    exponents: tuple[Interval, Interval],
    approach_2: Sequence[Content],
    caveats: Sequence[str] = (),
) -> Section:
    """Compute-optimal runs by budget, by each approach; exponents: of params and of tokens against flops.

    approach_2: what is to be said of the valleys, or why there are none. caveats: of the study, on its intervals.
    """
    budgets = list(dict.fromkeys(best.flops for best in optima))
    approaches = sorted({best.approach for best in optima})
    by = {(best.flops, best.approach): best for best in optima}
    lines: list[Content] = [
        _counting(optima[0].rule),
        "Approach 3 has no optimum." if math.isnan(exponents[0].value) else (
            "Approach 3: optimal params grow as flops to the power ", span(exponents[0]), ", tokens to the power ",
            span(exponents[1]), ".",
        ),
    ]  # fmt: skip
    lines += approach_2
    read = ", ".join(dict.fromkeys(name for best in optima for name in best.hyperparameters))
    if read:
        where = "the optimum of the approach that heads their column" if len(approaches) > 1 else "approach 3's optimum"
        lines.append(f"Hyperparameters ({read}) are read at {where}.")
    lines += [Strong("Read the caveats of the law above: they are these intervals' too.")] if caveats else []
    rows = [row for flops in budgets for row in _optimum_rows([by.get((flops, a)) for a in approaches])]
    return Section(
        "Compute-optimal runs",
        (
            Bullets(tuple(lines)),
            Paragraph(
                (
                    Number(optima[0].level, ".0%"),
                    " intervals hold the uncertainty of the constants, not the noise of a run, and assume that the "
                    "law still holds at that budget.",
                )
            ),
            Table(
                (
                    "budget (FLOP)",
                    "times beyond the fitted",
                    "optimal",
                    *(("approach ", str(approach)) for approach in approaches),
                ),
                tuple(rows),
                grouped=True,
            ),
            *([Bullets(warnings)] if (warnings := _warnings(optima)) else []),
            *notes_on((*exponents, *(interval for best in optima for interval in _intervals(best)))),
        ),
    )


def _intervals(best: Optimum) -> tuple[Interval, ...]:
    found = (best.params, best.tokens, best.tokens_per_param, best.loss_nats, *best.hyperparameters.values())
    return tuple(interval for interval in found if interval is not None)


def _optimum_rows(found: Sequence[Optimum | None]) -> Iterator[tuple[Content, ...]]:
    """One row per quantity, one cell per approach."""
    present = [best for best in found if best is not None]
    flops, reach = present[0].flops, present[-1].reach
    beyond = Span(Number(reach.factor, ".3g"), reach.quantity)
    quantities = {
        "params (count)": [best and best.params for best in found],
        "tokens (count)": [best and best.tokens for best in found],
        "tokens per parameter": [best and best.tokens_per_param for best in found],
        "loss (nats per token)": [best and best.loss_nats for best in found],
    }
    for name in dict.fromkeys(name for best in present for name in best.hyperparameters):
        quantities[with_unit(name)] = [best and best.hyperparameters.get(name) for best in found]
    for name, intervals in quantities.items():
        cells = ("not fitted" if interval is None else span(interval) for interval in intervals)
        yield (Number(flops), Strong(beyond) if reach.warning else beyond, name, *cells)


def departures_section(flops: float, level: float, departures: Sequence[Departure]) -> Section:
    """What it costs to train another size than the optimum's at one budget."""
    rows = [
        (
            Number(away.factor, "g"),
            NOT_DETERMINED if math.isnan(away.tokens_per_param) else Number(away.tokens_per_param, ".3g"),
            span(away.loss_penalty, ".3g"),
            "no budget is enough" if away.compute.value == float("inf") else span(away.compute),
        )
        for away in departures
    ]
    return Section(
        ("The cost of another size at ", Number(flops), " FLOP"),
        (
            Paragraph(
                (
                    "A smaller model is over-trained, a larger one under-trained. Compute is the budget that brings a "
                    "model of that size to the optimum's loss. ",
                    Number(level, ".0%"),
                    " intervals.",
                )
            ),
            Table(
                (
                    "times the optimal params",
                    "tokens per parameter",
                    "loss above the optimum's (nats per token)",
                    "compute (times the budget)",
                ),
                tuple(rows),
            ),
        ),
    )


def lifetime_section(best: Lifetime) -> Section:
    """The run of a quality that is cheapest to train and serve, beside the one that is cheapest to train."""
    rows = (
        ("params (count)", span(best.params), span(best.training_params)),
        ("training tokens (count)", span(best.tokens), span(best.training_tokens)),
        ("training FLOP", span(best.training_flops), ""),
        ("training and serving FLOP", span(best.total_flops), ""),
        ("share of all FLOP saved", span(best.saving, ".2%"), ""),
    )
    warning = [Paragraph(Strong(f"This run {best.reach.warning}."))] if best.reach.warning else []
    return Section(
        (
            "Cheapest run of loss ", Number(best.loss_nats, "g"), " nats per token that serves ",
            Number(best.inference_tokens), " tokens",
        ),
        (
            Table(("quantity", "cheapest to train and serve", "cheapest to train"), rows),
            Paragraph((Number(best.level, ".0%"), " intervals of the constants (Sardana et al. 2024).")),
            *warning,
        ),
    )  # fmt: skip


def backtest_section(backtest: Backtest) -> Section:
    """A back-test, one row per cut, and which of them rest on too few runs."""
    unit = f" ({backtest.unit})" if backtest.unit else ""
    rows = []
    for cut in backtest.cuts:
        start = cut_cells(cut, cut)
        if cut.reason:
            rows.append((*start, "no fit", "", "", ""))
            continue
        size = float(np.max(np.abs(cut.measured)))
        error, bias = residue(cut.mean_absolute_error, ".4g", of=size), residue(cut.bias, "+.4g", of=size)
        hits = "no noise" if _is_rounding(cut) else Number(cut.hit_rate, ".0%")
        rows.append((*start, error, residue(cut.mean_relative_error, ".2%"), bias, hits))
    columns = (
        *cut_columns(backtest.by),
        f"mean absolute error{unit}",
        "relative error",
        f"bias{unit}",
        ("inside the ", Number(backtest.level, ".0%"), " interval"),
    )
    notes = tuple((("No fit below ", Number(cut.below), f": {cut.reason}")) for cut in backtest.cuts if cut.reason)
    text = (
        f"Law {backtest.law.name} on {backtest.output}, objective {backtest.objective}, fitted to the runs below each "
        f"cut of {backtest.by} and scored on the runs above it. Bias is predicted minus measured, on average."
    )
    if any(_is_rounding(cut) for cut in backtest.cuts):
        notes += (
            "The runs have no noise to speak of where every error is below rounding: whether one lies inside its "
            "interval says nothing there.",
        )
    notes += few_fitted(backtest)
    return Section("Back-test", (Paragraph(text), Table(columns, tuple(rows)), *([Bullets(notes)] if notes else [])))


def _is_rounding(cut: Cut) -> bool:
    """Whether a law that was fitted below the cut meets every run above it but for rounding."""
    return not cut.reason and cut.mean_relative_error < GRAIN


def cut_columns(by: str) -> tuple[str, ...]:
    """Headings of `cut_cells`."""
    return (f"fitted below ({by})", "runs fitted", "runs scored", "furthest (times the largest fitted)")


def cut_cells(cut: Cut, scored: Cut) -> tuple[Content, ...]:
    """Where a cut lies, the runs below and above it, with their rows where they have several, and how far it is tried.

    scored: the same cut of a law that has a fit below it, if any has.
    """
    fitted, above = (cut.fitted, cut.fitted_runs), (len(scored.runs), len(set(scored.runs)))
    return (Number(cut.below), *(_runs_and_rows(*both) for both in (fitted, above)), Number(cut.furthest, ".3g"))


def _runs_and_rows(rows: int, runs: int) -> Content:
    return Number(runs, "d") if rows == runs else (Number(runs, "d"), " (", Number(rows, "d"), " rows)")


def few_fitted(backtest: Backtest) -> tuple[Content, ...]:
    """A caveat on the cuts below which a law has too few runs for its intervals; nothing where there are none."""
    constants, notes = len(backtest.law.parameters), []
    for unit in (SINGLE, RUNS):
        fitted = [cut for cut in backtest.cuts if not cut.reason and cut.unit == unit]
        few = [cut for cut in fitted if are_few(cut.fitted_runs, unit, constants)]
        places = [part for cut in few for part in (", ", Number(cut.below), " (", Number(cut.fitted_runs, "d"), ")")]
        least = min((cut.fitted_runs for cut in few), default=0)
        of = "for the fewest, " if len({cut.fitted_runs for cut in few}) > 1 else ""
        covered = coverage_of_few(least, unit, constants)
        text = f" {unit} for {constants} constants of {backtest.law.name} are few: {of}{covered}."
        notes += [(Strong(("Below ", *places[1:])), text)] if few else []
    return tuple(notes)

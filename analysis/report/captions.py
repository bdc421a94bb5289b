"""Which figures a report gets, each with its title, its caption and the function that draws it. Needs matplotlib.

A caption says what is drawn, in which units, of how many runs, and at which level the intervals are.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
from matplotlib import figure as matplotlib_figure

from analysis import figures
from analysis.quantities import with_unit
from analysis.report.document import Content, Figure, Number, rows_of_runs
from analysis.report.study import StudyReport
from analysis.studies import MEASURES_BY_LENGTH, Backtest, Comparison, SampleStudy, SweepLaws, by_length, sweep_rows
from analysis.tables.runs import rows_or_runs


@dataclass(frozen=True)
class CaptionedFigure:
    """A figure of a document and the function that draws it."""

    figure: Figure
    draw: Callable[[], matplotlib_figure.Figure]


def study_figures(table: pd.DataFrame, report: StudyReport) -> list[CaptionedFigure]:
    """The figures that a study, its prediction and its back-test allow."""
    optima = _of_the_optima(table, report) if report.frontier is not None else []
    return [*optima, *_of_the_fit(table, report), *_of_the_backtest(report.backtest)]


def comparison_figures(comparison: Comparison) -> list[CaptionedFigure]:
    """The figures that the measures of a comparison allow."""
    found = []
    if any(cell.budget_flops for family in comparison.families for cell in family.cells):
        caption = (
            "Held-out loss (nats per token) against training compute (FLOP), each family at its best learning rate. "
            "Marks are means over seeds, bars reach from the lowest to the highest seed; a hollow mark says that the "
            "best rate was an end of the sweep. Lines are the families' power laws of compute.",
        )
        figure = Figure("loss_by_family", "Loss against compute by family", caption)
        found.append(CaptionedFigure(figure, lambda: figures.loss_by_family(comparison)))
    for measure in MEASURES_BY_LENGTH:
        if any(len(by_length(family.cells[-1], measure)[0]) for family in comparison.families if family.cells):
            caption = f"Held-out {measure} (share) against the length of an example, each family at its best learning "
            caption += "rate and largest budget, mean over seeds; a star behind a name says that this rate was an end "
            caption += "of the sweep."
            figure = Figure(f"{measure}_by_length", f"{measure} by length", caption)
            found.append(CaptionedFigure(figure, lambda name=measure: figures.measure_by_length(comparison, name)))
    return found


def sweep_figures(found: SweepLaws, table: pd.DataFrame) -> list[CaptionedFigure]:
    """The bowls of the cells and, where laws of the others were followed in some, their optima against those.

    table: as `sweep_laws` was given it.
    """
    rows, _ = sweep_rows(table, found.cell, found.axes)
    caption = (
        "Loss (nats per token) above the best run of its cell against each setting; a mark is the least at one value, "
        "by its mean over runs of equal settings, over whatever else was varied. Curves are the quadratics fitted near "
        "the bottom, stars their lowest points; a ring stands where the best lies at an end of the values that were "
        "run. Cells without an optimum have dashes.",
    )
    figure = Figure("bowls", "The bowls of the cells", caption)
    drawn = [CaptionedFigure(figure, lambda: figures.hyperparameter_bowls(rows, found.bowls))]
    if any(not (bowl.reason or one.reason) for bowl, one in zip(found.bowls, found.followed)):
        caption = (
            "The best settings of each cell with their ", Number(found.level, ".0%"), " intervals against what the "
            "laws fitted to the other cells say of it; a hollow mark says that the best lies at an end of the values "
            "that were run.",
        )  # fmt: skip
        figure = Figure("optima", "Best settings against the laws", caption)
        drawn.append(CaptionedFigure(figure, lambda: figures.optima_against_laws(found)))
    return drawn


def sample_figures(found: SampleStudy) -> list[CaptionedFigure]:
    """The figure of a table of samples."""
    caption = (
        "Share of problems solved against samples a problem, by way of choosing among them, one panel for each model "
        "or setting; shades are ", Number(found.level, ".0%"), " intervals over problems. The dotted line is the "
        "coverage of the beta-binomial law, fitted to the successes of each problem and not to the curve; a dash "
        "behind a vote's last point is what it comes to without end.",
    )  # fmt: skip
    figure = Figure("success_against_samples", "Success against samples", caption)
    return [CaptionedFigure(figure, lambda: figures.success_against_samples(found))]


def _of_the_optima(table: pd.DataFrame, report: StudyReport) -> list[CaptionedFigure]:
    study, prediction, score = report.study, report.prediction, report.score
    runs, level = rows_of_runs(report.fitted, report.runs, "fitted "), (Number(study.level, ".0%"), " interval")
    target = prediction.flops if prediction else None
    held_out = (target, score.measured) if score is not None and target is not None else None
    unshaded = " Optima are not determined by these runs, and there is no shade." if study.undetermined else ""
    found = []
    if study.isoflop is not None:
        caption = (
            "Held-out loss (nats per token) against params, one marker and curve per compute budget (",
            Number(sum(valley.runs for valley in study.isoflop.valleys), "d"), f" {study.law.fit.counted}). Left of a "
            "minimum the model is too small for its budget, right of it it sees too few tokens. Stars are the minima "
            "of the curves, bars their ", level, "s; crosses, and triangles at the edge, are runs that approach 2 left "
            "out.",
        )  # fmt: skip
        figure = Figure("isoflop_valleys", "IsoFLOP valleys", caption)
        found.append(CaptionedFigure(figure, lambda: figures.isoflop_valleys(study, table=table)))
    if study.no_optimum:  # there is no line to draw
        return found
    caption = (
        "Held-out loss (nats per token) against training compute (FLOP) of the ", runs, ". The line is the least loss "
        "that the parametric law allows at each budget, the shade its ", level, ", which holds the uncertainty of the "
        "constants only. Right of the dashed line everything is extrapolated." + unshaded,
    )  # fmt: skip
    figure = Figure("loss_against_compute", "Loss against compute", caption)
    found.append(CaptionedFigure(figure, lambda: figures.loss_against_compute(table, study, held_out=held_out)))
    caption = (
        "Contours of the fitted loss (nats per token) over params and tokens, with the ", runs, ". Dotted lines join "
        "runs of equal compute, a decade of FLOP apart; the efficient line crosses each where its loss is least, and "
        "its shade is the ", level, ". Away from the dots the contours rest on the law alone." + unshaded,
    )  # fmt: skip
    figure = Figure("loss_surface", "The fitted loss surface", caption)
    found.append(CaptionedFigure(figure, lambda: figures.loss_surface(table, study, target_flops=target)))
    caption = (
        "Compute-optimal params and tokens (counts) against training compute (FLOP), from ", runs, ". Solid with "
        "shade: approach 3 with its ", level, ". Dashed with dotted limits: approach 2 with its ", level, "; stars: "
        "the valleys' minima. Where the two approaches part, trust neither." + unshaded,
    )  # fmt: skip
    figure = Figure("optimal_allocation", "Optimal params and tokens against compute", caption)
    found.append(CaptionedFigure(figure, lambda: figures.optimal_allocation(table, study, target_flops=target)))
    return found


def _of_the_fit(table: pd.DataFrame, report: StudyReport) -> list[CaptionedFigure]:
    study, prediction, law = report.study, report.prediction, report.study.law.fit.law
    runs, level = rows_of_runs(report.fitted, report.runs, "fitted "), (Number(study.level, ".0%"), " interval")
    measured = report.score.measured if report.score and prediction.determined else None
    found = []
    if law.residual == "log":
        held_out: Content = (
            " The diamond is the held-out run, the bar its ", Number(study.level, ".0%"), " predictive interval: the "
            "law has held that far out if the diamond lies on the bar.",
        )  # fmt: skip
        caption = (
            f"Measured against predicted {with_unit(law.output)} of the ", runs, ", and measured minus fitted in "
            "percent of the fitted; triangles at the edge lie beyond it.",
            held_out if measured is not None else "", " Dots that follow a curve in the lower panel mean that the law "
            "has the wrong shape.",
        )  # fmt: skip
        figure = Figure("prediction_against_measurement", "Prediction against measurement", caption)
        draw = figures.prediction_against_measurement
        found.append(CaptionedFigure(figure, lambda: draw(table, study, prediction=prediction, measured=measured)))
    left = f"{law.output} (%)" if law.residual == "log" else with_unit(law.output)
    caption = (
        f"Measured minus fitted {left} of the ", runs,
        " against each input of the law, and its distribution. Dashed lines are two robust scales of the residuals "
        "either way, which outliers do not widen; triangles at the edge lie beyond it. A trend along an input means "
        "that the law has the wrong shape there.",
    )  # fmt: skip
    figure = Figure("residuals", "Residuals", caption)
    found.append(CaptionedFigure(figure, lambda: figures.residuals(table, study)))
    caption = (
        "Square root of the deviance with one constant held and the others refitted, against the constant's value in "
        "its own unit, from ", runs, ". The profile's own ", level, " is where the curve lies below the dashed line; "
        "it takes every row as independent and the noise as normal of one size, and differs from the table's where "
        "they are not. The bar at the bottom is the interval of the table, from resamples; an arrow says that it goes "
        "on beyond the panel. A curve that stays below the line on one side leaves the constant open there.",
    )  # fmt: skip
    figure = Figure("profile_likelihoods", "Profile likelihoods of the constants", caption)
    found.append(CaptionedFigure(figure, lambda: figures.profile_likelihoods(study.profiles, study.law, study.level)))
    caption = (
        "Each dot is the law fitted to one of ", Number(study.bootstraps, "d"), " resamples of the ", runs, ", in the "
        "constants' own units. A long thin cloud means that only a combination of the two constants is known. Bars are "
        "the ", level, "s of the table, which stand above them, stars the fit. Arrows: the interval goes on beyond the "
        "resamples, where the profile likelihood does not close.",
    )  # fmt: skip
    figure = Figure("bootstrap_cloud", "Bootstrap distribution of the constants", caption)
    found.append(CaptionedFigure(figure, lambda: figures.bootstrap_cloud(study.law, study.level)))
    return found


def _of_the_backtest(backtest: Backtest | None) -> list[CaptionedFigure]:
    if backtest is None:
        return []
    unit = f" ({backtest.unit})" if backtest.unit else ""
    scored = rows_or_runs(sum(len(cut.runs) for cut in backtest.cuts), sum(len(set(cut.runs)) for cut in backtest.cuts))
    caption = (
        f"Left: predicted minus measured {backtest.output}{unit} of all {scored} that lay above a cut, against how "
        f"many times beyond the largest fitted {backtest.by} they lie; lines are means over a third of a decade. "
        f"Right: mean absolute error of each cut, and the share of its {scored} inside their ",
        Number(backtest.level, ".0%"), " interval. Each fit saw only the runs below its cut.",
    )  # fmt: skip
    figure = Figure("backtest", "Back-test", caption)
    return [CaptionedFigure(figure, lambda: figures.backtest_errors(backtest))]

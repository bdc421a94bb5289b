"""Which figures belong to a study, and how each is read: what report.md shows."""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from analysis import figures
from analysis.studies import Backtest, Prediction, Score, Study


@dataclass(frozen=True)
class Drawing:
    """A figure: stem of its files, title, how to read it, and the function that draws it."""

    name: str
    title: str
    text: str
    draw: Callable[[], Figure]


def drawings_of(
    table: pd.DataFrame, study: Study, scored: Prediction | Score | None = None, backtest: Backtest | None = None
) -> list[Drawing]:
    """The figures that a study, a prediction and a back-test allow."""
    found = _of_the_optima(table, study, scored) if not study.optima_note else []
    return [*found, *_of_the_fit(table, study, scored), *_of_the_backtest(backtest)]


def _of_the_optima(table: pd.DataFrame, study: Study, scored: Prediction | Score | None) -> list[Drawing]:
    level, prediction = f"{study.level:.0%}", scored.prediction if isinstance(scored, Score) else scored
    target = prediction.flops if prediction else None
    held_out = (prediction.flops, scored.measured) if isinstance(scored, Score) and target is not None else None
    valleys = Drawing(
        "isoflop_valleys",
        "IsoFLOP valleys",
        "Each curve is one compute budget: too small a model on the left, too few tokens on the right. The star is the "
        f"parabola's minimum with its {level} interval.",
        lambda: figures.isoflop_valleys(table, study),
    )
    return [
        *([valleys] if study.isoflop is not None else []),
        Drawing(
            "loss_against_compute",
            "Loss against compute",
            "Each dot is a fitted run. The line is the least loss the parametric law allows at each budget, the shade "
            f"its {level} interval (uncertainty of the constants only). Right of the dashed line everything is "
            "extrapolated.",
            lambda: figures.loss_against_compute(table, study, held_out=held_out),
        ),
        Drawing(
            "loss_surface",
            "The fitted surface",
            "Contours are runs of equal loss, dotted lines runs of equal compute. The efficient line crosses each "
            f"dotted line where the loss is least; its shade is the {level} interval. Where no dots lie, the surface "
            "is the law's word alone.",
            lambda: figures.loss_surface(table, study, target_flops=target),
        ),
        Drawing(
            "optimal_allocation",
            "Optimal size and tokens against compute",
            "How a budget is best split. Solid with shade: approach 3 with its interval; dashed with dotted limits: "
            "approach 2; stars: the valleys' optima with their intervals. Where the two approaches part, trust "
            "neither.",
            lambda: figures.optimal_allocation(table, study, target_flops=target),
        ),
    ]


def _of_the_fit(table: pd.DataFrame, study: Study, scored: Prediction | Score | None) -> list[Drawing]:
    level, law = f"{study.level:.0%}", study.law.fit.law
    prediction, measured = (scored.prediction, scored.measured) if isinstance(scored, Score) else (scored, None)
    compared = Drawing(
        "prediction_against_measurement",
        "Prediction against measurement",
        f"Dots are fitted runs. The diamond is the held-out run, the bar its {level} predictive interval: the law is "
        "confirmed at this distance when the diamond lies on the bar. Dots that curve in the lower panel would mean "
        "that the law has the wrong shape.",
        lambda: figures.prediction_against_measurement(table, study, prediction=prediction, measured=measured),
    )
    return [
        *([compared] if law.residual == "log" else []),
        Drawing(
            "residuals",
            "Residuals",
            "What the law leaves, against each of its inputs. A trend along an input means that the law bends the "
            "wrong way there; dots far outside the dashed lines are runs to look at.",
            lambda: figures.residuals(table, study),
        ),
        Drawing(
            "profile_likelihoods",
            "How sharply the runs choose each constant",
            "Each curve is how much worse the fit gets when one constant is held elsewhere and the others follow; the "
            f"{level} interval is where it lies below the dashed line. A curve that stays below it on one side leaves "
            "the constant open there.",
            lambda: figures.profile_likelihoods(study.profiles, study.law.fit, study.level),
        ),
        Drawing(
            "bootstrap_cloud",
            "What the constants can be",
            "Each dot is the law fitted to one resample of the runs. A long thin cloud means that only a combination "
            f"of the two constants is known. Bars are {level} intervals.",
            lambda: figures.bootstrap_cloud(study.law, study.level),
        ),
    ]


def _of_the_backtest(backtest: Backtest | None) -> list[Drawing]:
    if backtest is None:
        return []
    return [
        Drawing(
            "backtest",
            "Back-test",
            "Each mark is a run that a fit of the smaller ones had not seen, by how far beyond them it lies. On the "
            "right, how far off each cut was on average, and how often the interval held what it promised.",
            lambda: figures.backtest_errors(backtest),
        )
    ]

"""Figures of what a law leaves over: its residuals, and what it said of runs it had not seen."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.drawing import DARK, GREY, Columns, FigureError, canvas, dots, legend_above, log_ticks, mark_beyond
from analysis.figures.law import NAMES
from analysis.fit import outliers
from analysis.laws import evaluate
from analysis.runs_table import unit_of
from analysis.studies import Prediction, Study, fitted_rows

GRAIN = 1e-7  # of the output: a smaller residual is rounding
FAR = 6.0  # robust scales, beyond which a residual stands at the edge of its axis ...
INSIDE = 0.9  # ... if no more than the rest of this share of all do
TWO = 2.0  # scales that dashed lines lie from zero


@dataclass(frozen=True)
class Leftover:
    """Measured minus fitted output as every figure draws it.

    values: (rows,) in percent of the fitted output for a law fitted in logarithms, else in the output's unit. scale:
    their robust standard deviation; where the points are too few for one, the plain one. edge: how far from zero a
    panel shows them.
    """

    values: np.ndarray
    fitted: np.ndarray
    unit: str
    scale: float
    scale_name: str
    edge: float

    @property
    def label(self) -> str:
        """What an axis of them is called."""
        return f"measured minus\nfitted ({self.unit})"

    @property
    def beyond(self) -> np.ndarray:
        """Whether each lies further out than is drawn."""
        return np.abs(self.values) > self.edge

    def text(self, value: float, form: str = "+.3g") -> str:
        """One of them as it stands beside a mark."""
        return f"{value:{form}}{'%' if self.unit == '%' else ''}"


def leftover(runs: pd.DataFrame, study: Study, reach: float = 0.0) -> Leftover:
    """Of the fitted runs; reach: how far from zero a panel must show at least, for what else it holds."""
    fit, law = study.law.fit, study.law.fit.law
    fitted = evaluate(law, fit.array(), {name: runs[name].to_numpy(np.float64) for name in law.inputs})
    measured = runs[law.output].to_numpy(np.float64)
    relative = law.residual == "log"
    whole = 100.0 if relative else 1.0
    values = 100 * (measured / fitted - 1) if relative else measured - fitted
    grain = GRAIN * (whole if relative else float(np.max(np.abs(measured))))
    scale = whole * outliers(law.target(measured) - law.target(fitted), len(law.parameters), grain=grain / whole).scale
    name = "robust residual scales"
    if not math.isfinite(scale):
        scale, name = max(whole * fit.residual_scale, grain), "standard deviations"
    sizes = np.abs(values)
    furthest = float(sizes.max())
    edge = min(1.1 * furthest, max(FAR * scale, 1.2 * float(np.quantile(sizes, INSIDE))))
    # Where no residual is more than rounding, all are drawn at zero.
    edge = max(0.01 * whole if furthest <= grain else edge, 2.6 * scale, reach)
    return Leftover(values, fitted, "%" if relative else unit_of(law.output) or law.output, scale, name, edge)


def residuals(table: pd.DataFrame, study: Study, columns: Columns = "two") -> Figure:
    """Measured minus fitted output against each input of the law, one panel per input, and their distribution.

    A pattern along an input means that the law has the wrong shape there. In percent for a law fitted in logarithms.
    Dashed lines lie two robust scales from zero, which outliers do not widen; these stand as triangles at the edge,
    with their values.
    """
    law, runs = study.law.fit.law, fitted_rows(table, study)
    left = leftover(runs, study)
    panels = len(law.inputs) + 1
    shape = (1, panels) if columns == "two" else (panels, 1)
    with canvas(columns, 2.1 if columns == "two" else 1.35 * panels + 0.3, shape) as (figure, axes):
        for i, (panel, name) in enumerate(zip(axes.flat, law.inputs)):
            values = runs[name].to_numpy(np.float64)
            _spread_lines(panel.axhline, left.scale)
            panel.set(xlabel=NAMES.get(name, name), xscale="log" if (values > 0).all() else "linear")
            _draw_left(panel, values, left, dots(len(values), 2.6))
            if (values > 0).all():
                log_ticks(panel.xaxis)
            if i == 0 or columns == "one":
                panel.set_ylabel(left.label)
        _distribution(axes.flat[-1], left, study.law.fit.counted)
    return figure


def _distribution(panel: Axes, left: Leftover, counted: str) -> None:
    within = left.values[~left.beyond]
    bins, ends = min(40, max(8, len(within) // 4)), (-left.edge, left.edge)
    panel.hist(within, bins=bins, range=ends, color="0.75", edgecolor="white", linewidth=0.4)
    _spread_lines(panel.axvline, left.scale)
    lines = panel.lines[-1]
    handles, texts = [lines], [f"two {left.scale_name}:\n±{left.text(TWO * left.scale, '.2g')}"]
    for way, marker in ((1, ">"), (-1, "<")):
        if past := int(np.sum(way * left.values > left.edge)):
            handles += panel.plot(way * left.edge, 0.0, marker, color=DARK, markersize=4, clip_on=False, zorder=4)
            texts.append(f"{past} further")
    panel.set(xlabel=left.label, ylabel=counted, xlim=(-1.05 * left.edge, 1.05 * left.edge))
    panel.legend(handles, texts, loc="upper right")
    panel.set_ylim(0, (1.5 if len(texts) == 1 else 1.75) * panel.get_ylim()[1])
    panel.xaxis.set_major_locator(MaxNLocator(4))
    panel.yaxis.set_major_locator(MaxNLocator(4, integer=True))


def _draw_left(panel: Axes, at: np.ndarray, left: Leftover, style: dict) -> None:
    """Leftovers against anything; those beyond the edge as triangles there, the furthest with their values."""
    panel.plot(at[~left.beyond], left.values[~left.beyond], color=DARK, **style)
    mark_beyond(panel, at, left.values, (-left.edge, left.edge), left.text, DARK)
    panel.yaxis.set_major_locator(MaxNLocator(5))


def prediction_against_measurement(
    table: pd.DataFrame,
    study: Study,
    columns: Columns = "one",
    prediction: Prediction | None = None,
    measured: float | None = None,
) -> Figure:
    """Measured against predicted output (top), their difference in percent (bottom): fitted runs and the held-out one.

    Fitted runs far off stand at the lower panel's edge with their value.

    Raises FigureError for a law whose output may be zero: percent of it means nothing.
    """
    law, runs = study.law.fit.law, fitted_rows(table, study)
    if law.residual != "log":
        raise FigureError(f"law = {law.name!r}: its output may be zero. Fix: draw its residuals.")
    left = leftover(runs, study, _reach(prediction, measured))
    predicted = left.fitted
    outputs = runs[law.output].to_numpy(np.float64)
    name = "loss" if law.output == "loss_nats" else law.output
    unit = f"({unit_of(law.output)})" if unit_of(law.output) else ""
    with canvas(columns, 3.8 if columns == "one" else 4.3, (2, 1), sharex=True, height_ratios=(2, 1)) as (
        figure,
        panels,
    ):
        top, bottom = panels.flat
        ends = [*outputs, *predicted, *([measured, prediction.high, prediction.low] if measured else [])]
        line = np.array([min(ends) * 0.98, max(ends) * 1.02])
        across = [*predicted, *([prediction.value] if prediction else [])]
        top.plot(line, line, color="0.6", linewidth=0.8, label="measured = predicted")
        bottom.axhline(0.0, color="0.6", linewidth=0.8)
        top.plot(predicted, outputs, color=DARK, **dots(len(runs)))
        top.plot([], [], color=DARK, label=f"{study.law.fit.counted} fitted", **dots(1))
        bottom.set(xscale="log", xlim=(min(across) * 0.98, max(across) * 1.02))
        _draw_left(bottom, predicted, left, dots(len(runs)))
        if prediction is not None and measured is not None:
            _draw_held_out(top, bottom, prediction, measured)
        top.set(xscale="log", yscale="log", ylabel=f"measured {name}\n{unit}")
        bottom.set(xlabel=f"predicted {name} {unit}", ylabel=left.label)
        log_ticks(top.yaxis)
        log_ticks(bottom.xaxis)
        top.tick_params(labelbottom=False)
        legend_above(figure, top, across=2 if columns == "one" else 3)
    return figure


def _reach(prediction: Prediction | None, measured: float | None) -> float:
    """How far from zero the held-out run and its interval go, in percent."""
    if prediction is None or measured is None:
        return 0.0
    ends = np.array([measured, prediction.low, prediction.high])
    return float(110 * np.max(np.abs(ends / prediction.value - 1)))


def _draw_held_out(top: Axes, bottom: Axes, prediction: Prediction, measured: float) -> None:
    bar = {"fmt": "none", "color": "black", "elinewidth": 0.9, "capsize": 2}
    diamond = {"marker": "D", "color": "black", "markersize": 4.5, "linestyle": "none"}
    # The interval belongs to the prediction, so it is drawn around the line and the diamond is the measurement.
    ends = [[prediction.value - prediction.low], [prediction.high - prediction.value]]
    top.errorbar(prediction.value, prediction.value, yerr=ends, **bar)
    bottom.errorbar(prediction.value, 0.0, yerr=100 * np.array(ends) / prediction.value, **bar)
    label = f"held-out run, {prediction.level:.0%} predictive interval"
    top.plot(prediction.value, measured, **diamond, label=label)
    bottom.plot(prediction.value, 100 * (measured / prediction.value - 1), **diamond)


def _spread_lines(draw, spread: float) -> None:
    draw(0.0, color=GREY, linewidth=0.8)
    for end in (-TWO * spread, TWO * spread):
        draw(end, color=GREY, linewidth=0.7, linestyle="--")

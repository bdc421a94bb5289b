"""Figures of a fitted law: its surface with the runs, its residuals, and what it said of runs it had not seen."""

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.compute import efficient_runs
from analysis.drawing import (
    DARK,
    GREY,
    STAR,
    WARM,
    Columns,
    FigureError,
    canvas,
    dots,
    legend_above,
    log_ticks,
    power_of_ten,
)
from analysis.figures.frontier import interval_label
from analysis.laws import evaluate
from analysis.runs_table import unit_of
from analysis.studies import Prediction, Study, fitted_rows, planning_law
from analysis.studies.allocation import constants_of, interval_at

LEVELS = 11
NAMES = {"params": "params (count)", "tokens": "training tokens (count)", "flops": "training compute (FLOP)"}


def loss_surface(
    table: pd.DataFrame, study: Study, columns: Columns = "one", target_flops: float | None = None
) -> Figure:
    """Contours of the fitted loss over params and tokens, the runs, and the efficient line with its interval.

    Thin lines join runs of equal compute, a decade apart; the efficient line crosses each where its loss is least.
    """
    law, rule, runs = planning_law(study), study.flop_rule, fitted_rows(table, study)
    flops = np.geomspace(runs["flops"].min() / 2, max(runs["flops"].max() * 4, (target_flops or 0.0) * 1.5), 40)
    draws = constants_of(study.law)
    params, tokens, _ = (np.stack(found) for found in zip(*(efficient_runs(law, draws, rule, f) for f in flops)))
    x = _span(runs["params"], params[:, 0])
    y = _span(runs["tokens"], tokens[:, 0])
    grid = np.meshgrid(np.geomspace(*x, 120), np.geomspace(*y, 120))
    inputs = {"params": grid[0].ravel(), "tokens": grid[1].ravel()}
    loss = evaluate(law, study.law.fit.array(), inputs).reshape(grid[0].shape)
    with canvas(columns, 3.2 if columns == "one" else 4.2) as (figure, axes):
        # Evenly spaced in the log of the loss above the law's least one: so the efficient line crosses them evenly too.
        floor = study.law.fit.values.get("E", dict(study.law.fit.law.fixed).get("E", 0.0))
        levels = floor + np.geomspace(1.05 * (loss.min() - floor), 0.9 * (loss.max() - floor), LEVELS)
        lines = axes.contour(*grid, loss, levels, colors="0.35", linewidths=0.8)
        for label in axes.clabel(lines, fmt="%.3g", fontsize=5.5, inline=False):
            label.set_zorder(2.5)  # below the runs: its white box would hide them
            label.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.4})
            at = np.log(label.get_position()[0] / x[0]) / np.log(x[1] / x[0])
            up = np.log(label.get_position()[1] / y[0]) / np.log(y[1] / y[0])
            label.set_visible(0.05 < at < 0.95 and 0.05 < up < 0.95)  # else the frame cuts it
        for exponent in range(math.ceil(np.log10(flops[0])), math.floor(np.log10(flops[-1])) + 1):
            sizes = np.geomspace(*x, 50)
            axes.plot(sizes, rule.tokens(10.0**exponent, sizes), ":", color="0.6", linewidth=0.6, zorder=1)
        axes.plot(runs["params"], runs["tokens"], color=WARM, zorder=3, **dots(len(runs), 2.6))
        axes.plot([], [], color=WARM, label=f"{study.law.fit.counted} fitted", **dots(1, 2.6))
        axes.plot(params[:, 0], tokens[:, 0], color=DARK, linewidth=1.6, label="efficient line, approach 3", zorder=4)
        band = [interval_at(study, sizes) for sizes in params]
        ends = [interval.low for interval in band], [interval.high for interval in band]
        axes.fill_betweenx(tokens[:, 0], *ends, color=DARK, alpha=0.2, linewidth=0, label=interval_label(study))
        if target_flops is not None:
            at = efficient_runs(law, draws[:1], rule, target_flops)
            axes.plot(
                at[0][0], at[1][0], **(STAR | {"zorder": 5}), label=f"optimum at {power_of_ten(target_flops)} FLOP"
            )
        axes.plot([], [], ":", color="0.6", linewidth=0.6, label="equal compute")
        axes.set(xscale="log", yscale="log", xlim=x, ylim=y, xlabel=NAMES["params"], ylabel=NAMES["tokens"])
        log_ticks(axes.xaxis)
        log_ticks(axes.yaxis)
        axes.grid(False)
        legend_above(figure, axes, "contours: loss (nats per token)", across=2 if columns == "one" else 5)
    return figure


def residuals(table: pd.DataFrame, study: Study, columns: Columns = "two") -> Figure:
    """Measured minus fitted output against each input of the law, one panel per input, and their distribution.

    A pattern along an input means that the law has the wrong shape there. In percent for a law fitted in logarithms.
    """
    law, runs = study.law.fit.law, fitted_rows(table, study)
    inputs = {name: runs[name].to_numpy(np.float64) for name in law.inputs}
    fitted = evaluate(law, study.law.fit.array(), inputs)
    measured = runs[law.output].to_numpy(np.float64)
    relative = law.residual == "log"
    left = 100 * np.log(measured / fitted) if relative else measured - fitted
    unit = "%" if relative else unit_of(law.output) or law.output
    panels = len(law.inputs) + 1
    shape = (1, panels) if columns == "two" else (panels, 1)
    spread = study.law.fit.residual_scale * (100 if relative else 1)
    with canvas(columns, 2.1 if columns == "two" else 1.35 * panels + 0.3, shape) as (figure, axes):
        for i, (panel, (name, values)) in enumerate(zip(axes.flat, inputs.items())):
            _spread_lines(panel.axhline, spread)
            panel.plot(values, left, color=DARK, **dots(len(left), 2.6))
            panel.set(xlabel=NAMES.get(name, name), xscale="log" if (values > 0).all() else "linear")
            if (values > 0).all():
                log_ticks(panel.xaxis)
            if i == 0 or columns == "one":
                panel.set_ylabel(f"measured minus\nfitted ({unit})")
            panel.yaxis.set_major_locator(MaxNLocator(5))
        last = axes.flat[-1]
        last.hist(left, bins=min(40, max(8, len(left) // 4)), color="0.75", edgecolor="white", linewidth=0.4)
        _spread_lines(last.axvline, spread)
        last.set(xlabel=f"measured minus\nfitted ({unit})", ylabel=study.law.fit.counted)
        last.legend([last.lines[-1]], ["two residual scales"], loc="upper right")
        last.set_ylim(0, 1.25 * last.get_ylim()[1])
        last.xaxis.set_major_locator(MaxNLocator(4))
        last.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    return figure


def prediction_against_measurement(
    table: pd.DataFrame,
    study: Study,
    columns: Columns = "one",
    prediction: Prediction | None = None,
    measured: float | None = None,
) -> Figure:
    """Measured against predicted output (top), their difference in percent (bottom): fitted runs and the held-out one.

    Raises FigureError for a law whose output may be zero: percent of it means nothing.
    """
    law, runs = study.law.fit.law, fitted_rows(table, study)
    if law.residual != "log":
        raise FigureError(f"law = {law.name!r}: its output may be zero. Fix: draw its residuals.")
    predicted = evaluate(law, study.law.fit.array(), {name: runs[name].to_numpy() for name in law.inputs})
    outputs = runs[law.output].to_numpy(np.float64)
    name = "loss" if law.output == "loss_nats" else law.output
    unit = f"({unit_of(law.output)})" if unit_of(law.output) else ""
    with canvas(columns, 3.6 if columns == "one" else 4.2, (2, 1), sharex=True, height_ratios=(2, 1)) as (
        figure,
        panels,
    ):
        top, bottom = panels.flat
        ends = [*outputs, *predicted, *([measured, prediction.high, prediction.low] if measured else [])]
        line = np.array([min(ends) * 0.98, max(ends) * 1.02])
        top.plot(line, line, color="0.6", linewidth=0.8, label="measured = predicted")
        bottom.axhline(0.0, color="0.6", linewidth=0.8)
        top.plot(predicted, outputs, color=DARK, **dots(len(runs)))
        top.plot([], [], color=DARK, label=f"{study.law.fit.counted} fitted", **dots(1))
        bottom.plot(predicted, 100 * (outputs / predicted - 1), color=DARK, **dots(len(runs)))
        if prediction is not None and measured is not None:
            _draw_held_out(top, bottom, prediction, measured)
        top.set(xscale="log", yscale="log", ylabel=f"measured {name}\n{unit}")
        bottom.set(xscale="log", xlabel=f"predicted {name} {unit}", ylabel="measured minus\npredicted (%)")
        log_ticks(top.yaxis)
        log_ticks(bottom.xaxis)
        top.tick_params(labelbottom=False)
        bottom.yaxis.set_major_locator(MaxNLocator(4))
        top.legend(loc="lower right")
    return figure


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
    for end in (-2 * spread, 2 * spread):
        draw(end, color=GREY, linewidth=0.7, linestyle="--")


def _span(runs: pd.Series, line: np.ndarray) -> tuple[float, float]:
    """Axis limits that hold the runs and the efficient line."""
    return float(min(runs.min(), line.min()) / 1.5), float(max(runs.max(), line.max()) * 1.5)

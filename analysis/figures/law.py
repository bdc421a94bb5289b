"""Figure of a fitted law: its surface with the runs."""

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure

from analysis.compute import efficient_runs
from analysis.drawing import (
    DARK,
    STAR,
    WARM,
    Columns,
    canvas,
    dots,
    legend_above,
    log_ticks,
    power_of_ten,
)
from analysis.figures.frontier import interval_label
from analysis.laws import evaluate
from analysis.studies import Study, fitted_rows, planning_law
from analysis.studies.allocation import constants_of, interval_at

LEVELS = 11
LABEL_SIZE = np.array([0.11, 0.05])  # width and height of a contour's label, of the panel's
LABEL_MARGIN = 0.06  # of the panel, where its frame would cut one
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
        lined = np.stack([params[:, 0], tokens[:, 0]], axis=1)
        _label_contours(axes, lines, np.concatenate([runs[["params", "tokens"]].to_numpy(np.float64), lined]), x, y)
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


def _label_contours(axes: Axes, lines: ContourSet, marks: np.ndarray, x: tuple, y: tuple) -> None:
    """Each contour's loss where it is furthest from all marks and other labels; none where there is no room."""
    low, high = np.log([x[0], y[0]]), np.log([x[1], y[1]])
    taken = (np.log(marks) - low) / (high - low)
    for level, path in zip(lines.levels, lines.get_paths(), strict=True):
        if not len(path.vertices):
            continue
        places = (np.log(path.vertices) - low) / (high - low)
        places = places[((places > LABEL_MARGIN) & (places < 1 - LABEL_MARGIN)).all(axis=1)]
        if not len(places):
            continue
        apart = np.abs(places[:, None] - taken[None]) / LABEL_SIZE
        free = np.hypot(apart[..., 0], apart[..., 1]).min(axis=1)
        best = int(np.argmax(free))
        if free[best] > 0.5:
            text = axes.text(
                *np.exp(low + places[best] * (high - low)), f"{level:.3g}", fontsize=5.5, color="0.35", zorder=2.5,
                ha="center", va="center",
            )  # fmt: skip
            text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.4})
            taken = np.concatenate([taken, places[[best]]])


def _span(runs: pd.Series, line: np.ndarray) -> tuple[float, float]:
    """Axis limits that hold the runs and the efficient line."""
    return float(min(runs.min(), line.min()) / 1.5), float(max(runs.max(), line.max()) * 1.5)

"""Figures of measurements alone: learning-rate and batch bowls, and learning curves on top of each other."""

from collections.abc import Sequence
from numbers import Real

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.drawing import (
    DARK,
    MARKERS,
    STAR,
    Columns,
    FigureError,
    canvas,
    legend_above,
    log_ticks,
    power_of_ten,
    shade,
)
from analysis.studies import Collapse

AXES = {
    "learning_rate": "peak learning rate",
    "batch_tokens": "batch (tokens)",
    "weight_decay": "weight decay",
}


def hyperparameter_bowls(
    table: pd.DataFrame,
    hyperparameters: Sequence[str] = ("learning_rate", "batch_tokens"),
    by: Sequence[str] = ("params", "tokens"),
    output: str = "loss_nats",
    columns: Columns = "two",
) -> Figure:
    """Loss above the best of its group against each hyperparameter, one panel each, one bowl per (params, tokens).

    A bowl joins the least loss at each value, over whatever else was varied; its star is the lowest run, as
    measured. Curves are drawn above the group's own best, so that bowls of very different losses share an axis. The
    legend names at most ten of many groups.
    """
    missing = [name for name in (*hyperparameters, *by, output) if name not in table.columns]
    if missing:
        raise FigureError(f"table: missing column {missing[0]!r}. Fix: add it, or name another.")
    groups = list(table.dropna(subset=[output]).groupby(list(by)))
    count = len(hyperparameters)
    shape = (1, count) if columns == "two" else (count, 1)
    most = 10 if columns == "two" else 8
    named = set(np.linspace(0, len(groups) - 1, min(most, len(groups))).round().astype(int).tolist())
    legend_rows = -(-len(named) // (5 if columns == "two" else 2))
    with canvas(columns, (2.5 if columns == "two" else 2.1 * count) + 0.15 * legend_rows, shape) as (
        figure,
        panels,
    ):
        for panel, name in zip(panels.flat, hyperparameters):
            for i, (key, group) in enumerate(groups):
                bowl = group.groupby(name)[output].min()
                above = bowl - bowl.min()
                style = {"color": shade(i, len(groups)), "marker": MARKERS[i % len(MARKERS)], "linewidth": 0.9}
                label = ", ".join(map(_shown, key)) if i in named else None
                panel.plot(above.index, above, **style, markersize=2.5, label=label)
                panel.plot(above.idxmin(), 0.0, **STAR)
            panel.set(xscale="log", xlabel=AXES.get(name, name))
            panel.set_ylim(-0.02 * _usual(table, by, output), _usual(table, by, output))
            log_ticks(panel.xaxis)
        for panel in panels.flat if columns == "one" else panels.flat[:1]:
            panel.set_ylabel("loss above the best of its curve\n(nats per token)")
        some = "" if len(named) == len(groups) else f" ({len(named)} of {len(groups)}, in order from dark to light)"
        panels.flat[0].plot([], [], label="lowest run of a cell", **STAR)
        legend_above(figure, panels.flat[0], ", ".join(by) + some, across=5 if columns == "two" else 2)
    return figure


def learning_curve_collapse(collapse: Collapse, columns: Columns = "two", label: str = "size") -> Figure:
    """Learning curves as measured, normalised, and how far the normalised ones are apart beside the noise of a seed.

    Left: loss against compute. Middle: the same normalised, compute divided by its end and the loss above its floor by
    that at the end. Right: standard deviation across sizes and, where there are repeats, across seeds of one size.
    """
    shape = (1, 3) if columns == "two" else (3, 1)
    groups = list(collapse.sizes)
    with canvas(columns, 2.5 if columns == "two" else 5.6, shape) as (figure, panels):
        raw, normal, spread = panels.flat
        for i, size in enumerate(groups):
            for j, run in enumerate(curve for curve in collapse.curves if curve.size == size):
                style = {"color": shade(i, len(groups)), "linewidth": 0.8}
                raw.plot(run.compute, run.loss, **style, label=f"{size:g}" if j == 0 else None)
                normal.plot(collapse.grid, run.normalised, **style)
        raw.set(xscale="log", yscale="log", xlabel="training compute (FLOP)", ylabel="loss")
        normal.set(xlabel="compute / compute at the end", ylabel="normalised loss", yscale="log")
        # The last point is one by construction.
        spread.plot(collapse.grid[:-1], 100 * collapse.across_sizes[:-1], color=DARK, label="across sizes")
        if collapse.across_seeds is not None:
            spread.plot(collapse.grid, 100 * collapse.across_seeds, "--", color="0.45", label="across seeds")
        spread.set(xlabel="compute / compute at the end", ylabel="relative spread (%)", yscale="log")
        for axis in (raw.xaxis, raw.yaxis, normal.yaxis, spread.yaxis):
            log_ticks(axis)
        spread.legend(loc="best")
        legend_above(figure, raw, label, across=8 if columns == "two" else 4)
    return figure


def _shown(value: object) -> str:
    """A cell's value in the legend: of a size a power of ten, of a name or zero what it is."""
    return power_of_ten(value) if isinstance(value, Real) and value > 0 else str(value)


def _usual(table: pd.DataFrame, by: Sequence[str], output: str) -> float:
    """A height that shows the bowls: the 80th percentile of loss above the group's best."""
    above = table[output] - table.groupby(list(by))[output].transform("min")
    return float(np.nanquantile(above, 0.8)) or 1.0

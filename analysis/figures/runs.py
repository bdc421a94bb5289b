"""Figures of measurements alone: learning-rate and batch bowls, and learning curves on top of each other."""

from collections.abc import Mapping, Sequence
from numbers import Real

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.drawing import (
    DARK,
    MARKERS,
    STAR,
    Columns,
    arms,
    canvas,
    legend_above,
    log_ticks,
    power_of_ten,
    shade,
)
from analysis.studies import Bowl, Collapse, SweepLaws, cells_of

AXES = {
    "learning_rate": "peak learning rate",
    "batch_tokens": "batch (tokens)",
    "weight_decay": "weight decay",
}
RING = {"marker": "o", "markersize": 6.5, "markerfacecolor": "none", "markeredgewidth": 0.8, "linestyle": "none"}
CURVE_POINTS = 60
COUNTED = 1000  # below it a whole number is printed as it is: a seed, a group, a depth
FAR_ABOVE, ROOM = (
    2.0,
    1.05,
)  # times the usual height: a mark further up is cut off; and room above the highest that is not


def hyperparameter_bowls(rows: pd.DataFrame, bowls: Sequence[Bowl], columns: Columns = "two") -> Figure:
    """Loss above the best of its cell against each hyperparameter, one panel each: the runs, and the bowl fitted.

    rows, bowls: of a sweep, as `sweep_rows` and `fit_bowls` give them. A mark is the least loss at one value, by its
    mean over runs of equal settings, over whatever else was varied; the curve is the fitted quadratic with the other
    hyperparameters at their best for each value, and the star its lowest point. A cell without an optimum has marks
    joined by dashes; a ring stands where the best settings of a cell lie at an end of the values that were run. Heights
    are above the cell's own best run, so that cells of very different losses share an axis. The legend names at most
    ten cells.
    """
    axes, cell = list(bowls[0].optimum), list(bowls[0].cell)
    shape = (1, len(axes)) if columns == "two" else (len(axes), 1)
    most, across = (10, 5) if columns == "two" else (8, 2)
    named = set(np.linspace(0, len(bowls) - 1, min(most, len(bowls))).round().astype(int).tolist())
    top = _height(rows, cell, axes)
    lowest = min((bowl.loss_nats - bowl.best_loss_nats for bowl in bowls if not bowl.reason), default=0.0)
    height = (2.5 if columns == "two" else 2.1 * len(axes)) + 0.15 * -(-len(named) // across)
    with canvas(columns, height, shape) as (figure, panels):
        for panel, axis in zip(panels.flat, axes):
            for i, (bowl, (_, group)) in enumerate(zip(bowls, cells_of(rows, cell), strict=True)):
                label = ", ".join(map(_shown, bowl.cell.values())) if i in named else None
                marker = {"color": shade(i, len(bowls)), "marker": MARKERS[i % len(MARKERS)], "label": label}
                _draw_bowl(panel, bowl, group, axis, top, marker)
            panel.set(xscale="log", xlabel=AXES.get(axis, axis), ylim=(min(lowest, 0) - 0.08 * top, top))
            log_ticks(panel.xaxis)
        for panel in panels.flat if columns == "one" else panels.flat[:1]:
            panel.set_ylabel("loss above the best of its cell\n(nats per token)")
        some = "" if len(named) == len(bowls) else f" ({len(named)} of {len(bowls)}, in order from dark to light)"
        panels.flat[0].plot([], [], label="lowest point of a fitted bowl", **STAR)
        if any(bowl.at_edge for bowl in bowls):
            panels.flat[0].plot([], [], label="best at an end of the values run", **RING, color=DARK)
        legend_above(figure, panels.flat[0], ", ".join(cell) + some, across=across)
    return figure


def _draw_bowl(panel: Axes, bowl: Bowl, group: pd.DataFrame, axis: str, top: float, marker: Mapping) -> None:
    lowest = group.groupby(list(bowl.optimum))["loss_nats"].mean().groupby(level=axis).min()
    at, above = lowest.index.to_numpy(np.float64), lowest.to_numpy() - bowl.best_loss_nats
    joined = {"linestyle": "--", "linewidth": 0.5} if bowl.reason else {"linestyle": "none"}
    panel.plot(at, above, markersize=2.5, **marker, **joined)
    if axis in bowl.at_edge:
        best = bowl.best_settings[axis]
        panel.plot(best, above[at == best], color=marker["color"], **RING)
    if bowl.reason:
        return
    # The least of the quadratic at each value of one axis has the inverse of that axis' entry of the inverse.
    own = list(bowl.optimum).index(axis)
    curvature = 1 / np.linalg.inv(np.array(bowl.curvature))[own, own]
    best, lift = bowl.optimum[axis], bowl.loss_nats - bowl.best_loss_nats
    reach = np.sqrt(max(2 * np.log1p((top - lift) / bowl.loss_nats) / curvature, 0.0))  # where it leaves the panel
    ends = np.clip(best * np.exp([-reach, reach]), at.min(), at.max())
    curve = np.geomspace(*ends, CURVE_POINTS)
    panel.plot(
        curve,
        bowl.loss_nats * np.exp(curvature * np.log(curve / best) ** 2 / 2) - bowl.best_loss_nats,
        color=marker["color"],
        linewidth=0.8,
    )
    panel.plot(best, lift, **STAR)


def optima_against_laws(found: SweepLaws, columns: Columns = "two") -> Figure:
    """The best settings of each cell, with intervals, against what the laws fitted to the other cells say of it.

    One panel for each axis. A cell without an optimum, or one that was not followed, is left out; a hollow mark says
    that the best settings of a cell lie at an end of the values that were run.
    """
    shape = (1, len(found.axes)) if columns == "two" else (len(found.axes), 1)
    cells = [(b, one) for b, one in zip(found.bowls, found.followed, strict=True) if not (b.reason or one.reason)]
    with canvas(columns, 2.6 if columns == "two" else 2.4 * len(found.axes), shape) as (figure, panels):
        for panel, axis in zip(panels.flat, found.axes):
            for i, (bowl, one) in enumerate(cells):
                best = bowl.intervals[axis]
                bar = {"color": shade(i, len(cells)), "marker": "o", "markersize": 2.5, "linewidth": 0.8}
                bar["markerfacecolor"] = "white" if axis in bowl.at_edge else bar["color"]
                height = arms(best) if np.isfinite(best.high) else None
                panel.errorbar([one.recommended[axis]], [best.value], yerr=height, **bar)
            ends = [f(one.recommended[axis] for _, one in cells) for f in (min, max)]
            panel.plot(ends, ends, "--", color="0.45", linewidth=0.8, label="equal")
            name = AXES.get(axis, axis)
            panel.set(xscale="log", yscale="log", xlabel=f"{name}, by the other cells", ylabel=f"best {name}")
            for ticks in (panel.xaxis, panel.yaxis):
                log_ticks(ticks)
        bar = f"a cell's best, with its {found.level:.0%} interval"
        panels.flat[0].errorbar([], [], yerr=[], color=DARK, marker="o", markersize=2.5, linewidth=0.8, label=bar)
        legend_above(figure, panels.flat[0])
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
    """A cell's value in the legend: of a size a power of ten, of a small whole number or a name what it is."""
    if not isinstance(value, Real):
        return str(value)
    if abs(value) < COUNTED and float(value).is_integer():
        return str(int(value))
    return power_of_ten(value) if value > 0 else f"{value:g}"


def _height(rows: pd.DataFrame, cell: Sequence[str], axes: Sequence[str]) -> float:
    """A height that shows the bowls: all marks, unless some lie far above the 80th percentile of all runs."""
    best = rows.groupby(list(cell))["loss_nats"].transform("min")
    usual = float(np.quantile(rows["loss_nats"] - best, 0.8)) or 1.0
    above = rows.assign(above=rows["loss_nats"] - best)
    highest = max(float(above.groupby([*cell, axis])["above"].min().max()) for axis in axes)
    return max(usual, ROOM * highest) if highest < FAR_ABOVE * usual else usual

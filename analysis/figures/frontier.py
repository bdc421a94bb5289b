"""Figures of compute: the valleys, the least loss of a budget, and how a budget is split."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.compute import efficient_runs
from analysis.drawing import (
    DARK,
    GREY,
    MARKERS,
    STAR,
    STAR_WITH_BAR,
    WARM,
    Columns,
    FigureError,
    arms,
    canvas,
    dots,
    legend_above,
    log_ticks,
    mark_beyond,
    mark_edge,
    shade,
    told_apart,
)
from analysis.studies import Study, fitted_rows, planning_law
from analysis.studies.allocation import constants_of, interval_at

MANY_VALLEYS = 10  # more are told apart by lightness alone, and every few of them are named
STEEP = 3.0  # largest over smallest loss, from which valleys are drawn on a logarithmic scale


def isoflop_valleys(study: Study, columns: Columns = "one", table: pd.DataFrame | None = None) -> Figure:
    """Held-out loss against params: the sizes of each budget, the curve read there, and its minimum (approach 2).

    table: the study's, whose runs that approach 2 left out are then marked, at the edge with their loss where they lie
    beyond it.
    """
    if study.isoflop is None:
        raise FigureError(f"isoflop = None: there are no valleys to draw. Reason: {study.isoflop_note}")
    valleys = study.isoflop.valleys
    labels, crowded = told_apart([valley.budget_flops for valley in valleys]), len(valleys) > MANY_VALLEYS
    named = {round(place) for place in np.linspace(0, len(valleys) - 1, min(len(valleys), MANY_VALLEYS))}
    legend_rows = -(-(len(named) + 1) // (4 if columns == "one" else 8))
    with canvas(columns, (2.5 if columns == "one" else 3.0) + 0.14 * legend_rows) as (figure, axes):
        for i, valley in enumerate(valleys):
            colour, marker = shade(i, len(valleys)), "o" if crowded else MARKERS[i % len(MARKERS)]
            axes.plot(
                valley.curve_params, valley.curve_loss, color=colour, linewidth=0.6 if crowded else None, zorder=2
            )
            size, label = (1.5 if crowded else None), labels[i] if i in named else None
            axes.plot(valley.at_params, valley.at_loss, marker, markersize=size, color=colour, label=label)
            axes.errorbar(valley.params.value, valley.loss_nats.value, xerr=arms(valley.params), **STAR_WITH_BAR)
        axes.plot([], [], **STAR, label="optimum")
        axes.set(xscale="log", xlabel="params (count)", ylabel="held-out loss (nats per token)")
        log_ticks(axes.xaxis)
        losses = np.concatenate([valley.at_loss for valley in valleys])
        if losses.max() > STEEP * losses.min():  # steep walls would leave the valleys no height
            axes.set(yscale="log")
            log_ticks(axes.yaxis)
        if table is not None:
            _mark_left_out(axes, study, fitted_rows(table, study))
        title = f"budget (FLOP); optimum with {study.level:.0%} interval"
        legend_above(figure, axes, title, across=4 if columns == "one" else 8)
    return figure


def _mark_left_out(axes: Axes, study: Study, runs: pd.DataFrame) -> None:
    """Crosses at the runs that approach 2 left out, triangles at the edge and their loss where they lie beyond it."""
    names = {item.run for item in study.isoflop.left_out}
    found = runs[runs["run"].isin(names) & runs["budget_flops"].notna()]
    if not len(found):
        return
    limits, (params, losses) = axes.get_ylim(), (found[name].to_numpy(np.float64) for name in ("params", "loss_nats"))
    within = (limits[0] <= losses) & (losses <= limits[1])
    cross = axes.plot(params[within], losses[within], "x", color="black", markersize=3.5, zorder=5)
    cross[0].set_label("left out" if within.any() else "")
    mark_beyond(axes, params, losses, limits, lambda loss: f"{loss:.3g}", "black", None if within.any() else "left out")


def loss_against_compute(
    table: pd.DataFrame, study: Study, columns: Columns = "one", held_out: tuple[float, float] | None = None
) -> Figure:
    """Held-out loss of every run against its FLOPs, with the compute-optimal frontier of the parametric law.

    held_out: (flops, measured loss) of a run that no fit has seen.
    """
    runs = fitted_rows(table, study)
    flops = _extended(runs["flops"].to_numpy(), held_out[0] if held_out else None)
    best, low, high = _efficient(study, flops, 2)
    with canvas(columns, 3.0 if columns == "one" else 3.2) as (figure, axes):
        axes.plot(runs["flops"], runs["loss_nats"], color=GREY, **dots(len(runs), 2.8))
        axes.plot([], [], color=GREY, label=f"{study.law.fit.counted} fitted", **dots(1, 2.8))
        axes.plot(flops, best, color=DARK, label="compute-optimal loss, approach 3")
        axes.fill_between(flops, low, high, color=DARK, alpha=0.25, linewidth=0, label=interval_label(study))
        mark_edge(axes, study.largest_flops, top=True)
        if study.isoflop is not None:
            valleys = study.isoflop.valleys
            at = [valley.budget_flops for valley in valleys], [valley.loss_nats.value for valley in valleys]
            axes.plot(*at, **STAR, label="optima, approach 2")
        if held_out is not None:
            axes.plot(*held_out, "D", color="black", markersize=4.5, label="held-out run")
        axes.set(xscale="log", yscale="log", xlabel="training compute (FLOP)", ylabel="held-out loss (nats per token)")
        log_ticks(axes.xaxis)
        log_ticks(axes.yaxis)
        legend_above(figure, axes, across=2 if columns == "one" else 5)
    return figure


def optimal_allocation(
    table: pd.DataFrame, study: Study, columns: Columns = "two", target_flops: float | None = None
) -> Figure:
    """Compute-optimal params (left) and tokens (right) against FLOPs, by both approaches, out to `target_flops`."""
    flops = _extended(fitted_rows(table, study)["flops"].to_numpy(), target_flops)
    shape = (1, 2) if columns == "two" else (2, 1)
    with canvas(columns, 2.8 if columns == "two" else 4.6, shape) as (figure, panels):
        for index, (axes, name) in enumerate(zip(panels.flat, ("params", "tokens"), strict=True)):
            best, low, high = _efficient(study, flops, index)
            axes.plot(flops, best, color=DARK, label="approach 3")
            axes.fill_between(flops, low, high, color=DARK, alpha=0.2, linewidth=0, label=interval_label(study))
            if study.isoflop is not None:
                _draw_approach_2(axes, study, name, flops)
            mark_edge(axes, study.largest_flops)
            axes.set(
                xscale="log", yscale="log", xlabel="training compute (FLOP)", ylabel=f"compute-optimal {name} (count)"
            )
            log_ticks(axes.xaxis)
            log_ticks(axes.yaxis)
        legend_above(figure, panels.flat[0], across=4 if columns == "two" else 2)
    return figure


def interval_label(study: Study) -> str:
    """What a legend says of the shade around an optimum, of which there is none where optima are not determined."""
    return "its interval is not determined" if study.undetermined else f"its {study.level:.0%} interval"


def _draw_approach_2(axes: Axes, study: Study, name: str, flops: np.ndarray) -> None:
    law = getattr(study.isoflop, name)
    at = [law.at(value, study.level) for value in flops]
    label = f"approach 2, {study.level:.0%} interval dotted"
    axes.plot(flops, [interval.value for interval in at], "--", color=WARM, label=label)
    axes.plot([], [], **STAR, label="valleys' minima")
    for end in ("low", "high"):
        axes.plot(flops, [getattr(interval, end) for interval in at], ":", color=WARM, linewidth=0.8)
    for valley in study.isoflop.valleys:
        interval = getattr(valley, name)
        axes.errorbar(valley.budget_flops, interval.value, yerr=arms(interval), **STAR_WITH_BAR)


def _efficient(study: Study, flops: np.ndarray, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Value and interval ends of params (0), tokens (1) or loss (2) of the parametric law's optimum at each budget."""
    law, values = planning_law(study), constants_of(study.law)
    at = [interval_at(study, efficient_runs(law, values, study.flop_rule, value)[index]) for value in flops]
    return tuple(np.array([getattr(interval, end) for interval in at]) for end in ("value", "low", "high"))


def _extended(flops: np.ndarray, target: float | None) -> np.ndarray:
    """Thirty budgets from the smallest run to four times the largest, or to a target beyond that."""
    return np.geomspace(flops.min() / 1.3, max(4.0 * flops.max(), (target or 0.0) * 1.2), 30)

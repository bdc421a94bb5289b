"""Figures of families side by side: loss against compute, and a measure against the length it was taken at."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.drawing import LINES, MARKERS, Columns, FigureError, canvas, legend_above, log_ticks, shade
from analysis.laws import evaluate
from analysis.studies import Comparison, Family, by_length

MEASURE_LABELS = {"exact_match": "exact match (share of examples)", "token_accuracy": "right tokens (share)"}


def loss_by_family(comparison: Comparison, columns: Columns = "one") -> Figure:
    """Held-out loss against training FLOPs, each family at its best learning rate, bars from its best to worst seed.

    Lines are the families' power laws of compute. A hollow mark says that the best rate was an end of the sweep.
    """
    shown = [family for family in comparison.families if any(cell.budget_flops for cell in family.cells)]
    if not shown:
        raise FigureError("budget_flops: no family states a budget. Fix: compare runs that were planned by budgets.")
    with canvas(columns, 2.9) as (figure, axes):
        for i, family in enumerate(shown):
            colour = shade(i, len(shown))
            for cell in family.cells:
                bar = [[cell.loss_nats - cell.lowest], [cell.highest - cell.loss_nats]]
                face = "white" if cell.at_edge else colour
                axes.errorbar(
                    cell.flops, cell.loss_nats, yerr=bar, fmt=MARKERS[i % len(MARKERS)], color=colour, capsize=2,
                    elinewidth=0.8, markerfacecolor=face, markeredgecolor=colour,
                )  # fmt: skip
            _draw_law(axes, family, i, colour)
        axes.set(xscale="log", yscale="log", xlabel="training compute (FLOP)", ylabel="held-out loss (nats per token)")
        log_ticks(axes.yaxis)
        legend_above(figure, axes, across=3)
    return figure


def _draw_law(axes: Axes, family: Family, index: int, colour: tuple) -> None:
    ends = [cell.flops for cell in family.cells]
    style = {"color": colour, "linestyle": LINES[index % len(LINES)], "linewidth": 0.9}
    mark = {"marker": MARKERS[index % len(MARKERS)], "markersize": 3.5}
    if family.law is not None:
        flops = np.geomspace(min(ends), max(ends), 50)
        axes.plot(flops, evaluate(family.law.fit.law, family.law.fit.array(), {"flops": flops}), **style)
    axes.plot([], [], label=family.name, **style, **mark)


def measure_by_length(comparison: Comparison, measure: str = "exact_match", columns: Columns = "one") -> Figure:
    """A held-out measure against the length of the example, one line per family at its best learning rate.

    A star behind a name says that this rate was an end of the sweep.
    """
    shown = [family for family in comparison.families if family.cells]
    curves = [(_starred(family), *by_length(family.cells[-1], measure)) for family in shown]
    curves = [(name, lengths, values) for name, lengths, values in curves if len(lengths)]
    if not curves:
        raise FigureError(f"{measure}: no column {measure}_<task>_<length>. Fix: compare runs of a synthetic task.")
    with canvas(columns, 2.6) as (figure, axes):
        for i, (name, lengths, values) in enumerate(curves):
            style = {"color": shade(i, len(curves)), "linestyle": LINES[i % len(LINES)]}
            axes.plot(lengths, values, marker=MARKERS[i % len(MARKERS)], label=name, **style)
        axes.set(xlabel="length of the example (tokens, or pairs)", ylabel=MEASURE_LABELS.get(measure, measure))
        axes.set_ylim(-0.04, 1.04)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        legend_above(figure, axes, across=3)
    return figure


def _starred(family: Family) -> str:
    return f"{family.name} *" if family.cells[-1].at_edge else family.name

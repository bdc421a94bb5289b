"""Figure of a back-test: what each cut predicted of the runs above it."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from analysis.drawing import (
    DARK,
    MARKERS,
    WARM,
    Columns,
    FigureError,
    canvas,
    legend_above,
    log_ticks,
    shade,
    told_apart,
)
from analysis.studies import Backtest

QUANTITIES = {"flops": "compute (FLOP)", "budget_flops": "budget (FLOP)", "params": "params", "tokens": "tokens"}


def backtest_errors(backtest: Backtest, columns: Columns = "two") -> Figure:
    """Error of every scored run against how far beyond its cut it lies, and each cut's mean error and hit rate.

    Left: predicted minus measured; a dot is a scored run of some cut, a line the mean of one cut's dots. Right: mean
    absolute error of the runs above each cut, and the share of them inside their interval beside what it promised.
    """
    cuts = [cut for cut in backtest.cuts if not cut.reason]
    if not cuts:
        raise FigureError("backtest: no cut has a fit. Fix: cut higher, or choose a law with fewer constants.")
    quantity = QUANTITIES.get(backtest.by, backtest.by)
    unit = f" ({backtest.unit})" if backtest.unit else ""
    shape = (1, 2) if columns == "two" else (2, 1)
    legend_rows = -(-len(cuts) // (7 if columns == "two" else 4))
    labels = told_apart([cut.below for cut in cuts])
    with canvas(columns, (2.6 if columns == "two" else 4.6) + 0.15 * legend_rows, shape) as (figure, panels):
        errors, summary = panels.flat
        errors.axhline(0.0, color="0.5", linewidth=0.8)
        for i, cut in enumerate(cuts):
            beyond, error = cut.at * cut.furthest / cut.at.max(), cut.predicted - cut.measured
            errors.plot(beyond, error, ".", color="0.8", markersize=2, zorder=1, rasterized=True)
            style = {"color": shade(i, len(cuts)), "marker": MARKERS[i % len(MARKERS)], "linewidth": 0.9}
            errors.plot(*_means(beyond, error), **style, label=labels[i])
        errors.set(
            xscale="log",
            xlabel=f"{quantity.split(' (')[0]} / largest fitted",
            ylabel=f"predicted minus measured\n{backtest.output}{unit}",
        )
        log_ticks(errors.xaxis)
        errors.yaxis.set_major_locator(MaxNLocator(6))
        at = np.array([cut.below for cut in cuts])
        summary.plot(at, [cut.mean_absolute_error for cut in cuts], "o-", color=DARK)
        summary.set(
            xscale="log",
            xlabel=f"fitted below, {quantity}",
            ylabel=f"mean absolute error\n{unit.strip()}".strip(),
            ylim=(0, 1.1 * max(cut.mean_absolute_error for cut in cuts) or None),  # room for the highest mark
        )
        log_ticks(summary.xaxis)
        rate = summary.twinx()
        rate.plot(
            at, [cut.hit_rate for cut in cuts], "s--", color=WARM, markerfacecolor="white", label="inside interval"
        )
        rate.axhline(backtest.level, color=WARM, linewidth=0.7, linestyle=":")
        rate.set(ylim=(0, 1.05), ylabel=f"share inside the {backtest.level:.0%} interval")
        rate.yaxis.set_major_formatter(PercentFormatter(1.0))
        rate.grid(False)
        rate.spines["right"].set_visible(True)
        handles = [summary.lines[0], rate.lines[0]]
        texts = ["mean absolute error", f"inside interval (promised {backtest.level:.0%}, dotted)"]
        summary.legend(handles, texts, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
        legend_above(figure, errors, f"fitted below, {quantity}", across=7 if columns == "two" else 4)
    return figure


def _means(beyond: np.ndarray, error: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Geometric mean distance and mean error of the runs in each third of a decade."""
    third = np.floor(3 * np.log10(beyond) + 1e-9)
    groups = [third == value for value in np.unique(third)]
    return (
        np.array([np.exp(np.mean(np.log(beyond[group]))) for group in groups]),
        np.array([np.mean(error[group]) for group in groups]),
    )

"""Figures of what the data leave open: profile likelihoods, bootstrap clouds, exponents side by side."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.drawing import DARK, STAR, WARM, Columns, FigureError, arms, canvas, log_ticks
from analysis.fit import Fit
from analysis.intervals import Estimate, Interval, Profile
from analysis.laws import Parameter

ZERO = 1e-9  # of a positive constant's 95th percentile: what resamples put below it lies at zero
NO_WIDTH = 1e-6  # relative: draws that differ by less are drawn as equal
OURS = {"fmt": "o", "color": DARK, "markersize": 4, "elinewidth": 1.1, "capsize": 2}
THEIRS = {"fmt": "s", "color": WARM, "markersize": 3.5, "markerfacecolor": "white", "elinewidth": 0.9, "capsize": 2}


def bootstrap_cloud(estimate: Estimate, level: float, columns: Columns = "two") -> Figure:
    """Every pair of a law's constants as the bootstrap drew them, and each one's distribution on the diagonal.

    A narrow slanted cloud means that only a combination of the two is known. In one column only the last two constants
    of the law are drawn. Constants that cannot be negative have logarithmic axes, and where some resamples put one at
    zero these stand at the axis' lower edge.
    """
    law = estimate.fit.law
    parameters = list(law.parameters) if columns == "two" else list(law.parameters)[-2:]
    at = [law.names.index(parameter.name) for parameter in parameters]
    count = len(parameters)
    shown = [_at_edge(estimate.draws[:, i]) if _logarithmic(law.parameters[i]) else estimate.draws[:, i] for i in at]
    with canvas(columns, 6.0 if columns == "two" else 3.2, (count, count), sharex="col") as (figure, axes):
        for row, below in enumerate(parameters):
            for across, beside in enumerate(parameters):
                panel = axes[row][across]
                if across > row:
                    panel.set_axis_off()
                    continue
                x, y = shown[across], shown[row]
                panel.set_xscale("log" if _logarithmic(beside) else "linear")
                if across == row:
                    _histogram(panel, x, estimate.intervals[beside.name], _logarithmic(beside))
                else:
                    panel.plot(x, y, ".", color=DARK, markersize=2, alpha=0.35, rasterized=True)
                    best = [estimate.fit.values[parameter.name] for parameter in (beside, below)]
                    panel.plot(max(best[0], x.min()), max(best[1], y.min()), **STAR)
                    panel.set_yscale("log" if _logarithmic(below) else "linear")
                _name(panel, row, across, count, below.name, beside.name)
        figure.align_ylabels(axes[1:, 0])  # of those that have one: each looks at all the ticks of the others
        figure.align_xlabels(axes[-1])
        note = f"bars: {level:.0%} intervals; stars: the fit"
        if any((drawn > estimate.draws[:, i]).any() for drawn, i in zip(shown, at, strict=True)):
            note += "\nat a lower edge: zero, or nearly"
        text = axes[0][-1].text(1.0, 1.0, note, transform=axes[0][-1].transAxes, ha="right", va="top", fontsize=6.5)
        text.set_in_layout(False)  # it lies over panels that are empty
    return figure


def _logarithmic(parameter: Parameter) -> bool:
    return parameter.low >= 0 and np.isinf(parameter.high)


def _at_edge(draws: np.ndarray) -> np.ndarray:
    """Draws of a positive constant, those at its bound of zero moved to a hundredth of where the others begin."""
    others = draws[draws >= ZERO * np.quantile(draws, 0.95)]
    return np.maximum(draws, 0.01 * np.quantile(others, 0.05))


def profile_likelihoods(profiles: Mapping[str, Profile], result: Fit, level: float, columns: Columns = "two") -> Figure:
    """How much worse the best fit gets when one constant is held: the root of the deviance, one panel per constant.

    The interval is where the curve lies below the dashed line. A straight V is what a linear law would give; a curve
    that never crosses the line on one side leaves the constant open there, and says so.
    """
    law, count = result.law, len(profiles)
    across = min(count, 3 if columns == "two" else 2)
    rows = -(-count // across)
    with canvas(columns, 1.55 * rows + 0.2, (rows, across), sharey=True) as (figure, panels):
        for panel, (name, found) in zip(panels.flat, profiles.items()):
            root, line = np.sqrt(found.deviance), np.sqrt(found.threshold)
            shown = root <= 3 * line
            values = found.values[shown]
            panel.plot(values, root[shown], ".-", color=DARK, markersize=3.5)
            panel.axhline(line, color=WARM, linestyle="--", linewidth=0.9)
            panel.plot(result.values[name], 0.0, **STAR)
            parameter = next(p for p in law.parameters if p.name == name)
            if _logarithmic(parameter) and values[0] > 0 and values[-1] > 4 * values[0]:
                panel.set_xscale("log")
                log_ticks(panel.xaxis, 3)
            else:
                panel.xaxis.set_major_locator(MaxNLocator(4))
            panel.set(xlabel=name, ylim=(-0.15 * line, 2.2 * line))
            open_sides = [
                s for s, closed in (("below", found.closed_below), ("above", found.closed_above)) if not closed
            ]
            if open_sides:
                text = f"open {' and '.join(open_sides)}"
                panel.text(0.5, 0.97, text, transform=panel.transAxes, ha="center", va="top", fontsize=6.5)
        for panel in panels.flat[count:]:
            panel.set_axis_off()
        for panel in panels[:, 0]:
            panel.set_ylabel("root of the deviance")
        lines = panels.flat[0].lines
        texts = ["best fit with the constant held", f"{level:.0%} limit", "the fit"]
        figure.legend(lines[:3], texts, loc="outside upper center", ncols=3)
    return figure


def exponents_compared(
    exponents: Mapping[str, Mapping[str, Interval]],
    level: float,
    columns: Columns = "two",
    published: Mapping[str, Mapping[str, Interval]] | None = None,
    label: str = "exponent",
) -> Figure:
    """Exponents with intervals, one panel per quantity, one line per table: {quantity: {table: interval}}.

    published: what others printed for the same quantity and table, drawn below each in a second mark.
    """
    if not exponents or not all(exponents.values()):
        raise FigureError("exponents: nothing to compare. Fix: give at least one table for each quantity.")
    tables = list(dict.fromkeys(name for found in exponents.values() for name in found))
    across = len(exponents) if columns == "two" else 1
    rows = 1 if columns == "two" else len(exponents)
    height = (0.75 + 0.22 * len(tables)) * rows + (0.3 if published else 0.1)
    with canvas(columns, height, (rows, across), sharey=True) as (figure, panels):
        for panel, (quantity, found) in zip(panels.flat, exponents.items()):
            _draw_marks(panel, tables, found, -0.12 if published else 0.0, OURS)
            _draw_marks(panel, tables, (published or {}).get(quantity, {}), 0.16, THEIRS)
            panel.set(title=quantity, xlabel=f"{label}, {level:.0%} interval")
            panel.set_yticks(range(len(tables)), tables)
            panel.set_ylim(len(tables) - 0.5, -0.5)
            panel.tick_params(axis="y", length=0)
            panel.xaxis.set_major_locator(MaxNLocator(5))
        if published:
            marks = [figure.axes[0].errorbar([], [], xerr=[], **style) for style in (OURS, THEIRS)]
            figure.legend(marks, ["this fit", "published"], loc="outside upper right", ncols=2)
    return figure


def _draw_marks(panel, tables: Sequence[str], found: Mapping[str, Interval], shift: float, style: dict) -> None:
    for line, name in enumerate(tables):
        if name in found:
            mark = found[name]
            panel.errorbar(mark.value, line + shift, xerr=arms(mark), **style)


def _histogram(panel, draws: np.ndarray, interval: Interval, logarithmic: bool) -> None:
    low, high = np.quantile(draws, [0.002, 0.998])
    room = max(NO_WIDTH * max(abs(low), abs(high)) - (high - low), 0.0) or float(low == high)
    low, high = low - 0.5 * room, high + 0.5 * room  # draws that agree, as of a law that meets its points exactly
    edges = np.geomspace(low, high, 25) if logarithmic and low > 0 else np.linspace(low, high, 25)
    counts, _, _ = panel.hist(draws, bins=edges, color="0.75", histtype="stepfilled")
    ends = np.clip([interval.low, interval.high], draws.min(), draws.max())  # an open end is where the draws end
    panel.plot(ends, [counts.max() * 1.08] * 2, "|-", color="black", linewidth=1)
    panel.plot(max(interval.value, draws.min()), counts.max() * 1.08, **STAR)


def _name(panel, row: int, across: int, count: int, below: str, beside: str) -> None:
    if panel.get_xscale() == "log":
        log_ticks(panel.xaxis, 3)
    if row == across:
        panel.set_yticks([])
        panel.grid(False)
    elif panel.get_yscale() == "log":
        log_ticks(panel.yaxis, 3)
    panel.minorticks_off()  # in panels this small they are a grey bar, and half the time of the figure
    if row == count - 1:
        panel.set_xlabel(beside)
        panel.tick_params(axis="x", labelrotation=45)
    if across == 0 and row > 0:
        panel.set_ylabel(below)
    elif across > 0:
        panel.tick_params(labelleft=False)

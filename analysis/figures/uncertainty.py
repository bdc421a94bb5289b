"""Figures of what the data leave open: profile likelihoods, bootstrap clouds, exponents side by side."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.drawing import DARK, STAR, WARM, Columns, FigureError, arms, canvas
from analysis.figures.constants import NO_WIDTH, ConstantAxis, constant_axis
from analysis.intervals import AT_BOUND, NOT_DETERMINED, Estimate, Interval, Profile
from analysis.intervals.interval import DEGENERATE
from analysis.laws import Parameter

WIDEST_BAR = 4.0  # widths of a profile that its axis grows by, either way, to hold an interval's end
OURS = {"fmt": "o", "color": DARK, "markersize": 4, "elinewidth": 1.1, "capsize": 2}
THEIRS = {"fmt": "s", "color": WARM, "markersize": 3.5, "markerfacecolor": "white", "elinewidth": 0.9, "capsize": 2}


def bootstrap_cloud(estimate: Estimate, level: float, columns: Columns = "two") -> Figure:
    """Every pair of a law's constants as the bootstrap drew them, and each one's distribution on the diagonal.

    A narrow slanted cloud means that only a combination of the two is known. In one column only the last two constants
    of the law are drawn. Bars are the estimate's own intervals, which stand above them; where a profile likelihood does
    not close, or an interval is not determined, they go on beyond the resamples, and an arrow says so. A constant at
    its bound of zero is drawn there; on a logarithmic axis, what some resamples put at zero stands at its lower edge.
    """
    law = estimate.fit.law
    parameters = list(law.parameters) if columns == "two" else list(law.parameters)[-2:]
    count, note = len(parameters), [f"bars: {level:.0%} intervals; stars: the fit"]
    draws = {p.name: estimate.draws[:, law.names.index(p.name)] for p in parameters}
    laid = {p.name: constant_axis(p, estimate.intervals[p.name], draws[p.name]) for p in parameters}
    with canvas(columns, 6.0 if columns == "two" else 3.2, (count, count), sharex="col") as (figure, axes):
        beyond = False
        for row, below in enumerate(laid):
            for across, beside in enumerate(laid):
                panel = axes[row][across]
                if across > row:
                    panel.set_axis_off()
                    continue
                x, y = laid[beside].shown(draws[beside]), laid[below].shown(draws[below])
                if across == row:
                    beyond |= _histogram(panel, laid[beside], x)
                else:
                    panel.plot(x, y, ".", color=DARK, markersize=2, alpha=0.35, rasterized=True)
                    panel.plot(*(laid[name].shown(laid[name].interval.value) for name in (beside, below)), **STAR)
                    laid[below].set(panel.yaxis)
                laid[beside].set(panel.xaxis)
                _name(panel, row, across, count, below, beside)
        figure.align_ylabels(axes[1:, 0])  # of those that have one: each looks at all the ticks of the others
        figure.align_xlabels(axes[-1])
        if beyond:
            note.append("arrows: an interval goes on beyond the resamples")
        if any(axis.at_edge for axis in laid.values()):
            note.append("at a lower edge: zero, or nearly")
        at = {"transform": axes[0][-1].transAxes, "ha": "right", "va": "top", "fontsize": 6.5}
        text = axes[0][-1].text(1.0, 1.0, "\n".join(note), **at)
        text.set_in_layout(False)  # it lies over panels that are empty
    return figure


def profile_likelihoods(
    profiles: Mapping[str, Profile], estimate: Estimate, level: float, columns: Columns = "two"
) -> Figure:
    """How much worse the best fit gets when one constant is held: the root of the deviance, one panel per constant.

    The profile's own interval is where the curve lies below the dashed line; it takes all points as independent and
    their noise as normal. The estimate's interval, which resamples made, is the bar at the bottom. A straight V is what
    a linear law would give; a curve that never crosses the line on one side leaves the constant open there, and says
    so.
    """
    parameters, count = {p.name: p for p in estimate.fit.law.parameters}, len(profiles)
    across = min(count, 3 if columns == "two" else 2)
    rows = -(-count // across)
    with canvas(columns, 1.55 * rows + 0.35, (rows, across), sharey=True) as (figure, panels):
        beyond = False
        for panel, (name, found) in zip(panels.flat, profiles.items()):
            beyond |= _draw_profile(panel, parameters[name], found, estimate.intervals[name])
        for panel in panels.flat[count:]:
            panel.set_axis_off()
        for panel in panels[:, 0]:
            panel.set_ylabel("root of the deviance")
        texts = [
            "best fit with the constant held",
            f"profile's {level:.0%} limit",
            f"{level:.0%} interval of the table",
        ]
        if beyond:
            texts[-1] += " (arrows: goes on)"
        handles = [*panels.flat[0].lines[:3], next(x for x in panels.flat[0].lines if x.get_marker() == "*")]
        figure.legend(handles, [*texts, "the fit"], loc="outside upper center", ncols=4 if columns == "two" else 2)
    return figure


def _draw_profile(panel: Axes, parameter: Parameter, found: Profile, interval: Interval) -> bool:
    """One constant's panel, and whether its interval goes on beyond it."""
    root, line = np.sqrt(found.deviance), np.sqrt(found.threshold)
    values = found.values[root <= 3 * line]
    ends = [end for end in (interval.low, interval.high) if interval.note != NOT_DETERMINED and _near(values, end)]
    axis = constant_axis(parameter, interval, values, ends)
    panel.plot(axis.shown(values), root[root <= 3 * line], ".-", color=DARK, markersize=3.5)
    panel.axhline(line, color=WARM, linestyle="--", linewidth=0.9)
    beyond = axis.bar(panel, -0.28 * line)
    axis.star(panel, 0.0)
    axis.set(panel.xaxis)
    panel.set(xlabel=parameter.name, ylim=(-0.5 * line, 2.2 * line))
    open_sides = [s for s, closed in (("below", found.closed_below), ("above", found.closed_above)) if not closed]
    if open_sides and interval.note != AT_BOUND:
        text = f"open {' and '.join(open_sides)}"
        panel.text(0.5, 0.97, text, transform=panel.transAxes, ha="center", va="top", fontsize=6.5)
    return beyond


def _near(values: np.ndarray, end: float) -> bool:
    """Whether an axis that holds `end`, too, still shows how ascending `values` run: on some scale it may have."""
    if not np.isfinite(end):
        return False
    low, high = values[0], values[-1]
    linear = max(low - end, end - high) < WIDEST_BAR * (high - low)
    return linear or bool(min(low, end) > 0 and max(low / end, end / high) < (high / low) ** WIDEST_BAR)


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


def _histogram(panel: Axes, axis: ConstantAxis, draws: np.ndarray) -> bool:
    """A constant's resamples under its interval, and whether that goes on beyond them."""
    low, high = np.quantile(draws, [0.002, 0.998])
    if high - low <= NO_WIDTH * max(abs(low), abs(high)):  # draws that agree, as of a law that meets its points exactly
        low, high = axis.limits
    edges = np.geomspace(low, high, 26) if axis.logarithmic and low > 0 else np.linspace(low, high, 26)
    counts, _, _ = panel.hist(draws, bins=edges, color="0.75", histtype="stepfilled")
    beyond = axis.bar(panel, counts.max() * 1.08)
    axis.star(panel, counts.max() * 1.08)
    panel.set_title(_ends(axis.interval), fontsize=6, pad=3)
    return beyond


def _ends(interval: Interval) -> str:
    """The ends of an interval as the table of constants has them."""
    if interval.note in (NOT_DETERMINED, DEGENERATE):
        return interval.note
    ends = (0.0 if abs(end) < interval.zero else end for end in (interval.low, interval.high))
    low, high = ("open" if np.isinf(end) else f"{end:.4g}" for end in ends)
    return f"{low} to {high}"


def _name(panel: Axes, row: int, across: int, count: int, below: str, beside: str) -> None:
    if row == across:
        panel.set_yticks([])
        panel.grid(False)
    panel.minorticks_off()  # in panels this small they are a grey bar, and half the time of the figure
    if row == count - 1:
        panel.set_xlabel(beside)
        panel.tick_params(axis="x", labelrotation=45)
    if across == 0 and row > 0:
        panel.set_ylabel(below)
    elif across > 0:
        panel.tick_params(labelleft=False)

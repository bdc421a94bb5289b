"""The look that every figure shares: sizes, marks, ticks, and how a figure becomes files.

`paper.mplstyle` holds the rest, the look of legends included; `legend_above` puts one outside the axes. Series differ
by marker, lightness and line style, so nothing depends on colour alone.
"""

import contextlib
import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import matplotlib
import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import (
    LogFormatterSciNotation,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    NullLocator,
    ScalarFormatter,
)

from analysis.files import write_atomically
from analysis.intervals import Interval

WIDTH_INCHES = {"one": 3.35, "two": 6.9}
STYLE = Path(__file__).with_name("paper.mplstyle")
MARKERS = "os^Dv<>PX*"
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 2)))
DARK, WARM, GREY = "#1f3b73", "#b35806", "0.55"  # lightness 0.24, 0.45 and 0.55: apart in grey as well
STAR = {
    "marker": "*",
    "markersize": 6.5,
    "color": "white",
    "markeredgecolor": "black",
    "markeredgewidth": 0.7,
    "linestyle": "none",
    "zorder": 4,
}
STAR_WITH_BAR = STAR | {"ecolor": "black", "elinewidth": 1.0, "capsize": 2.5}
MANY_DOTS = 300  # in one panel: more cover each other
Columns = Literal["one", "two"]


class FigureError(ValueError):
    """A figure cannot be drawn; the message names what is missing and the fix."""


def save(figure: Figure, stem: Path | str) -> list[Path]:
    """Write `<stem>.png` and `<stem>.pdf`, without dates, so that the same study gives the same bytes."""
    paths = [Path(f"{stem}.png"), Path(f"{stem}.pdf")]
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.style.context(STYLE):
        # Laid out once, so that both files look alike; left to itself, matplotlib does so three times, at most of the
        # cost of a figure. At the dots of the PNG, on which the widths of letters depend.
        figure.set_dpi(matplotlib.rcParams["savefig.dpi"])
        layout = figure.get_layout_engine()
        if layout is not None:
            layout.execute(figure)
        figure.set_layout_engine("none")
        for path, metadata in zip(paths, ({}, {"CreationDate": None})):
            content = io.BytesIO()
            figure.savefig(content, format=path.suffix[1:], metadata=metadata)
            write_atomically(path, content.getvalue())
    return paths


@contextlib.contextmanager
def canvas(
    columns: Columns, height: float, panels: tuple[int, int] | None = None, **grid: object
) -> Iterator[tuple[Figure, Any]]:
    """A figure of printed width and `height` inches with its axes: one, or an array of them of shape `panels`."""
    if columns not in WIDTH_INCHES:
        raise FigureError(f"columns = {columns!r}: must be one of {', '.join(WIDTH_INCHES)}. Fix: choose one.")
    with matplotlib.style.context(STYLE):
        figure = Figure(figsize=(WIDTH_INCHES[columns], height))
        FigureCanvasAgg(figure)
        axes = figure.subplots(*(panels or (1, 1)), squeeze=False, **grid)
        yield figure, axes if panels else axes[0, 0]


def shade(index: int, count: int) -> tuple:
    """Colour of one of `count` ordered series, from dark to light."""
    return matplotlib.colormaps["cividis"](0.05 + 0.8 * index / max(count - 1, 1))


def dots(count: int, size: float = 3.5) -> dict[str, Any]:
    """Style of one dot among `count`: small and transparent where many lie on each other, and pixels in a PDF then."""
    if count <= MANY_DOTS:
        return {"marker": "o", "linestyle": "none", "markersize": size}
    share = (MANY_DOTS / count) ** 0.5
    return {
        "marker": "o",
        "linestyle": "none",
        "markersize": max(size * share, 0.9),
        "markeredgewidth": 0.0,
        "alpha": max(share, 0.25),
        "rasterized": True,
    }


def arms(interval: Interval) -> list[list[float]]:
    """An interval as the two arms of an error bar, each with one element."""
    return [[max(interval.value - interval.low, 0.0)], [max(interval.high - interval.value, 0.0)]]


def power_of_ten(value: float, digits: int = 2) -> str:
    """A value as it is printed in a legend: so many digits times a power of ten."""
    exponent = math.floor(math.log10(value) + 1e-9)
    factor = f"{value / 10**exponent:.{digits}g}"
    return rf"$10^{{{exponent}}}$" if factor == "1" else rf"${factor}\times10^{{{exponent}}}$"


def told_apart(values: Sequence[float]) -> list[str]:
    """Different values as they are printed in one legend: with two digits, or as many as tell all of them apart."""
    for digits in range(2, 17):
        labels = [power_of_ten(value, digits) for value in values]
        if len(set(labels)) == len(set(values)):
            break
    return labels


def legend_above(figure: Figure, axes: Axes, title: str | None = None, across: int = 4) -> None:
    """The legend of `axes` above the whole figure, so that it covers no point."""
    figure.legend(
        *axes.get_legend_handles_labels(),
        title=title,
        loc="outside upper center",
        ncols=across,
        columnspacing=1.0,
        handletextpad=0.3,
    )


# Ratio of a logarithmic axis' ends -> the ticks of a decade, where labels are powers of ten.
_WIDE_STEPS = {10.0: (1, 3), 4.0: (1, 2, 5), 1.9: (1, 2, 3, 5, 7)}


def log_ticks(axis: Axis, most: int = 5) -> None:
    """At most about `most` ticks on a logarithmic axis: plain numbers within a decade or so, else powers of ten."""
    low, high = sorted(axis.get_view_interval())
    if high / low < 30:
        # Even steps would crowd the ticks at the upper end of an axis that spans more than a few times its lower one.
        steps = next((steps for ratio, steps in _WIDE_STEPS.items() if high / low > ratio), None)
        if max(abs(math.log10(low)), abs(math.log10(high))) < 5:
            even = MaxNLocator(most, steps=[1, 2, 2.5, 5, 10])
            axis.set_major_locator(LogLocator(subs=steps) if high / low > 4 else even)
            axis.set_major_formatter(ScalarFormatter())
        else:  # labels are wide: few of them
            axis.set_major_locator(MaxNLocator(3) if steps is None else LogLocator(subs=steps))
            axis.set_major_formatter(LogFormatterSciNotation(minor_thresholds=(np.inf, np.inf)))
        axis.set_minor_locator(NullLocator())
        axis.set_minor_formatter(NullFormatter())
    else:
        axis.set_major_locator(LogLocator(numticks=most + 1))
        axis.set_minor_formatter(NullFormatter())


def mark_edge(axes: Axes, at: float, text: str = " extrapolated") -> None:
    """A dashed line where the fitted runs end."""
    axes.axvline(at, color="0.45", linewidth=0.7, linestyle=(0, (4, 3)), zorder=1)
    axes.text(at, 0.02, text, transform=axes.get_xaxis_transform(), fontsize=6, color="0.35", ha="left", va="bottom")

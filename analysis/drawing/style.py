"""The look that every figure shares: sizes, marks, legends.

`paper.mplstyle` holds the rest; `legend_above` puts a legend outside the axes. Series differ by marker, lightness and
line style, so nothing depends on colour alone.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import matplotlib
import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

if TYPE_CHECKING:
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


def arms(interval: "Interval") -> list[list[float]]:
    """An interval as the two arms of an error bar, each with one element."""
    return [[max(interval.value - interval.low, 0.0)], [max(interval.high - interval.value, 0.0)]]


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


def mark_edge(axes: Axes, at: float, text: str = "extrapolated", top: bool = False) -> None:
    """A dashed line where the fitted runs end, its text along it: at the foot, or at the top, where curves fall.

    Upright beside its line, the text has room on any axis that has a few points beyond it.
    """
    axes.axvline(at, color="0.45", linewidth=0.7, linestyle=(0, (4, 3)), zorder=1)
    axes.annotate(
        text, (at, 0.98 if top else 0.02), (2, 0), xycoords=axes.get_xaxis_transform(), textcoords="offset points",
        fontsize=6, color="0.35", rotation=90, ha="left", va="top" if top else "bottom",
    )  # fmt: skip

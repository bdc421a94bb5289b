"""Figure of a coordinate check: how far activations move at several sizes of a model."""

from collections.abc import Sequence
from typing import Protocol

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from analysis.drawing import LINES, MARKERS, Columns, FigureError, canvas, legend_above, log_ticks, shade


class Coordinate(Protocol):
    """One activation after one number of steps, as research/training/coordinates.py measures it."""

    activation: str
    step: int
    sizes: Sequence[int]
    changes: Sequence[float]
    slope: float


def coordinate_changes(coordinates: Sequence[Coordinate], by: str, columns: Columns = "two") -> Figure:
    """Left: change of each activation after the last step against the size, which `by` names. Right: slopes by step.

    A flat line on the left is one at zero on the right: the activation learns as fast at every size.
    """
    if not coordinates:
        raise FigureError("coordinates: there are none. Fix: check a model at two sizes or more.")
    names = list(dict.fromkeys(one.activation for one in coordinates))
    last = max(one.step for one in coordinates)
    shape = (1, 2) if columns == "two" else (2, 1)
    across = 3 if columns == "two" else 2
    with canvas(columns, (2.4 if columns == "two" else 4.4) + 0.15 * -(-len(names) // across), shape) as drawn:
        figure, (changes, slopes) = drawn[0], drawn[1].flat
        slopes.axhline(0.0, color="0.5", linewidth=0.8)
        for i, name in enumerate(names):
            own = [one for one in coordinates if one.activation == name]
            style = {"color": shade(i, len(names)), "linestyle": LINES[i % len(LINES)], "linewidth": 0.9}
            style |= {"marker": MARKERS[i % len(MARKERS)], "markersize": 3}
            end = next(one for one in own if one.step == last)
            changes.plot(end.sizes, end.changes, label=name, **style)
            slopes.plot([one.step for one in own], [one.slope for one in own], **style)
        changes.set(xscale="log", yscale="log", xlabel=by, ylabel=f"change after {last} steps (rms)")
        sizes = coordinates[0].sizes
        changes.set_xticks(sizes, labels=[str(size) for size in sizes])
        changes.xaxis.set_minor_locator(NullLocator())
        log_ticks(changes.yaxis)
        slopes.set(xlabel="step", ylabel=f"slope against log {by}")
        slopes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        legend_above(figure, changes, across=across)
    return figure

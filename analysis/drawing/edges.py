"""Points beyond a panel's axis, as triangles at its edge with their values."""

from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes

MOST_VALUES = 6  # at an edge that have their value beside them, the furthest first
FONT, LETTER = 5.5, 0.75  # size of a value in points, and the width of a letter and what is free around it, of that


def mark_beyond(
    panel: Axes,
    at: np.ndarray,
    values: np.ndarray,
    limits: tuple[float, float],
    text: Callable[[float], str],
    color: str,
    label: str | None = None,
) -> None:
    """Triangles at the ends of the panel's y axis for what lies outside its limits, which it then has.

    Values stand towards the middle, below each other where they would overlap. The x axis must have its scale, and all
    that sets its limits.
    """
    low, high = limits
    beyond = np.flatnonzero((values < low) | (values > high))
    far = sorted(beyond, key=lambda i: -max(values[i] - high, low - values[i]))
    for i in far:
        up = values[i] > high
        panel.plot(
            at[i], high if up else low, "^" if up else "v", color=color, markersize=4, clip_on=False, zorder=4,
            label=label,
        )  # fmt: skip
        label = None
    scale = np.log if panel.get_xscale() == "log" else np.asarray
    start, end = (float(scale(x)) for x in panel.get_xlim())
    taken: dict[bool, list[tuple[float, float, int]]] = {True: [], False: []}  # place, width and line of a value
    for i in far[:MOST_VALUES]:
        up, share, said = bool(values[i] > high), (float(scale(at[i])) - start) / (end - start), text(values[i])
        wide = LETTER * FONT * len(said) / (72 * panel.figure.get_size_inches()[0] * panel.get_position().width)
        beside = {line for place, width, line in taken[up] if abs(place - share) < (width + wide) / 2}
        line = next(line for line in range(1, MOST_VALUES + 1) if line not in beside)
        place = min(max(share, wide / 2), 1 - wide / 2)
        taken[up].append((place, wide, line))
        panel.annotate(
            said, (place, high if up else low), (0, (-7 if up else 7) * line), textcoords="offset points",
            xycoords=panel.get_yaxis_transform(), fontsize=FONT, zorder=4, va="center", ha="center",
        )  # fmt: skip
    panel.set_ylim(low, high)

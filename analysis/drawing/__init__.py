"""What every figure is drawn with: its look, its ticks, and how it becomes files. It knows nothing of laws or runs."""

from analysis.drawing.edges import mark_beyond
from analysis.drawing.saving import save, save_all
from analysis.drawing.style import (
    DARK,
    GREY,
    LINES,
    MANY_DOTS,
    MARKERS,
    STAR,
    STAR_WITH_BAR,
    STYLE,
    WARM,
    WIDTH_INCHES,
    Columns,
    FigureError,
    arms,
    canvas,
    dots,
    legend_above,
    mark_edge,
    shade,
)
from analysis.drawing.ticks import log_ticks, power_of_ten, told_apart

__all__ = [
    "DARK",
    "GREY",
    "LINES",
    "MANY_DOTS",
    "MARKERS",
    "STAR",
    "STAR_WITH_BAR",
    "STYLE",
    "WARM",
    "WIDTH_INCHES",
    "Columns",
    "FigureError",
    "arms",
    "canvas",
    "dots",
    "legend_above",
    "log_ticks",
    "mark_beyond",
    "mark_edge",
    "power_of_ten",
    "save",
    "save_all",
    "shade",
    "told_apart",
]

"""How a fitted constant lies along an axis: where zero is, whether it is logarithmic, and its interval as a bar."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import MaxNLocator

from analysis.drawing import STAR, log_ticks
from analysis.intervals import NOT_DETERMINED, Interval
from analysis.laws import Parameter

ZERO = 1e-9  # of a positive constant's 95th percentile: what resamples put below it lies at zero
NO_WIDTH = 1e-6  # relative: values that differ by less are drawn as one
ONE_VALUE = 0.05  # of it, either side: the axis of values drawn as one
LOGARITHMIC = 4.0  # largest over smallest, from which a positive constant's axis is logarithmic
FAR_ABOVE = 100.0  # an interval's end over the value, beyond which zero is no place on its axis
MARGIN = 0.05  # of an axis, either side
EDGE_SIZE = {"|": 6, "<": 3.5, ">": 3.5}  # of the mark of an end, and of one that lies beyond the axis


@dataclass(frozen=True)
class ConstantAxis:
    """One constant's axis, the same in every panel that shows it.

    zero: smaller values are nothing but how close a search came to a bound of zero, and are drawn at `floor`: 0, or the
    lower edge of a logarithmic axis. limits: the axis' own.
    """

    interval: Interval
    logarithmic: bool
    zero: float
    floor: float
    limits: tuple[float, float]

    @property
    def at_edge(self) -> bool:
        """Whether zero is drawn at an edge, an axis of logarithms having no place for it."""
        return self.floor > 0

    def shown(self, values: np.ndarray | float) -> np.ndarray:
        """Values where they are drawn."""
        return np.where(np.asarray(values) < self.zero, self.floor, values) if self.zero else np.asarray(values)

    def set(self, axis: Axis) -> None:
        """Scale, limits and ticks."""
        panel, way = axis.axes, axis.axis_name
        panel.set(**{f"{way}scale": "log" if self.logarithmic else "linear", f"{way}lim": self.limits})
        if self.logarithmic:
            log_ticks(axis, 3)
        else:
            axis.set_major_locator(MaxNLocator(3, steps=[1, 2, 2.5, 5, 10]))

    def bar(self, panel: Axes, height: float) -> bool:
        """The interval along the x axis, and whether it goes on beyond it, where an arrow says so."""
        known = self.interval.note != NOT_DETERMINED
        ends = np.array([self.interval.low, self.interval.high] if known else [-np.inf, np.inf])
        beyond = [bool(ends[0] < self.limits[0]), bool(ends[1] > self.limits[1])]
        if self.at_edge and ends[0] < self.zero:
            ends[0], beyond[0] = self.floor, False
        ends = np.clip(self.shown(ends), *self.limits)
        panel.plot(ends, [height] * 2, "-", color="black", linewidth=1, zorder=3.5)
        for end, past, arrow in zip(ends, beyond, "<>", strict=True):
            mark = arrow if past else "|"
            panel.plot(
                end, height, mark, color="black", markersize=EDGE_SIZE[mark], clip_on=False, zorder=3.5, label=mark
            )
        return any(beyond)

    def star(self, panel: Axes, height: float) -> None:
        """The fit."""
        panel.plot(self.shown(self.interval.value), height, **STAR)


def constant_axis(
    parameter: Parameter, interval: Interval, values: np.ndarray, held: Sequence[float] = ()
) -> ConstantAxis:
    """The axis that shows `values`, the interval's own value and what else it must hold.

    Logarithmic for a positive constant that varies by more than a factor of four, upwards too, and does not lie at
    zero, nor reaches it from nearby.
    """
    everything = np.array([*values, interval.value, *held], np.float64)
    positive = parameter.low >= 0
    zero = max(interval.zero, ZERO * float(np.quantile(everything, 0.95))) if positive else 0.0
    others = everything[everything >= zero] if zero else everything
    reaches = len(others) < len(everything) or (interval.low <= zero and interval.note != NOT_DETERMINED)
    logarithmic = positive and np.isinf(parameter.high) and interval.value > zero
    if reaches and interval.high < FAR_ABOVE * interval.value:
        logarithmic = False
    most, least = others.max(), others.min()  # on an axis that leads down to nearly zero, the value is at its upper end
    logarithmic = bool(logarithmic and most > LOGARITHMIC * least and most > LOGARITHMIC**0.5 * interval.value)
    floor = 0.01 * float(np.quantile(others, 0.05)) if logarithmic and len(others) < len(everything) else 0.0
    shown = np.where(everything < zero, floor, everything) if zero else everything
    return ConstantAxis(interval, logarithmic, zero, floor, _limits(shown, logarithmic))


def _limits(values: np.ndarray, logarithmic: bool) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    if high - low <= NO_WIDTH * max(abs(low), abs(high)):  # rounding, which has no ticks
        room = ONE_VALUE * max(abs(low), abs(high)) or 1.0
        return low - room, high + room
    if logarithmic:
        room = (high / low) ** MARGIN
        return low / room, high * room
    return low - MARGIN * (high - low), high + MARGIN * (high - low)

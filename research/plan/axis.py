"""One axis of a search: a field of the run's config, and the values that it may take."""

import itertools
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from research.config import check, check_choice

DIGITS = 3  # significant ones of a value that is no whole number: a run's name hangs on all of them
CONTINUOUS = ("log", "linear")

Value = float | int | str | bool
Scale = Literal["log", "linear", "integer", "power_of_two", "choices"]


@dataclass(frozen=True)
class Axis:
    """Values of a field of the run's config: Axis("optimizer.learning_rate", 1e-4, 1e-2).

    field: dotted, as --set writes it below `base`. low, high: the ends, both of them values. scale: "log" is even in
    ratios, "linear" in differences, "integer" the whole numbers, "power_of_two" the whole powers of two; "choices" has
    those in `choices` instead, as --set writes them. in_grid: how many of them a grid has, ends included; none for all,
    of a scale that has a number of them. Values that are no whole numbers are rounded to DIGITS significant digits.
    """

    field: str
    low: float | None = None
    high: float | None = None
    scale: Scale = "log"
    choices: tuple[float | str, ...] = ()
    in_grid: int | None = None

    def __post_init__(self):
        check_choice("axes.scale", self.scale, ("log", "linear", "integer", "power_of_two", "choices"))
        if self.scale == "choices":
            self._check_choices()
        else:
            self._check_range()
        check(
            self.in_grid is None or self.in_grid >= 2,
            f"axes: in_grid of {self.field}",
            self.in_grid,
            "must be at least 2, the ends",
            "raise it, or leave it out",
        )
        if self.scale == "power_of_two":
            check(len(self.every) > 0, f"axes: {self.field}", self.ends, "holds no power of two", "widen it")

    def _check_choices(self) -> None:
        check(
            len(set(self.choices)) == len(self.choices) >= 2,
            f"axes: choices of {self.field}",
            self.choices,
            "must be at least two different values",
            "add some, or set base instead",
        )
        check(
            self.low is self.high is self.in_grid is None,
            f"axes: {self.field}",
            self.ends,
            "has choices, and so neither ends nor a number in_grid",
            "drop low, high and in_grid",
        )

    def _check_range(self) -> None:
        check(
            not self.choices,
            f"axes: choices of {self.field}",
            self.choices,
            f"are given beside scale {self.scale!r}",
            'drop them, or write scale="choices"',
        )
        check(
            self.low is not None and self.high is not None and self.low < self.high < math.inf,
            f"axes: {self.field}",
            self.ends,
            "must have low < high",
            "order them, or leave the axis out and set base instead",
        )
        check(
            self.low > 0 or self.scale not in ("log", "power_of_two"),
            f"axes: low of {self.field}",
            self.low,
            f"must be above zero on scale {self.scale!r}",
            'raise it, or write scale="linear"',
        )
        check(
            self.scale != "integer" or (float(self.low).is_integer() and float(self.high).is_integer()),
            f"axes: {self.field}",
            self.ends,
            "must have whole ends on scale 'integer'",
            "round them",
        )

    @property
    def ends(self) -> tuple[float | None, float | None]:
        return self.low, self.high

    @property
    def is_ordered(self) -> bool:
        """Whether there is anything beyond its ends."""
        return self.scale != "choices"

    @cached_property
    def every(self) -> tuple[Value, ...] | None:
        """Every value, None of a continuous scale."""
        if self.scale == "choices":
            return self.choices
        if self.scale == "integer":
            return tuple(range(int(self.low), int(self.high) + 1))
        if self.scale == "power_of_two":
            first, last = math.ceil(math.log2(self.low)), math.floor(math.log2(self.high))
            return tuple(2**power for power in range(first, last + 1))
        return None

    def at(self, share: float) -> Value:
        """The value at a share of the way from one end to the other, in [0, 1]."""
        if self.every is not None:
            return self.every[min(int(share * len(self.every)), len(self.every) - 1)]
        if self.scale == "log":
            value = self.low * (self.high / self.low) ** share
        else:
            value = self.low + (self.high - self.low) * share
        return min(max(rounded(value), self.low), self.high)

    def grid(self) -> tuple[Value, ...]:
        """Its values in a grid. Raises ConfigError where their number is not known, or there are fewer."""
        check(
            self.in_grid is not None or self.every is not None,
            f"axes: in_grid of {self.field}",
            None,
            f"must be given, since a grid has some of the values on scale {self.scale!r}",
            "write in_grid=5",
        )
        if self.in_grid is None:
            return self.every
        values = tuple(dict.fromkeys(self.at(i / (self.in_grid - 1)) for i in range(self.in_grid)))
        check(
            self.in_grid == len(values),
            f"axes: in_grid of {self.field}",
            self.in_grid,
            f"is more than the {len(values)} different values that it has, rounded",
            "lower it, or widen the axis",
        )
        return values

    def beyond(self, value: Value, upwards: bool, count: float) -> Value | None:
        """The next value outwards of one that lies at an end of those tried, a step of the sweep away.

        count: how many values, spread evenly from end to end, would be as dense as the sweep was. None where there is
        none.
        """
        way = 1 if upwards else -1
        if self.scale == "power_of_two":
            return value * 2 if upwards else (value // 2 or None)
        if self.scale == "integer":
            return value + way * max(1, round((self.high - self.low) / (count - 1)))
        if self.scale == "log":
            further = rounded(value * (self.high / self.low) ** (way / (count - 1)))
        else:
            further = rounded(value + way * (self.high - self.low) / (count - 1))
        return None if further == value else further


def rounded(value: float) -> float:
    """To DIGITS significant digits."""
    return float(f"{value:.{DIGITS}g}")


def product(axes: tuple[Axis, ...]) -> list[tuple[Value, ...]]:
    """Every combination of the axes' values in a grid, the last axis varying fastest."""
    return list(itertools.product(*(axis.grid() for axis in axes)))

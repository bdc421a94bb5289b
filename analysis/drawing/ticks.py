"""Ticks of logarithmic axes, and numbers as figures print them."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axis import Axis
from matplotlib.ticker import (
    LogFormatterSciNotation,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    NullLocator,
    ScalarFormatter,
)

SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def power_of_ten(value: float, digits: int = 2) -> str:
    """A value as it is printed in a legend or at a tick: so many digits times a power of ten.

    In superscript letters: matplotlib's own, parsed as a formula at each drawing, take a tenth of a figure's time.
    """
    exponent = math.floor(math.log10(value) + 1e-9)
    factor, power = f"{value / 10**exponent:.{digits}g}", f"10{str(exponent).translate(SUPERSCRIPT)}"
    return power if factor == "1" else f"{factor}×{power}"


def told_apart(values: Sequence[float]) -> list[str]:
    """Different values as they are printed in one legend: with two digits, or as many as tell all of them apart."""
    for digits in range(2, 17):
        labels = [power_of_ten(value, digits) for value in values]
        if len(set(labels)) == len(set(values)):
            break
    return labels


class _PowersOfTen(LogFormatterSciNotation):
    """Labels the ticks that matplotlib would, with `power_of_ten`, to as many digits as tell them apart."""

    def __call__(self, x, pos=None):
        return power_of_ten(x) if super().__call__(x, pos) else ""

    def format_ticks(self, values):
        labelled = [x for x, label in zip(values, super().format_ticks(values), strict=True) if label]
        labels = dict(zip(labelled, told_apart(labelled), strict=True)) if labelled else {}
        return [labels.get(x, "") for x in values]


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
            axis.set_major_formatter(_PowersOfTen(minor_thresholds=(np.inf, np.inf)))
        axis.set_minor_locator(NullLocator())
        axis.set_minor_formatter(NullFormatter())
    else:
        axis.set_major_locator(LogLocator(numticks=most + 1))
        axis.set_major_formatter(_PowersOfTen())
        axis.set_minor_formatter(NullFormatter())

"""Points of a search that depend on no result: random ones, and the low-discrepancy sequences of Sobol and Halton."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import qmc

from research.config import ConfigError
from research.plan.axis import Axis, Value

MOST_DRAWN = 256  # times the points asked for, and at least this many, before rounding them leaves too few different


def drawn(axes: Sequence[Axis], method: str, count: int, seed: int) -> tuple[tuple[Value, ...], ...]:
    """The first `count` different points of a sequence: more points of the same seed begin with the same.

    method: "random", "sobol" or "halton", both scrambled (Owen 1995; Owen 2017) by scipy.stats.qmc. Raises ConfigError
    where the axes have not so many points.
    """
    size = 1 << (count - 1).bit_length()
    while True:
        points = dict.fromkeys(
            tuple(axis.at(share) for axis, share in zip(axes, row, strict=True))
            for row in unit_points(method, len(axes), size, seed).tolist()
        )
        if len(points) >= count:
            return tuple(points)[:count]
        if size > MOST_DRAWN * count:
            raise ConfigError(
                f"points = {count}: only {len(points)} different ones were found on these axes, values being rounded. "
                'Fix: lower it, widen the axes, or write method="grid".'
            )
        size *= 2


def unit_points(method: str, dimensions: int, size: int, seed: int) -> np.ndarray:
    """The first points of a sequence in the unit cube: (size, dimensions); size: a power of two, as Sobol's are even
    then alone."""
    generator = np.random.default_rng(seed)
    if method == "random":
        return generator.random((size, dimensions))
    if method == "halton":
        return qmc.Halton(dimensions, scramble=True, seed=generator).random(size)
    return qmc.Sobol(dimensions, scramble=True, seed=generator).random_base2(size.bit_length() - 1)

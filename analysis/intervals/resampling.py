"""Which points a resample holds: how often each point occurs, for the bootstrap and for the jackknife."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.fit import FitError, Points
from analysis.tables.columns import some_of

MOST_LEFT_OUT = 200  # parts that the jackknife leaves out in turn; with more units than that, a part is several


@dataclass(frozen=True)
class Resampling:
    """How points are drawn with replacement.

    by: cluster by this column, whose equal values are drawn together, for points that are not independent (checkpoints
    of one run, runs of one seed); "" draws single points. within: stratify by this column (e.g. budget_flops); each
    stratum keeps its number of draws; "" draws from all points.
    """

    by: str = ""
    within: str = ""

    def __str__(self) -> str:
        unit = f"groups of equal {self.by}" if self.by else "points"
        return f"{unit} within each {self.within}" if self.within else unit

    def units(self, table: pd.DataFrame, points: Points) -> np.ndarray:
        """The number of the unit that each point of a complete table belongs to: (points,).

        Raises FitError where there are fewer than 3 units.
        """
        if not self.by:
            return np.arange(len(points.runs))
        units = _codes(table, points, self.by)
        if units.max() + 1 < FEWEST_UNITS:
            raise FitError(
                f"{self.by}: {units.max() + 1} different values in the usable points; a bootstrap of groups needs at "
                f"least {FEWEST_UNITS}, and many to be trusted. Fix: resample single points."
            )
        return units

    def strata(self, table: pd.DataFrame, points: Points, units: np.ndarray) -> np.ndarray:
        """The number of the stratum of each unit. Raises FitError where a unit lies in two."""
        if not self.within:
            return np.zeros(units.max() + 1, int)
        of_point = _codes(table, points, self.within)
        of_unit = np.zeros(units.max() + 1, int)
        of_unit[units] = of_point
        if np.any(of_unit[units] != of_point):
            raise FitError(
                f"{self.within}: differs inside a group of equal {self.by}, which is drawn as a whole. "
                "Fix: stratify by a column that is constant in each group."
            )
        return of_unit


POINTS = Resampling()
FEWEST_UNITS = 3


def by_run(resampling: Resampling, runs: Sequence[str]) -> tuple[Resampling, tuple[str, ...]]:
    """The resampling of points that belong to `runs`, and what is to be said of it.

    Points of one run are not independent, so they are drawn together unless other groups are asked for.
    """
    count = len(set(runs))
    if count == len(runs):
        return resampling, ()
    found = f"{len(runs)} rows of {count} runs: rows of one run are not independent"
    if resampling.by == "run":
        return resampling, (f"{found}, and are resampled by run",)
    if resampling.by:
        return resampling, (f"{found}; resampled by {resampling.by}",)
    if count < FEWEST_UNITS:
        return resampling, (f"{found}, and {count} cannot be resampled by run: intervals hold no noise between runs",)
    return Resampling("run", resampling.within), (f"{found}, and are resampled by run",)


def _codes(table: pd.DataFrame, points: Points, column: str) -> np.ndarray:
    if column not in table.columns:
        raise FitError(
            f"{column}: no such column to resample by; present: {some_of(table.columns, column)}. Fix: name one."
        )
    values = table[column].iloc[points.rows]
    if values.isna().any():
        run = points.runs[int(np.flatnonzero(values.isna())[0])]
        raise FitError(f"{column} of run {run!r}: missing, so its group is unknown. Fix: fill it in.")
    return pd.factorize(values)[0]


def bootstrap_weights(
    generator: np.random.Generator, units: np.ndarray, strata: np.ndarray, bootstraps: int
) -> np.ndarray:
    """How often each point occurs in each resample: (bootstraps, points).

    units: (points,) the unit of each point; strata: (units,) units are drawn with replacement within each.
    """
    drawn = np.zeros((bootstraps, len(strata)))
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        drawn[:, members] = generator.multinomial(len(members), np.full(len(members), 1 / len(members)), bootstraps)
    return drawn[:, units]


def jackknife_weights(units: np.ndarray) -> np.ndarray:
    """One resample for each unit (or part of at most 200) that is left out: (parts, points), zeros and ones."""
    part = units * min(units.max() + 1, MOST_LEFT_OUT) // (units.max() + 1)
    return (part != np.arange(part.max() + 1)[:, None]).astype(float)

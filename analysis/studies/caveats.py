"""What must be said beside the intervals of a study: that they are drawn from too few units, or not determined at all.

Units are what is independent and drawn by the bootstrap: points, runs of several rows, or other groups.
"""

from collections.abc import Mapping

from analysis.fit import Fit
from analysis.intervals import AT_BOUND, WEAK_CONDITION, Interval, Profile

POINTS_ENOUGH = 1.6  # per constant: below, intervals are too narrow (tests/benchmarks/few_points.py)
RUNS_ENOUGH = 2.4  # per constant, of runs with several rows (tests/benchmarks/few_runs.py)
# Units per constant -> percent of nominal 90 % intervals of optima and exponents that held the truth in simulation.
POINTS_COVERED = {1.2: (47, 69), 1.4: (72, 93)}
RUNS_COVERED = {0.6: (7, 15), 0.8: (60, 73), 1.2: (87, 97), 1.6: (83, 99)}  # of 20 rows each
SINGLE, RUNS = "points", "runs"


def are_few(units: int, unit: str, constants: int) -> bool:
    """Whether intervals from so many independent units are too narrow for a law of so many constants."""
    return units < (POINTS_ENOUGH if unit == SINGLE else RUNS_ENOUGH) * constants


def coverage_of_few(units: int, unit: str, constants: int) -> str:
    """What intervals from so few units cover where they promise 90 %: as simulated for as many or fewer a constant."""
    simulated, most = (POINTS_COVERED if unit == SINGLE else RUNS_COVERED), units / constants + 1e-9
    low, high = simulated[max((share for share in simulated if share <= most), default=min(simulated))]
    return f"of such simulated tables {low} to {high}% had the truth inside a 90% interval. Read them as too narrow"


def undetermined(fit: Fit, profiles: Mapping[str, Profile], intervals: Mapping[str, Interval]) -> tuple[str, ...]:
    """Why exponents of the frontier and optima, which trade one term of a law against another, are not determined.

    Nothing where they are. The exponents of a law are its constants without a unit. One at its bound is known, though
    its profile cannot close there.
    """
    found = []
    if fit.condition_number > WEAK_CONDITION:
        found.append(
            f"The fit is near singular (condition number {fit.condition_number:.1e}): these runs do not tell the "
            "law's terms apart, and an optimum, which trades one against the other, is not determined by them"
        )
    exponents = [parameter.name for parameter in fit.law.parameters if parameter.unit == "1"]
    loose = [name for name in exponents if not profiles[name].closed and intervals[name].note != AT_BOUND]
    if loose:
        of = "profile likelihood" if len(loose) == 1 else "profile likelihoods"
        close = "does" if len(loose) == 1 else "do"
        found.append(
            f"The {of} of {' and '.join(loose)} {close} not close: optima and their exponents, which follow from the "
            "law's, are not determined by these runs"
        )
    return tuple(found)

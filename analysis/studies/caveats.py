"""What must be said beside the intervals of a study: that they are drawn from too few units, or not determined at all.

Units are what is independent and drawn by the bootstrap: points, runs of several rows, or other groups.
"""

from collections.abc import Mapping

from analysis.fit import Fit
from analysis.intervals import AT_BOUND, WEAK_CONDITION, Interval, Profile

POINTS_ENOUGH = 1.6  # per constant: below, intervals are too narrow (tests/benchmarks/few_points.py)
POINTS_COVERED = "of optima and exponents 47 to 69% (6 points, 5 constants) and 72 to 93% (7 points)"
RUNS_ENOUGH = 2.4  # per constant, of runs with several rows (tests/benchmarks/few_runs.py)
RUNS_COVERED = (
    "of optima and exponents 7 to 15% (3 runs of 20 rows, 5 constants), 60 to 73% (4 runs), 87 to 97% (6 runs) and "
    "83 to 99% (8 runs)"
)
SINGLE, RUNS = "points", "runs"


def are_few(units: int, unit: str, constants: int) -> bool:
    """Whether intervals from so many independent units are too narrow for a law of so many constants."""
    return units < (POINTS_ENOUGH if unit == SINGLE else RUNS_ENOUGH) * constants


def coverage_of_few(unit: str) -> str:
    """What intervals from few units cover where they promise 90 %."""
    if unit == SINGLE:
        covered, from_here = POINTS_COVERED, f"{POINTS_ENOUGH:g} points"
    else:
        covered, from_here = RUNS_COVERED, f"{RUNS_ENOUGH:g} runs"
    return (
        f"of nominal 90% intervals {covered} held the truth in simulation, where from {from_here} per constant on "
        "nearly all do. Read these as too narrow"
    )


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

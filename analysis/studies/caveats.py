"""What must be said beside the intervals of a study: that they are drawn from too few units, or not determined at all.

Units are what is independent and drawn by the bootstrap: points, runs of several rows, or other groups.
"""

import dataclasses
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from analysis.compute import FlopRule
from analysis.compute.frontier import has_minimum
from analysis.fit import Fit
from analysis.intervals import AT_BOUND, WEAK_CONDITION, Interval, Profile
from analysis.laws import Law, Parameter

POINTS_ENOUGH = 1.6  # per constant: below, intervals are too narrow (tests/benchmarks/few_points.py)
RUNS_ENOUGH = 2.4  # per constant, of runs with several rows (tests/benchmarks/few_runs.py)
# Units per constant -> percent of nominal 90 % intervals of optima and exponents that held the truth in simulation.
POINTS_COVERED = {1.2: (47, 69), 1.4: (72, 93)}
RUNS_COVERED = {0.6: (7, 15), 0.8: (60, 73), 1.2: (87, 97), 1.6: (83, 99)}  # of 20 rows each
NOUGHT = 1e-300  # of a constant at its bound of zero: the logarithm of zero has no derivative
PROMISED = 90  # percent, by the intervals of both
SINGLE, RUNS = "points", "runs"


def are_few(units: int, unit: str, constants: int) -> bool:
    """Whether intervals from so many independent units are too narrow for a law of so many constants."""
    return units < (POINTS_ENOUGH if unit == SINGLE else RUNS_ENOUGH) * constants


def coverage_of_few(units: int, unit: str, constants: int) -> str:
    """What intervals from so few units cover where they promise 90 %: as simulated for as many or fewer a constant."""
    of, simulated = (SINGLE, POINTS_COVERED) if unit == SINGLE else (RUNS, RUNS_COVERED)
    nearest = max((share for share in simulated if share <= units / constants + 1e-9), default=min(simulated))
    low, high = simulated[nearest]
    advice = "read them as too narrow" if high < PROMISED else "some are too narrow"
    return (
        f"in simulated tables of {nearest:g} {of} per constant 90% intervals held the truth in {low} to {high}% of the "
        f"tables, by quantity; {advice}"
    )


def no_optimum(
    planned: Law, values: np.ndarray, intervals: Mapping[str, Interval], rule: FlopRule, flops: float
) -> str:
    """Why a fitted law has no compute-optimal run at all, or nothing where it has.

    planned: the fitted law as one of params and tokens, with its constants `values`. One that is at its bound of zero
    counts as zero, as it is printed; where an optimum trades its term against another, there is none.
    """
    at_bound = [name for name, interval in intervals.items() if interval.note == AT_BOUND]
    held = [name for name, value in planned.fixed if value == 0.0]
    if _has_minimum_without(planned, values, at_bound, (), rule, flops):
        return ""
    zeros = (*at_bound, *held)
    if not zeros:
        return "The law has no optimum: along a budget its loss has no minimum between a small and a large model"
    alone = [
        name for name in zeros if not _has_minimum_without(planned, values, (name,), set(zeros) - {name}, rule, flops)
    ]
    named = alone or zeros
    state = " and ".join(f"{name} is {'held at 0' if name in held else '0, at its bound'}" for name in named)
    return (
        f"The law has no optimum: {state}, and a compute-optimal run trades the term of {' and '.join(named)} against "
        "another's"
    )


def _has_minimum_without(
    law: Law, values: np.ndarray, zeros: Sequence[str], ones: Collection[str], rule: FlopRule, flops: float
) -> bool:
    """Whether a law has an optimum with some of its constants at zero, and some, which were zero, at one."""
    changed = {**dict.fromkeys(ones, 1.0), **dict.fromkeys(zeros, NOUGHT)}
    held = tuple(Parameter(name, "", "") for name, _ in law.fixed if name in changed)
    freed = dataclasses.replace(law, parameters=(*law.parameters, *held))
    constants = {**dict(zip(law.names, values, strict=True)), **changed}
    return has_minimum(freed, np.array([constants[name] for name in freed.names]), rule, flops)


def undetermined(fit: Fit, profiles: Mapping[str, Profile], intervals: Mapping[str, Interval]) -> tuple[str, ...]:
    """Why what follows from a law away from its runs is not determined by them: predictions, optima, their exponents.

    Nothing where it is. The exponents of a law are its constants without a unit. One at its bound is known, though
    its profile cannot close there.
    """
    found = []
    if fit.condition_number > WEAK_CONDITION:
        found.append(
            f"The fit is near singular (condition number {fit.condition_number:.1e}): these runs do not tell the "
            "law's terms apart; predictions beyond them, and optima, which trade one term against another, are not "
            "determined by them"
        )
    exponents = [parameter.name for parameter in fit.law.parameters if parameter.unit == "1"]
    loose = [name for name in exponents if not profiles[name].closed and intervals[name].note != AT_BOUND]
    if loose:
        of = "profile likelihood" if len(loose) == 1 else "profile likelihoods"
        close = "does" if len(loose) == 1 else "do"
        found.append(
            f"The {of} of {' and '.join(loose)} {close} not close: predictions beyond these runs, optima and their "
            "exponents, which follow from the law's, are not determined by them"
        )
    return tuple(found)

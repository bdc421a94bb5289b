"""Rounds of runs that depend on results: what one cell still wants, found by going through its rounds from the start.

Nothing of a search is kept on disk but its runs. Whoever asks what follows replays every proposal from the losses, so
that a command that was interrupted, or is repeated, comes to the same runs.
"""

import math
from collections.abc import Callable, Sequence
from statistics import fmean

from research.config import ConfigError, RunConfig
from research.plan.axis import Value
from research.plan.experiment import Losses

Point = tuple[Value, ...]  # a value of each axis
Tried = dict[Point, float]  # the mean loss over seeds of each point, in the order in which they were proposed
Propose = Callable[[Tried], Sequence[Point]]
Outwards = Callable[[Sequence[Value], bool], Value | None]  # of sorted values and whether upwards: the next one


def wanted(
    first: Sequence[Point], propose: Propose, runs_of: Callable[[Point], Sequence[RunConfig]], losses: Losses
) -> tuple[RunConfig, ...]:
    """The runs of the first round of a cell that is not finished, those that `losses` lacks; none if all are.

    first: the points that the cell begins with. propose: the points of the next round, none at the end.
    """
    tried: Tried = {}
    points = first
    while points:
        runs = {point: runs_of(point) for point in points}
        missing = tuple(run for alike in runs.values() for run in alike if run not in losses)
        if missing:
            return missing
        tried |= {point: fmean(losses[run] for run in alike) for point, alike in runs.items()}
        points = propose(tried)
    return ()


def extension(
    first: Sequence[Point], most: int, outwards: Sequence[Outwards | None], runs_of: Callable[[Point], object]
) -> Propose:
    """Proposes what lies beyond an end at which the best point lies, the other axes at their best; one value a round.

    first: points that are no extension; an end is one of theirs, or beyond. most: values beyond them at each end of an
    axis. outwards: of each axis, None for one that has no order. A value that no run can have (ConfigError) is not
    proposed: there the best stays at an end, as it does where `most` values did not reach it.
    """

    def propose(tried: Tried) -> list[Point]:
        best = min(tried, key=tried.get)
        if not math.isfinite(tried[best]):  # everything diverged, which says nothing of where it would not
            return []
        found = []
        for axis, next_value in enumerate(outwards):
            for upwards in (False, True) if next_value else ():
                within, values = ({point[axis] for point in points} for points in (first, tried))
                value = _next(best[axis], within, values, next_value, upwards, most)
                if value is not None:
                    found.append((*best[:axis], value, *best[axis + 1 :]))
        return [point for point in found if point not in tried and _is_possible(point, runs_of)]

    return propose


def _next(
    best: Value, within: set[Value], values: set[Value], next_value: Outwards, upwards: bool, most: int
) -> Value | None:
    """The value one step outwards of the best one, None unless that lies at an end of those within, or beyond it.

    None, too, for the last of `most` values beyond, and where there was no sweep, but one value.
    """
    end = max(within) if upwards else min(within)
    if len(within) < 2 or (best < end if upwards else best > end):
        return None
    passed = sorted(value for value in values if (value <= best if upwards else value >= best))
    beyond = sum(value > end if upwards else value < end for value in passed)
    return next_value(passed, upwards) if beyond < most else None


def _is_possible(point: Point, runs_of: Callable[[Point], object]) -> bool:
    try:
        runs_of(point)
    except ConfigError:
        return False
    return True


def extension_remark(most: int) -> str:
    """What is said of a plan that extends its sweeps."""
    return f"where the best lies at an end of what was swept, up to {most} further values follow there, one a round"

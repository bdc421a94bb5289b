"""How long a sweep still takes. Pure functions: measurements in, seconds out.

A piece of work takes

    seconds = start_seconds * starts + step_seconds * steps + flop_seconds * flops

Steps cost what dispatch, data and small operations cost, FLOPs what arithmetic costs, starts what compiling, evaluating
and saving cost in every run. The three rates are refitted to all that has been measured in the sweep, and the work
that is left is then laid out on the workers as the pool will: longest first, each to the worker that is free next.

The fit is the most probable one under a log-normal prior of each rate, which keeps rates positive and decides what the
first runs, being much alike, leave open: plain non-negative least squares gives all of their time to steps or all of
it to FLOPs as noise will have it, and is then wrong several times over about the runs to come.
"""

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares


@dataclass(frozen=True)
class Work:
    """What is to be done, or was: a whole run has `starts` 1, a stretch in the middle of one has 0."""

    starts: int
    steps: int
    flops: float


@dataclass(frozen=True)
class Rates:
    """Seconds per start, per optimizer step and per FLOP."""

    start_seconds: float
    step_seconds: float
    flop_seconds: float


# Before the first measurement: a small model on one CPU core, compiled from a warm cache. PRIOR_FACTORS is how far off
# each may well be: starts and steps cost much the same everywhere, FLOPs thousands of times less on an accelerator.
PRIOR = Rates(start_seconds=5.0, step_seconds=0.005, flop_seconds=1 / 20e9)
PRIOR_FACTORS = Rates(start_seconds=4.0, step_seconds=3.0, flop_seconds=50.0)
RELATIVE_ERROR = 0.15  # of the model, for one run
SLACK_SECONDS = 0.5  # so that very short measurements do not count for more than they can say


def fit_rates(measured: Sequence[tuple[Work, float]]) -> Rates:
    """The most probable rates given (work, seconds) pairs; PRIOR if there are none."""
    prior = np.array([PRIOR.start_seconds, PRIOR.step_seconds, PRIOR.flop_seconds])
    if not measured:
        return PRIOR
    factors = np.array([PRIOR_FACTORS.start_seconds, PRIOR_FACTORS.step_seconds, PRIOR_FACTORS.flop_seconds])
    amounts = np.array([[work.starts, work.steps, work.flops] for work, _ in measured])
    seconds = np.array([seconds for _, seconds in measured])
    errors = RELATIVE_ERROR * seconds + SLACK_SECONDS

    def residuals(logs: np.ndarray) -> np.ndarray:
        return np.concatenate([(amounts @ (prior * np.exp(logs)) - seconds) / errors, logs / np.log(factors)])

    def slopes(logs: np.ndarray) -> np.ndarray:
        return np.concatenate([amounts * (prior * np.exp(logs)) / errors[:, None], np.diag(1 / np.log(factors))])

    logs = least_squares(residuals, np.zeros(3), jac=slopes).x
    return Rates(*(float(rate) for rate in prior * np.exp(logs)))


def work_seconds(rates: Rates, work: Work) -> float:
    """Seconds that `work` takes on one worker."""
    return rates.start_seconds * work.starts + rates.step_seconds * work.steps + rates.flop_seconds * work.flops


def sweep_seconds(active: Iterable[float], pending: Iterable[float], workers: int) -> float:
    """Seconds until all runs have ended: `active` ones, by their seconds left, occupy a worker each now."""
    free_at = sorted(active, reverse=True)
    free_at += [0.0] * (workers - len(free_at))
    heapq.heapify(free_at)
    end = max(free_at, default=0.0)
    for seconds in sorted(pending, reverse=True):
        finish = heapq.heappop(free_at) + seconds
        end = max(end, finish)
        heapq.heappush(free_at, finish)
    return end

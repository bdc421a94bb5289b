"""Search for the lowest minimum of a law's objective: from a grid of starts, along valleys, and on to where it ends."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from analysis.fit.batched import Problems, Solution, go_on_by_bfgs, solve, target_jacobian
from analysis.fit.objectives import Objective
from analysis.fit.points import FitError, Points
from analysis.fit.starts import starting_points, starts_along_valley
from analysis.laws import Law, evaluate

MOST_START_POINTS = 2**8  # of a table of more than twice as many: a start need not be exact
# Laws of more parameters, or of more in which they are not linear, have long valleys with several minima in them: these
# are searched on from the lowest found.
MOST_PLAIN_PARAMETERS, MOST_PLAIN_NONLINEAR, VALLEY_STARTS, VALLEY_ROUNDS = 5, 3, 48, 3
FIRST_STEPS = 100  # of Newton's method from every start
FINALISTS, FINAL_STEPS = 8, 2000  # the lowest ends, which are followed until they stop, or so many steps
SAME_END = 1e-3  # of the solver's variables, which are logarithms: ends that are no further apart are one
MOST_FINAL_ROUNDS, LEAST_GAIN = 5, 1e-10  # a round that gains a smaller share of the value is the last
UNFINISHED = 1e-6  # a derivative above this share of the value: an end that is on its way


@dataclass(frozen=True)
class _Problem:
    law: Law
    inputs: Mapping[str, np.ndarray]
    target_N: np.ndarray
    objective: Objective

    def solve(self, starts_SP: np.ndarray, sharp_S: np.ndarray | None = None, **how) -> Solution:
        shape = (len(starts_SP), len(self.target_N))
        targets, weights = np.broadcast_to(self.target_N, shape), np.broadcast_to(1.0, shape)
        problems = Problems(targets, weights, starts_SP, sharp_B=sharp_S)
        return solve(self.law, self.inputs, problems, self.objective, **how)


def search(law: Law, points: Points, objective: Objective) -> tuple[Solution, int, int]:
    """Minima that the starts reach, how many starts there were, and how many reached the best.

    In a large table all starts are solved on some hundreds of its points, and the lowest of their different ends on all
    of them. Raises FitError where the law is undefined at every start.
    """
    count, target_N = len(points.runs), law.target(points.output)
    thinned = count > 2 * MOST_START_POINTS
    # Drawn, since every n-th of a table that is in order may be one size or one seed.
    thin = np.random.default_rng(0).permutation(count)[:MOST_START_POINTS] if thinned else slice(None)
    problem = _Problem(law, {name: x[thin] for name, x in points.inputs.items()}, target_N[thin], objective)
    found = _finish(problem, _from_starts(problem, starting_points(law, points)))
    lowest, starts = np.nanmin(found.value), len(found.value)
    at_optimum = int(np.sum(found.value <= lowest + 1e-6 * abs(lowest) + 1e-16 * len(problem.target_N)))
    if thinned:
        whole = _Problem(law, points.inputs, target_N, objective)
        found = whole.solve(_different(found), near=True)
        _check_defined(law, found)
        found = _finish(whole, found)
    return found, starts, at_optimum


def _from_starts(problem: _Problem, starts_SP: np.ndarray) -> Solution:
    """Where `FIRST_STEPS` from each start end, and from around the lowest of them where the law may have valleys."""
    law = problem.law
    if problem.objective.delta is not None:
        # From least squares down to a small delta all starts tend to one basin; at the delta alone some reach others.
        starts_SP = np.concatenate([starts_SP, starts_SP])
    sharp_S = np.arange(len(starts_SP)) >= len(starts_SP) / 2
    found = problem.solve(starts_SP, sharp_S, max_steps=FIRST_STEPS)
    nonlinear = sum(bool(parameter.starts) for parameter in law.parameters)
    plain = len(law.parameters) <= MOST_PLAIN_PARAMETERS and nonlinear <= MOST_PLAIN_NONLINEAR
    for _ in range(0 if plain else VALLEY_ROUNDS):
        best_P = found.theta[np.nanargmin(found.value)] if np.isfinite(found.value).any() else starts_SP[0]
        more = _along_valley(problem, best_P)
        found = Solution(*(None if a is None else np.concatenate([a, b]) for a, b in zip(found, more, strict=True)))
    _check_defined(law, found)
    return found


def _check_defined(law: Law, found: Solution) -> None:
    if np.isnan(found.value).all():
        raise FitError(
            f"law {law.name!r}: undefined at every starting point for these inputs. Fix: check the units of "
            f"{', '.join(law.inputs)} and of {law.output}."
        )


def _along_valley(problem: _Problem, best_P: np.ndarray) -> Solution:
    law, inputs = problem.law, problem.inputs
    residuals = problem.target_N - law.target(evaluate(law, law.natural(best_P), inputs))
    around = starts_along_valley(best_P, target_jacobian(law, best_P, inputs), np.std(residuals), VALLEY_STARTS)
    return problem.solve(around, np.arange(VALLEY_STARTS) % 2 == 0, max_steps=FIRST_STEPS)


def _different(found: Solution) -> np.ndarray:
    """The constants (at most FINALISTS, P) of the lowest ends, no two of them the same."""
    kept: list[np.ndarray] = []
    for theta_P in found.theta[np.argsort(found.value)]:
        if len(kept) < FINALISTS and all(np.max(np.abs(theta_P - other_P)) > SAME_END for other_P in kept):
            kept.append(theta_P)
    return np.stack(kept)


def _finish(problem: _Problem, found: Solution) -> Solution:
    """`found` with its lowest ends followed until a round of it gains nothing that counts."""
    for _ in range(MOST_FINAL_ROUNDS):
        before, found = np.nanmin(found.value), _follow(problem, found)
        if before - np.nanmin(found.value) <= LEAST_GAIN * abs(before):
            break
    return found


def _follow(problem: _Problem, found: Solution) -> Solution:
    """`found` with its lowest ends followed by many Newton steps, and by BFGS where these are not enough.

    BFGS sets out from where the Newton steps did, since the kinks they met have narrowed their search.
    """
    lowest = np.argsort(found.value)[:FINALISTS]
    before = Solution(*(None if part is None else part[lowest] for part in found))
    ends = problem.solve(before.theta, np.full(len(lowest), True), max_steps=FINAL_STEPS)
    followed = _with(found, lowest, ends)
    best = np.nanargmin(followed.value)
    if np.max(np.abs(followed.gradient[best])) > UNFINISHED * abs(followed.value[best]):
        more = go_on_by_bfgs(problem.law, problem.inputs, problem.target_N, problem.objective, before)
        followed = _with(followed, lowest, more)
    return followed


def _with(found: Solution, chosen: np.ndarray, ended: Solution) -> Solution:
    """`found` with `chosen` replaced where they ended lower."""
    lower = ended.value < found.value[chosen]
    parts = []
    for old, new in zip(found, ended, strict=True):
        if old is not None:
            old = old.copy()
            old[chosen[lower]] = new[lower]
        parts.append(old)
    return Solution(*parts)

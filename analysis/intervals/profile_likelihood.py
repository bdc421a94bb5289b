"""Profile likelihoods: how much worse the best fit gets when one constant is held away from its optimum.

All held values of all constants are solved at once; the grid is then refined where it steps over an interval's end.
The rise of the objective becomes a deviance that is compared with the F distribution of 1 and (points - parameters)
degrees of freedom: twice the rise, times E[psi'] / E[psi^2] for the objective's psi under normal residuals of the
fitted size (Schrader and Hettmansperger 1980). For least squares that is the rise over the residual variance, which is
exact for a law that is linear in its constants. Where one constant turns out open, what closed the others is looked for
again from starts that know nothing of the optimum. In a table of thousands of points the other constants are not
solved for but follow the local linear law.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.special

from analysis.fit import Fit, Points
from analysis.fit.batched import Problems, solve, target_jacobian, values_at
from analysis.fit.starts import HELD_STARTS, off_bounds, starts_holding
from analysis.intervals.one_step import MOST_REFITTED_POINTS
from analysis.laws import Law, Parameter, evaluate

STEPS = np.array([0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, 6.0, 10.0])  # in standard errors
NEAR_BOUND = np.arange(-1.0, 13.0)  # e-folds around where a constant at its bound starts to count
FARTHEST = 12.0  # e-folds of a positive constant that is not at its bound, either way: a factor of 160,000
# Where the root of the deviance leaps further than this between two values, on either side of the threshold's, more are
# tried between them, so often: near a bound the standard error of the local linear law may be far too large.
WIDEST_LEAP, REFINED_STEPS, REFINEMENTS = 1.0, 6, 3
LEAST_SPREAD = 1e-150  # of a law that meets every point: its square and that square's inverse are still numbers
WIDEST = 40.0  # standard deviations, beyond which a normal residual has no weight in float64


@dataclass(frozen=True)
class Profile:
    """One constant held at `values` (ascending, its optimum among them), and the deviance of the best fit at each.

    low and high: where the deviance crosses `threshold`; closed_below and closed_above: whether it does within what
    was tried. An end that is not closed is the last value tried, and the interval goes on beyond it.
    """

    values: np.ndarray
    deviance: np.ndarray
    threshold: float
    low: float
    high: float
    closed_below: bool
    closed_above: bool

    @property
    def closed(self) -> bool:
        """Whether the points bound the constant on both sides."""
        return self.closed_below and self.closed_above


def profile(result: Fit, points: Points, level: float = 0.9) -> dict[str, Profile]:
    """The profile of each fitted constant, with its interval at `level`; `points` are those that were fitted."""
    law = result.law
    best_P, count = law.pack(result.array()), len(law.parameters)
    residuals = law.target(points.output) - law.target(evaluate(law, result.array(), points.inputs))
    freedom = len(residuals) - count
    spread = _spread(result, residuals, freedom)
    errors_P, moves = _directions(target_jacobian(law, best_P, points.inputs), spread)
    per_rise, threshold = 2 * _deviance_per_rise(result, spread), float(scipy.special.fdtri(1, freedom, level))
    # At its bound a constant has no derivative: a search that starts there stays there, and its own values begin where
    # it starts to count.
    free_P = off_bounds(law, best_P, points.inputs, result.residual_scale)
    tried = list((best_P + _held_steps(law, errors_P)).T)
    for i in np.flatnonzero(free_P != best_P):
        tried[i] = np.append(tried[i], free_P[i] + NEAR_BOUND)
    held = _Held(result, points, best_P, free_P, moves, per_rise)
    curves = [_Curve(best_P[[i]], result.array()[[i]], np.zeros(1)) for i in range(count)]
    curves = held.refined(curves, tried, threshold)
    if not all(c.profile(best, threshold).closed for c, best in zip(curves, best_P, strict=True)):
        curves = held.from_anywhere(curves, threshold)
    return {p.name: c.profile(best, threshold) for p, c, best in zip(law.parameters, curves, best_P, strict=True)}


@dataclass(frozen=True)
class _Held:
    """What is solved where one constant is held.

    free_P: the optimum with whatever lies at a bound moved to where it has an effect. moves: of all variables when one
    moves by 1. per_rise: deviance per rise of the objective.
    """

    result: Fit
    points: Points
    best_P: np.ndarray
    free_P: np.ndarray
    moves: np.ndarray
    per_rise: float

    def refined(
        self, curves: list["_Curve"], tried: list[np.ndarray], threshold: float, anywhere: bool = False
    ) -> list["_Curve"]:
        """The curves with the values `tried` of each, and with more between two where the deviance leaps."""
        for _ in range(1 + REFINEMENTS):
            found = self.deviances(tried, anywhere)
            parameters = self.result.law.parameters
            curves = [curve.with_more(*more) for curve, *more in zip(curves, parameters, tried, found, strict=True)]
            tried = [curve.leaps(best, threshold) for curve, best in zip(curves, self.best_P, strict=True)]
            if not any(map(len, tried)):
                break
        return curves

    def from_anywhere(self, curves: list["_Curve"], threshold: float) -> list["_Curve"]:
        """The curves with every deviance above the threshold looked for again, from starts that know of no optimum.

        Where the points leave one constant open the law has other ways to meet them, far from its optimum: an end that
        was found from that optimum alone may be no end.
        """
        if len(self.points.runs) > MOST_REFITTED_POINTS:
            return curves
        again = [curve.variable[curve.deviance >= threshold] for curve in curves]
        if not any(map(len, again)):  # as where the law meets every point: no value is worse than another
            return curves
        kept = [_Curve(*(part[curve.deviance < threshold] for part in curve)) for curve in curves]
        lower = [
            np.minimum(more, curve.deviance[curve.deviance >= threshold])
            for more, curve in zip(self.deviances(again, True), curves, strict=True)
        ]
        parameters = self.result.law.parameters
        curves = [curve.with_more(*more) for curve, *more in zip(kept, parameters, again, lower, strict=True)]
        leaps = [curve.leaps(best, threshold) for curve, best in zip(curves, self.best_P, strict=True)]
        return self.refined(curves, leaps, threshold, anywhere=True) if any(map(len, leaps)) else curves

    def deviances(self, tried: list[np.ndarray], anywhere: bool = False) -> list[np.ndarray]:
        """The deviance at each variable `tried` of each constant, the others being at their best for it.

        anywhere: they are looked for from afar, too.
        """
        constant_L = np.repeat(np.arange(len(tried)), [len(variables) for variables in tried])
        value_L = self._values(constant_L, np.concatenate(tried), anywhere)
        value_L[np.isnan(value_L)] = np.inf  # where the law is undefined it explains nothing
        deviance_L = self.per_rise * np.maximum(value_L - self.result.objective_value, 0.0)
        return [deviance_L[constant_L == i] for i in range(len(tried))]

    def _values(self, constant_L: np.ndarray, variable_L: np.ndarray, anywhere: bool) -> np.ndarray:
        """The objective (L,) with one constant held in each problem."""
        result, problems = self.result, np.arange(len(constant_L))
        step_L = variable_L - self.best_P[constant_L]
        along = self.best_P + np.clip(step_L[:, None] * self.moves[constant_L], -FARTHEST, FARTHEST)
        along[problems, constant_L] = variable_L
        if len(self.points.runs) > MOST_REFITTED_POINTS:
            return values_at(result.law, self.points, along, result.objective, result.scale)
        # Far away the linear law may lead astray, and near by it is the better start: the lower of the two counts.
        starts = [along, np.tile(self.free_P, (len(problems), 1))]
        if anywhere:
            starts += list(self._afar(constant_L, variable_L))
        return self._solved(np.concatenate(starts), constant_L, variable_L)

    def _afar(self, constant_L: np.ndarray, variable_L: np.ndarray) -> np.ndarray:
        """(HELD_STARTS, L, P) starts that know of no optimum."""
        law = self.result.law
        starts = np.tile(self.free_P, (HELD_STARTS, len(constant_L), 1))
        for i in np.unique(constant_L):
            values = law.parameters[i].natural(variable_L[constant_L == i])
            starts[:, constant_L == i] = np.swapaxes(starts_holding(law, self.points, i, values), 0, 1)
        return starts

    def _solved(self, starts: np.ndarray, constant_L: np.ndarray, variable_L: np.ndarray) -> np.ndarray:
        """The lowest (L,) of what several starts (several * L, P) end at, one constant of each being held."""
        law, rows, several = self.result.law, np.arange(len(starts)), len(starts) // len(constant_L)
        held, free, target = np.tile(constant_L, several), np.ones_like(starts), law.target(self.points.output)
        starts[rows, held], free[rows, held] = np.tile(variable_L, several), 0.0
        targets, weights = (np.broadcast_to(row, (len(starts), len(target))) for row in (target, 1.0))
        found = solve(law, self.points.inputs, Problems(targets, weights, starts, free), self.result.objective)
        return np.fmin.reduce(found.value.reshape(several, -1))


class _Curve(NamedTuple):
    """One constant's deviances at ascending values of it, its optimum among them; variable: the solver's for each."""

    variable: np.ndarray
    value: np.ndarray
    deviance: np.ndarray

    def with_more(self, parameter: Parameter, variable: np.ndarray, deviance: np.ndarray) -> "_Curve":
        value = parameter.natural(variable)
        parts = [np.concatenate(both) for both in zip(self, (variable, value, deviance), strict=True)]
        order = np.argsort(parts[1], kind="stable")
        return _Curve(*(part[order] for part in parts))

    def sides(self, best: float) -> tuple["_Curve", "_Curve"]:
        """From the optimum down and from the optimum up."""
        middle = int(np.flatnonzero(self.variable == best)[0])
        return _Curve(*(part[middle::-1] for part in self)), _Curve(*(part[middle:] for part in self))

    def leaps(self, best: float, threshold: float) -> np.ndarray:
        """Variables to try between two at which the root of the deviance leaps over the threshold's."""
        wanted = [np.zeros(0)]
        for side in self.sides(best):
            i, roots = int(np.argmax(side.deviance >= threshold)), np.sqrt(side.deviance)
            if i and roots[i] - roots[i - 1] > WIDEST_LEAP:
                wanted.append(np.linspace(side.variable[i - 1], side.variable[i], REFINED_STEPS + 2)[1:-1])
        return np.concatenate(wanted)

    def profile(self, best: float, threshold: float) -> Profile:
        (low, closed_below), (high, closed_above) = (side.end(threshold) for side in self.sides(best))
        return Profile(self.value, self.deviance, threshold, low, high, closed_below, closed_above)

    def end(self, threshold: float) -> tuple[float, bool]:
        """The first value whose deviance is the threshold, on one side; its root is nearly linear."""
        i, roots = int(np.argmax(self.deviance >= threshold)), np.sqrt(self.deviance)
        if i == 0:
            return float(self.value[-1]), False
        share = (np.sqrt(threshold) - roots[i - 1]) / (roots[i] - roots[i - 1])
        return float(self.value[i - 1] + share * (self.value[i] - self.value[i - 1])), True


def _held_steps(law: Law, errors_P: np.ndarray) -> np.ndarray:
    """How far each variable is held from its optimum: (steps, P).

    The logarithm of a constant that lies at its bound of zero has a standard error of very many e-folds; they are cut
    down to those that move the constant by as many of its own standard errors.
    """
    moves = np.concatenate([-STEPS[::-1], STEPS])[:, None] * errors_P
    bounded = [np.isfinite(parameter.low) or np.isfinite(parameter.high) for parameter in law.parameters]
    far = np.sign(moves) * np.maximum(FARTHEST, np.log1p(np.abs(moves)))
    return np.where(bounded & (np.abs(moves) > FARTHEST), far, moves)


def _spread(result: Fit, residuals: np.ndarray, freedom: int) -> float:
    """Standard deviation of the residuals; by their mean size where the objective is robust, so that it is too."""
    if result.objective.delta is None:
        return max(result.residual_scale, LEAST_SPREAD)
    return max(float(np.sqrt(np.pi / 2) * np.mean(np.abs(residuals))) * len(residuals) / freedom, LEAST_SPREAD)


def _directions(jacobian: np.ndarray, spread: float) -> tuple[np.ndarray, np.ndarray]:
    """Standard errors (P,) by the local linear law, and how all variables move when one moves by 1: (P, P)."""
    size = np.linalg.norm(jacobian, axis=0).clip(1e-100)  # a constant at its bound may move nothing; its square counts
    _, singular, right = np.linalg.svd(np.linalg.qr(jacobian / size, mode="r"))
    singular = np.maximum(singular, 1e-7 * singular[0])
    covariance = (right.T / singular**2) @ right / np.outer(size, size)
    return spread * np.sqrt(np.diag(covariance)), covariance / np.diag(covariance)[:, None]


def _deviance_per_rise(result: Fit, spread: float) -> float:
    """E[psi'] / E[psi^2] of the objective's psi, for normal residuals of standard deviation `spread`."""
    scale = 1.0 if result.scale is None else result.scale
    if result.objective.delta is None:
        return 1.0 / spread**2
    width = min(result.objective.delta * scale / spread, WIDEST)  # where psi turns flat, in standard deviations
    inside = 2 * scipy.special.ndtr(width) - 1
    square = inside - 2 * width * np.exp(-(width**2) / 2) / np.sqrt(2 * np.pi) + width**2 * (1 - inside)
    return inside / square * (scale / spread) ** 2

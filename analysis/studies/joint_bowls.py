"""The bowls of all cells at once: laws of the best hyperparameters, fitted to the runs themselves.

Near the best settings, log(loss) of a run is

    floor of its cell + s u C u / 2,    u = log(settings / what the laws say of the cell),

with one matrix C (axes, axes) for all cells, and s a power of the laws' inputs, 1 at their geometric means, so that
bowls may flatten with scale. Runs are weighted by exp(-|u|^2 / 2), u in steps of the grid, as in a cell's own bowl
(`hyperparameters.fit_bowls`), and the fit ends where the laws stay: nothing is asked for where rates diverge. On Step
Law's runs a cubic term foretold cells that were left out worse, and left the bottom of the bowls under the wider
weights that it is meant to allow; the quadratic does worse under those, too (tests/benchmarks/published_figures.py).

Cells that have no optimum by themselves take part: those with few runs, or whose best settings lie outside what was
run, which a law of the optima leaves out.

Intervals are the jackknife's, cell by cell, with Student's t of (cells - constants) degrees of freedom. What differs
between cells holds the noise of their runs as well as what no law explains, so nothing is resampled inside a cell.
tests/benchmarks/sweep_intervals.py prints how often intervals of 90 % hold planted exponents of 6 and of 16 cells:
these 91 to 98 %, bootstraps of cells 79 to 88 %, of runs within cells 29 to 88 %, of both 88 to 100 %.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.special

from analysis.fit import LEAST_SQUARES, Fit, FitError, fit_points, select
from analysis.intervals import NOT_DETERMINED, Interval
from analysis.intervals.interval import DEGENERATE, same
from analysis.laws import Law, Parameter, evaluate
from analysis.studies.bowl_solver import Bowls, Sweep, independent, solve
from analysis.studies.hyperparameters import Bowl, grid_steps

CURVATURE_START = 0.01  # of log loss by squared logarithms, where no cell has a curvature of its own


@dataclass(frozen=True)
class AxisLaw:
    """The law of one axis by the joint fit.

    intervals: of its constants. variables: the constants as the solver's variables, (variables,); without: the same
    with each cell left out, (cells, variables), NaN where the others have no joint fit. ranges: of its inputs, over the
    cells. cells: their rows in the table of optima.
    """

    law: Law
    intervals: dict[str, Interval]
    variables: np.ndarray
    without: np.ndarray
    ranges: dict[str, tuple[float, float]]
    cells: tuple[int, ...]

    @property
    def values(self) -> dict[str, float]:
        """The constants."""
        return {name: interval.value for name, interval in self.intervals.items()}

    def at(self, inputs: Mapping[str, float], level: float) -> Interval:
        """The best setting at one point of the law's inputs, with its interval."""
        log_best = np.log(self.followed(inputs))
        found = jackknife_interval(log_best[0], log_best[1:], len(self.law.names), level)
        return Interval(*np.exp([found.value, found.low, found.high]).tolist(), found.note)

    def followed(self, inputs: Mapping[str, float]) -> np.ndarray:
        """The best setting by all cells and without each of them: (1 + cells,)."""
        constants = self.law.natural(np.vstack([self.variables, self.without]))
        return evaluate(self.law, constants, inputs)[:, 0]


@dataclass(frozen=True)
class JointBowls:
    """What `fit_joint` found.

    laws: by axis; an axis without a law has its best value in each cell free. curvature: C; centre: the geometric means
    of the inputs, where it holds; exponents: of s in each input. noise: weighted standard deviation of log loss around
    the bowls. method: how intervals are made.
    """

    laws: dict[str, AxisLaw]
    curvature: tuple[tuple[float, ...], ...]
    centre: dict[str, float]
    exponents: dict[str, Interval]
    noise: float
    method: str


def fit_joint(
    groups: Sequence[pd.DataFrame],
    bowls: Sequence[Bowl],
    starts: pd.DataFrame,
    laws: Mapping[str, Law],
    *,
    level: float = 0.9,
    bandwidth: float = 1.0,
) -> JointBowls:
    """Fit the laws of the axes through the bowls of all cells.

    groups: the runs of each cell, as `cells_of` gives them; bowls: of the same cells; starts: one row each, complete,
    with the laws' inputs and settings to begin the search at. Raises FitError where the inputs of a law do not tell its
    constants apart, no cell has several runs near the bottom, or the search finds no minimum.
    """
    axes = list(bowls[0].optimum)
    points = {axis: select(law, starts)[0] for axis, law in laws.items()}
    cells = sorted(set.intersection(*(set(one.rows.tolist()) for one in points.values())))
    cells = [i for i in cells if len(groups[i]) > 1]  # the floor of a single run takes all that it says
    fits = {
        axis: fit_points(law, points[axis].where(np.isin(points[axis].rows, cells)), (), LEAST_SQUARES)
        for axis, law in laws.items()
    }
    inputs = {name: starts[name].to_numpy(np.float64)[cells] for law in laws.values() for name in law.inputs}
    sweep = _sweep([groups[i] for i in cells], axes, inputs, bandwidth)
    models = tuple(laws.get(axis) for axis in axes)
    begin = [
        laws[axis].pack(fits[axis].array()) if axis in laws else np.log(starts[axis].to_numpy(np.float64)[cells])
        for axis in axes
    ]
    own = [bowls[i].curvature for i in cells if not bowls[i].reason]
    curvature = np.median(own, axis=0) if own else CURVATURE_START * np.eye(len(axes))
    start = Bowls.at(np.concatenate(begin), curvature, len(sweep.scale.T))
    whole = solve(sweep, models, start, np.ones((1, len(sweep.log_loss))))
    if not whole.settled[0]:
        raise FitError(
            "the joint fit of all cells finds no minimum: their runs are too few or too far from the best settings, or "
            "the bowls have none. Fix: add runs around the best of each cell, or name a law with fewer inputs."
        )
    left_out = solve(sweep, models, whole, (sweep.cell != np.arange(len(cells))[:, None]).astype(float))
    return _found(sweep, axes, laws, fits, cells, whole, left_out, level)


def _sweep(groups: Sequence[pd.DataFrame], axes: list[str], inputs: dict[str, np.ndarray], bandwidth: float) -> Sweep:
    runs = pd.concat(list(groups))
    counts = [len(group) for group in groups]
    positive = [name for name, values in inputs.items() if (values > 0).all()]  # a group, say, may be 0
    logs = np.array([np.log(inputs[name]) for name in positive]).reshape(len(positive), -1).T
    chosen = independent(logs - logs.mean(axis=0))
    return Sweep(
        log_settings=np.log(runs[axes].to_numpy(np.float64)),
        log_loss=np.log(runs["loss_nats"].to_numpy(np.float64)),
        first=np.cumsum([0, *counts[:-1]]),
        inputs=inputs,
        scaled_by=tuple(positive[i] for i in chosen),
        width=bandwidth * np.stack([grid_steps(group, axes) for group in groups]),
    )


def _found(
    sweep: Sweep,
    axes: Sequence[str],
    laws: Mapping[str, Law],
    fits: Mapping[str, Fit],
    cells: Sequence[int],
    whole: Bowls,
    left_out: Bowls,
    level: float,
) -> JointBowls:
    """The laws with their intervals: whole has one fit of all cells, left_out one without each of them."""
    variables = whole.variables[0]
    without = np.where(left_out.settled[:, None], left_out.variables, np.nan)
    found, at = {}, 0
    for axis in axes:
        if axis not in laws:
            at += len(cells)
            continue
        law = laws[axis]
        own = slice(at, at + len(law.names))
        at = own.stop
        ends = {
            parameter.name: _natural(parameter, jackknife_interval(variables[i], without[:, i], len(law.names), level))
            for parameter, i in zip(law.parameters, range(own.start, own.stop), strict=True)
        }
        ranges = {name: fits[axis].ranges[name] for name in law.inputs}
        found[axis] = AxisLaw(law, ends, variables[own], without[:, own], ranges, tuple(cells))
    powers = np.where(left_out.settled[:, None], left_out.exponents, np.nan)
    exponents = {
        name: jackknife_interval(whole.exponents[0, i], powers[:, i], 1 + len(sweep.scaled_by), level)
        for i, name in enumerate(sweep.scaled_by)
    }
    centre = {name: float(np.exp(np.mean(np.log(sweep.inputs[name])))) for name in sweep.scaled_by}
    method = f"delete-one jackknife of {len(cells)} cells, with Student's t of (cells - constants) degrees of freedom"
    curvature = tuple(map(tuple, whole.curvature[0].tolist()))
    return JointBowls(found, curvature, centre, exponents, float(whole.noise[0]), method)


def jackknife_interval(value: float, without: np.ndarray, constants: int, level: float) -> Interval:
    """value plus and minus Student's t times the jackknife's standard error (Efron and Tibshirani 1993, chapter 11).

    without: the value with each part of the data left out; not determined where one of them is NaN. constants: how many
    the parts determine, which are no degrees of freedom.
    """
    parts = len(without)
    if parts <= constants or not np.isfinite(without).all():
        return Interval(float(value), -np.inf, np.inf, NOT_DETERMINED)
    if same(value, without):
        return Interval(float(value), float(value), float(value), DEGENERATE)
    error = np.sqrt((parts - 1) / parts * np.sum((without - without.mean()) ** 2))
    reach = float(scipy.special.stdtrit(parts - constants, (1 + level) / 2) * error)
    return Interval(float(value), float(value) - reach, float(value) + reach)


def _natural(parameter: Parameter, interval: Interval) -> Interval:
    """An interval of a solver's variable as one of the constant."""
    ends = sorted(float(parameter.natural(np.asarray(end))) for end in (interval.low, interval.high))
    return Interval(float(parameter.natural(np.asarray(interval.value))), *ends, interval.note)

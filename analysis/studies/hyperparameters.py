"""Best hyperparameters per cell of runs, from which power laws across cells follow.

A cell holds the runs that differ in hyperparameters alone (say one size and length under many learning rates and batch
sizes); columns of any kind tell cells apart, numbers, zero among them, or names. Near its bottom the loss is fitted as
a quadratic in the logarithms of the hyperparameters, by least squares weighted towards the bottom (local regression:
Cleveland and Devlin 1988): that asks for no shape far away, where the bowl is steeper on one side than on the other.
This is what a cell says by itself, whatever the others say and whatever law they follow; `joint_bowls` fits laws
through the runs of all cells. `optima_table` has one row per cell, and any law of `laws/hyperparameters.py` fits it:

    optima = optima_table(fit_bowls(table))
    estimate(find("learning_rate_params_tokens"), optima, objective=LEAST_SQUARES)
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real

import numpy as np
import pandas as pd
import scipy.special

from analysis.fit import FitError, LeftOut, left_out, missing_reason, reasons_left_out, those_left_out
from analysis.intervals import NOT_DETERMINED, Interval, check_level
from analysis.runs_table import complete
from analysis.studies.edges import best_settings, edges_of
from analysis.tables.columns import some_of
from analysis.tables.files import words_of

CELL = ("params", "tokens")
AXES = ("learning_rate", "batch_tokens")
MOST_STEPS = 200


@dataclass(frozen=True)
class Bowl:
    """One cell: log(loss) near its bottom is log(loss_nats) + u C u / 2 with u = log(hyperparameter / optimum).

    optimum: the best hyperparameters, intervals: where they may lie for the noise of the cell's own runs around the
    bowl; curvature: C as (axes, axes); best_run and best_loss_nats: the lowest loss that was measured; best_settings
    and best_mean_nats: of the least mean loss over runs of equal settings, at_edge: the axes at an end of which those
    lie (`edges_of`). reason is empty for a usable optimum; else it says why there is none.
    """

    cell: dict[str, float | str]
    runs: int
    best_run: str
    best_loss_nats: float
    best_settings: dict[str, float]
    best_mean_nats: float
    at_edge: tuple[str, ...]
    optimum: dict[str, float]
    intervals: dict[str, Interval]
    loss_nats: float
    curvature: tuple[tuple[float, ...], ...]
    reason: str


def fit_bowls(
    table: pd.DataFrame,
    *,
    cell: Sequence[str] = CELL,
    axes: Sequence[str] = AXES,
    bandwidth: float = 1.0,
    level: float = 0.9,
) -> tuple[Bowl, ...]:
    """The bowl of every cell, in the order of the cells' values; of the rows that `sweep_rows` keeps.

    bandwidth: standard deviation of the weights, in steps of each axis's grid (`grid_steps`).
    level: of the intervals, which hold the noise of a cell's runs around its bowl, and no bias by its true shape.
    Raises FitError for a missing column, a bandwidth that is not positive, or a level outside (0, 1).
    """
    rows, _ = sweep_rows(table, cell, axes)
    if not bandwidth > 0:
        raise FitError(f"bandwidth = {bandwidth:g}: must be positive. Fix: use 1, one step of the grid.")
    check_level(level)
    failed = failed_in(table, cell, axes)
    return tuple(
        _bowl(at, group, list(axes), bandwidth, level, failed.get(tuple(at.values())))
        for at, group in cells_of(rows, cell)
    )


def optima_table(bowls: Sequence[Bowl]) -> pd.DataFrame:
    """A runs table with one row per cell: what the cell holds equal, its optimum, the loss there, and the axes at an
    end of which its best runs lie (`at_edge`).

    Cells without an optimum stand in it as failed, with the reason, so that a fit names them as left out.
    """
    rows = [
        {
            "run": cell_name(bowl.cell),
            **bowl.cell,
            **bowl.optimum,
            "loss_nats": bowl.loss_nats,
            "at_edge": ", ".join(bowl.at_edge),
            "status": "failed" if bowl.reason else "done",
            "failure_reason": bowl.reason or None,
        }
        for bowl in bowls
    ]
    return pd.DataFrame(rows)


def excess_loss(
    table: pd.DataFrame,
    recommend: Mapping[str, Callable[[Mapping[str, float]], float]],
    *,
    cell: Sequence[str] = CELL,
) -> pd.DataFrame:
    """What following a recommendation costs: per cell, the loss of the run nearest to it over the best of the cell.

    recommend: for each hyperparameter, its value from the cell's own. Nearest is by steps of the grid, so the loss is a
    measured one. Returns the cell's columns, the recommended and the nearest run's hyperparameters (`nearest_<name>`),
    and `excess`, relative; of the rows that `sweep_rows` keeps. Raises FitError for a missing column.
    """
    rows, _ = sweep_rows(table, cell, list(recommend))
    found = []
    for at, group in cells_of(rows, cell):
        wanted = {name: float(rule(at)) for name, rule in recommend.items()}
        nearest, excess = nearest_run(group, wanted)
        found.append({**at, **wanted, **{f"nearest_{name}": nearest[name] for name in wanted}, "excess": excess})
    return pd.DataFrame(found)


def nearest_run(group: pd.DataFrame, wanted: Mapping[str, float]) -> tuple[pd.Series, float]:
    """The run of a cell that is nearest to the hyperparameters `wanted`, and its loss over the cell's best, minus 1."""
    axes = list(wanted)
    steps = (np.log(group[axes].to_numpy(np.float64)) - np.log(list(wanted.values()))) / grid_steps(group, axes)
    nearest = group.iloc[int(np.argmin(np.sum(steps**2, axis=1)))]
    return nearest, float(nearest["loss_nats"] / group["loss_nats"].min() - 1)


def sweep_rows(
    table: pd.DataFrame, cell: Sequence[str] = CELL, axes: Sequence[str] = AXES
) -> tuple[pd.DataFrame, tuple[LeftOut, ...]]:
    """The rows of a sweep that can be used, of the completed table, and every other with the reason it is left out.

    A row is used when `reasons_left_out` has nothing to say of it, the axes and loss_nats being positive, and no column
    of the cell is empty in it. Raises FitError for a missing column, or where no row is left.
    """
    if not (cell and axes):
        raise FitError(
            "cell and axes: must name columns. Fix: give what tells cells apart, and what was swept in them."
        )
    for name in (*cell, *axes, "loss_nats"):
        if name not in table.columns:
            raise FitError(f"table: missing column {name!r}; present: {some_of(table.columns, name)}. Fix: add it.")
    table = complete(table, (*axes, "loss_nats"))
    reasons = reasons_left_out(table, dict.fromkeys((*axes, "loss_nats"), "positive and finite"))
    for name in cell:
        for i in np.flatnonzero(table[name].isna().to_numpy(bool) & (reasons == "")):
            reasons[i] = f"{missing_reason(name, words_of(table), table.index[i])}: its cell is unknown"
    if not (reasons == "").any():
        raise FitError(
            f"table: no finished row has positive {', '.join(axes)} and loss_nats, and {', '.join(cell)}. Fix: fill "
            f"them in{those_left_out(left_out(table, reasons), 0)}."
        )
    return table[reasons == ""], left_out(table, reasons)


def cells_of(rows: pd.DataFrame, cell: Sequence[str]) -> Iterator[tuple[dict[str, float | str], pd.DataFrame]]:
    """Each cell's values, and its rows, in the order of the values."""
    for key, group in rows.groupby(list(cell), sort=True, observed=True):
        yield {name: _value(value) for name, value in zip(cell, key, strict=True)}, group


def grid_steps(group: pd.DataFrame, axes: Sequence[str]) -> np.ndarray:
    """The median ratio between neighbouring values of each axis in a cell, as a logarithm: (axes,); 1 for one value.

    An axis along which settings are scattered, most at a value of their own, is in no grid: its step is that of the
    even grid, from its lowest value to its highest, in which as many settings are.
    """
    settings = np.log(group[[*axes]].drop_duplicates().to_numpy(np.float64))
    found = [np.unique(column, return_counts=True) for column in settings.T]
    steps = np.array([np.median(np.diff(values)) if len(values) > 1 else 1.0 for values, _ in found])
    # In a cross, one value of an axis has all the settings that are swept along the others.
    scattered = [2 * len(values) > len(settings) >= 3 * counts.max() for values, counts in found]
    in_grid = math.prod(len(values) for (values, _), is_off in zip(found, scattered) if not is_off)
    for i, (values, _) in enumerate(found):
        if scattered[i]:
            number = max(2.0, (len(settings) / in_grid) ** (1 / sum(scattered)))
            steps[i] = max(steps[i], (values[-1] - values[0]) / (number - 1))
    return steps


def failed_in(table: pd.DataFrame, cell: Sequence[str], axes: Sequence[str]) -> dict[tuple, pd.DataFrame]:
    """The failed runs of each cell, by its values: nothing better was found at their settings."""
    table = complete(table, (*axes, "loss_nats"))
    failed = table[table["status"].eq("failed").to_numpy(bool, na_value=False)].dropna(subset=[*cell, *axes])
    return {tuple(at.values()): group for at, group in cells_of(failed, cell)} if len(failed) else {}


def cell_name(cell: Mapping[str, float | str]) -> str:
    """A cell for people, and its row's name among the optima: cell params=1e+08 tokens=2e+09."""
    return "cell " + " ".join(f"{name}={v if isinstance(v, str) else format(v, '.4g')}" for name, v in cell.items())


def _value(value: object) -> float | str:
    return float(value) if isinstance(value, Real) and not isinstance(value, (bool, np.bool_)) else str(value)


def _bowl(
    cell: dict[str, float | str],
    group: pd.DataFrame,
    axes: list[str],
    bandwidth: float,
    level: float,
    failed: pd.DataFrame | None,
) -> Bowl:
    logs = np.log(group[axes].to_numpy(np.float64))
    log_loss = np.log(group["loss_nats"].to_numpy(np.float64))
    lowest = int(np.argmin(log_loss))
    width = bandwidth * grid_steps(group, axes)
    place, value, curvature, reason = _descend(logs / width, log_loss, logs[lowest] / width)
    spread = [np.inf] * len(axes) if reason else width * _reach(logs / width, log_loss, place, level)
    settings, mean = best_settings(group, axes)
    outside = (place * width < logs.min(axis=0)) | (place * width > logs.max(axis=0))
    if not reason and outside.any():
        name = axes[int(np.argmax(outside))]
        reason = f"the best {name} lies outside the values that were run"
    return Bowl(
        cell=cell,
        runs=len(group),
        best_run=str(group["run"].iloc[lowest]),
        best_loss_nats=float(np.exp(log_loss[lowest])),
        best_settings=settings,
        best_mean_nats=mean,
        at_edge=edges_of(group, axes, failed),
        optimum=dict(zip(axes, map(float, np.exp(place * width)), strict=True)),
        intervals={
            name: _interval(centre, reach) for name, centre, reach in zip(axes, place * width, spread, strict=True)
        },
        loss_nats=float(np.exp(value)),
        curvature=tuple(map(tuple, (curvature / np.outer(width, width)).tolist())),
        reason=reason,
    )


def _descend(x_NA: np.ndarray, y_N: np.ndarray, place_A: np.ndarray) -> tuple[np.ndarray, float, np.ndarray, str]:
    """Move to the minimum of the quadratic fitted around the place, until it stays.

    Places are in units of the weights' standard deviation. Returns place, value and curvature there, and why it is not
    a minimum ("" when it is).
    """
    axes = x_NA.shape[1]
    value, curvature = float(y_N.min()), np.zeros((axes, axes))
    for _ in range(MOST_STEPS):
        basis, weight = _quadratic(x_NA - place_A)
        root = np.sqrt(weight)
        coefficients, _, rank, _ = np.linalg.lstsq(basis * root[:, None], y_N * root, rcond=1e-8)
        if rank < basis.shape[1]:
            return place_A, value, curvature, f"too few runs near the lowest loss for a quadratic in {axes} directions"
        value, slope = float(coefficients[0]), coefficients[1 : 1 + axes]
        curvature = _curvature(coefficients, axes)
        if np.linalg.eigvalsh(curvature)[0] <= 0:
            return place_A, value, curvature, "the loss near the lowest one is not convex: no minimum"
        move = -np.linalg.solve(curvature, slope)
        size = float(np.linalg.norm(move))
        if size < 1e-9:
            return place_A, value, curvature, ""
        place_A = place_A + move * min(1.0, 0.5 / size)  # half a bandwidth: the quadratic says nothing further away
        if (np.abs(place_A - np.clip(place_A, x_NA.min(axis=0) - 1, x_NA.max(axis=0) + 1)) > 0).any():
            return place_A, value, curvature, "the loss still falls at the edge of the values that were run"
    return place_A, value, curvature, "the search for the minimum does not settle"


def _quadratic(u_NA: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The basis of a quadratic (points, coefficients) in u: constant, slopes, products; and the points' weights."""
    pairs = [u_NA[:, i] * u_NA[:, j] for i, j in _pairs(u_NA.shape[1])]
    return np.column_stack([np.ones(len(u_NA)), u_NA, *pairs]), np.exp(-0.5 * np.sum(u_NA**2, axis=1))


def _curvature(coefficients: np.ndarray, axes: int) -> np.ndarray:
    """The matrix (axes, axes) of a quadratic's second derivatives."""
    curvature = np.zeros((axes, axes))
    for (i, j), c in zip(_pairs(axes), coefficients[1 + axes :], strict=True):
        curvature[i, j] += c
        curvature[j, i] += c
    return curvature


def _pairs(axes: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(axes) for j in range(i, axes)]


def _reach(x_NA: np.ndarray, y_N: np.ndarray, place_A: np.ndarray, level: float) -> np.ndarray:
    """How far to either side of the minimum each axis' interval reaches, infinite where no noise can be estimated.

    By the delta method: at the minimum, where the slope is zero, the place errs by the slope's error over the
    curvature. The noise and its degrees of freedom are those of local regression (Cleveland and Devlin 1988).
    """
    axes = x_NA.shape[1]
    basis, weight = _quadratic(x_NA - place_A)
    inverse = np.linalg.inv(basis.T @ (weight[:, None] * basis))
    twice, thrice = (inverse @ basis.T @ (weight[:, None] ** power * basis) for power in (2, 3))
    coefficients = inverse @ basis.T @ (weight * y_N)
    first = np.sum(weight) - np.trace(twice)  # expected sum of weighted squared residuals over the variance
    second = np.sum(weight**2) - 2 * np.trace(thrice) + np.trace(twice @ twice)
    if first < 1e-6 * np.sum(weight):
        return np.full(axes, np.inf)
    variance = np.sum(weight * (y_N - basis @ coefficients) ** 2) / first
    slope = 1 + np.arange(axes)
    of_slope = variance * (twice @ inverse)[np.ix_(slope, slope)]
    step = np.linalg.inv(_curvature(coefficients, axes))
    error = np.sqrt(np.diag(step @ of_slope @ step))
    return scipy.special.stdtrit(first**2 / second, (1 + level) / 2) * error


def _interval(centre: float, reach: float) -> Interval:
    """exp of centre +- reach, not determined where the reach is not finite."""
    with np.errstate(over="ignore"):
        ends = [float(np.exp(end)) for end in (centre, centre - reach, centre + reach)]
    return Interval(*ends) if np.isfinite(reach) else Interval(ends[0], 0.0, np.inf, NOT_DETERMINED)

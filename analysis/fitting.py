"""Fit any law of `laws.py` to a runs table, and many resampled versions of it, in one vectorised solve.

The objective is the sum over points of a loss of the residual log(law) - log(measured), in float64, as in Hoffmann et
al. 2022, section 3.3. Importing this module leaves jax's default precision alone: float64 holds inside `solve` only.
"""

import functools
import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from analysis.laws import Law, evaluate, find
from analysis.solver import minimise

SMOOTHING = (1000.0, 10.0, 1.0)  # multiples of delta solved in turn: least squares first, the stated delta last
MOST_STARTS = 32
LANE_POINTS = 2**11  # lanes times points solved together: small enough for the cache, and finished lanes leave early


class FitError(ValueError):
    """A table cannot be fitted; the message names the column or number, the rule and the fix."""


@dataclass(frozen=True)
class Objective:
    """Sum over points of rho(r) with r = log(law) - log(measured).

    huber: rho = r^2 / 2 up to |r| = delta, then delta * (|r| - delta / 2). least_squares: rho = r^2 / 2 everywhere
    (delta is None). They have different optima: a result always names its objective.
    """

    name: str
    delta: float | None

    def __str__(self) -> str:
        return self.name if self.delta is None else f"{self.name}(delta = {self.delta:g})"


HUBER = Objective("huber", 1e-3)
LEAST_SQUARES = Objective("least_squares", None)


@dataclass(frozen=True)
class LeftOut:
    """A run (or a budget) that took no part in a fit, and why."""

    run: str
    reason: str


@dataclass(frozen=True)
class Fit:
    """A law fitted to points.

    objective_value: the minimised sum, not a mean. gradient_norm: largest derivative of it by a fitted variable
    (logarithm of a positive parameter). starts_at_optimum: starts that ended within 1e-6 relative of the best value.
    condition_number: ratio of the largest to the smallest singular value of d log(law) / d variable.
    residual_scale: standard deviation of the log residuals, with (points - parameters) degrees of freedom.
    """

    law: str
    objective: Objective
    values: dict[str, float]
    objective_value: float
    starts: int
    starts_at_optimum: int
    gradient_norm: float
    condition_number: float
    residual_scale: float
    used: tuple[str, ...]
    left_out: tuple[LeftOut, ...]

    def array(self) -> np.ndarray:
        """The fitted constants (parameters,), in the law's order."""
        return np.array([self.values[name] for name in find(self.law).names])


@dataclass(frozen=True)
class Points:
    """What is fitted: inputs, each (points,), the log of the measured output (points,), and the runs' names."""

    inputs: dict[str, np.ndarray]
    log_output: np.ndarray
    runs: tuple[str, ...]


def fit(law: Law, table: pd.DataFrame, objective: Objective = HUBER) -> Fit:
    """Fit `law` to the usable rows of `table` from many starting points; the lowest minimum is returned.

    Raises FitError when fewer points than parameters + 1 are usable, when an input is constant, or when several inputs
    are powers of one another.
    """
    points, left_out = select(law, table)
    _check_identifiable(law, points, left_out)
    starts_SP = starting_points(law, points)
    theta_SP, value_S, gradient_SP = solve(
        law,
        points.inputs,
        np.tile(points.log_output, (len(starts_SP), 1)),
        np.ones((len(starts_SP), len(points.runs))),
        starts_SP,
        objective,
    )
    best = int(np.argmin(value_S))
    values = natural(law, theta_SP[best])
    residuals = points.log_output - np.log(evaluate(law, values, points.inputs))
    singular = np.linalg.svd(log_jacobian(law, theta_SP[best], points.inputs), compute_uv=False)
    tolerance = 1e-6 * value_S[best] + 1e-16 * len(residuals)
    return Fit(
        law=law.name,
        objective=objective,
        values=dict(zip(law.names, map(float, values), strict=True)),
        objective_value=float(value_S[best]),
        starts=len(starts_SP),
        starts_at_optimum=int(np.sum(value_S <= value_S[best] + tolerance)),
        gradient_norm=float(np.max(np.abs(gradient_SP[best]))),
        condition_number=float(singular[0] / max(singular[-1], 1e-300)),
        residual_scale=float(np.sqrt(np.sum(residuals**2) / (len(residuals) - len(values)))),
        used=points.runs,
        left_out=left_out,
    )


def select(law: Law, table: pd.DataFrame) -> tuple[Points, tuple[LeftOut, ...]]:
    """The rows a fit of `law` may use, and every other row with the reason it is left out.

    A row is used when it is not held out, its status is done, the law's inputs and output are positive finite numbers,
    and it is not an exact copy of an earlier row. Raises FitError when a column of the law is missing.
    """
    missing = [name for name in (*law.inputs, law.output) if name not in table.columns]
    if missing:
        raise FitError(
            f"table: missing column {missing[0]!r} of law {law.name!r}; present: "
            f"{', '.join(table.columns)}. Fix: add it, or map one of these to it."
        )
    reasons = np.full(len(table), "", dtype=object)

    def leave_out(rows: pd.Series, texts: pd.Series) -> None:
        new = rows.to_numpy() & (reasons == "")
        reasons[new] = texts.to_numpy()[new]

    if "held_out" in table.columns:
        leave_out(table["held_out"].astype(bool), pd.Series("held out", table.index))
    if "status" in table.columns:
        leave_out(table["status"].fillna("unknown").ne("done"), _status_reasons(table))
    for name in (law.output, *law.inputs):
        values = table[name].astype("float64")
        leave_out(~(np.isfinite(values) & (values > 0)), values.map(lambda v, name=name: _value_reason(name, v)))
    leave_out(
        table.drop(columns="run", errors="ignore").duplicated(), pd.Series("exact copy of an earlier row", table.index)
    )
    names = [str(name) for name in table["run"]] if "run" in table.columns else [f"row {i}" for i in range(len(table))]
    used = reasons == ""
    left_out = tuple(LeftOut(names[i], reasons[i]) for i in np.flatnonzero(~used))
    rows = table[used]
    points = Points(
        {name: rows[name].to_numpy(np.float64) for name in law.inputs},
        np.log(rows[law.output].to_numpy(np.float64)),
        tuple(names[i] for i in np.flatnonzero(used)),
    )
    return points, left_out


def solve(
    law: Law,
    inputs: Mapping[str, np.ndarray],
    log_output_BN: np.ndarray,
    weights_BN: np.ndarray,
    starts_BP: np.ndarray,
    objective: Objective,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Minimise the objective in every lane at once: B lanes, each with its own outputs, weights and start.

    A lane is a starting point or a resampled table. Returns variables (B, P), objective values (B,), gradients (B, P).
    """
    lanes, points = weights_BN.shape
    # Every call to `_solve` has the same shape for tables of similar size, whatever the number of lanes: missing points
    # weigh nothing and missing lanes copy lane 0. So a law is compiled once for its fit and all its resamples.
    padded_points = -(-points // 32) * 32
    chunk = max(LANE_POINTS // padded_points, 1)
    column = np.where(np.arange(padded_points) < points, np.arange(padded_points), 0)
    deltas = [np.inf] if objective.delta is None else [factor * objective.delta for factor in SMOOTHING]
    found = []
    with jax.enable_x64(True):
        arrays = {name: jnp.asarray(np.asarray(inputs[name], np.float64)[column]) for name in law.inputs}
        for first in range(0, lanes, chunk):
            lane = np.arange(first, first + chunk)
            lane[lane >= lanes] = 0
            weights = np.where(np.arange(padded_points) < points, weights_BN[lane][:, column], 0.0)
            found.append(
                _solve(law, arrays, starts_BP[lane], log_output_BN[lane][:, column], weights, np.array(deltas))
            )
        theta_BP, value_B, gradient_BP = (np.concatenate(parts)[:lanes] for parts in zip(*found, strict=True))
    return theta_BP, value_B, gradient_BP


@functools.partial(jax.jit, static_argnames=("law",))
def _solve(law: Law, inputs: dict, starts_BP, log_output_BN, weights_BN, deltas) -> tuple:
    def one_lane(start_P, log_output_N, weights_N):
        def smooth_then_sharpen(carry, delta):
            found = minimise(lambda theta: _total(law, theta, inputs, log_output_N, weights_N, delta), *carry)
            return (found.theta, found.curvature), (found.value, found.gradient)

        start = (start_P, jnp.zeros_like(start_P))
        (theta_P, _), (values, gradients) = jax.lax.scan(smooth_then_sharpen, start, deltas)
        return theta_P, values[-1], gradients[-1]

    return jax.vmap(one_lane)(starts_BP, log_output_BN, weights_BN)


def _total(law: Law, theta_P, inputs, log_output_N, weights_N, delta) -> jax.Array:
    residual = jnp.abs(jnp.log(law.predict(law.unpack(theta_P), inputs)) - log_output_N)
    inside = jnp.minimum(residual, delta)
    return jnp.sum(weights_N * inside * (residual - 0.5 * inside))  # Huber's loss, written without a branch


def natural(law: Law, theta: np.ndarray) -> np.ndarray:
    """Constants of the law (..., P) from the solver's variables (..., P)."""
    positive = np.array([parameter.positive for parameter in law.parameters])
    return np.where(positive, np.exp(np.where(positive, theta, 0.0)), theta)


def log_jacobian(law: Law, theta_P: np.ndarray, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """Derivatives of log(law) at each point by each of the solver's variables: (points, P)."""
    with jax.enable_x64(True):
        arrays = {name: jnp.asarray(inputs[name], jnp.float64) for name in law.inputs}
        return np.asarray(_log_jacobian(law, jnp.asarray(theta_P), arrays))


@functools.partial(jax.jit, static_argnames=("law",))
def _log_jacobian(law: Law, theta_P: jax.Array, inputs: dict) -> jax.Array:
    return jax.jacfwd(lambda theta: jnp.log(law.predict(law.unpack(theta), inputs)))(theta_P)


def starting_points(law: Law, points: Points) -> np.ndarray:
    """At most 32 starts (S, P) in the solver's variables: the best of the grid of every parameter's `starts`.

    Parameters in which the law is linear are solved for at each point of the grid, by least squares on law / measured.
    """
    # A start need not be exact: thousands of points say as much as a million.
    thin = slice(None, None, -(-len(points.runs) // 4096))
    inputs, output_N = {name: x[thin] for name, x in points.inputs.items()}, np.exp(points.log_output[thin])
    grid = np.array(list(itertools.product(*(p.starts or (0.0,) for p in law.parameters))))
    linear = [i for i, parameter in enumerate(law.parameters) if not parameter.starts]
    if linear:
        units = np.repeat(grid[:, None], len(linear), axis=1)
        units[:, np.arange(len(linear)), linear] = 1.0
        basis = evaluate(law, units, inputs) / output_N  # (starts, linear parameters, points)
        size = np.max(np.abs(basis), axis=-1)
        basis /= size[..., None]
        gram = np.einsum("skn,sln->skl", basis, basis) + 1e-9 * output_N.size * np.eye(len(linear))
        share = np.linalg.solve(gram, basis.sum(-1)[..., None])[..., 0]
        least = np.where([law.parameters[i].positive for i in linear], 0.02, -np.inf)  # 2 % of the output, not zero
        grid[:, linear] = np.maximum(share, least) / size
    error = np.log(evaluate(law, grid, inputs)) - points.log_output[thin]
    best = np.argsort(np.sum(error**2, axis=-1))[: max(8, min(MOST_STARTS, 2**22 // len(points.runs)))]
    return law.pack(grid[best])


def _check_identifiable(law: Law, points: Points, left_out: tuple[LeftOut, ...]) -> None:
    needed = len(law.parameters) + 1
    if len(points.runs) < needed:
        reasons = "; ".join(f"{item.run}: {item.reason}" for item in left_out[:5])
        raise FitError(
            f"points = {len(points.runs)}: law {law.name!r} has {len(law.parameters)} parameters and needs "
            f"at least {needed} usable points. Fix: add runs{f' (left out: {reasons})' if reasons else ''}."
        )
    logs = np.log(np.stack([points.inputs[name] for name in law.inputs]))
    spread = np.ptp(logs, axis=1)
    for name, width, log in zip(law.inputs, spread, logs, strict=True):
        if width < 1e-6:
            raise FitError(
                f"{name} = {np.exp(log[0]):g} in all {len(points.runs)} usable points: the effect of {name} "
                f"cannot be told from a constant. Fix: add runs that differ in {name}."
            )
    centred = (logs - logs.mean(axis=1, keepdims=True)) / spread[:, None]
    singular = np.linalg.svd(centred, compute_uv=False)
    if singular[-1] < 1e-3 * singular[0]:
        raise FitError(
            f"{' and '.join(law.inputs)}: all {len(points.runs)} usable points lie on one line in their "
            "logarithms (one compute budget only, or a fixed ratio), so their effects cannot be told apart. "
            "Fix: add runs at other budgets."
        )


def _value_reason(name: str, value: float) -> str:
    return f"{name} is missing or NaN" if np.isnan(value) else f"{name} = {value:g} is not positive and finite"


def _status_reasons(table: pd.DataFrame) -> pd.Series:
    text = "status " + table["status"].fillna("unknown").astype("object")
    for name, link in (("failure_step", " at step "), ("failure_reason", ": ")):
        if name in table.columns:
            text = text + table[name].map(lambda value, link=link: "" if pd.isna(value) else f"{link}{value}")
    return text

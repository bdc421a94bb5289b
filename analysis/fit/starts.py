"""Starting points of a fit: the best of a grid, with the constants in which the law is linear solved for."""

import itertools

import numpy as np

from analysis.fit.batched import target_jacobian
from analysis.fit.points import Points
from analysis.laws import Law, evaluate

MOST_STARTS = 32
HELD_STARTS = 4  # of each value at which a constant is held
MOST_POINTS = 1024  # a start need not be exact: a thousand points say as much as a million
LEAST_EFFECT = 0.1  # of an e-fold, in standard deviations of the residuals
MOST_FOLDS = 720  # how far it is looked for: a search may leave a constant anywhere between 1 and the least float64
LEAST_SHARE = 0.02  # of the output: how near its bound a constant that least squares puts beyond it is started


def starting_points(law: Law, points: Points) -> np.ndarray:
    """At most 32 starts (S, P) in the solver's variables: the best of the grid of every parameter's `starts`.

    Parameters in which the law is linear are solved for at each point of the grid, by least squares on law / measured
    (on the law itself where its residual is linear).
    """
    inputs, output_N = _thinned(points)
    grid = np.array(list(itertools.product(*(_values(p, inputs) for p in law.parameters))))
    return law.pack(_lowest(law, grid, _linear(law), inputs, output_N, MOST_STARTS))


def starts_holding(law: Law, points: Points, held: int, values: np.ndarray) -> np.ndarray:
    """HELD_STARTS starts (values, HELD_STARTS, P) for each value at which parameter number `held` is held.

    They know nothing of any optimum: where one constant is held far from its best, the others may belong elsewhere
    altogether, such as a term of the law at nothing because another one does its work.
    """
    inputs, output_N = _thinned(points)
    grids = [_values(parameter, inputs) for parameter in law.parameters]
    linear = [i for i in _linear(law) if i != held]
    starts = []
    for value in values:
        grid = np.array(list(itertools.product(*grids[:held], (value,), *grids[held + 1 :])))
        lowest = _lowest(law, grid, linear, inputs, output_N, HELD_STARTS)
        starts.append(lowest[np.arange(HELD_STARTS) % len(lowest)])
    return law.pack(np.stack(starts))


def _thinned(points: Points) -> tuple[dict[str, np.ndarray], np.ndarray]:
    thin = slice(None, None, -(-len(points.runs) // MOST_POINTS))
    return {name: values[thin] for name, values in points.inputs.items()}, points.output[thin]


def _linear(law: Law) -> list[int]:
    return [i for i, parameter in enumerate(law.parameters) if not parameter.starts]


def _lowest(
    law: Law, grid: np.ndarray, linear: list[int], inputs: dict, output_N: np.ndarray, count: int
) -> np.ndarray:
    """The best `count` constants (count, P) of the grid, the `linear` ones of each solved for."""
    if linear:
        grid[:, linear] = _project(law, grid, linear, inputs, output_N)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = law.target(evaluate(law, grid, inputs)) - law.target(output_N)
    # NaN, outside the law's domain, sorts last.
    return grid[np.argsort(np.sum(error**2, axis=-1))[:count]]


def _values(parameter, inputs: dict[str, np.ndarray]) -> tuple[float, ...]:
    if not parameter.start_unit:
        return parameter.starts or (0.0,)
    values = inputs[parameter.start_unit]
    unit = np.exp(np.mean(np.log(values[values > 0])))
    return tuple(unit * start for start in parameter.starts)


def _project(law: Law, grid: np.ndarray, linear: list[int], inputs: dict, output_N: np.ndarray) -> np.ndarray:
    """Least-squares values (starts, linear parameters), kept inside their bounds."""
    scale_N = output_N if law.residual == "log" else np.full_like(output_N, np.sqrt(np.mean(output_N**2)) or 1.0)
    units = np.repeat(grid[:, None], len(linear) + 1, axis=1)
    units[:, :, linear] = 0.0
    units[:, np.arange(len(linear)), linear] = 1.0  # the last row leaves every one of them zero
    values = evaluate(law, units, inputs)
    offset, basis = values[:, -1:], (values[:, :-1] - values[:, -1:]) / scale_N  # (starts, linear parameters, points)
    size = np.maximum(np.max(np.abs(basis), axis=-1), 1e-300)
    basis = np.nan_to_num(basis / size[..., None])
    gram = np.einsum("skn,sln->skl", basis, basis) + 1e-9 * output_N.size * np.eye(len(linear))
    right = np.einsum("skn,sn->sk", basis, np.nan_to_num((output_N - offset[:, 0]) / scale_N))
    share = np.linalg.solve(gram, right[..., None])[..., 0]
    low, high = (np.array([getattr(law.parameters[i], end) for i in linear]) for end in ("low", "high"))
    nearest = np.minimum(LEAST_SHARE / size, np.where(np.isfinite(high - low), 0.02 * (high - low), np.inf))
    return np.clip(share / size, low + nearest, high - nearest)


def starts_along_valley(theta_P: np.ndarray, jacobian_NP: np.ndarray, residual_scale: float, count: int) -> np.ndarray:
    """`count` starts (count, P) around a minimum, far from it where the points hold least: along the valley's floor.

    Moves are drawn from the constants' covariance there, 1, 3 and 10 standard errors wide in turn, and none by more
    than 2 in a variable. jacobian_NP: derivatives of the residuals by the variables.
    """
    _, singular, directions = np.linalg.svd(jacobian_NP, full_matrices=False)
    spread = residual_scale / np.maximum(singular, 1e-12 * singular[0] + 1e-300)
    drawn = np.random.default_rng(0).standard_normal((count, len(theta_P))) * np.minimum(spread, 2.0)
    width = np.array([1.0, 3.0, 10.0])[np.arange(count) % 3]
    return theta_P + np.clip(width[:, None] * (drawn @ directions), -2.0, 2.0)


def off_bounds(law: Law, theta_P: np.ndarray, inputs: dict[str, np.ndarray], residual_scale: float) -> np.ndarray:
    """theta_P with each bounded parameter whose gradient has vanished moved until the residuals respond again.

    At its bound, or so large that its term no longer counts, a parameter has a zero derivative with respect to its
    logarithm: a search that starts there cannot find out whether other data want it elsewhere.
    """
    moved_P, least = theta_P.copy(), LEAST_EFFECT * residual_scale

    def effects(theta_P: np.ndarray) -> np.ndarray:
        return np.sqrt(np.mean(target_jacobian(law, theta_P, inputs) ** 2, axis=0))

    bounded_P = np.array([np.isfinite(parameter.low) or np.isfinite(parameter.high) for parameter in law.parameters])
    for i in np.flatnonzero(bounded_P & (effects(theta_P) < least)):
        moves = (sign * fold for fold in range(1, MOST_FOLDS) for sign in (1.0, -1.0))
        unit_P = np.eye(len(theta_P))[i]
        moved_P[i] += next((move for move in moves if effects(theta_P + move * unit_P)[i] >= least), 0.0)
    return moved_P

"""The search of the joint fit of bowls: Gauss-Newton steps of many fits at once, the floors of cells projected out.

`joint_bowls.fit_joint` says what is fitted; here are arrays alone. The weights move with the place, so a fit ends at a
fixed point, as a local regression does, and at no minimum of one sum.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from analysis.laws import Law, evaluate
from analysis.laws.definition import padded_rows

MOST_STEPS = 200
SETTLED = 1e-7  # bandwidths by which the best settings of a cell still move
DERIVATIVE_STEP = 1e-4  # of a law's variable, to either side
SINGULAR = 1e-13  # smallest over largest eigenvalue of the normal equations, in columns of length 1
AT_ONCE = 2**23  # numbers in the largest array: 64 MiB


@dataclass(frozen=True)
class Sweep:
    """Runs in the order of their cells.

    log_settings: (runs, axes); log_loss: (runs,); first: (cells,) the first run of each cell; inputs: of the laws, each
    (cells,); scaled_by: those whose powers the curvature follows; width: (cells, axes) standard deviation of the
    weights, as a logarithm.
    """

    log_settings: np.ndarray
    log_loss: np.ndarray
    first: np.ndarray
    inputs: dict[str, np.ndarray]
    scaled_by: tuple[str, ...]
    width: np.ndarray

    @property
    def cell(self) -> np.ndarray:
        """The number of the cell of each run: (runs,)."""
        return np.repeat(np.arange(len(self.first)), np.diff([*self.first, len(self.log_loss)]))

    @property
    def scale(self) -> np.ndarray:
        """Log of each input in scaled_by over its geometric mean: (cells, inputs)."""
        logs = np.array([np.log(self.inputs[name]) for name in self.scaled_by]).reshape(len(self.scaled_by), -1).T
        return logs - logs.mean(axis=0)


@dataclass(frozen=True)
class Bowls:
    """Many joint fits.

    variables: (fits, variables) of the laws, one after the other, in the solver's units; an axis without a law has the
    log of its best value in each cell. curvature: (fits, axes, axes); exponents: (fits, inputs) of its size. noise:
    (fits,) weighted standard deviation of log loss. settled: (fits,) whether the search ended at a minimum.
    """

    variables: np.ndarray
    curvature: np.ndarray
    exponents: np.ndarray
    noise: np.ndarray
    settled: np.ndarray

    @classmethod
    def at(cls, variables: np.ndarray, curvature: np.ndarray, inputs: int) -> "Bowls":
        """One fit to begin at, its curvature the same at every scale."""
        return cls(variables[None], curvature[None], np.zeros((1, inputs)), np.full(1, np.nan), np.zeros(1, bool))


def solve(sweep: Sweep, laws: Sequence[Law | None], start: Bowls, counts: np.ndarray) -> Bowls:
    """The joint fit for each row of `counts` (fits, runs), how often each run counts, all from one start.

    laws: of each axis, None for one that is free in each cell.
    """
    size = start.variables.shape[1] + start.curvature.shape[1] ** 2 + start.exponents.shape[1]
    some = max(1, AT_ONCE // (sweep.log_loss.size * size))
    found = [_solve(sweep, laws, start, counts[i : i + some]) for i in range(0, len(counts), some)]
    return Bowls(*(np.concatenate([getattr(one, field.name) for one in found]) for field in fields(Bowls)))


def independent(columns: np.ndarray) -> list[int]:
    """The columns (rows, columns) that no earlier ones make up."""
    chosen: list[int] = []
    for i in range(columns.shape[1]):
        if np.linalg.matrix_rank(columns[:, [*chosen, i]], tol=1e-6 * max(1.0, np.abs(columns).max())) > len(chosen):
            chosen.append(i)
    return chosen


def _solve(sweep: Sweep, laws: Sequence[Law | None], start: Bowls, counts: np.ndarray) -> Bowls:
    fits = len(counts)
    variables, curvature, exponents = (
        np.repeat(values, fits, axis=0) for values in (start.variables, start.curvature, start.exponents)
    )
    noise, settled, going = np.full(fits, np.nan), np.zeros(fits, bool), np.arange(fits)
    for _ in range(MOST_STEPS):
        if not len(going):
            break
        now = Bowls(variables[going], curvature[going], exponents[going], noise[going], settled[going])
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # a fit that runs away ends below
            step, bend, power, moved, spread = _step(sweep, laws, now, counts[going])
        finite = np.isfinite(moved)
        # Half a bandwidth: the quadratic says nothing further away. The curvature enters linearly and goes all the way,
        # or a start that is too flat would ask for steps without end.
        going, step, bend, power, moved, spread = (
            values[finite] for values in (going, step, bend, power, moved, spread)
        )
        share = np.minimum(1.0, 0.5 / np.maximum(moved, 1e-300))[:, None]
        variables[going] += share * step
        exponents[going] += share * power
        curvature[going] += bend
        noise[going] = spread
        settled[going] = moved < SETTLED
        going = going[moved >= SETTLED]
    settled &= np.linalg.eigvalsh(curvature)[:, 0] > 0
    return Bowls(variables, curvature, exponents, noise, settled)


def _step(
    sweep: Sweep, laws: Sequence[Law | None], now: Bowls, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """One step of every fit: of its variables, curvature and exponents, how far it moves the best settings of a cell in
    bandwidths (NaN where the runs do not determine it), and the noise around the bowls.
    """
    cell, axes = sweep.cell, now.curvature.shape[1]
    place, slope = _places(sweep, laws, now.variables)
    u = sweep.log_settings - place[:, cell]
    weight = counts * np.exp(-0.5 * np.sum((u / sweep.width[cell]) ** 2, axis=-1))
    size = np.exp(now.exponents @ sweep.scale.T)[:, cell]
    pull = size[..., None] * np.einsum("fna,fab->fnb", u, now.curvature)
    bowl = 0.5 * np.sum(u * pull, axis=-1)
    pairs = [(i, j) for i in range(axes) for j in range(i, axes)]
    columns = np.concatenate(
        [
            -np.einsum("fna,fnav->fnv", pull, slope[:, cell]),
            np.stack([size * u[..., i] * u[..., j] * (0.5 if i == j else 1.0) for i, j in pairs], axis=-1),
            bowl[..., None] * sweep.scale[cell],
            (sweep.log_loss - bowl)[..., None],
        ],
        axis=-1,
    )
    total = np.maximum(np.add.reduceat(weight, sweep.first, axis=1), 1e-300)[..., None]
    floor = np.add.reduceat(weight[..., None] * columns, sweep.first, axis=1) / total
    columns = (columns - floor[:, cell]) * np.sqrt(weight)[..., None]
    change = _least_squares(columns[..., :-1], columns[..., -1])
    ends = np.cumsum([now.variables.shape[1], len(pairs)])
    step, bent, power = np.split(change, ends, axis=1)
    bend = np.zeros_like(now.curvature)
    for value, (i, j) in zip(bent.T, pairs, strict=True):
        bend[:, i, j] = bend[:, j, i] = value
    shift = np.einsum("fcav,fv->fca", slope, step) / sweep.width
    moved = np.sqrt(np.max(np.sum(shift**2, axis=-1), axis=-1))
    return step, bend, power, moved, np.sqrt(np.sum(columns[..., -1] ** 2, axis=1) / np.sum(weight, axis=1))


def _least_squares(columns: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The solutions (fits, columns), NaN where the columns (fits, runs, columns) are dependent; a column of zeros, such
    as the best value of a cell that is left out, stays as it is.
    """
    length = np.sqrt(np.sum(columns**2, axis=1))
    empty = length == 0
    columns = columns / np.where(empty, 1.0, length)[:, None]
    normal = np.swapaxes(columns, 1, 2) @ columns + empty[:, None] * np.eye(columns.shape[-1])
    usable = np.isfinite(normal).all(axis=(1, 2))
    usable[usable] = np.linalg.cond(normal[usable]) < 1 / SINGULAR
    found = np.full(length.shape, np.nan)
    target = np.einsum("fnp,fn->fp", columns, right)[..., None]
    found[usable] = np.linalg.solve(normal[usable], target[usable])[..., 0]
    return found / np.where(empty, 1.0, length)


def _places(sweep: Sweep, laws: Sequence[Law | None], variables: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log of the best settings of each cell (fits, cells, axes), and its derivative by the variables (..., variables).

    By central differences, which are exact for power laws: their logarithm is linear in the solver's variables.
    """
    fits, cells = len(variables), len(sweep.first)
    place, slope = np.empty((fits, cells, len(laws))), np.zeros((fits, cells, len(laws), variables.shape[1]))
    at, row = 0, padded_rows(fits)  # as many fits as often before: each number of them is a program to compile
    for axis, law in enumerate(laws):
        own = slice(at, at + (cells if law is None else len(law.names)))
        at = own.stop
        if law is None:
            place[..., axis], slope[:, :, axis, own] = variables[:, own], np.eye(cells)
            continue
        steps = DERIVATIVE_STEP * np.eye(len(law.names))
        near = variables[row][:, None, own] + np.concatenate([np.zeros_like(steps[:1]), steps, -steps])
        logs = np.log(evaluate(law, law.natural(near), sweep.inputs))[:fits]
        place[..., axis] = logs[:, 0]
        up, down = logs[:, 1 : 1 + len(steps)], logs[:, 1 + len(steps) :]
        slope[:, :, axis, own] = np.swapaxes(up - down, 1, 2) / (2 * DERIVATIVE_STEP)
    return place, slope

"""Learning curves on top of each other: normalised loss against normalised compute, across sizes and seeds.

Qiu et al. 2025, arXiv:2507.02119: loss curves of compute-optimally trained models of all sizes are one curve once
compute is divided by its end and the loss above its floor by that at the end. Where they part, something is amiss.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.fit import LEAST_SQUARES, FitError, fit
from analysis.laws import find

NEEDED = ("run", "size", "seed", "compute", "loss")


@dataclass(frozen=True)
class Curve:
    """One run: compute and loss as measured, (points,), and the loss normalised, on the grid of the collapse."""

    run: str
    size: float
    seed: int
    compute: np.ndarray
    loss: np.ndarray
    normalised: np.ndarray


@dataclass(frozen=True)
class Collapse:
    """Every run's curve on one grid of compute / compute at the end.

    floor: the loss subtracted. across_sizes: relative standard deviation over sizes of the normalised loss, averaged
    over seeds first, (grid,). across_seeds: relative standard deviation over the seeds of one size of the loss above
    the floor, root mean square over sizes; None without repeats. A supercollapse has the first below the second.
    """

    floor: float
    sizes: tuple[float, ...]
    grid: np.ndarray
    curves: tuple[Curve, ...]
    across_sizes: np.ndarray
    across_seeds: np.ndarray | None


def collapse(history: pd.DataFrame, floor: float | None = None, grid: np.ndarray | None = None) -> Collapse:
    """Normalise the curves of `history`, one row per measurement: run, size, seed, compute (FLOP) and loss.

    floor: the irreducible loss; by default the one a power law of the runs' last losses in compute leaves, which takes
    at least four sizes. grid: shares of the compute, from above 0 to 1. Raises FitError for a missing column, fewer
    than two sizes, or a floor that some loss is not above.
    """
    missing = [name for name in NEEDED if name not in history.columns]
    if missing:
        raise FitError(f"history: missing column {missing[0]!r}. Fix: give {', '.join(NEEDED)}.")
    grid = np.linspace(0.1, 1.0, 91) if grid is None else np.asarray(grid, np.float64)
    runs = [group.sort_values("compute") for _, group in history.groupby("run")]
    sizes = tuple(sorted({float(run["size"].iloc[0]) for run in runs}))
    if len(sizes) < 2:
        raise FitError(f"size = {sizes}: curves of one size cannot collapse. Fix: give at least two.")
    if floor is None:
        floor = _floor(runs)
    lowest = min(float(run["loss"].min()) for run in runs)
    if not floor < lowest:
        raise FitError(f"floor = {floor:g}: must lie below every loss; the smallest is {lowest:g}. Fix: lower it.")
    above = np.stack([np.interp(grid * run["compute"].iloc[-1], run["compute"], run["loss"]) for run in runs]) - floor
    ends = np.array([float(run["loss"].iloc[-1]) for run in runs]) - floor
    normalised = above / ends[:, None]
    of_run = np.array([float(run["size"].iloc[0]) for run in runs])
    means = np.stack([normalised[of_run == size].mean(axis=0) for size in sizes])
    repeated = [above[of_run == size] for size in sizes if np.sum(of_run == size) > 1]
    seeds = [np.var(found, axis=0, ddof=1) / np.mean(found, axis=0) ** 2 for found in repeated]
    return Collapse(
        floor=float(floor),
        sizes=sizes,
        grid=grid,
        curves=tuple(
            Curve(
                str(run["run"].iloc[0]),
                size,
                int(run["seed"].iloc[0]),
                run["compute"].to_numpy(np.float64),
                run["loss"].to_numpy(np.float64),
                curve,
            )
            for run, size, curve in zip(runs, of_run, normalised, strict=True)
        ),
        across_sizes=np.std(means, axis=0, ddof=1) / means.mean(axis=0),
        across_seeds=np.sqrt(np.mean(seeds, axis=0)) if seeds else None,
    )


def _floor(runs: list[pd.DataFrame]) -> float:
    ends = pd.DataFrame(
        {
            "size": [float(run["size"].iloc[0]) for run in runs],
            "flops": [float(run["compute"].iloc[-1]) for run in runs],
            "loss_nats": [float(run["loss"].iloc[-1]) for run in runs],
        }
    )
    return fit(find("loss_frontier"), ends.groupby("size", as_index=False).mean(), LEAST_SQUARES).values["E"]

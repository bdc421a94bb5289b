"""How often 90 % intervals of a sweep hold the truth: of each cell's best settings, and of the laws' exponents.

python tests/benchmarks/sweep_intervals.py [--tables 100]

Sweeps are planted: 7 by 7 learning rates and batches in each of 6 or 16 cells, with noise of log loss and, in some,
best settings that scatter around their law from cell to cell. Beside the intervals of `isoflop bowls` (jackknife) stand
percentiles of the same joint fit to 100 resamples of cells, of runs within cells, and of both, and what a law of the
cells' optima has by BCa from resamples of these.

Printed with 40 tables, of the exponents (a share has a standard error of 2 to 4 %):

6 cells, noise 3e-4:               jackknife 97.5 %, cells 81.9, runs 88.1, cells and runs 99.4, BCa of optima 79.4
6 cells, noise 1e-3:               97.5 %, 81.2, 88.1, 99.4, 79.4
6 cells, noise 3e-4, scatter 0.1:  94.4 %, 86.9, 28.7, 87.5, 86.9
16 cells, noise 1e-3:              91.2 %, 84.4, 87.5, 100.0, 85.6
16 cells, noise 3e-4, scatter 0.1: 91.9 %, 88.1, 32.5, 88.8, 88.1

and of a cell's best settings 90.8, 90.0 and 91.2 % where these do not scatter. Drawing runs within drawn cells counts
their noise twice where it is all there is; drawing runs alone leaves out what cells differ by.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from planted_tables import SWEPT, best_batch, best_rate, noisy_sweep

from analysis.fit import LEAST_SQUARES
from analysis.intervals import Interval, estimate_rows, percentile_interval
from analysis.laws import find
from analysis.runs_table import complete
from analysis.sampling import Sampling
from analysis.studies import Bowl, cells_of, fit_bowls, optima_table
from analysis.studies.bowl_solver import Bowls, Sweep, solve
from analysis.studies.hyperparameters import CELL, grid_steps
from analysis.studies.joint_bowls import fit_joint

LEVEL, RESAMPLES = 0.9, 100
LAWS = {axis: find(f"{axis}_params_tokens") for axis in ("learning_rate", "batch_tokens")}
EXPONENTS = {  # of planted_tables.best_rate and best_batch
    ("learning_rate", "params_exponent"): -0.4,
    ("learning_rate", "tokens_exponent"): 0.1,
    ("batch_tokens", "params_exponent"): 0.0,
    ("batch_tokens", "tokens_exponent"): 0.5,
}
MANY = tuple((params, ratio) for params in (1e8, 2e8, 4e8, 8e8) for ratio in (10, 30, 90, 270))
SWEEPS = {  # cells, noise of log loss, scatter of log settings
    "6 cells, noise 3e-4": (SWEPT, 3e-4, 0.0),
    "6 cells, noise 1e-3": (SWEPT, 1e-3, 0.0),
    "6 cells, noise 3e-4, scatter 0.1": (SWEPT, 3e-4, 0.1),
    "16 cells, noise 1e-3": (MANY, 1e-3, 0.0),
    "16 cells, noise 3e-4, scatter 0.1": (MANY, 3e-4, 0.1),
}


def intervals(seed: int, cells: tuple, noise: float, scatter: float) -> tuple[list[bool], dict[str, list[Interval]]]:
    """Whether the cells' intervals hold what was planted, and by each way the intervals of the exponents, in order."""
    table = noisy_sweep(seed, noise, scatter, cells)
    groups = [group for _, group in cells_of(table, CELL)]
    bowls = fit_bowls(table, level=LEVEL)
    optima = complete(optima_table(bowls))
    joint = fit_joint(groups, bowls, optima, LAWS, level=LEVEL)
    ways = {"jackknife": [joint.laws[axis].intervals[name] for axis, name in EXPONENTS]}
    counts = [len(group) for group in groups]
    first = np.cumsum([0, *counts[:-1]])
    runs = table.sort_values(list(CELL), kind="stable")
    inputs = {name: runs[name].to_numpy()[first] for name in CELL}
    steps = np.stack([grid_steps(group, list(LAWS)) for group in groups])
    logs = np.log(runs[[*LAWS, "loss_nats"]].to_numpy())
    sweep = Sweep(logs[:, :2], logs[:, 2], first, inputs, CELL, steps)
    start = Bowls.at(np.concatenate([law.variables for law in joint.laws.values()]), np.array(joint.curvature), 2)
    generator = np.random.default_rng(seed)
    of_cells = generator.multinomial(len(groups), np.full(len(groups), 1 / len(groups)), RESAMPLES)[:, sweep.cell]
    within = np.concatenate([generator.multinomial(n, np.full(n, 1 / n), RESAMPLES) for n in counts], axis=1)
    for name, drawn in (("cells", of_cells), ("runs", within), ("cells and runs", of_cells * within)):
        fitted = solve(sweep, tuple(LAWS.values()), start, drawn.astype(float))
        # The solver's variable of an exponent is the exponent.
        columns = fitted.variables[fitted.settled][:, [1, 2, 4, 5]].T
        ways[name] = [
            percentile_interval(interval.value, draws, LEVEL)
            for interval, draws in zip(ways["jackknife"], columns, strict=True)
        ]
    by_optima = {
        axis: estimate_rows(law, optima, LEAST_SQUARES, Sampling(RESAMPLES, LEVEL, seed)) for axis, law in LAWS.items()
    }
    ways["BCa of optima"] = [by_optima[axis].intervals[name] for axis, name in EXPONENTS]
    return held_cells(bowls), ways


def held_cells(bowls: Sequence[Bowl]) -> list[bool]:
    """Whether the intervals of the cells' best settings hold those planted, where these do not scatter."""
    true = {"learning_rate": best_rate, "batch_tokens": lambda params, tokens: best_batch(tokens)}
    return [
        bowl.intervals[axis].contains(true[axis](**bowl.cell)) for bowl in bowls if not bowl.reason for axis in true
    ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tables", type=int, default=100)
    arguments = parser.parse_args()
    for name, (cells, noise, scatter) in SWEEPS.items():
        started = time.perf_counter()
        found = [intervals(seed, cells, noise, scatter) for seed in range(arguments.tables)]
        shares = []
        for way in found[0][1]:
            held = [one.contains(true) for _, ways in found for one, true in zip(ways[way], EXPONENTS.values())]
            shares.append(f"{way} {100 * np.mean(held):.1f}")
        if not scatter:
            shares.insert(0, f"settings of a cell {100 * np.mean([held for one, _ in found for held in one]):.1f}")
        print(f"{name}, % inside: {', '.join(shares)}; {time.perf_counter() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()

"""How often 90 % intervals hold the truth at few points: of constants, of optima, and of a run that was not made.

python tests/benchmarks/few_points.py [--tables 200] [--points 6 7 8 9 10 12 15]

Tables are of 2 or 3 budgets, with 5 constants to fit (the Chinchilla law) and normal noise of 0.3 to 1 %. The share
of 200 tables has a standard error of 2 %. Printed with 150 tables: optima at 1 and 10 times the largest budget are
held by 47 to 56 % of intervals at 6 points (their exponent by 69 %), 72 to 91 % (93 %) at 7, 84 to 92 % (96 %) at 8;
constants by 68 to 91 %, 89 to 93 % and 91 to 93 %; a run that was not made by 86, 93 and 93 %.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.sampling import Sampling

sys.path.insert(0, str(Path(__file__).parents[1]))
from planted_tables import BUDGETS, TRUTH, planted_loss, planted_optimum, planted_table

from analysis.compute import FlopRule, efficient_runs
from analysis.fit import HUBER, Objective, select
from analysis.intervals import POINTS, Resampling, bca_interval, estimate, predictive, predictive_interval
from analysis.laws import CHINCHILLA

LEVEL, BOOTSTRAPS = 0.9, 192
SIX_ND = FlopRule(6.0, 1.0)
TARGETS = (1.0, 10.0)  # times the largest budget


def few_points(seed: int, points: int):
    """A table of `points` runs: 2 budgets up to 8, else 3, with one size left out where they do not divide."""
    generator = np.random.default_rng([8, points, seed])
    budgets = BUDGETS[::2] if points <= 8 else BUDGETS
    table = planted_table(noise=0.0, sizes=-(-points // len(budgets)), budgets=budgets)
    table = table.drop(index=generator.choice(len(table), len(table) - points, replace=False)).reset_index(drop=True)
    noise = 10 ** generator.uniform(np.log10(0.003), -2)
    loss = planted_loss(table["params"], table["tokens"]) * np.exp(noise * generator.standard_normal(points))
    return table.assign(loss_nats=loss), noise, generator


def hits(seed: int, points: int) -> dict[str, bool]:
    """Quantity -> whether its interval holds the truth, in one table."""
    table, noise, generator = few_points(seed, points)
    return held(table, seed, TRUTH, BUDGETS[-1], noise * generator.standard_normal(), POINTS)


def held(
    table: pd.DataFrame,
    seed: int,
    truth: dict[str, float],
    largest: float,
    noise: float,
    resampling: Resampling,
    objective: Objective = HUBER,
) -> dict[str, bool]:
    """Quantity -> whether its interval, from a table with planted constants, holds the truth.

    largest: FLOPs beyond which optima are extrapolated; noise: log residual of the run at four times as many.
    """
    sampling = Sampling(BOOTSTRAPS, LEVEL, seed)
    found = estimate(CHINCHILLA, table, objective=objective, resampling=resampling, sampling=sampling)
    inside = {name: found.intervals[name].contains(value) for name, value in truth.items()}
    constants = np.concatenate([found.fit.array()[None], found.draws, found.jackknife])
    runs = []
    for factor in (0.5, 2.0, *TARGETS):
        runs.append(efficient_runs(CHINCHILLA, constants, SIX_ND, factor * largest)[::2])

    def holds(values, wanted):
        draws, jackknife = np.split(values[1:], [len(found.draws)])
        return bca_interval(values[0], draws, jackknife, LEVEL).contains(wanted)

    exponent = truth["beta"] / (truth["alpha"] + truth["beta"])
    inside["exponent"] = holds(np.log(runs[1][0] / runs[0][0]) / np.log(4), exponent)
    for factor, (params, loss) in zip(TARGETS, runs[2:]):
        best = planted_optimum(factor * largest, truth)
        inside[f"params x{factor:g}"] = holds(params, best)
        inside[f"loss x{factor:g}"] = holds(loss, planted_loss(best, factor * largest / 6 / best, truth))
    size = planted_optimum(4 * largest, truth)
    unseen = {"params": size, "tokens": 4 * largest / 6 / size}
    spread = predictive(found.fit, select(CHINCHILLA, table)[0], sampling)
    measured = planted_loss(**unseen, truth=truth) * np.exp(noise)
    inside["run x4"] = predictive_interval(CHINCHILLA, found.fit, spread, unseen, LEVEL, seed).contains(measured)
    return inside


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tables", type=int, default=200)
    parser.add_argument("--points", type=int, nargs="+", default=[6, 7, 8, 9, 10, 12, 15])
    arguments = parser.parse_args()
    for points in arguments.points:
        started = time.perf_counter()
        found = [hits(seed, points) for seed in range(arguments.tables)]
        shares = "  ".join(f"{name} {100 * np.mean([hit[name] for hit in found]):.0f}" for name in found[0])
        print(f"{points:3d} points, % inside: {shares}; {time.perf_counter() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()

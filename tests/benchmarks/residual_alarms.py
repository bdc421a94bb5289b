"""How often the checks of residuals raise an alarm where there is nothing: outliers, lack of fit, unused columns.

python tests/benchmarks/residual_alarms.py [--tables 200]

Tables of the Chinchilla law are fitted by the default objective; noise is normal or Student's t of 4 degrees of
freedom. The outlier test is also run on plain noise, 2,000 tables of each size. Printed with 100 fitted tables: an
outlier in 0.2 to 0.9 % of normal tables of 20 to 1,000 points; under Student's t, 0.4 to 0.9 % of all points are
called outliers, which is 8 % of tables of 20 points, 32 % of 50 and nearly all of 1,000: its far points lie that far
out. Fitted tables of 18 and 54 runs: outliers 0 and 1 % (normal), 4 and 26 % (Student's t); columns 2 and 1 %, 0 and
0 %; lack of fit 0 %.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1]))
from planted_tables import planted_loss, planted_table

from analysis.fit import fit, outliers, select
from analysis.laws import CHINCHILLA
from analysis.runs_table import complete
from analysis.studies import residual_checks

FREEDOM = 4


def noise_of(kind: str, generator: np.random.Generator, shape) -> np.ndarray:
    if kind == "normal":
        return generator.standard_normal(shape)
    return generator.standard_t(FREEDOM, shape) / 2**0.5


def plain() -> None:
    """Share of tables with any outlier, and of points that are one."""
    for kind in ("normal", "student"):
        for points in (20, 50, 100, 300, 1000):
            rows = noise_of(kind, np.random.default_rng([3, points]), (2000, points))
            found = np.array([outliers(row).which for row in rows])
            print(
                f"{kind} noise, {points} points: {found.any(axis=1).mean():.1%} of tables, {found.mean():.3%} of points"
            )


def checked(seed: int, kind: str, seeds: int):
    """The checks of one table of 3 budgets of 6 sizes, each run with `seeds` seeds, and columns that mean nothing."""
    generator = np.random.default_rng([4, seed])
    table = pd.concat([planted_table(noise=0.0).assign(seed=i) for i in range(seeds)], ignore_index=True)
    count = len(table)
    errors = 0.004 * noise_of(kind, generator, count)
    table = table.assign(
        run=[f"run-{i}" for i in range(count)],
        loss_nats=planted_loss(table["params"], table["tokens"]) * np.exp(errors),
        batch_tokens=2.0 ** generator.integers(14, 20, count),
        learning_rate=np.exp(generator.uniform(-8, -5, count)),
        cluster=generator.choice(["a", "b", "c"], count),
        note=[f"note {i}" for i in range(count)],
    )
    table = complete(table)
    points, _ = select(CHINCHILLA, table)
    return residual_checks(fit(CHINCHILLA, table), points, table.iloc[points.rows])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tables", type=int, default=200)
    arguments = parser.parse_args()
    plain()
    for kind in ("normal", "student"):
        for seeds in (1, 3):
            found = [checked(seed, kind, seeds) for seed in range(arguments.tables)]
            alarms = [bool(one.outliers) for one in found], [bool(one.explained) for one in found]
            lacking = [one.lack_of_fit.p_value < 0.01 for one in found if one.lack_of_fit]
            text = f", lack of fit (p < 0.01) {np.mean(lacking):.1%}" if lacking else ""
            print(
                f"{kind} noise, fitted tables of {18 * seeds}: outliers {np.mean(alarms[0]):.1%}, "
                f"columns {np.mean(alarms[1]):.1%}{text}",
                flush=True,
            )


if __name__ == "__main__":
    main()

"""Whether the fit ever ends above the best that scipy finds, on random tables of every law.

python tests/benchmarks/fit_against_scipy.py [--tables 200] [--starts 50] [--laws chinchilla kaplan ...]

scipy starts at random points, half of them near the planted constants, which the fit does not know.
"""

import argparse
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # threads only wait for one another in products this small

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from scipy_fits import random_table, scipy_best

from analysis.fitting import fit, select
from analysis.laws import LAWS


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tables", type=int, default=200)
    parser.add_argument("--starts", type=int, default=50)
    parser.add_argument("--laws", nargs="+", choices=LAWS, default=list(LAWS))
    arguments = parser.parse_args()
    print("law, tables, fits above scipy's best by 1e-9 relative, largest excess, fits below it by 1e-6, seconds")
    for name in arguments.laws:
        law, started, ratios = LAWS[name], time.perf_counter(), []
        for seed in range(arguments.tables):
            generator = np.random.default_rng([seed, len(name)])
            table, truth = random_table(law, generator)
            best = scipy_best(law, select(law, table)[0], truth, generator, arguments.starts)
            ratios.append(fit(law, table).objective_value / best - 1)
        worse, better = np.sum(np.array(ratios) > 1e-9), np.sum(np.array(ratios) < -1e-6)
        seconds = time.perf_counter() - started
        print(f"{name:30s} {len(ratios):4d} {worse:4d} {max(ratios):9.1e} {better:4d} {seconds:7.0f}", flush=True)


if __name__ == "__main__":
    main()

"""How often intervals of constants hold the planted truth, for each way of making them.

python tests/benchmarks/interval_coverage.py [--tables 400] [--objective huber] [--noise normal]

Tables are shaped like the demo's: 3 budgets of 5 or 6 sizes, noise of 0.3 to 1 %, normal or Student's t with 4 degrees
of freedom. 90 % intervals; the share of 400 tables has a standard error of 1.5 %.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

from analysis.sampling import Sampling

sys.path.insert(0, str(Path(__file__).parents[1]))
from planted_tables import TRUTH, planted_loss, planted_table

from analysis.fit import OBJECTIVES, fit, select
from analysis.intervals import bca_interval, percentile_interval, predictive, profile
from analysis.intervals.bootstrap import refit
from analysis.intervals.resampling import bootstrap_weights, jackknife_weights
from analysis.laws import CHINCHILLA

LEVEL, BOOTSTRAPS = 0.9, 192
FREEDOM = 4  # of Student's t, scaled to unit variance


def noisy_table(seed: int, noise: str):
    generator = np.random.default_rng([7, seed])
    table = planted_table(noise=0.0, sizes=5 + seed % 2)
    shape = generator.standard_normal if noise == "normal" else lambda n: generator.standard_t(FREEDOM, n) / 2**0.5
    errors = 10 ** generator.uniform(np.log10(0.003), -2) * shape(len(table))
    return table.assign(loss_nats=planted_loss(table["params"], table["tokens"]) * np.exp(errors))


def intervals(table, objective, seed):
    """Method -> constant -> whether its interval holds the truth."""
    law = CHINCHILLA
    result, (points, _) = fit(law, table, objective), select(law, table)
    units = np.arange(len(points.runs))
    weights = bootstrap_weights(np.random.default_rng(seed), units, np.zeros(len(units), int), BOOTSTRAPS)
    draws, jackknife = refit(law, result, points, weights), refit(law, result, points, jackknife_weights(units))
    residual_draws = predictive(result, points, sampling=Sampling(BOOTSTRAPS, seed=seed)).draws
    profiles = profile(result, points, LEVEL)
    found = {}
    for i, name in enumerate(law.names):
        value, truth = result.values[name], TRUTH[name]
        found[name] = {
            "points, percentile": percentile_interval(value, draws[:, i], LEVEL).contains(truth),
            "points, BCa": bca_interval(value, draws[:, i], jackknife[:, i], LEVEL).contains(truth),
            "studentised residuals": percentile_interval(value, residual_draws[:, i], LEVEL).contains(truth),
            "profile": profiles[name].low <= truth <= profiles[name].high,
        }
    return {method: {name: found[name][method] for name in found} for method in found["E"]}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tables", type=int, default=400)
    parser.add_argument("--objective", choices=OBJECTIVES, default="huber")
    parser.add_argument("--noise", choices=("normal", "student"), default="normal")
    arguments = parser.parse_args()
    started = time.perf_counter()
    tables = [noisy_table(seed, arguments.noise) for seed in range(arguments.tables)]
    hits = [intervals(table, OBJECTIVES[arguments.objective], seed) for seed, table in enumerate(tables)]
    print(f"{OBJECTIVES[arguments.objective]}, {arguments.noise} noise, {arguments.tables} tables")
    for method in hits[0]:
        shares = {name: np.mean([hit[method][name] for hit in hits]) for name in TRUTH}
        print(f"{method:25s}" + "  ".join(f"{name} {100 * share:5.1f} %" for name, share in shares.items()))
    print(f"{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()

"""Time and peak memory of a fit, and of its intervals, on a table of a million rows.

python tests/benchmarks/million_rows.py [--rows 1000000] [--objective huber]
"""

import argparse
import resource
import time

import numpy as np
import pandas as pd

from analysis.fit import OBJECTIVES, fit
from analysis.intervals import estimate
from analysis.laws import CHINCHILLA, evaluate

TRUTH = np.array([1.82, 478.0, 2143.0, 0.347, 0.367])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--objective", choices=OBJECTIVES, default="huber")
    arguments = parser.parse_args()
    generator, objective = np.random.default_rng(0), OBJECTIVES[arguments.objective]
    runs = {"params": (1e7, 1e11), "tokens": (1e9, 1e13)}
    inputs = {name: np.exp(generator.uniform(*np.log(ends), arguments.rows)) for name, ends in runs.items()}
    loss = evaluate(CHINCHILLA, TRUTH, inputs) * np.exp(0.01 * generator.standard_normal(arguments.rows))
    table = pd.DataFrame({**inputs, "loss_nats": loss, "status": "done", "held_out": False})
    for name, work in (
        ("fit", lambda: fit(CHINCHILLA, table, objective)),
        ("fit and 1000 bootstraps", lambda: estimate(CHINCHILLA, table, objective=objective)),
    ):
        wall, cpu = time.perf_counter(), time.process_time()
        found = work()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        seconds, cpu = time.perf_counter() - wall, time.process_time() - cpu
        print(f"{name}: {seconds:.1f} s ({cpu:.1f} s of CPU), peak {peak:.2f} GiB since the start of the process")
    for parameter, truth in zip(CHINCHILLA.names, TRUTH, strict=True):
        print(f"  {parameter}: {found.intervals[parameter]}, planted {truth:g}")


if __name__ == "__main__":
    main()

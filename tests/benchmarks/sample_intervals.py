"""How often the 90 % intervals of `isoflop samples` hold what was planted, and how long its votes take.

python tests/benchmarks/sample_intervals.py [--tables 200]

Problems are solved with probability p ~ Beta(0.5, 2), 60 of them with 4, 16 or 64 samples each. Beside alpha, the
exponent of the tail, by the likelihood of each problem's successes stands alpha by least squares on the curve of
coverage, from the same resamples of problems, and from those of the curve's points that `isoflop fit` draws.

Printed with 60 tables, held (a share has a standard error of 4 %), and off by a factor of, in the median:

4 samples:  alpha by likelihood 91.7 %, 1.287; by the curve 90.0 %, 1.298
16 samples: alpha by likelihood 93.3 %, 1.146; by the curve 90.0 %, 1.153; from the curve's points 33.3 %
64 samples: alpha by likelihood 95.0 %, 1.114; by the curve 96.7 %, 1.134; from the curve's points 33.3 %

Coverage of one sample was held in 93.3, 91.7 and 83.3 %, of all of them in 90.0 % each time. The majorities of one
problem took 0.030 s among 64 samples and 0.201 s among 1,024, on two cores that others kept busy.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from planted_tables import planted_samples

from analysis.answers import Ballot, majorities
from analysis.backend import configure_command
from analysis.fit import LEAST_SQUARES
from analysis.intervals import Interval, estimate
from analysis.laws import evaluate, find
from analysis.sampling import Sampling
from analysis.studies import sample_curves, sample_study, success_table
from analysis.studies.sample_laws import fitted

ALPHA, BETA, PROBLEMS = 0.5, 2.0, 60
LAW = find("coverage_beta_binomial")


def of_table(generator: np.random.Generator, drawn: int, seed: int) -> dict[str, tuple[Interval, float]]:
    """Each interval of one table with what it should hold."""
    sampling = Sampling(200, 0.9, seed)
    curves = sample_curves(planted_samples(generator, ALPHA, BETA, PROBLEMS, drawn), sampling=sampling)
    (pooled,), (laws,) = curves.pooled, sample_study(curves).laws
    counts = np.array(pooled.ks, np.float64)
    truth = evaluate(LAW, np.array([ALPHA, BETA]), {"samples": counts})
    last = pooled.answered.curves[0].points[-1].success
    found = {"coverage of one": (pooled.answered.curves[0].points[0].success, truth[0])}
    found["coverage of all"] = (last, truth[-1])
    if laws.alpha is not None:
        found["alpha, likelihood"] = (laws.alpha, ALPHA)
    if len(counts) > 2:
        means = curves.resampled.means(pooled.values["coverage"])
        by_curve, _ = fitted(LAW, {"samples": counts}, means, sampling)
        if by_curve is not None:
            found["alpha, curve"] = (by_curve.intervals["alpha"], ALPHA)
    if len(counts) > 3:
        points = estimate(LAW, success_table(curves), objective=LEAST_SQUARES, sampling=sampling)
        found["alpha, curve's points"] = (points.intervals["alpha"], ALPHA)
    return found


def print_intervals(tables: int, drawn: int) -> None:
    """A line for each interval: how often it held the truth, and how its value lies about it."""
    every = [of_table(np.random.default_rng(seed), drawn, seed) for seed in range(tables)]
    print(f"{PROBLEMS} problems, {drawn} samples each, {tables} tables")
    for name in dict.fromkeys(name for one in every for name in one):
        having = [one[name] for one in every if name in one]
        held = np.mean([interval.contains(truth) for interval, truth in having])
        middle = np.median([interval.value / truth for interval, truth in having])
        spread = np.median([abs(np.log(interval.value / truth)) for interval, truth in having])
        print(
            f"  {name:22} held {held:6.1%} of {len(having)}, value / truth {middle:.3f} in the median, off by a factor "
            f"of {np.exp(spread):.3f}"
        )


def print_votes() -> None:
    """Seconds of all majorities at 1, 2, 4, ... samples of one problem with twenty answers."""
    shares = 1 / np.arange(1, 21)
    for drawn in (64, 128, 256, 1024):
        counts = np.random.default_rng(0).multinomial(drawn, shares / shares.sum())
        ballot = Ballot(counts, np.eye(20)[0])
        start = time.perf_counter()
        majorities(ballot, [2**i for i in range(drawn.bit_length())])
        print(f"majorities among {drawn} samples of one problem: {time.perf_counter() - start:.3f} s")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tables", type=int, default=200)
    tables = parser.parse_args(argv).tables
    configure_command()
    for drawn in (4, 16, 64):
        print_intervals(tables, drawn)
    print_votes()


if __name__ == "__main__":
    main()

"""Speed of the fit and of the bootstraps against scipy doing the same work, in turn, in one process.

python tests/benchmarks/fit_speed.py [--bootstraps 4000] [--scipy-bootstraps 200] [--scipy-starts 4500]

The work is that of Besiroglu et al. 2024, arXiv:2404.10102: the Chinchilla law by the sum of Huber(1e-3) on log loss,
on their 240 points (needs ISOFLOP_SCALING_DATA), from their grid of 4500 starts, and 4000 resamples of the points.
scipy gets BFGS with the gradient written out in numpy; what it does fewer of is scaled up to the full number.
"""

import argparse
import itertools
import time

import numpy as np
import scipy.optimize

from analysis.datasets import load
from analysis.fit import HUBER, fit, select
from analysis.fit.batched import Problems, solve
from analysis.laws import CHINCHILLA


def huber(theta, log_params, log_tokens, log_loss, weights):
    """Value and gradient of the objective by log E, log A, log B, alpha and beta."""
    size, data = np.exp(theta[1] - theta[3] * log_params), np.exp(theta[2] - theta[4] * log_tokens)
    law = np.exp(theta[0]) + size + data
    residual = np.log(law) - log_loss
    inside = np.minimum(np.abs(residual), 1e-3)
    pull = weights * np.clip(residual, -1e-3, 1e-3) / law
    gradient = [np.exp(theta[0]) * pull.sum(), pull @ size, pull @ data, -(pull * size) @ log_params]
    return np.sum(weights * inside * (np.abs(residual) - inside / 2)), np.array(
        [*gradient, -(pull * data) @ log_tokens]
    )


def scipy_best(start, data, weights):
    with np.errstate(all="ignore"):
        return scipy.optimize.minimize(
            huber, start, args=(*data, weights), jac=True, method="BFGS", options={"gtol": 1e-9}
        )


def timed(work):
    wall, cpu = time.perf_counter(), time.process_time()
    found = work()
    return found, time.perf_counter() - wall, time.process_time() - cpu


def report(name, ours, theirs, scale):
    print(
        f"{name}: {ours[1]:.3f} s ({ours[2]:.3f} s of CPU); "
        f"scipy {scale * theirs[1]:.1f} s ({scale * theirs[2]:.1f} s of CPU)"
    )
    print(f"  {scale * theirs[1] / ours[1]:.0f} times faster ({scale * theirs[2] / ours[2]:.0f} times by CPU time)")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--bootstraps", type=int, default=4000)
    parser.add_argument("--scipy-bootstraps", type=int, default=200)
    parser.add_argument("--scipy-starts", type=int, default=4500)
    arguments = parser.parse_args()
    table = load("chinchilla_epoch")
    points, _ = select(CHINCHILLA, table)
    data = np.log(points.inputs["params"]), np.log(points.inputs["tokens"]), np.log(points.output)
    count = len(points.runs)
    fit(CHINCHILLA, table)  # compiles
    ours = timed(lambda: fit(CHINCHILLA, table))
    grid = [
        np.arange(-1, 1.5, 0.5),
        np.arange(0, 30, 5),
        np.arange(0, 30, 5),
        np.arange(0, 2.5, 0.5),
        np.arange(0, 2.5, 0.5),
    ]
    starts = np.array(list(itertools.product(*grid)))
    chosen = np.random.default_rng(0).permutation(len(starts))[: arguments.scipy_starts]
    theirs = timed(lambda: min(scipy_best(starts[i], data, np.ones(count)).fun for i in chosen))
    report(f"fit of {count} points", ours, theirs, len(starts) / len(chosen))
    print(f"  objective {ours[0].objective_value:.14f}; scipy's best of {len(chosen)} starts {theirs[0]:.14f}")

    fitted = ours[0].array()
    start, scipy_start = CHINCHILLA.pack(fitted), np.concatenate([np.log(fitted[:3]), fitted[3:]])
    weights = np.random.default_rng(1).multinomial(count, np.ones(count) / count, arguments.bootstraps).astype(float)
    targets, first = np.tile(data[2], (len(weights), 1)), np.tile(start, (len(weights), 1))
    solve(CHINCHILLA, points.inputs, Problems(targets[:8], weights[:8], first[:8]), HUBER, near=True)  # compiles
    ours = timed(lambda: solve(CHINCHILLA, points.inputs, Problems(targets, weights, first), HUBER, near=True))
    few = weights[: arguments.scipy_bootstraps]
    theirs = timed(lambda: np.array([scipy_best(scipy_start, data, row).fun for row in few]))
    report(f"{len(weights)} bootstraps", ours, theirs, len(weights) / len(few))
    excess = ours[0].value[: len(few)] / theirs[0] - 1
    print(f"  objective against scipy's, {len(few)} resamples: from {excess.min():.1e} to {excess.max():.1e} relative")


if __name__ == "__main__":
    main()

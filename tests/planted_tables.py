"""Runs tables with known constants, shaped like the demo: a few budgets, a few sizes, little noise."""

import numpy as np
import pandas as pd

TRUTH = {"E": 1.2, "A": 60.0, "B": 200.0, "alpha": 0.35, "beta": 0.4}
BUDGETS = (1e11, 6e11, 4e12)


def planted_loss(params, tokens, truth=TRUTH):
    """The Chinchilla law written out, in numpy."""
    return truth["E"] + truth["A"] * params ** -truth["alpha"] + truth["B"] * tokens ** -truth["beta"]


def planted_optimum(flops, truth=TRUTH):
    """Compute-optimal params under flops = 6 * params * tokens: Hoffmann et al. 2022, equation 4."""
    alpha, beta = truth["alpha"], truth["beta"]
    scale = (alpha * truth["A"] / (beta * truth["B"])) ** (1 / (alpha + beta))
    return scale * (flops / 6) ** (beta / (alpha + beta))


def planted_table(noise=0.004, sizes=6, budgets=BUDGETS, truth=TRUTH, seed=0):
    """Finished runs at `sizes` params from a quarter to four times the optimum of each budget; noise is log-normal."""
    generator = np.random.default_rng(seed)
    flops = np.repeat(budgets, sizes)
    params = planted_optimum(flops, truth) * np.tile(np.geomspace(0.25, 4, sizes), len(budgets))
    tokens = flops / 6 / params
    loss = planted_loss(params, tokens, truth) * np.exp(noise * generator.standard_normal(len(flops)))
    return pd.DataFrame(
        {
            "run": [f"run-{i}" for i in range(len(flops))],
            "experiment": "planted",
            "family": "transformer",
            "status": "done",
            "held_out": False,
            "seed": 0,
            "budget_flops": flops,
            "params": params,
            "tokens": tokens,
            "flops": flops,
            "loss_nats": loss,
            "start_seconds": 0.5,
            "compile_seconds": 2.0,
            "train_seconds": 10.0,
            "data_seconds": 0.25,
            "evaluation_seconds": 0.5,
            "checkpoint_seconds": 0.25,
            "wall_seconds": 14.0,
            "matmul_flops_per_second": 5e10,
        }
    )


SWEPT = ((1e8, 20), (1e8, 80), (3e8, 20), (3e8, 80), (1e9, 20), (1e9, 80))


def best_rate(params, tokens):
    return 0.005 * params**-0.4 * tokens**0.1


def best_batch(tokens):
    return 3.0 * tokens**0.5


def planted_sweep():
    """Five rates and five batches around the best of each of six cells, in a bowl whose optimum lies off the grid."""
    noise, rows = np.random.default_rng(0), []
    for params, ratio in SWEPT:
        tokens = ratio * params
        for u in np.log(2.0) * np.arange(-2.2, 2.3):
            for v in np.log(2.0) * np.arange(-1.7, 2.8):
                loss = 2.0 * np.exp(0.01 * u * u + 0.008 * v * v + 1e-5 * noise.standard_normal())
                rate, batch = best_rate(params, tokens) * np.exp(u), best_batch(tokens) * np.exp(v)
                rows.append((params, tokens, rate, round(batch), loss))
    return pd.DataFrame(rows, columns=["params", "tokens", "learning_rate", "batch_tokens", "loss_nats"])


TILTED = np.array([[0.02, -0.006], [-0.006, 0.016]])  # curvature of log loss by the logarithms of rate and batch
FLATTENING = -0.2  # the exponent of that curvature in params


def noisy_sweep(seed, noise, scatter=0.0, cells=SWEPT, side=7, flattening=FLATTENING, kept=None):
    """`side` by `side` runs a cell, in steps of sqrt(2), off whose middle the best settings lie, in a tilted bowl.

    noise: standard deviation of log loss. scatter: that of the logarithm of each best setting around its law, for each
    cell anew. kept: runs drawn of each cell, if not all.
    """
    generator, rows = np.random.default_rng([side, seed]), []
    for params, ratio in cells:
        tokens = ratio * params
        size = (params / 3e8) ** flattening
        best = np.log([best_rate(params, tokens), best_batch(tokens)]) + scatter * generator.standard_normal(2)
        steps = np.arange(side) - side // 2
        grid = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2) + generator.uniform(-0.5, 0.5, 2)
        u = np.log(2) / 2 * (grid if kept is None else generator.permutation(grid)[:kept])
        loss = 2.0 * np.exp(0.5 * size * np.sum(u @ TILTED * u, axis=1) + noise * generator.standard_normal(len(u)))
        rows += [(params, tokens, *np.exp(best + step), value) for step, value in zip(u, loss, strict=True)]
    table = pd.DataFrame(rows, columns=["params", "tokens", "learning_rate", "batch_tokens", "loss_nats"])
    return table.assign(run=[f"run-{i}" for i in table.index])


def planted_samples(
    generator: np.random.Generator, alpha: float, beta: float, problems: int, drawn: int
) -> pd.DataFrame:
    """A table of samples, one row each: problems are solved with probability p ~ Beta(alpha, beta)."""
    rates = generator.beta(alpha, beta, problems)
    correct = generator.random((problems, drawn)) < rates[:, None]
    return pd.DataFrame({"problem": np.repeat(np.arange(problems), drawn), "correct": correct.ravel().astype(int)})

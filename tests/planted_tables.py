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

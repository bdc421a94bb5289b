"""For each law, constants to plant and inputs to plant them at: `planted_law_table` makes a table of simulated runs."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.laws import evaluate, find

NOISE = 0.01  # relative where a law's residual is in logs, absolute where it is linear


@dataclass(frozen=True)
class Planted:
    """truth: the constants; inputs(generator, points): columns of the law's inputs, as wide as a real table's."""

    truth: dict[str, float]
    points: int
    inputs: Callable[[np.random.Generator, int], dict[str, np.ndarray]]


def _spread(generator: np.random.Generator, low: float, high: float, points: int) -> np.ndarray:
    return np.exp(generator.uniform(np.log(low), np.log(high), points))


def _inputs(**ranges: tuple[float, float]) -> Callable[[np.random.Generator, int], dict[str, np.ndarray]]:
    return lambda generator, points: {name: _spread(generator, *ends, points) for name, ends in ranges.items()}


def _repeated_data(generator: np.random.Generator, points: int) -> dict[str, np.ndarray]:
    unique = _spread(generator, 1e8, 1e11, points)
    return {
        "params": _spread(generator, 1e7, 1e10, points),
        "tokens": unique * _spread(generator, 1, 200, points),
        "unique_tokens": unique,
    }


def _experts(generator: np.random.Generator, points: int) -> dict[str, np.ndarray]:
    return {
        "active_params": _spread(generator, 1.5e7, 1.3e9, points),
        "experts": 2.0 ** generator.integers(0, 10, points),
    }


def _fine_experts(generator: np.random.Generator, points: int) -> dict[str, np.ndarray]:
    runs = _inputs(params=(1e7, 1e10), tokens=(1e9, 1e12))(generator, points)
    return {**runs, "granularity": 2.0 ** generator.integers(0, 5, points)}


def _annealed(generator: np.random.Generator, points: int) -> dict[str, np.ndarray]:
    return {"schedule_area": _spread(generator, 0.05, 20, points), "annealing_area": generator.uniform(0, 1, points)}


_RUNS = _inputs(params=(1e8, 1e10), tokens=(1e9, 1e12))

# Constants near the published ones, where there are such.
PLANTED = {
    "chinchilla": Planted({"E": 1.82, "A": 478.0, "B": 2143.0, "alpha": 0.347, "beta": 0.367}, 60, _RUNS),
    "chinchilla_tied": Planted({"E": 1.87, "A": 521.0, "B": 1488.0, "alpha": 0.353}, 60, _RUNS),
    "chinchilla_kaplan": Planted(
        {"E": 1.5, "params_scale": 3e7, "tokens_scale": 1e9, "alpha": 0.35, "beta": 0.4}, 60, _RUNS
    ),
    "kaplan_params": Planted({"params_scale": 8.8e13, "alpha": 0.076}, 20, _inputs(params=(1e6, 1e10))),
    "kaplan_tokens": Planted({"tokens_scale": 5.4e13, "alpha": 0.095}, 20, _inputs(tokens=(2e7, 2e10))),
    "kaplan_compute": Planted({"flops_scale": 2.7e28, "alpha": 0.05}, 20, _inputs(flops=(1e15, 1e21))),
    "kaplan": Planted({"params_scale": 6.4e13, "tokens_scale": 1.8e13, "alpha": 0.076, "beta": 0.103}, 60, _RUNS),
    "frontier": Planted({"scale": 0.1, "exponent": 0.49}, 9, _inputs(flops=(1e17, 1e22))),
    "loss_frontier": Planted({"E": 1.7, "scale": 400.0, "exponent": 0.13}, 30, _inputs(flops=(1e16, 1e22))),
    "over_training": Planted({"E": 1.84, "a": 210.0, "b": 770.0, "eta": 0.14}, 60, _RUNS),
    "width_depth": Planted(
        {"E": 1.8, "A": 60.0, "B": 1.2, "C": 1500.0, "alpha": 0.8, "beta": 1.1, "gamma": 0.35},
        150,
        _inputs(width=(128, 4096), depth=(2, 64), tokens=(1e9, 1e12)),
    ),
    "broken": Planted(
        {"E": 0.5, "scale": 6.0, "before": 0.03, "change": 0.25, "break_flops": 1e19, "sharpness": 0.4},
        120,
        _inputs(flops=(1e15, 1e23)),
    ),
    "data_constrained": Planted(
        {"E": 1.87, "A": 521.0, "B": 1488.0, "alpha": 0.353, "beta": 0.353, "R_D": 15.4, "R_N": 5.3},
        120,
        _repeated_data,
    ),
    "routed": Planted({"a": -0.083, "b": -0.12, "c": 0.0105, "d": 1.11, "E_start": 1.9, "E_max": 300.0}, 60, _experts),
    "granularity": Planted(
        {"c": 0.47, "g": 2.1, "a": 18.1, "b": 30.8, "gamma": 0.58, "alpha": 0.115, "beta": 0.147}, 200, _fine_experts
    ),
    "task_loss": Planted({"E": 0.4, "A": 40.0, "B": 200.0, "alpha": 0.25, "beta": 0.28}, 40, _RUNS),
    "task_accuracy": Planted({"floor": 0.25, "gain": 0.7, "k": 6.0, "middle": 0.8}, 60, _inputs(task_loss=(0.3, 1.5))),
    "accuracy_loss": Planted({"floor": 0.15, "k": 2.2, "gamma": 0.85}, 60, _inputs(loss_nats=(2.0, 5.0))),
    "accuracy_compute": Planted(
        {"floor": 0.25, "gain": 0.6, "k": 0.45, "middle": 3e21}, 60, _inputs(flops=(1e18, 1e25))
    ),
    "critical_batch": Planted({"tokens_min": 3e9, "critical_batch": 2.5e5}, 20, _inputs(batch_tokens=(1e4, 4e6))),
    "coverage": Planted({"a": -1.9, "b": -0.35}, 20, _inputs(samples=(1, 1e4))),
    "coverage_beta_binomial": Planted({"alpha": 0.35, "beta": 2.5}, 20, _inputs(samples=(1, 1e4))),
    "best_of_n": Planted({"alpha": 0.3, "beta": 0.08}, 20, _inputs(samples=(1, 1e3))),
    "samples_worth": Planted(
        {"middle": 3e20, "k": 0.35, "worth": 0.6}, 40, _inputs(flops=(1e18, 1e22), samples=(1, 256))
    ),
    "annealing": Planted({"E": 2.6, "A": 0.5, "C": 0.4, "alpha": 0.5}, 60, _annealed),
}
for _output, _scale in (("learning_rate", 1.79), ("batch_tokens", 0.58), ("weight_decay", 3.0)):
    PLANTED |= {
        f"{_output}_params_tokens": Planted(
            {"scale": _scale, "params_exponent": -0.713, "tokens_exponent": 0.307}, 20, _RUNS
        ),
        f"{_output}_params": Planted({"scale": _scale, "params_exponent": -0.4}, 20, _inputs(params=(1e7, 1e10))),
        f"{_output}_tokens": Planted({"scale": _scale, "tokens_exponent": 0.571}, 20, _inputs(tokens=(1e9, 1e12))),
        f"{_output}_flops": Planted({"scale": _scale, "flops_exponent": 0.327}, 20, _inputs(flops=(1e17, 1e22))),
    }


def planted_law_table(name: str, seed: int = 0, noise: float = NOISE) -> pd.DataFrame:
    """A table of simulated runs of the law of that name."""
    law, planted, generator = find(name), PLANTED[name], np.random.default_rng(seed)
    inputs = planted.inputs(generator, planted.points)
    output = evaluate(law, np.array([planted.truth[parameter] for parameter in law.names]), inputs)
    errors = noise * generator.standard_normal(planted.points)
    return pd.DataFrame({**inputs, law.output: output * np.exp(errors) if law.residual == "log" else output + errors})

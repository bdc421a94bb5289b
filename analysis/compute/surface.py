"""The fitted surface of loss over params and tokens, which approach 2 is judged by and approach 3 is."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.compute.flops import FlopRule, fit_flop_rule
from analysis.fit import HUBER, Objective, fit_points, select
from analysis.laws import CHINCHILLA, Law
from analysis.runs_table import complete


@dataclass(frozen=True)
class Surface:
    """A law of params and tokens with its constants (parameters,), and how FLOPs are counted.

    objective: what it was fitted by. draws: (draws, parameters) constants of its resamples; none where nothing was
    drawn, as of a published law.
    """

    law: Law
    values: np.ndarray
    rule: FlopRule
    objective: Objective = HUBER
    draws: np.ndarray | None = None


def fit_surface(table: pd.DataFrame, law: Law = CHINCHILLA, objective: Objective = HUBER) -> Surface:
    """A law of params and tokens fitted to a table, without draws. Raises FitError as `analysis.fit.fit` does."""
    table = complete(table)
    points, left_out = select(law, table)
    flops = table["flops"].to_numpy(np.float64)[points.rows]
    rule = fit_flop_rule(points.inputs["params"], points.inputs["tokens"], flops)
    return Surface(law, fit_points(law, points, left_out, objective).array(), rule, objective)

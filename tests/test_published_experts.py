"""Clark et al. 2022 (arXiv:2202.01169): the law of routed models, for three routers.

Refitted to the last step of every run that the authors' notebook takes (one expert a token, every second block routed,
seed 42), with the dense models as one expert, by least squares on log loss as there. Every published constant lies
inside our 90 % interval. tests/benchmarks/published_figures.py prints ours beside them and what moves them:
- Rounding. Half of c's last printed digit, 0.0005, is worth 2.4 % of the loss at a billion parameters and 200 effective
  experts: the printed RL-R constants leave residuals of 1.8 %, the fitted ones of 0.7 %.
- Rows. The repository has no 870M model, though its README lists the size, and the notebook's choice of seed leaves out
  the dense 130M runs (seeds 1 to 3). With every seed, or without the 15M models, whose residuals are the largest,
  the constants move by as much as they differ from the printed ones.
- The law. E_start and E_max move by factors of 1.2 to 2 between these choices; from runs of up to 128 experts alone
  E_max is not determined.
"""

import numpy as np
import pytest
from published_tables import published_table

from analysis.fit import LEAST_SQUARES
from analysis.intervals import estimate
from analysis.laws import evaluate, find
from analysis.sampling import Sampling

ROUTED = find("routed")
NAMES = ("a", "b", "c", "d", "E_start", "E_max")
# Their table 3.
PUBLISHED = {
    "S-Base": dict(zip(NAMES, (-0.082, -0.108, 0.009, 1.104, 1.847, 314.478), strict=True)),
    "RL-R": dict(zip(NAMES, (-0.083, -0.126, 0.012, 1.111, 1.880, 469.982), strict=True)),
    "Hash": dict(zip(NAMES, (-0.087, -0.136, 0.012, 1.157, 4.175, 477.741), strict=True)),
}


def rows_of(table, family):
    chosen = table["routing_frequency"].eq(0.5) & table["experts_per_token"].eq(1) & table["seed"].eq(42)
    return table[chosen & table["family"].isin(["Dense", family])]


def other_rows(table, family):
    """Other choices of rows, by name."""
    every_seed = table["routing_frequency"].eq(0.5) & table["experts_per_token"].eq(1)
    notebook = rows_of(table, family)
    return {
        "every seed": table[every_seed & table["family"].isin(["Dense", family])],
        "without 15M": notebook[notebook["size"] != "15M"],
        "routed only": notebook[notebook["family"] == family],
        "to 128 experts": notebook[notebook["experts"] <= 128],
    }


def fit_family(table, family):
    return estimate(ROUTED, rows_of(table, family), objective=LEAST_SQUARES, sampling=Sampling(level=0.9))


def misfit(table, family, values):
    rows = rows_of(table, family)
    return np.sqrt(np.mean(np.log(evaluate(ROUTED, np.array(values), rows) / rows["loss_nats"]) ** 2))


@pytest.mark.parametrize("family, rows", [("S-Base", 58), ("RL-R", 59), ("Hash", 56)])
def test_the_published_constants_lie_inside_the_intervals(family, rows):
    table = published_table("routed_moe")
    found = fit_family(table, family)
    assert len(found.fit.used) == rows
    for name, interval in found.intervals.items():
        assert interval.contains(PUBLISHED[family][name]), name


def test_printed_digits_leave_twice_the_residuals():
    table = published_table("routed_moe")
    fitted = fit_family(table, "RL-R").fit.array()
    assert misfit(table, "RL-R", fitted) == pytest.approx(0.00744, abs=1e-5)
    assert misfit(table, "RL-R", list(PUBLISHED["RL-R"].values())) == pytest.approx(0.01783, abs=1e-5)

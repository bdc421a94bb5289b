"""Hoffmann et al. 2022 (arXiv:2203.15556) as read by Besiroglu et al. 2024: a back-test and the optimal allocations."""

import numpy as np
import pytest
from published_tables import published_table

from analysis.fit import HUBER, HUBER_LIKELIHOOD, fit, select
from analysis.intervals import estimate
from analysis.intervals.bootstrap import refit
from analysis.laws import evaluate, find
from analysis.sampling import Sampling

# Their table 3 (approach 1): optimal params, FLOPs, tokens.
TABLE_3 = (
    (400e6, 1.92e19, 8.0e9),
    (1e9, 1.21e20, 20.2e9),
    (10e9, 1.23e22, 205.1e9),
    (67e9, 5.76e23, 1.5e12),
    (175e9, 3.85e24, 3.7e12),
    (280e9, 9.90e24, 5.9e12),
    (520e9, 3.43e25, 11.0e12),
    (1e12, 1.27e26, 21.2e12),
    (10e12, 1.30e28, 216.2e12),
)


def test_besiroglus_plain_huber_optimum():
    """Besiroglu et al. 2024, arXiv:2404.10102, points: their grid of 4500 starts stops at 0.00101827402901."""
    found = fit(find("chinchilla"), published_table("chinchilla_epoch"))
    assert len(found.used) == 240
    assert found.objective_value <= 0.00101827401781
    expected = {"A": 477.83, "B": 2143.42, "E": 1.81722, "alpha": 0.34731, "beta": 0.36717}
    assert found.values == pytest.approx(expected, rel=2e-5)  # stated to five or six digits


def test_besiroglus_published_constants_are_those_of_the_free_scale_likelihood():
    """Their table 1, to the digits their notebook prints."""
    found = fit(find("chinchilla"), published_table("chinchilla_epoch"), HUBER_LIKELIHOOD)
    expected = {"A": 482.006, "B": 2085.434, "E": 1.81686, "alpha": 0.34781, "beta": 0.36585}
    assert found.values == pytest.approx(expected, rel=2e-5)


def test_besiroglus_published_interval_ends():
    """Ends of their 95 % intervals, within 1 %: percentiles of 4000 plain-Huber refits of the resamples they drew.

    They drew with numpy's legacy generator, seed 42. Other draws of 4000 move the ends of A and B by more than 1 %.
    """
    law, table = find("chinchilla"), published_table("chinchilla_epoch")
    found, (points, _) = fit(law, table), select(law, table)
    legacy = np.random.RandomState(42)
    weights = [np.bincount(legacy.choice(240, size=240), minlength=240) for _ in range(4000)]
    ends = np.quantile(refit(law, found, points, np.array(weights, np.float64)), [0.025, 0.975], axis=0)
    published = {
        "A": (285.214, 743.626),
        "B": (1042.357, 5810.344),
        "E": (1.769, 1.871),
        "alpha": (0.317, 0.373),
        "beta": (0.331, 0.415),
    }
    for name, low_and_high in published.items():
        assert ends[:, law.names.index(name)] == pytest.approx(low_and_high, rel=0.01), name


def optimum(values, flops):
    """Their equation 4, under flops = 6 * params * tokens."""
    alpha, beta = values["alpha"], values["beta"]
    params = (alpha * values["A"] / (beta * values["B"])) ** (1 / (alpha + beta)) * (flops / 6) ** (
        beta / (alpha + beta)
    )
    return params, flops / 6 / params


@pytest.mark.parametrize(
    "law, objective, error",
    [("chinchilla", HUBER_LIKELIHOOD, 0.02068), ("chinchilla_tied", HUBER, 0.01793), ("chinchilla", HUBER, 0.020914)],
)
def test_a_fit_below_1e20_flops_predicts_what_lies_above(law, objective, error):
    """Mean absolute error of the 104 points from 1e20 FLOPs on, in nats, from the 136 below.

    The free-scale likelihood, which is Besiroglu et al.'s own, and tied exponents stay under 0.0209; plain Huber comes
    to 0.020914, and least squares to 0.026 and, tied, 0.030.
    """
    table = published_table("chinchilla_epoch")
    scored = table[(table["flops"] >= 1e20) & ~table["held_out"]]
    found = fit(find(law), table[table["flops"] < 1e20], objective)
    assert (len(found.used), len(scored)) == (136, 104)
    predicted = evaluate(find(law), found.array(), scored)
    assert np.abs(predicted - scored["loss_nats"]).mean() == pytest.approx(error, abs=6e-6)


def allocations(table):
    """Each row of table 3 with the refitted law's params and tokens for its FLOPs, as 90 % intervals."""
    law = find("chinchilla")
    found = estimate(law, table, sampling=Sampling(200))
    for row in TABLE_3:
        at = {
            i: found.interval_of(lambda values, i=i, row=row: optimum(dict(zip(law.names, values.T)), row[1])[i], 0.9)
            for i in (0, 1)
        }
        yield row, at[0], at[1]


def test_table_3_from_the_fitted_law():
    """From 10 billion params up, approach 1's allocations lie inside the refitted law's 90 % intervals.

    The two smallest lie 9 and 6 % above it, just outside. Its params are 0.915 times those printed at 400 million and
    1.264 times at 10 trillion (the exponent of params is 0.514, and 0.50 in approach 1);
    tests/benchmarks/published_figures.py prints all rows.
    """
    rows = list(allocations(published_table("chinchilla_epoch")))
    for (printed_params, _, printed_tokens), params, tokens in rows[2:]:
        assert params.contains(printed_params) and tokens.contains(printed_tokens)
    assert rows[0][1].value / TABLE_3[0][0] == pytest.approx(0.915, abs=1e-3)
    assert rows[-1][1].value / TABLE_3[-1][0] == pytest.approx(1.264, abs=1e-3)

"""Hoffmann et al. 2022 (arXiv:2203.15556) as read by Besiroglu et al. 2024: the back-test and the optimal allocations."""

import numpy as np
import pytest
from published_tables import published_table

from analysis.fitting import HUBER, HUBER_LIKELIHOOD, fit
from analysis.laws import evaluate, find

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
    to 0.020914, and least squares to 0.026 and, tied, 0.030. All fitted on losses that lie 8 % above those predicted.
    """
    table = published_table("chinchilla_epoch")
    scored = table[(table["flops"] >= 1e20) & ~table["held_out"]]
    found = fit(find(law), table[table["flops"] < 1e20], objective)
    assert (len(found.used), len(scored)) == (136, 104)
    predicted = evaluate(find(law), found.array(), scored)
    assert np.abs(predicted - scored["loss_nats"]).mean() == pytest.approx(error, abs=6e-6)


def test_table_3_from_the_fitted_law():
    """The refitted law agrees with table 3 within 13 % of the params over nine decades of FLOPs; see the benchmark.

    The exponent of params is 0.514 from these points and 0.50 in approach 1; their own approach 3, from rounded
    constants, prints 40 billion params where table 3 has 67.
    """
    found = fit(find("chinchilla"), published_table("chinchilla_epoch"))
    for params, flops, tokens in TABLE_3:
        ours = optimum(found.values, flops)
        assert ours[0] / params == pytest.approx(1.0, abs=0.2)
        assert ours[1] / tokens == pytest.approx(1.0, abs=0.2)

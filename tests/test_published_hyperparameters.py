"""Step Law (Li et al. 2025, arXiv:2503.04715): 1911 runs over learning rate and batch in 17 cells."""

import pytest
from published_tables import published_table

from analysis.fitting import LEAST_SQUARES
from analysis.hyperparameters import excess_loss, fit_bowls, optima_table
from analysis.laws import evaluate, find
from analysis.uncertainty import estimate

PUBLISHED = {
    "learning_rate": lambda at: 1.79 * at["params"] ** -0.713 * at["tokens"] ** 0.307,
    "batch_tokens": lambda at: 0.58 * at["tokens"] ** 0.571,
}


def test_a_law_from_the_cells_costs_less_than_the_published_and_its_intervals_hold_it():
    """Mean excess of the nearest run over the best of its cell: 0.099 % here, 0.104 % by the published constants.

    The best of 119 runs is lucky, so the floor is not zero. Other ways to place a cell's optimum, with the same excess:
    the best run itself 0.074 % (exponents -0.82, 0.29, 0.50, twice as wide intervals); a mean of log(learning rate) of
    runs within 0.25 % of the best 0.094 % (its intervals miss -0.713 and 0.307); one quadratic over the runs within 2 %
    of the best 0.156 %, and within 5 % 0.222 %, because the bowl is steeper towards high learning rates.
    """
    table = published_table("steplaw_dense")
    bowls = fit_bowls(table)
    assert len(bowls) == 17 and not any(bowl.reason for bowl in bowls)
    optima, resampling = optima_table(bowls), {"objective": LEAST_SQUARES, "level": 0.9}
    rate = estimate(find("learning_rate_params_tokens"), optima, **resampling)
    batch = estimate(find("batch_tokens_tokens"), optima, **resampling)
    assert rate.intervals["params_exponent"].contains(-0.713)
    assert rate.intervals["tokens_exponent"].contains(0.307)
    assert batch.intervals["tokens_exponent"].contains(0.571)
    ours = {
        "learning_rate": lambda at: evaluate(find("learning_rate_params_tokens"), rate.fit.array(), at).item(),
        "batch_tokens": lambda at: evaluate(find("batch_tokens_tokens"), batch.fit.array(), at).item(),
    }
    excess = excess_loss(table, ours)["excess"].mean()
    assert excess <= 0.0010
    assert excess < excess_loss(table, PUBLISHED)["excess"].mean() == pytest.approx(0.001045, abs=1e-6)

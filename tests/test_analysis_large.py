"""Large tables take shorter ways: each must agree with the long way where both can be gone."""

import numpy as np
import pandas as pd
import pytest

from analysis.fit import HUBER, HUBER_LIKELIHOOD, LEAST_SQUARES, batched, fit, select
from analysis.intervals import bootstrap, one_step, profile_likelihood
from analysis.intervals.resampling import bootstrap_weights
from analysis.laws import CHINCHILLA, evaluate
from analysis.runs_table import complete
from analysis.sampling import Sampling

TRUTH = np.array([1.82, 478.0, 2143.0, 0.347, 0.367])


def large_table(rows, seed=0):
    generator = np.random.default_rng(seed)
    inputs = {"params": 10 ** generator.uniform(7, 11, rows), "tokens": 10 ** generator.uniform(9, 13, rows)}
    loss = evaluate(CHINCHILLA, TRUTH, inputs) * np.exp(0.01 * generator.standard_normal(rows))
    return complete(pd.DataFrame({**inputs, "loss_nats": loss}))


def test_one_step_draws_spread_as_refitted_ones_do():
    table = large_table(3000)
    result, (points, _) = fit(CHINCHILLA, table), select(CHINCHILLA, table)
    units, strata = np.arange(3000), np.zeros(3000, int)
    steps, _ = one_step.one_step_draws(CHINCHILLA, result, points, units, strata, 400, 0)
    weights = bootstrap_weights(np.random.default_rng(1), units, strata, 100)
    refits = bootstrap.refit(CHINCHILLA, result, points, weights)
    # A standard deviation of 100 draws errs by 7 % and one of 400 by 4 %: three of both together are 24 %.
    np.testing.assert_allclose(np.log(steps).std(axis=0) / np.log(refits).std(axis=0), 1.0, atol=0.24)


@pytest.mark.parametrize(
    "objective",
    [LEAST_SQUARES, pytest.param(HUBER_LIKELIHOOD, marks=pytest.mark.slow)],
    ids=lambda objective: objective.name,
)
def test_a_large_table_gives_narrow_true_intervals(objective, monkeypatch):
    monkeypatch.setattr(bootstrap, "MOST_REFITTED_POINTS", 1000)
    monkeypatch.setattr(profile_likelihood, "MOST_REFITTED_POINTS", 1000)
    table = large_table(4000)
    found = bootstrap.estimate(CHINCHILLA, table, objective=objective, sampling=Sampling(400, level=0.99))
    profiles = profile_likelihood.profile(found.fit, select(CHINCHILLA, table)[0], 0.99)
    assert found.method.endswith("each by one Newton step")
    for name, truth in zip(CHINCHILLA.names, TRUTH, strict=True):
        assert found.intervals[name].contains(truth) and profiles[name].low <= truth <= profiles[name].high
        assert found.intervals[name].high < 1.3 * found.intervals[name].low
    spread = bootstrap.predictive(found.fit, select(CHINCHILLA, table)[0], sampling=Sampling(200))
    loss = bootstrap.predictive_interval(CHINCHILLA, found.fit, spread, {"params": 1e9, "tokens": 1e11}, 0.9)
    # 1 % noise: the 90 % interval is 1.645 times that on either side.
    assert np.log(loss.high / loss.low) == pytest.approx(2 * 1.645 * 0.01, rel=0.1)


def test_starts_on_part_of_a_table_end_at_the_optimum_of_all_of_it(monkeypatch):
    table = large_table(2000)
    whole = fit(CHINCHILLA, table)
    monkeypatch.setattr("analysis.fit.search.MOST_START_POINTS", 100)
    thinned = fit(CHINCHILLA, table)
    assert thinned.objective_value == pytest.approx(whole.objective_value, rel=1e-12) and len(thinned.used) == 2000
    assert thinned.objective == HUBER and thinned.starts_at_optimum > 1


def test_points_in_several_blocks_end_where_their_copies_in_one_do():
    """500 points thrice are 1,536 with padding: three blocks, against one of 512."""
    points, _ = select(CHINCHILLA, large_table(500))
    starts = CHINCHILLA.pack(TRUTH)[None] + 0.1

    def ends(copies, objective):
        inputs = {name: np.tile(values, copies) for name, values in points.inputs.items()}
        target = np.tile(np.log(points.output), copies)[None]
        return batched.solve(CHINCHILLA, inputs, batched.Problems(target, np.ones_like(target), starts), objective)

    for objective in (HUBER, HUBER_LIKELIHOOD):
        once, thrice = ends(1, objective), ends(3, objective)
        # Sums of 1,500 terms in another order, times the condition number of a few hundred.
        np.testing.assert_allclose(thrice.value, 3 * once.value, rtol=1e-12)
        np.testing.assert_allclose(thrice.theta, once.theta, rtol=1e-7)


def test_draws_of_groups_of_units_spread_as_those_of_single_units_do(monkeypatch):
    table = large_table(3000)
    result, (points, _) = fit(CHINCHILLA, table, LEAST_SQUARES), select(CHINCHILLA, table)
    units, strata = np.arange(3000), np.zeros(3000, int)
    single, _ = one_step.one_step_draws(CHINCHILLA, result, points, units, strata, 2000, 0)
    monkeypatch.setattr(one_step, "MOST_WEIGHED", 1000)
    grouped, _ = one_step.one_step_draws(CHINCHILLA, result, points, units, strata, 2000, 0)
    # The spread of 2,000 draws errs by 1.6 %, and the variance that 1,000 groups hold by 4.5 %: three of all are 10 %.
    np.testing.assert_allclose(np.log(grouped).std(axis=0) / np.log(single).std(axis=0), 1.0, atol=0.1)


def test_strata_hold_their_size_in_one_step_draws():
    """A law that is a mean: stratified draws vary by what varies within strata, which here is nothing."""
    table = large_table(2000)
    result, (points, _) = fit(CHINCHILLA, table, LEAST_SQUARES), select(CHINCHILLA, table)
    alone = np.arange(2000)
    free, _ = one_step.one_step_draws(CHINCHILLA, result, points, alone, np.zeros(2000, int), 200, 0)
    held, _ = one_step.one_step_draws(CHINCHILLA, result, points, alone, alone, 200, 0)
    assert held.std(axis=0) == pytest.approx(0.0, abs=1e-6) and (free.std(axis=0) > 0).all()

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from planted_tables import TRUTH, planted_loss, planted_table
from scipy_fits import random_table

from analysis.fit import HUBER, HUBER_LIKELIHOOD, LEAST_SQUARES, fit, select
from analysis.intervals import AT_BOUND, estimate, profile
from analysis.laws import CHINCHILLA, FRONTIER, find
from analysis.runs_table import complete
from analysis.sampling import Sampling


def test_a_linear_law_has_the_textbook_interval():
    """The frontier is a straight line in logarithms: its least-squares profile is Student's t interval, exactly."""
    generator = np.random.default_rng(0)
    flops = np.geomspace(1e15, 1e20, 9)
    table = pd.DataFrame({"flops": flops, "optimum": 0.3 * flops**0.49 * np.exp(0.05 * generator.standard_normal(9))})
    found = profile(fit(FRONTIER, table, LEAST_SQUARES), select(FRONTIER, complete(table))[0], 0.9)
    line = scipy.stats.linregress(np.log(flops), np.log(table["optimum"]))
    half = scipy.stats.t.ppf(0.95, 7) * line.stderr
    # The root of the deviance is exactly linear in the exponent, so interpolation between steps loses nothing.
    assert (found["exponent"].low, found["exponent"].high) == pytest.approx((line.slope - half, line.slope + half))
    assert found["exponent"].closed and found["scale"].closed


@pytest.mark.parametrize("objective", [HUBER, LEAST_SQUARES, HUBER_LIKELIHOOD], ids=lambda objective: objective.name)
def test_a_profile_rises_from_its_optimum_and_is_a_minimum_over_the_others(objective):
    table = planted_table(noise=0.004)
    result = fit(CHINCHILLA, table, objective)
    for name, found in profile(result, select(result.law, complete(table))[0], 0.9).items():
        assert (np.diff(found.values) > 0).all() and result.values[name] in found.values
        assert found.low < result.values[name] < found.high and found.closed
        optimum = int(np.flatnonzero(found.values == result.values[name])[0])
        # The deviance is a difference of nearly equal sums near its zero: 1e-6 of the threshold is rounding there.
        assert (np.diff(found.deviance[: optimum + 1]) < 1e-6).all()
        assert (np.diff(found.deviance[optimum:]) > -1e-6).all()


def test_a_profile_is_a_minimum_over_the_other_constants():
    """One factor turns every rise into a deviance, and a fresh fit from many starts finds the same rise."""
    table = planted_table(noise=0.004)
    result = fit(CHINCHILLA, table)
    found = profile(result, select(result.law, complete(table))[0], 0.9)["alpha"]
    rises = [rise(result, table, alpha=found.values[i]) for i in (2, -3)]
    assert found.deviance[2] / rises[0] == pytest.approx(found.deviance[-3] / rises[1], rel=1e-6)


@pytest.mark.slow
def test_profiles_hold_where_the_best_constant_lies_at_its_bound():
    """Fifteen runs that want E = 0, and so a law with a narrow valley: every deviance against a fresh fit's rise.

    In logarithms E's standard error is trillions of e-folds; its interval ends below two nats all the same.
    """
    table, _ = random_table(CHINCHILLA, np.random.default_rng([51, len("chinchilla")]))
    result = fit(CHINCHILLA, table)
    found = profile(result, select(result.law, complete(table))[0], 0.9)
    assert result.values["E"] < 1e-6 and not found["E"].closed_below and found["E"].closed_above
    assert 1.0 < found["E"].high < 2.0 and found["beta"].closed
    middle = int(np.flatnonzero(found["alpha"].values == result.values["alpha"])[0])
    factor = found["alpha"].deviance[middle + 1] / rise(result, table, alpha=found["alpha"].values[middle + 1])
    for name, end in (("E", found["E"].high), ("beta", found["beta"].high), ("beta", found["beta"].low)):
        # Between two values that were tried the root of the deviance is taken as straight.
        assert factor * rise(result, table, **{name: end}) == pytest.approx(found[name].threshold, rel=0.05), name


@pytest.mark.parametrize("objective", [HUBER, LEAST_SQUARES, HUBER_LIKELIHOOD], ids=lambda objective: objective.name)
def test_a_law_that_meets_every_point_has_profiles_of_no_width(objective):
    """The residuals are zeros, but for rounding, and nothing is divided by them."""
    table = planted_table(noise=0.0)
    result = fit(CHINCHILLA, table, objective)
    found = profile(result, select(result.law, complete(table))[0], 0.9)
    assert found["E"].low <= result.values["E"] <= found["E"].high
    assert found["E"].high - found["E"].low < 1e-9 and not any(np.isnan(one.deviance).any() for one in found.values())


def test_a_law_that_meets_every_point_to_the_last_bit_has_profiles_too():
    """No value that is tried is worse than the optimum, so none is looked for again."""
    batches = np.array([2e3, 8e3, 3.2e4, 1.28e5])
    table = complete(pd.DataFrame({"batch_tokens": batches, "tokens": 1e7 * (1 + batches / 1e4)}))
    result = fit(find("critical_batch"), table, LEAST_SQUARES)
    assert result.residual_scale == 0.0
    for name, found in profile(result, select(result.law, table)[0], 0.9).items():
        assert found.low == found.high == pytest.approx(result.values[name])


@pytest.fixture(scope="module")
def one_ratio():
    """Seven runs at nearly 20 tokens per parameter: either term of the law can do the other's work."""
    params = np.geomspace(1e8, 1e10, 7)
    tokens = params * np.array([19.8, 19.9, 20.1, 20.0, 19.7, 20.3, 19.9])
    noise = 0.01 * np.array([0.3, -0.8, 1.0, 0.2, -1.1, 0.9, -0.4])
    table = pd.DataFrame({"params": params, "tokens": tokens, "loss_nats": 17.0 * params**-0.1 * np.exp(noise)})
    result = fit(CHINCHILLA, table, LEAST_SQUARES)
    return table, result, profile(result, select(CHINCHILLA, complete(table))[0], 0.9)


@pytest.mark.parametrize("held", [{"alpha": 1.0}, {"alpha": 0.02}, {"beta": 1.0}, {"beta": 0.05}])
def test_no_profile_closes_before_a_value_that_fits_from_many_starts_admit(one_ratio, held):
    """A search that sets out from the optimum alone never finds the law in which the other term does the work."""
    table, result, found = one_ratio
    ((name, value),) = held.items()
    # For least squares the deviance is twice the rise over the residual variance.
    deviance = 2 * rise(result, table, **held) / result.residual_scale**2
    assert deviance < found[name].threshold  # what the table is made for
    assert value >= found[name].low or not found[name].closed_below
    assert value <= found[name].high or not found[name].closed_above


def test_an_interval_with_an_open_side_ends_where_the_profile_does(one_ratio):
    table, result, found = one_ratio
    made = estimate(CHINCHILLA, table, objective=LEAST_SQUARES, sampling=Sampling(20))
    assert not found["beta"].closed and not found["alpha"].closed
    for name, interval in made.intervals.items():
        if not found[name].closed and interval.note != AT_BOUND:
            assert interval.low <= found[name].low if found[name].closed_below else interval.low == 0.0
            assert interval.high >= found[name].high if found[name].closed_above else np.isinf(interval.high)
        elif interval.note == AT_BOUND:
            assert interval.high >= found[name].high


def rise(result, table, **held):
    """How far the objective rises over the fit's when constants are held and all others fitted afresh."""
    return fit(CHINCHILLA.fix(**held), table, result.objective).objective_value - result.objective_value


def test_a_constant_without_effect_has_a_profile_that_spans_orders_of_magnitude():
    table = planted_table(noise=0.0)
    small = planted_loss(table["params"], table["tokens"], TRUTH | {"B": 0.5})
    noise = 0.01 * np.random.default_rng(0).standard_normal(len(table))
    table = table.assign(loss_nats=small * np.exp(noise))
    found = profile(fit(CHINCHILLA, table), select(CHINCHILLA, table)[0], 0.9)
    assert found["B"].high > 1e6 * found["B"].low and found["beta"].high > 1e3 * found["beta"].low

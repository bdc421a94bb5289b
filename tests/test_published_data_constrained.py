"""Muennighoff et al. 2023 (arXiv:2305.16264): 182 runs that repeat data, and how well they determine R_D* and R_N*."""

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
from published_tables import published_table

from analysis.fit import HUBER, fit, select
from analysis.fit.objectives import total
from analysis.intervals import estimate, profile
from analysis.laws import evaluate, find
from analysis.sampling import Sampling

# Their fit to runs without repeats (utils/parametric_fit.ipynb), held in the fit of R_D* and R_N*.
SINGLE_PASS = {
    "E": np.exp(0.6254804),
    "A": np.exp(6.255414),
    "B": np.exp(7.3049974),
    "alpha": 0.3526596,
    "beta": 0.3526596,
}
PUBLISHED = {"R_D": 15.387756, "R_N": 5.309743}
LAW = find("data_constrained").fix(**SINGLE_PASS)


def predicted(table, values):
    return evaluate(LAW, np.array([values[name] for name in LAW.names]), table)


def huber(table, values):
    residuals = np.log(predicted(table, values) / table["loss_nats"].to_numpy())
    return float(total(residuals, np.ones(len(residuals)), HUBER.delta, None))


def test_the_published_constants_give_the_published_objective():
    """Their notebook prints 0.015825936570763588 (cell 29) and R^2 0.7722046 (cell 34) from constants of 7 digits."""
    table = published_table("datablations")
    assert huber(table, PUBLISHED) == pytest.approx(0.015825936570763588, rel=2e-7)
    error = table["loss_nats"] - predicted(table, PUBLISHED)
    spread = table["loss_nats"] - table["loss_nats"].mean()
    assert 1 - (error @ error) / (spread @ spread) == pytest.approx(0.7722046, abs=1e-7)


def written_out(table, r_data, r_size):
    """The Huber sum of Muennighoff et al., section 3, in numpy alone, as a function of R_D* and R_N*."""
    params, tokens, unique = (table[name].to_numpy(float) for name in ("params", "tokens", "unique_tokens"))
    a, b, alpha = SINGLE_PASS["A"], SINGLE_PASS["B"], SINGLE_PASS["alpha"]  # alpha = beta, so the ratio of both is 1
    unique = np.minimum(unique, tokens)
    needed = np.minimum(params, table["unique_tokens"].to_numpy(float) * (a / b) ** (1 / alpha))
    data = unique + unique * r_data * (1 - np.exp(-(tokens / unique - 1) / r_data))
    size = needed + needed * r_size * (1 - np.exp(-(params / needed - 1) / r_size))
    residuals = np.log((SINGLE_PASS["E"] + a / size**alpha + b / data**alpha) / table["loss_nats"].to_numpy())
    far = np.abs(residuals) > HUBER.delta
    return np.sum(np.where(far, HUBER.delta * (np.abs(residuals) - HUBER.delta / 2), residuals**2 / 2)), residuals


def lowest(function, starts):
    """scipy's lowest value from several starts, in logarithms, without derivatives."""
    options = {"xatol": 1e-9, "fatol": 1e-15, "maxiter": 4000}
    ends = (scipy.optimize.minimize(function, start, method="Nelder-Mead", options=options) for start in starts)
    return min(ends, key=lambda end: end.fun)


def test_the_minimum_is_the_lowest_that_scipy_finds_and_lies_below_the_published_one():
    """The published constants are one of several local minima."""
    table = published_table("datablations")
    found = estimate(LAW, table, sampling=Sampling(200))
    starts = np.log([(r_data, r_size) for r_data in (1, 8, 60, 400) for r_size in (0.3, 2, 12)])
    best = lowest(lambda logs: written_out(table, *np.exp(logs))[0], starts)
    assert found.fit.objective_value == pytest.approx(best.fun, rel=1e-6) and best.fun < huber(table, PUBLISHED)
    assert list(found.fit.values.values()) == pytest.approx(np.exp(best.x), rel=1e-3)
    assert found.fit.starts_at_optimum < found.fit.starts
    assert set(found.weakly_identified) == {"R_D", "R_N"}


def test_neither_constant_is_well_determined_by_profiles_computed_again():
    """Each end of each interval lies between two values whose deviances, recomputed with scipy, have F's between them.

    R_D* has no upper end: repeats may keep their worth for ever. The deviance is twice the rise of the Huber sum times
    E[psi'] / E[psi^2] under normal residuals (Schrader and Hettmansperger 1980).
    """
    table = published_table("datablations")
    found = fit(LAW, table)
    profiles, count = profile(found, select(LAW, table)[0], 0.9), len(table)
    _, residuals = written_out(table, *found.values.values())
    width = HUBER.delta / (np.sqrt(np.pi / 2) * np.mean(np.abs(residuals)) * count / (count - 2))
    normal = scipy.stats.norm
    square = normal.expect(lambda z: np.minimum(z**2, width**2))
    per_rise = 2 * (normal.cdf(width) - normal.cdf(-width)) / square * (width / HUBER.delta) ** 2
    threshold = scipy.stats.f.ppf(0.9, 1, count - 2)
    assert not profiles["R_D"].closed_above and profiles["R_D"].closed_below and profiles["R_N"].closed

    def deviance(name, held):
        def held_out(logs):
            other = float(np.exp(logs[0]))
            return written_out(table, *((held, other) if name == "R_D" else (other, held)))[0]

        return per_rise * (lowest(held_out, np.log([[0.3], [2], [12], [60], [400]])).fun - found.objective_value)

    for name, end in (("R_D", "low"), ("R_N", "low"), ("R_N", "high")):
        curve = profiles[name]
        after = int(np.searchsorted(curve.values, getattr(curve, end)))
        again = [deviance(name, held) for held in curve.values[after - 1 : after + 1]]
        assert again == pytest.approx(curve.deviance[after - 1 : after + 1], rel=1e-3), (name, end)
        assert min(again) < threshold < max(again) < 2.6 * threshold, (name, end)  # a root leaps by at most 1
    for name, curve in profiles.items():
        assert curve.low < PUBLISHED[name] < curve.high

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from planted_tables import BUDGETS, TRUTH, planted_loss, planted_optimum, planted_table
from scipy_fits import random_table

from analysis.fit import FitError, fit, fit_points, select
from analysis.fit.batched import target_jacobian
from analysis.fit.starts import off_bounds
from analysis.intervals import (
    Interval,
    Resampling,
    bca_interval,
    bootstrapped,
    estimate,
    percentile_interval,
    predictive,
    predictive_interval,
    profile,
)
from analysis.intervals.interval import DEGENERATE
from analysis.intervals.resampling import bootstrap_weights, jackknife_weights
from analysis.laws import CHINCHILLA
from analysis.sampling import Sampling
from analysis.studies import fit_table


@pytest.mark.slow
@pytest.mark.timeout(1800)  # two minutes on two busy cores
def test_intervals_cover():
    """Of 400 tables shaped like the demo's, 85 to 95 % have the truth inside their 90 % intervals.

    Tables have 3 budgets of 5 or 6 sizes and noise of 0.3 to 1 %. Covered are each planted constant, by the default
    intervals and by the profiles, and an unseen run at four times the largest budget, by its predictive interval. The
    share of a true 90 % interval has a standard error of 1.5 % here, so the band is 3.3 of them wide on either side.
    """
    params = planted_optimum(4 * BUDGETS[-1])
    unseen = {"params": params, "tokens": 4 * BUDGETS[-1] / 6 / params}
    generator, tables = np.random.default_rng(7), 400
    inside, profiled, predicted = dict.fromkeys(TRUTH, 0), dict.fromkeys(TRUTH, 0), 0
    for seed in range(tables):
        noise = 10 ** generator.uniform(np.log10(0.003), -2)
        table = planted_table(noise=noise, sizes=5 + seed % 2, seed=seed)
        points, left_out = select(CHINCHILLA, table)
        result, sampling = fit_points(CHINCHILLA, points, left_out), Sampling(192, seed=seed)
        profiles = profile(result, points, 0.9)
        found = bootstrapped(result, points, table, sampling, Resampling(), profiles)  # as `estimate` does all of it
        for name, value in TRUTH.items():
            inside[name] += found.intervals[name].contains(value)
            profiled[name] += profiles[name].low <= value <= profiles[name].high
        spread = predictive(result, points, sampling=sampling)
        measured = planted_loss(**unseen) * np.exp(noise * generator.standard_normal())
        predicted += predictive_interval(CHINCHILLA, result, spread, unseen, 0.9, seed).contains(measured)
    counts = [*inside.values(), *profiled.values(), predicted]
    print(inside, profiled, predicted)
    assert all(0.85 <= count / tables <= 0.95 for count in counts), counts


def test_planted_constants_lie_inside_their_intervals():
    """Over 20 tables no constant may be missed more than 5 times.

    At 90 % coverage six misses or more of 20 have probability 0.011 per constant.
    """
    missed = dict.fromkeys(TRUTH, 0)
    for seed in range(20):
        intervals = estimate(CHINCHILLA, planted_table(seed=seed), sampling=Sampling(300)).intervals
        for name, value in TRUTH.items():
            missed[name] += not intervals[name].contains(value)
    assert max(missed.values()) <= 5, missed


def test_a_constant_that_the_points_do_not_determine_is_flagged():
    """Where a tenth of a percent of the loss depends on tokens, points with 1 % noise say nothing about B and beta."""
    table = planted_table(noise=0.0)
    small = planted_loss(table["params"], table["tokens"], TRUTH | {"B": 0.5})
    noise = 0.01 * np.random.default_rng(0).standard_normal(len(table))
    weak = estimate(CHINCHILLA, table.assign(loss_nats=small * np.exp(noise)), sampling=Sampling(200)).weakly_identified
    assert {"B", "beta"} <= set(weak) and "spans more than a factor of 10" in weak["B"]
    assert not estimate(CHINCHILLA, planted_table(noise=0.001), sampling=Sampling(200)).weakly_identified


def test_noise_free_points_give_intervals_without_width():
    table = planted_table(noise=0.0)
    result = fit(CHINCHILLA, table)
    spread = predictive(result, select(CHINCHILLA, table)[0], sampling=Sampling(50))
    interval = predictive_interval(CHINCHILLA, result, spread, {"params": 1e6, "tokens": 1e7}, 0.9)
    assert interval.value == pytest.approx(planted_loss(1e6, 1e7), rel=1e-8)
    assert interval.high - interval.low < 1e-7


def test_the_same_seed_gives_the_same_intervals_and_more_level_wider_ones():
    table = planted_table()
    first, second = (estimate(CHINCHILLA, table, sampling=Sampling(100, seed=3)) for _ in range(2))
    assert first.intervals == second.intervals
    wide = estimate(CHINCHILLA, table, sampling=Sampling(100, level=0.99, seed=3)).intervals["E"]
    assert wide.low <= first.intervals["E"].low < first.intervals["E"].high <= wide.high


def test_resampling_stays_within_strata_and_keeps_groups_whole():
    table = planted_table(sizes=4)  # 3 budgets of 4
    table["seed"] = np.arange(12) // 2
    points, _ = select(CHINCHILLA, table)
    resampling = Resampling(by="seed", within="budget_flops")
    units = resampling.units(table, points)
    weights = bootstrap_weights(np.random.default_rng(0), units, resampling.strata(table, points, units), 50)
    assert (weights.reshape(50, 3, 4).sum(axis=2) == 4).all()
    assert (weights[:, ::2] == weights[:, 1::2]).all() and weights.max() > 1
    left_out = jackknife_weights(units)
    assert left_out.shape == (6, 12) and (left_out.sum(axis=1) == 10).all()


def test_the_jackknife_of_many_points_leaves_out_parts():
    left_out = jackknife_weights(np.arange(1001))
    assert left_out.shape == (200, 1001) and (left_out.sum(axis=0) == 199).all()


def test_groups_that_cannot_be_drawn_are_refused():
    table = planted_table()
    with pytest.raises(FitError, match="family: 1 different values in the usable points"):
        estimate(CHINCHILLA, table, resampling=Resampling(by="family"))
    with pytest.raises(FitError, match="cluster: no such column to resample by"):
        estimate(CHINCHILLA, table, resampling=Resampling(by="cluster"))
    with pytest.raises(FitError, match="budget_flops: differs inside a group of equal half"):
        estimate(
            CHINCHILLA, table.assign(half=np.arange(18) % 4), resampling=Resampling(by="half", within="budget_flops")
        )


def test_copied_points_fool_the_bootstrap_of_points_but_not_of_groups():
    """Four copies of each run, told apart by a column, say nothing new: drawn by run they give the resamples of one."""
    table = planted_table(noise=0.01)
    copies = pd.concat([table.assign(copy=i) for i in range(4)], ignore_index=True)
    one = estimate(CHINCHILLA, table, sampling=Sampling(60))
    naive = estimate(CHINCHILLA, copies, sampling=Sampling(60))
    grouped = estimate(CHINCHILLA, copies, sampling=Sampling(60), resampling=Resampling(by="run"))
    # The objective of four copies is four times that of one, and the weights are the same draws.
    np.testing.assert_allclose(grouped.draws, one.draws, rtol=1e-6)
    width = [np.log(e.intervals["A"].high / e.intervals["A"].low) for e in (one, naive, grouped)]
    assert width[1] < 0.8 * min(width[0], width[2])
    assert grouped.method.startswith("percentiles from 60 bootstrap resamples of groups of equal run")
    assert not len(grouped.jackknife) and len(one.jackknife) == 18


def test_bca_of_a_symmetric_bootstrap_is_its_percentiles():
    draws = np.linspace(-1, 1, 1001)
    symmetric = bca_interval(0.0, draws, np.array([-1.0, 0.0, 1.0]), 0.9)
    plain = percentile_interval(0.0, draws, 0.9)
    # Half of the draws lie below the value, the one in the middle counted by half: no shift, no acceleration.
    assert (symmetric.low, symmetric.high) == pytest.approx((plain.low, plain.high), abs=1e-12)
    assert bca_interval(0.1, draws, np.array([-1.0, 0.0, 1.0]), 0.9).low > plain.low


def test_bca_equals_scipy():
    """scipy.stats.bootstrap on the mean, with the same resamples and its jackknife."""
    sample = np.random.default_rng(0).exponential(size=25)
    theirs = scipy.stats.bootstrap(
        (sample,), np.mean, n_resamples=2000, method="BCa", confidence_level=0.9, rng=np.random.default_rng(1)
    )
    jackknife = np.array([np.delete(sample, i).mean() for i in range(25)])
    ours = bca_interval(sample.mean(), theirs.bootstrap_distribution, jackknife, 0.9)
    # scipy interpolates the percentiles of 2000 draws in the same way.
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs.confidence_interval), rel=1e-9)


def test_seven_runs_near_twenty_tokens_per_parameter_leave_constants_open():
    """Sizes and tokens that grow together cannot tell the two terms apart, and a fit may put E anywhere near zero.

    Resamples and profiles must leave that bound: here they move E by more than the points' own noise.
    """
    generator = np.random.default_rng([20, 3])
    params = np.geomspace(1e8, 1.3e10, 7)
    tokens = 20 * params * np.exp(generator.uniform(-0.05, 0.05, 7))
    loss = 10 * params**-0.1 * np.exp(0.005 * generator.standard_normal(7))
    table = pd.DataFrame({"params": params, "tokens": tokens, "loss_nats": loss})
    found = estimate(CHINCHILLA, table, sampling=Sampling(100))
    for name, interval in found.intervals.items():
        assert interval.low <= interval.value <= interval.high, name
    assert set(found.weakly_identified) >= {"E", "A", "B"} and np.ptp(found.draws[:, 0]) > 1e-3
    caveats = fit_table(table, sampling=Sampling(20)).caveats
    assert "has no optimum: B is 0, at its bound" in caveats[0]
    assert any("are not determined by" in caveat for caveat in caveats)
    assert not fit_table(planted_table(), sampling=Sampling(20)).caveats


def test_every_fallback_is_named():
    draws, ends = np.arange(1.0, 101.0), np.array([1.0, 2.0, 4.0])
    assert bca_interval(50.0, draws, ends, 0.9).note == ""
    outside = bca_interval(0.5, draws, ends, 0.9)
    assert (outside.low, outside.note) == (0.5, "widened") and outside.high > 90
    assert bca_interval(50.0, draws, np.array([1.0, np.nan, 4.0]), 0.9).note == "percentiles"
    assert bca_interval(3.0, np.full(50, 3.0 + 1e-12), ends, 0.9).note == "degenerate"
    unknown = bca_interval(3.0, np.where(np.arange(50) < 30, np.nan, 3.0), ends, 0.9)
    assert (unknown.low, unknown.high, unknown.note) == (-np.inf, np.inf, "not determined")


def test_bad_levels_and_counts_are_refused():
    with pytest.raises(FitError, match=r"level = 90: must lie between 0 and 1"):
        estimate(CHINCHILLA, planted_table(), sampling=Sampling(level=90))
    with pytest.raises(FitError, match=r"bootstraps = 3: must be at least 20"):
        estimate(CHINCHILLA, planted_table(), sampling=Sampling(3))
    assert str(Interval(1.23456, 1.0, 2.0)) == "1.235 [1, 2]"


def test_resamples_may_leave_a_bound_that_the_fit_lies_at():
    """Fifteen runs whose best E is zero; its logarithm has no derivative there, and resamples want it elsewhere too."""
    table, _ = random_table(CHINCHILLA, np.random.default_rng([51, len("chinchilla")]))
    found = estimate(CHINCHILLA, table, sampling=Sampling(200))
    assert found.fit.values["E"] < 1e-6 and found.fit.condition_number < 1e4
    assert 0.1 < np.mean(found.draws[:, 0] > 0.1) < 0.9
    assert found.intervals["alpha"].high > 0.1
    assert set(found.weakly_identified) == {"E", "A", "alpha"}


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_a_start_off_the_bounds_is_the_nearest_with_an_effect(sign):
    """E at zero, or the exponent of a term so large that the term is gone; all else stays."""
    table = planted_table()
    inputs = {name: table[name].to_numpy(float) for name in CHINCHILLA.inputs}
    theta = CHINCHILLA.pack(np.array([1e-12 if sign > 0 else 1.2, 50.0, 80.0, 0.35, 0.37 if sign > 0 else 5.0]))
    moved = off_bounds(CHINCHILLA, theta, inputs, 0.01)
    index = 0 if sign > 0 else 4
    others = np.arange(5) != index if sign > 0 else [0, 1, 3]
    np.testing.assert_array_equal(moved[others], theta[others])
    assert sign * (moved[index] - theta[index]) >= 1.0
    effect = [np.sqrt(np.mean(target_jacobian(CHINCHILLA, at, inputs)[:, index] ** 2)) for at in (theta, moved)]
    assert effect[0] < 0.1 * 0.01 <= effect[1]


@pytest.mark.parametrize("size", [1e-150, 1.0, 1e190])
def test_an_interval_does_not_depend_on_the_size_of_a_constant(size):
    generator = np.random.default_rng(0)
    draws, jackknife = generator.lognormal(size=500), generator.lognormal(size=12)
    plain, scaled = bca_interval(1.0, draws, jackknife, 0.9), bca_interval(size, size * draws, size * jackknife, 0.9)
    assert (scaled.low, scaled.high) == pytest.approx((size * plain.low, size * plain.high), rel=1e-9)


def test_infinite_draws_and_jackknives_still_give_an_interval():
    """Seven runs may leave a constant so free that some refits overflow."""
    draws = np.concatenate([np.arange(1.0, 81.0), np.full(20, np.inf)])
    found = bca_interval(40.0, draws, np.array([1.0, np.inf, 3.0]), 0.9)
    assert np.isfinite(found.low) and found.high == np.inf
    assert bca_interval(0.0, np.zeros(50), np.zeros(5), 0.9) == Interval(0.0, 0.0, 0.0, DEGENERATE)

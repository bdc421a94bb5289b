"""Approach 2: minima of valleys by every reading, and the power laws through them."""

import numpy as np
import pandas as pd
import pytest
import scipy.interpolate
from planted_tables import BUDGETS, TRUTH, planted_loss, planted_optimum, planted_table

from analysis.compute import ValleySettings, efficient_runs, fit_isoflop, fit_surface
from analysis.compute.readings import minima, reading
from analysis.fit import FitError, LeftOut, by_reason
from analysis.sampling import Sampling

MANY_BUDGETS = (1e11, 4e11, 1.6e12, 6.4e12, 2.56e13)
WIDE = {"E": 1.8, "A": 30.0, "B": 2e5, "alpha": 0.2, "beta": 0.6}  # steeper on one side; optimal params grow as C^0.75


def wide_table(noise, seed=0):
    """One ladder of sizes at every budget, as published sweeps have: valleys are wide and far off their centre."""
    generator = np.random.default_rng(seed)
    budgets, sizes = 1.25e16 * 2.0 ** np.arange(9), np.geomspace(1e6, 9e8, 12)
    flops, params = np.repeat(budgets, len(sizes)), np.tile(sizes, len(budgets))
    tokens = flops / 6 / params
    loss = planted_loss(params, tokens, WIDE) * np.exp(noise * generator.standard_normal(len(params)))
    return pd.DataFrame({"params": params, "tokens": tokens, "budget_flops": flops, "loss_nats": loss})


def test_exact_parabolas_give_their_minima_and_power_laws():
    """Losses that are parabolas in log(params), with minima on a power law, come back to rounding."""
    table = planted_table(noise=0.0)
    best = 0.3 * table["budget_flops"] ** 0.49
    floor = 2.0 * (table["budget_flops"] / 1e11) ** -0.05
    table["loss_nats"] = floor + 0.1 * np.log(table["params"] / best) ** 2
    found = fit_isoflop(table, settings=ValleySettings("parabola", noise_nats=1e-6), sampling=Sampling(50))
    assert len(found.valleys) == len(BUDGETS)
    for valley, budget in zip(found.valleys, BUDGETS, strict=True):
        assert valley.params.value == pytest.approx(0.3 * budget**0.49, rel=1e-9)
        assert valley.tokens.value == pytest.approx(budget / 6 / (0.3 * budget**0.49), rel=1e-9)
        assert valley.loss_nats.value == pytest.approx(2.0 * (budget / 1e11) ** -0.05, rel=1e-12)
        assert valley.misfit_nats == pytest.approx(0.0, abs=1e-12)
    assert found.params.scale.value == pytest.approx(0.3, rel=1e-7)
    assert found.params.exponent.value == pytest.approx(0.49, rel=1e-9)
    assert found.tokens.exponent.value == pytest.approx(0.51, rel=1e-9)
    assert found.params.at(1e15, 0.9).value == pytest.approx(0.3 * 1e15**0.49, rel=1e-7)
    assert found.loss is None and found.loss_note.startswith("3 budgets")


@pytest.mark.parametrize("name", ["parabola", "lowest:5", "lowest:3", "interpolation"])
def test_a_reading_of_many_draws_is_that_of_each(name):
    x = np.array([0.0, 0.4, 1.1, 1.5, 2.2, 3.0])
    losses = 2 + 0.1 * (x - 1.3) ** 2 + 0.01 * np.random.default_rng(0).standard_normal((40, len(x)))
    together = minima(reading(name), x, losses)
    for i, row in enumerate(losses):
        alone = minima(reading(name), x, row[None])
        np.testing.assert_allclose([part[i] for part in together], [part[0] for part in alone], rtol=1e-12)


def test_the_lowest_place_of_a_smooth_curve_is_found_between_the_places_looked_at():
    """Akima's cubics through a cosh with a gap of 0.1 follow it to 1e-4; the places are a 25th of a gap apart."""
    x = np.arange(-1.0, 1.5, 0.1)
    place, loss, side = minima(reading("interpolation"), x, np.cosh(x - 0.123)[None])
    assert side[0] == 0 and place[0] == pytest.approx(0.123, abs=2e-3) and loss[0] == pytest.approx(1.0, abs=1e-4)
    ends = np.stack([x, -x]) + 5
    place, _, side = minima(reading("interpolation"), x, ends)
    assert side.tolist() == [-1, 1] and np.isnan(place).all()


def test_the_interpolation_is_scipys():
    """On grids of uneven gaps, and through losses that lie on a line, where Akima's weights are 0 / 0."""
    generator = np.random.default_rng(0)
    for sizes in (3, 4, 9):
        x = np.cumsum(generator.uniform(0.1, 1.0, sizes))
        at = np.linspace(x[0], x[-1], 101)
        for losses in (generator.uniform(2.0, 4.0, sizes), np.exp(0.1 * x), np.exp(0.1 * np.abs(x - x[1]))):
            theirs = np.exp(scipy.interpolate.Akima1DInterpolator(x, np.log(losses))(at))
            np.testing.assert_allclose(reading("interpolation").curve(x, losses[None], at)[0], theirs, rtol=1e-13)


@pytest.mark.parametrize("sizes", [5, 9])
@pytest.mark.parametrize(("alpha", "beta"), [(0.34, 0.34), (0.34, 0.28), (0.2, 0.6)])
def test_without_noise_the_default_is_unbiased(alpha, beta, sizes):
    """To 1e-3 in the exponent, on sizes a factor of 4 to 64 apart, centred on the optima and drifting off them.

    Where the law is the truth it is so by design: the simulation then knows each reading's bias, and one of them is
    always below this (the parabola's is up to 0.008 here, Akima's up to 0.003).
    """
    truth = {"E": 1.7, "A": 400.0, "B": 410.0, "alpha": alpha, "beta": beta}
    budgets = np.geomspace(1e18, 1e21, 6)
    for factor in (4, 16, 64):
        for drift in (0.0, 0.3):
            place = 0.5 * drift * (np.arange(6) / 2.5 - 1)
            grid = planted_optimum(budgets, truth)[:, None] * factor ** (place[:, None] + np.linspace(-0.5, 0.5, sizes))
            params, flops = grid.ravel(), np.repeat(budgets, sizes)
            table = pd.DataFrame({"params": params, "tokens": flops / 6 / params, "budget_flops": flops})
            table["loss_nats"] = planted_loss(params, table["tokens"], truth)
            found = fit_isoflop(table, sampling=Sampling(20))
            assert found.params.exponent.value == pytest.approx(beta / (alpha + beta), abs=1e-3)
            assert found.params.exponent.value + found.tokens.exponent.value == pytest.approx(1.0, abs=1e-9)


def test_wide_valleys_are_read_where_parabolas_miss_them():
    table = wide_table(noise=0.002)
    found = fit_isoflop(table, sampling=Sampling(200))
    assert found.params.exponent.contains(0.75) and found.params.exponent.value == pytest.approx(0.75, abs=0.02)
    parabola = fit_isoflop(table, settings=ValleySettings("parabola"), sampling=Sampling(20))
    assert abs(parabola.params.exponent.value - 0.75) > 0.1
    assert any("more than its noise" in note for note in parabola.notes)
    assert not parabola.design.supports_well(parabola.design.support("parabola"))
    # The bias that the simulation promises is the one that is there.
    promised = parabola.design.exponent + parabola.design.support("parabola").exponent_bias
    assert parabola.params.exponent.value == pytest.approx(promised, abs=0.01)


def test_the_planted_exponent_lies_inside_its_interval():
    """At 90 %, six misses of 20 have probability 0.011 if intervals cover what they promise."""
    planted = TRUTH["beta"] / (TRUTH["alpha"] + TRUTH["beta"])
    inside = [
        fit_isoflop(planted_table(seed=seed), sampling=Sampling(200)).params.exponent.contains(planted)
        for seed in range(20)
    ]
    assert sum(inside) >= 15


def test_minima_of_the_law_are_its_own_optima():
    table = planted_table(noise=0.002, budgets=MANY_BUDGETS)
    surface = fit_surface(table)
    drawn = np.tile(surface.values, (30, 1))
    surface = type(surface)(surface.law, surface.values, surface.rule, surface.objective, drawn)
    found = fit_isoflop(table, surface, ValleySettings("law"), sampling=Sampling(30))
    for valley in found.valleys:
        best = efficient_runs(surface.law, surface.values[None], surface.rule, valley.budget_flops)
        values = (valley.params.value, valley.tokens.value, valley.loss_nats.value)
        np.testing.assert_allclose(values, np.ravel(best), rtol=1e-9)
    with pytest.raises(FitError, match="has no draws"):
        fit_isoflop(table, settings=ValleySettings("law"), sampling=Sampling(30))


def test_a_loss_frontier_is_fitted_where_there_are_enough_budgets():
    found = fit_isoflop(planted_table(noise=0.001, budgets=MANY_BUDGETS), sampling=Sampling(100))
    gamma = TRUTH["alpha"] * TRUTH["beta"] / (TRUTH["alpha"] + TRUTH["beta"])
    assert found.loss.intervals["exponent"].value == pytest.approx(gamma, rel=0.1)
    assert found.loss.intervals["E"].contains(TRUTH["E"])


def test_tokens_follow_the_tables_own_count_of_flops():
    table = planted_table(noise=0.0)
    table["tokens"] *= 0.5 * table["params"] ** 0.05  # another price per token, as with attention counted
    valley = fit_isoflop(table, sampling=Sampling(20)).valleys[0]
    assert valley.tokens.value == pytest.approx(
        BUDGETS[0] / 6 / valley.params.value * 0.5 * valley.params.value**0.05, rel=1e-10
    )


def test_minima_outside_the_sizes_trained_are_no_minima():
    table = planted_table(noise=0.0, budgets=MANY_BUDGETS)
    small = (table["budget_flops"] == 1e11) & (table["params"] < planted_optimum(1e11))
    few = table.index[table["budget_flops"] == 4e11]
    found = fit_isoflop(table[~small].drop(index=few[2:]), sampling=Sampling(20))
    assert [(item.run, item.reason) for item in found.left_out] == [
        ("budget 4e+11 FLOP", "2 sizes; a minimum needs 3"),
        ("budget 1e+11 FLOP", "the loss is lowest at the smallest size trained"),
    ]
    assert [valley.budget_flops for valley in found.valleys] == [1.6e12, 6.4e12, 2.56e13]
    with pytest.raises(FitError, match="0 budgets have a minimum .* inside the sizes trained"):
        fit_isoflop(table[table["params"] < planted_optimum(table["budget_flops"])], sampling=Sampling(20))


def test_budgets_left_out_for_one_reason_are_said_together():
    """Counts of one have no plural, and names that print alike stand once with their number."""
    alike = [LeftOut("budget 1e+18 FLOP", "1 size; a minimum needs 3")] * 3
    others = [LeftOut(f"run-{i}", "an outlier") for i in range(7)]
    assert by_reason([*alike, *others, LeftOut("budget 3e+18 FLOP", alike[0].reason)]) == (
        "budget 1e+18 FLOP (3 of them), budget 3e+18 FLOP: 1 size; a minimum needs 3",
        "run-0, run-1, run-2, run-3, run-4 and 2 more: an outlier",
    )
    table = planted_table(budgets=MANY_BUDGETS)
    few = table.groupby("budget_flops").head(1).index
    whole = table["budget_flops"] == MANY_BUDGETS[0]
    with pytest.raises(FitError, match=r"1 budget has sizes enough.*\(left out: budget 4e\+11 FLOP, .*: 1 size; a min"):
        fit_isoflop(table[whole | table.index.isin(few)])


def test_tables_without_three_valleys_are_refused():
    table = planted_table()
    with pytest.raises(FitError, match="2 budgets have sizes enough for a minimum, approach 2 needs at least 3"):
        fit_isoflop(table[table["budget_flops"] < 1e12])
    with pytest.raises(FitError, match="no run states its budget"):
        fit_isoflop(table.assign(budget_flops=np.nan))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"how": "lowest:2"}, "valleys = 'lowest:2': must be auto, parabola"),
        ({"how": "spline"}, "valleys = 'spline'"),
        ({"noise_nats": -1.0}, "noise_nats = -1: must be finite, and not negative"),
        ({"noise_nats": float("inf")}, "noise_nats = inf: must be finite"),
        ({"budget_tolerance": float("nan")}, "budget_tolerance = nan"),
    ],
)
def test_a_reading_that_is_none_is_refused_before_anything_is_fitted(settings, message):
    with pytest.raises(FitError, match=message):
        ValleySettings(**settings)

import numpy as np
import pandas as pd
import pytest
from planted_tables import BUDGETS, planted_table

from analysis.compute import fit_interpolated
from analysis.fit import FitError

MANY_BUDGETS = (1e11, 4e11, 1.6e12, 6.4e12, 2.56e13)


def valleys(wall=0.0, budgets=MANY_BUDGETS, sizes=9):
    """Losses 2 + 0.1 x^2 + wall x^4 with x = log(params / optimum), optima on 0.3 flops^0.49; x from -1.4 to 2.8."""
    table = planted_table(noise=0.0, sizes=sizes, budgets=budgets)
    x = np.tile(np.linspace(-1.4, 2.8, sizes), len(budgets))
    table["params"] = 0.3 * table["budget_flops"] ** 0.49 * np.exp(x)
    table["tokens"] = table["budget_flops"] / 6 / table["params"]
    table["loss_nats"] = 2 + 0.1 * x**2 + wall * np.where(x > 0, x, 0) ** 4 * (table["budget_flops"] / 1e11) ** 0.5
    return table


def test_minima_come_back_where_parabolas_miss_them():
    """Minima lie on a grid of 1/25 of a gap of 0.2, so each is within 0.004 of its place there, and Akima's cubics
    follow the wall on one side to within another 0.01: over budgets a factor of 256 apart that bounds the slope."""
    table, places = valleys(wall=0.02, sizes=22), 0.3 * np.array(MANY_BUDGETS) ** 0.49
    found = fit_interpolated(table, noise_nats=1e-4)
    errors = np.log([minimum.params.value for minimum in found.minima] / places)
    assert np.abs(errors).max() < 0.014 and not found.left_out
    assert found.exponent.value == pytest.approx(0.49, abs=2 * 0.014 / np.log(256))
    assert fit_interpolated(table).exponent.contains(0.49)
    missed = []
    for place, (_, valley) in zip(places, table.groupby("budget_flops"), strict=True):
        curvature, slope, _ = np.polyfit(np.log(valley["params"] / place), valley["loss_nats"], 2)
        missed.append(abs(slope / (2 * curvature)))
    assert max(missed) > 3 * np.abs(errors).max()


def test_noise_widens_the_interval_and_seeds_repeat():
    quiet, loud = (fit_interpolated(valleys(), noise_nats=noise) for noise in (0.001, 0.01))
    assert loud.exponent.high - loud.exponent.low > 3 * (quiet.exponent.high - quiet.exponent.low)
    np.testing.assert_array_equal(quiet.draws, fit_interpolated(valleys(), noise_nats=0.001).draws)


def test_of_several_runs_of_one_size_the_best_counts():
    table = valleys()
    worse = table.assign(loss_nats=table["loss_nats"] + 0.3, run=table["run"] + " again")
    both = fit_interpolated(pd.concat([table, worse], ignore_index=True))
    np.testing.assert_array_equal(both.draws, fit_interpolated(table).draws)


def test_budgets_whose_minimum_is_not_inside_are_left_out_with_the_reason():
    table = valleys(budgets=(*MANY_BUDGETS, 1e14))
    table = table.drop(index=table.index[(table["budget_flops"] == 1e11)][:4])  # the optimum and all below it
    few = table.index[table["budget_flops"] == 1e14]
    found = fit_interpolated(table.drop(index=few[2:]))
    assert [(item.run, item.reason) for item in found.left_out] == [
        ("budget 1e+11 FLOP", "the lowest loss is that of the smallest size"),
        ("budget 1e+14 FLOP", "2 sizes; interpolation needs 3"),
    ]
    assert len(found.minima) == 4


def test_what_cannot_be_used_is_refused():
    table = planted_table()
    with pytest.raises(FitError, match="1 budgets give a minimum .* needs at least 3"):
        fit_interpolated(table[table["budget_flops"] == BUDGETS[0]])
    with pytest.raises(FitError, match="no run states its budget"):
        fit_interpolated(table.assign(budget_flops=np.nan))
    with pytest.raises(FitError, match="noise_nats = 0: must be positive"):
        fit_interpolated(table, noise_nats=0.0)

"""What a valley is made of: budgets that scatter, repeated seeds, diverged runs, and the noise of a run."""

import numpy as np
import pandas as pd
import pytest
from planted_tables import planted_table

from analysis.compute import ValleySettings, fit_isoflop, fit_surface
from analysis.compute.valleys import valleys
from analysis.laws import evaluate
from analysis.sampling import Sampling

MANY_BUDGETS = (1e11, 4e11, 1.6e12, 6.4e12, 2.56e13)


def read(table, **settings):
    return valleys(table, fit_surface(table), fewest_sizes=3, **settings)


def with_seeds(noise, seeds=3):
    """The same sizes and budgets under several seeds."""
    parts = [planted_table(noise=noise, sizes=8, budgets=MANY_BUDGETS, seed=seed) for seed in range(seeds)]
    return pd.concat(
        [part.assign(seed=seed, run=part["run"] + f"-{seed}") for seed, part in enumerate(parts)], ignore_index=True
    )


def test_budgets_that_scatter_are_grouped_and_their_losses_moved():
    """Each run's compute is up to 10 % off its budget, in its tokens too: moved back along the exact surface, every
    loss is that of a run at the budget's mean."""
    table = planted_table(noise=0.0, sizes=8, budgets=MANY_BUDGETS)
    factor = np.random.default_rng(1).uniform(0.9, 1.1, len(table))
    table["tokens"] *= factor
    surface = fit_surface(table.assign(flops=6 * table["params"] * table["tokens"]))
    truth = evaluate(surface.law, surface.values, {name: table[name].to_numpy() for name in ("params", "tokens")})
    table = table.assign(flops=table["flops"] * factor, budget_flops=table["budget_flops"] * factor, loss_nats=truth)
    found = valleys(table, surface, fewest_sizes=3)
    assert len(found.budgets) == len(MANY_BUDGETS) and found.notes[0].startswith("40 different budgets within 10%")
    for budget in found.budgets:
        at_budget = {"params": np.exp(budget.log_params), "tokens": budget.flops / 6 / np.exp(budget.log_params)}
        np.testing.assert_allclose(budget.loss, evaluate(surface.law, surface.values, at_budget), rtol=1e-9)
    assert len(valleys(table, surface, fewest_sizes=1, tolerance=1e-6).budgets) == 40


def test_budgets_that_lie_everywhere_are_not_chained_into_one():
    table = planted_table(noise=0.0, sizes=10, budgets=MANY_BUDGETS[:3])
    factor = np.geomspace(1, 8, 30)  # neighbours within 8 %
    table = table.assign(tokens=1e11 * factor / 6 / table["params"], budget_flops=1e11 * factor, flops=1e11 * factor)
    found = valleys(table, fit_surface(planted_table()), fewest_sizes=1)
    assert len(found.budgets) == 30 and not found.notes


def test_repeated_seeds_are_averaged_and_tell_the_noise():
    """With 80 degrees of freedom a standard deviation is known to 8 %."""
    table = with_seeds(noise=0.004)
    found = read(table)
    assert (found.noise.source, found.noise.freedom) == ("between repeated seeds", 80)
    assert found.noise.value == pytest.approx(0.004, rel=0.25)
    cells = table.groupby(["budget_flops", "params"])["loss_nats"]
    np.testing.assert_allclose(np.concatenate([b.loss for b in found.budgets]), cells.mean().to_numpy(), rtol=1e-12)
    assert all((budget.repeats == 3).all() and budget.runs == 24 for budget in found.budgets)


def test_repeats_with_other_settings_are_not_averaged_the_lowest_counts():
    table = with_seeds(noise=0.004)
    lowest = table.groupby(["budget_flops", "params"])["loss_nats"].min().to_numpy()
    for other in (
        table.assign(learning_rate=np.where(table["seed"] == 0, 1e-3, 2e-3)),
        table.assign(seed=0),
        table.drop(columns="seed"),
    ):
        found = read(other)
        np.testing.assert_allclose(np.concatenate([b.loss for b in found.budgets]), lowest, rtol=1e-12)
        assert "seeds" not in found.noise.source


def test_noise_is_that_of_neighbouring_sizes_where_the_law_misses_more():
    """A wave over compute that no law of this family follows: its residuals are not the noise of a run."""
    table = planted_table(noise=0.002, sizes=12, budgets=MANY_BUDGETS)
    assert read(table).noise.source == "of the residuals from the fitted law"
    table["loss_nats"] *= 1 + 0.05 * np.sin(2 * np.log(table["budget_flops"]))
    found = read(table)
    assert "neighbouring sizes" in found.noise.source
    assert found.noise.value == pytest.approx(0.002, rel=0.5)  # 40 overlapping differences, by their median


def test_diverged_runs_are_no_part_of_a_valley_and_are_named():
    table = planted_table(noise=0.003, sizes=8, budgets=MANY_BUDGETS)
    diverged = table.assign(loss_nats=table["loss_nats"].where(~table.index.isin([3, 20, 33]), 11.0))
    found = read(diverged)
    assert [item.run for item in found.left_out] == ["run-3", "run-20", "run-33"]
    assert all(item.reason.startswith("an outlier") for item in found.left_out)
    with_them, without = (
        fit_isoflop(rows, settings=ValleySettings("parabola"), sampling=Sampling(20))
        for rows in (diverged, table.drop(index=[3, 20, 33]))
    )
    assert with_them.params.exponent.value == pytest.approx(without.params.exponent.value, abs=1e-9)


def test_a_side_of_every_valley_that_the_law_misses_is_kept():
    """Large models under-trained by a warm-up that is too long, say: far from any surface, but not from each other."""
    table = planted_table(noise=0.002, sizes=12, budgets=MANY_BUDGETS)
    place = np.tile(np.arange(12), len(MANY_BUDGETS))
    table["loss_nats"] *= 1 + 0.3 * np.clip((place - 8) / 3, 0, None) ** 2
    found = read(table)
    assert not found.left_out and sum(budget.runs for budget in found.budgets) == len(table)


def test_fewer_runs_with_budgets_than_the_law_has_constants():
    """The other runs have fitted the law: what is left has a noise, and no number is taken from nothing."""
    table = planted_table(noise=0.003, sizes=8, budgets=MANY_BUDGETS)
    for stated in (4, 5):
        found = read(table.assign(budget_flops=table["budget_flops"].where(table.index < stated)))
        assert np.isfinite(found.noise.value) and found.noise.freedom == 1
        assert len(found.left_out) == len(table) - stated

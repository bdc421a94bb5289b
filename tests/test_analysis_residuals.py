"""What residuals say beside the law: outliers, the scatter of equal runs, and what unused columns explain."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from planted_tables import planted_loss, planted_table

from analysis.fit import fit, select
from analysis.fit.residual_tests import FALSE_ALARMS, outliers, outliers_by_run, pure_error
from analysis.laws import CHINCHILLA, evaluate
from analysis.report.markdown import markdown
from analysis.report.residual_checks import checks_section
from analysis.runs_table import complete
from analysis.studies import residual_checks


def test_planted_outliers_are_found_and_nothing_else():
    """Three of 48 points far off, as diverged runs are, and one of them among only 9 points."""
    residuals = 0.003 * np.random.default_rng(0).standard_normal(48)
    residuals[[3, 20, 41]] += [1.2, 1.0, -0.4]
    found = outliers(residuals)
    assert np.flatnonzero(found.which).tolist() == [3, 20, 41] and found.scale == pytest.approx(0.003, rel=0.3)
    assert found.factors[3] == pytest.approx(abs(residuals[3]) / found.scale)
    few = np.array([0.01, -0.02, 0.015, -0.01, 0.02, -0.015, 0.01, -0.01, 1.5])
    assert outliers(few).which.tolist() == [False] * 8 + [True]


@pytest.mark.parametrize("points", [20, 100, 1000])
def test_tables_of_normal_residuals_seldom_raise_an_alarm(points):
    """1 of 100 by design; 600 tables at twice that have more than 25 alarms with a probability of 0.1 %."""
    residuals = np.random.default_rng(points).standard_normal((600, points))
    assert sum(outliers(row).which.any() for row in residuals) <= 25
    assert scipy.stats.binom.sf(25, 600, 2 * FALSE_ALARMS) < 1e-3


def test_points_that_a_fit_passes_through_are_no_measure_of_the_scale():
    residuals = np.random.default_rng(1).standard_normal(40)
    with_exact = np.concatenate([residuals, np.zeros(5)])
    assert outliers(with_exact, 5).scale == outliers(residuals).scale > outliers(with_exact).scale


def test_rounding_is_no_outlier_and_too_few_points_say_nothing():
    rounding = np.array([*[1e-16, -2e-16, 1e-16, -1e-16] * 6, 3e-12])
    assert outliers(rounding).which.any() and not outliers(rounding, grain=1e-9).which.any()
    assert not outliers(np.array([0.0, 0.0, 5.0]), 2).which.any()
    assert outliers(np.array([*[0.0] * 30, 5.0])).which[-1]


def test_pure_error_is_the_pooled_scatter_of_equal_inputs():
    generator = np.random.default_rng(2)
    counts = [1, 3, 2, 4, 1]
    params, tokens = np.repeat([1e6, 1e6, 2e6, 3e6, 3e6], counts), np.repeat([1e8, 2e8, 2e8, 2e8, 3e8], counts)
    target = generator.standard_normal(11)
    scale, freedom = pure_error({"params": params, "tokens": tokens}, target)
    groups = np.split(target, np.cumsum(counts)[:-1])
    assert freedom == 6
    assert scale**2 == pytest.approx(sum(np.var(g, ddof=1) * (len(g) - 1) for g in groups if len(g) > 1) / 6)
    assert pure_error({"params": params, "tokens": tokens * np.arange(1, 12)}, target) is None
    order = generator.permutation(11)
    again = pure_error({"params": params[order] * (1 + 1e-15), "tokens": tokens[order]}, target[order])
    assert again == (pytest.approx(scale), 6)


def checked(table):
    table = complete(table)
    points, _ = select(CHINCHILLA, table)
    return residual_checks(fit(CHINCHILLA, table), points, table.iloc[points.rows])


def seeded(seeds=3, noise=0.004, bend=0.0):
    """18 runs with `seeds` seeds each; bend: a term that the law lacks, largest at the smallest sizes."""
    table = pd.concat([planted_table(noise=0.0).assign(seed=i) for i in range(seeds)], ignore_index=True)
    size = np.log(table["params"] / table["params"].median())
    errors = noise * np.random.default_rng(3).standard_normal(len(table)) + bend * np.cos(3 * size)
    return table.assign(run=[f"run-{i}" for i in range(len(table))], loss_nats=table["loss_nats"] * np.exp(errors))


def test_diverged_runs_are_named_and_the_constants_stay():
    table = planted_table(sizes=8)
    clean = fit(CHINCHILLA, table)
    table.loc[[5, 14], "loss_nats"] = np.log(50257.0)
    found = checked(table)
    assert {one.run for one in found.outliers} == {"run-5", "run-14"} and not found.explained
    assert all(one.measured == np.log(50257.0) and one.residual > 1 and one.factor > 50 for one in found.outliers)
    assert fit(CHINCHILLA, table).values["alpha"] == pytest.approx(clean.values["alpha"], rel=0.1)
    assert not checked(planted_table(sizes=8)).outliers


def test_a_limit_that_nothing_could_pass_is_said_to_tell_nothing():
    """Eight points and five constants: the scale is worth one degree of freedom, and its t quantile is in hundreds."""
    table = planted_table(sizes=4, budgets=(1e11, 4e12))
    found = checked(table)
    residuals = np.abs(np.log(table["loss_nats"] / evaluate(CHINCHILLA, fit(CHINCHILLA, table).array(), table)))
    assert found.furthest == pytest.approx((residuals / found.robust_scale).max()) and found.outlier_factor > 100
    shown = markdown(checks_section(found, fit(CHINCHILLA, table)))
    assert "Too few runs to tell whether one is an outlier: the furthest is" in shown and "No run is" not in shown


def test_a_row_s_number_is_explained_where_there_is_one():
    table = planted_table(sizes=8)
    table.loc[5, "loss_nats"] = np.log(50257.0)
    for rows, explained in ((table.drop(columns="run"), True), (table, False)):
        text = markdown(checks_section(checked(rows), fit(CHINCHILLA, rows)))
        assert ("| row 5 |" in text) == explained == ("Rows are counted from 0: row 3 is the fourth" in text)


def test_seeds_tell_noise_from_lack_of_fit():
    """The F test equals its definition, keeps quiet where the law holds, and speaks where a term is missing."""
    table = seeded()
    right = checked(table).lack_of_fit
    groups = table.groupby("params")["loss_nats"]
    assert (right.groups, right.freedom, right.lack_freedom, right.differ_in) == (18, 36, 13, ("seed",))
    assert right.noise == pytest.approx(np.sqrt(groups.var(ddof=1).mean())) and right.p_value > 0.01
    # 36 degrees of freedom: the standard deviation's own standard error is 12 %.
    assert right.noise_residual == pytest.approx(0.004, rel=0.4)
    assert right.p_value == pytest.approx(scipy.stats.f.sf(right.ratio, 13, 36))
    wrong = checked(seeded(bend=0.02)).lack_of_fit
    assert wrong.p_value < 1e-6 and wrong.noise == pytest.approx(right.noise, rel=0.05)
    assert checked(planted_table()).lack_of_fit is None
    exact = checked(seeded(noise=0.0).assign(note=[f"copy {i}" for i in range(54)]))
    assert exact.lack_of_fit.p_value is None and not exact.outliers and not exact.tested


@pytest.mark.parametrize("column", ["batch_tokens", "data", "learning_rate"])
def test_a_column_that_explains_the_residuals_is_named(column):
    """A number's trend, a word's levels, a number's optimum; and nothing else of the table."""
    generator, table = np.random.default_rng(5), planted_table(noise=0.002, sizes=12)
    table["batch_tokens"] = np.exp(generator.uniform(10, 14, 36))
    table["data"] = generator.choice(["web", "books", "code"], 36)
    table["learning_rate"] = np.exp(generator.uniform(-9, -5, 36))
    table["bits_per_byte"] = table["loss_nats"] / 3  # an outcome, which explains nothing
    effect = {
        "batch_tokens": 0.01 * (np.log(table["batch_tokens"]) - 12),
        "data": 0.02 * (table["data"] == "code"),
        "learning_rate": 0.008 * ((np.log(table["learning_rate"]) + 7) ** 2 - 4 / 3),
    }[column]
    found = checked(table.assign(loss_nats=table["loss_nats"] * np.exp(effect)))
    assert [one.column for one in found.explained] == [column] and found.explained[0].share > 0.3
    assert not checked(table).explained and checked(table).tested >= 3


def clustered(generator, runs=12, rows=8):
    """Residuals of runs of `rows` rows each: what a run's share, ten times what each has alone; and their runs."""
    units = np.repeat(np.arange(runs), rows)
    return generator.standard_normal(runs)[units] + 0.1 * generator.standard_normal(runs * rows), units


def test_rows_that_share_the_noise_of_their_run_seldom_raise_an_alarm():
    """1 of 100 tables by design, of runs and of rows; the bound is that of tables of independent points."""
    alarms = np.zeros(2, int)
    for seed in range(600):
        residuals, units = clustered(np.random.default_rng([6, seed]))
        _, runs, rows = outliers_by_run(residuals, units, (0, 0))
        alarms += [runs.which.any(), rows.which.any()]
    assert max(alarms) <= 25


def test_a_run_that_lies_apart_is_one_and_a_row_that_does_is_no_run():
    residuals, units = clustered(np.random.default_rng(1), runs=20)
    residuals[units == 7] += 300.0
    residuals[3 * 8 + 5] += 30.0
    middles, runs, rows = outliers_by_run(residuals, units, (3, 2))
    assert np.flatnonzero(runs.which).tolist() == [7] and np.flatnonzero(rows.which).tolist() == [3 * 8 + 5]
    assert middles[7] == np.median(residuals[units == 7]) and rows.scale == pytest.approx(0.1, rel=0.3)
    assert runs.scale == pytest.approx(1.0, rel=0.5) and rows.factors[29] == pytest.approx(300, rel=0.3)
    # Runs of one row are held to what a row has alone, too, and with two rows neither can be told from the other.
    pairs = np.concatenate([[5.0, -5.0], 0.1 * np.random.default_rng(2).standard_normal(40)])
    _, _, rows = outliers_by_run(pairs, np.repeat(np.arange(21), 2), (0, 0))
    assert not rows.which.any()


def checkpoints(noise=0.012, runs=20, rows=6):
    """Runs of several checkpoints, whose losses share the noise of their run."""
    generator = np.random.default_rng(11)
    params = np.repeat(np.geomspace(1e4, 1e6, runs), rows)
    tokens = params * np.tile(np.linspace(4, 80, rows), runs)
    shared = np.repeat(generator.standard_normal(runs), rows) + 0.1 * generator.standard_normal(runs * rows)
    names = [f"run-{i}" for i in np.repeat(np.arange(runs), rows)]
    table = pd.DataFrame({"run": names, "params": params, "tokens": tokens})
    return table.assign(loss_nats=planted_loss(params, tokens) * np.exp(noise * shared))


def test_a_run_of_several_rows_is_one_outlier_in_a_report():
    table = checkpoints()
    quiet = checked(table)
    assert not quiet.outlying_runs and not quiet.outliers and quiet.run_factor > 3
    assert 0 < quiet.furthest < quiet.outlier_factor and 0 < quiet.furthest_run < quiet.run_factor
    shown = markdown(checks_section(quiet, fit(CHINCHILLA, table)))
    assert f"the furthest is {quiet.furthest:.3g} robust scales off; the limit is {quiet.outlier_factor:.3g}." in shown
    table.loc[table["run"] == "run-4", "loss_nats"] *= 1.5
    table.loc[62, "loss_nats"] *= 1.1  # the third row of run-10
    found = checked(table)
    assert [(one.run, one.rows) for one in found.outlying_runs] == [("run-4", 6)]
    assert found.outlying_runs[0].residual == pytest.approx(np.log(1.5), rel=0.1)
    assert [(one.run, one.inputs["tokens"]) for one in found.outliers] == [("run-10", table["tokens"][62])]
    assert found.outliers[0].residual == pytest.approx(np.log(1.1), rel=0.1)
    text = markdown(checks_section(found, fit(CHINCHILLA, table)))
    assert "**Outliers: 1 of 20 fitted runs**" in text and text.count("run-4") == 1
    assert "**Rows apart: 1 of 120 fitted rows**" in text and text.count("run-10") == 1


def test_rows_of_one_run_are_no_evidence_of_their_own():
    """What differs between runs is tested on 20 runs, not 120 rows, and equal rows of two runs are one repetition."""
    table = checkpoints().assign(cluster=np.repeat(np.random.default_rng(1).choice(["a", "b"], 20), 6))
    by_run, by_row = checked(table), checked(table.assign(run=[f"row-{i}" for i in range(120)]))
    assert by_run.tested == 1 and not by_run.explained
    assert by_row.explained and by_row.explained[0].p_value < 1e-3
    # The noise of the runs is found where their rows follow it, too.
    shift = 0.05 * (table["cluster"] == "a")
    assert checked(table.assign(loss_nats=table["loss_nats"] * np.exp(shift))).explained[0].column == "cluster"
    twice = pd.concat([checkpoints(), checkpoints().assign(run=lambda t: t["run"] + "-b")], ignore_index=True)
    twice.loc[120:, "loss_nats"] *= np.exp(0.01 * np.repeat(np.random.default_rng(3).standard_normal(20), 6))
    lack = checked(twice).lack_of_fit
    assert (lack.groups, lack.freedom, lack.p_value) == (20, 20, None) and lack.noise_residual < 0.02
    text = markdown(checks_section(checked(twice), fit(CHINCHILLA, twice)))
    assert "The last rows of runs of equal inputs scatter" in text and "rows of one run are not independent" in text

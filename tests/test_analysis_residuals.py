"""What residuals say beside the law: outliers, the scatter of equal runs, and what unused columns explain."""

import numpy as np
import pytest
import scipy.stats

from analysis.fit.residual_tests import FALSE_ALARMS, outliers, pure_error


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

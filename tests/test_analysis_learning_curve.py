import itertools

import numpy as np
import pandas as pd
import pytest

from analysis.fit import LEAST_SQUARES, fit
from analysis.laws import evaluate, find
from analysis.studies import schedule_areas


def written_out(rates, forgetting):
    """S1 and S2 at the last step as the paper writes them: a sum, and a double sum over what was given up since."""
    given_up = [0.0] + [before - after for before, after in itertools.pairwise(rates)]
    annealed = sum(given_up[k] * forgetting ** (i - k) for i in range(len(rates)) for k in range(i + 1))
    return sum(rates), annealed


def cosine(steps, peak=1e-3, end=0.1):
    return peak * (end + (1 - end) * 0.5 * (1 + np.cos(np.pi * np.arange(steps) / (steps - 1))))


def test_areas_are_the_papers_sums():
    rates = cosine(60)
    area, annealed = schedule_areas(rates, 0.9)
    for steps in (1, 2, 17, 60):
        # Sums of 60 terms of one sign, each good to a rounding.
        np.testing.assert_allclose((area[steps - 1], annealed[steps - 1]), written_out(rates[:steps], 0.9), rtol=1e-13)


def test_a_constant_schedule_anneals_nothing_and_one_drop_is_a_geometric_sum():
    area, annealed = schedule_areas(np.full(10, 2e-3))
    np.testing.assert_allclose(area, 2e-3 * np.arange(1, 11), rtol=1e-15)
    assert not annealed.any()
    _, annealed = schedule_areas(np.r_[np.full(5, 2e-3), np.full(50, 5e-4)], 0.95)
    np.testing.assert_allclose(annealed[5:], 1.5e-3 * (1 - 0.95 ** np.arange(1, 51)) / 0.05, rtol=1e-13)


def test_a_curve_on_one_schedule_predicts_the_end_of_another():
    """Losses on a cosine of 20,000 steps with noise of 0.1 % say how a linear decay of twice the length ends."""
    truth, generator = np.array([2.6, 0.5, 6.0, 0.5]), np.random.default_rng(0)
    law = find("annealing")

    def curve(rates, at):
        area, annealed = schedule_areas(rates)
        return {"schedule_area": area[at], "annealing_area": annealed[at]}

    seen = curve(cosine(20_000), np.arange(499, 20_000, 500))
    loss = evaluate(law, truth, seen) * np.exp(0.001 * generator.standard_normal(40))
    found = fit(law, pd.DataFrame({**seen, "loss_nats": loss}), LEAST_SQUARES)
    end = curve(np.r_[np.full(30_000, 1e-3), np.linspace(1e-3, 0, 10_000)], np.array([-1]))
    assert evaluate(law, found.array(), end).item() == pytest.approx(evaluate(law, truth, end).item(), rel=0.002)


def test_schedules_that_are_none_are_refused():
    with pytest.raises(ValueError, match="none negative"):
        schedule_areas(np.array([1e-3, -1e-3]))
    with pytest.raises(ValueError, match="learning_rates: must be"):
        schedule_areas(np.array([]))
    with pytest.raises(ValueError, match=r"forgetting = 1: must lie in \[0, 1\)"):
        schedule_areas(np.array([1e-3]), 1.0)

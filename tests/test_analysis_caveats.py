"""What is said beside intervals that promise too much: few independent units, and optima that nothing determines."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from planted_tables import BUDGETS, planted_loss, planted_table

from analysis.figures import loss_against_compute, loss_surface, optimal_allocation
from analysis.intervals import AT_BOUND, NOT_DETERMINED, Interval, Resampling
from analysis.intervals.interval import NOTES
from analysis.laws import find
from analysis.report import study_report
from analysis.report.captions import study_figures
from analysis.report.document import notes_on
from analysis.report.markdown import markdown
from analysis.sampling import Sampling
from analysis.studies import cost_of_departing, fit_table, frontier_exponents, lifetime_optimum, optimum


@pytest.fixture(scope="module")
def study():
    return fit_table(planted_table(), sampling=Sampling(20))


def near_twenty():
    """Seven runs of which params and tokens grow together: their terms cannot be told apart."""
    generator = np.random.default_rng([20, 3])
    params = np.geomspace(1e8, 1.3e10, 7)
    tokens = 20 * params * np.exp(generator.uniform(-0.05, 0.05, 7))
    loss = 10 * params**-0.1 * np.exp(0.005 * generator.standard_normal(7))
    return pd.DataFrame({"params": params, "tokens": tokens, "loss_nats": loss})


def test_what_follows_from_terms_that_cannot_be_told_apart_is_not_determined():
    """Resamples of such a table hardly move its exponents, which says nothing of how well they are known."""
    table = near_twenty()
    found = fit_table(table, sampling=Sampling(20))
    assert found.undetermined and set(found.undetermined) <= set(found.caveats)
    best = optimum(found, 1e22)
    departures = (away.loss_penalty for away in cost_of_departing(found, 1e22))
    for interval in (*frontier_exponents(found), best.params, best.tokens, best.loss_nats, *departures):
        assert (interval.low, interval.high, interval.note) == (-np.inf, np.inf, NOT_DETERMINED)
    assert best.params.value > 0 and 0 < frontier_exponents(found)[0].value < 1
    text = markdown(study_report(table, found).document())
    exponents = (f"{interval.value:.2g} (not determined)" for interval in frontier_exponents(found))
    assert (
        "Approach 3: optimal params grow as flops to the power {}, tokens to the power {}.".format(*exponents) in text
    )
    captions = [markdown(one.figure) for one in study_figures(table, study_report(table, found))]
    assert sum("not determined by these runs, and there is no shade" in caption for caption in captions) == 3


@pytest.mark.parametrize("figure", [loss_against_compute, loss_surface, optimal_allocation])
def test_figures_of_optima_that_are_not_determined_have_no_shade(figure):
    table = near_twenty()
    drawn = figure(table, fit_table(table, sampling=Sampling(20)))
    labels = [text.get_text() for legend in drawn.legends for text in legend.get_texts()]
    labels += [text.get_text() for axes in drawn.axes if axes.get_legend() for text in axes.get_legend().get_texts()]
    assert "its interval is not determined" in labels


def test_an_open_exponent_leaves_optima_open_and_one_at_its_bound_does_not(study):
    assert not study.undetermined and not study.caveats and np.isfinite(frontier_exponents(study)[0].high)
    assert np.isfinite(lifetime_optimum(study, 1.6, 1e9).params.high)
    for name, leaves_open in (("alpha", True), ("A", False)):
        loose = study.profiles | {name: dataclasses.replace(study.profiles[name], closed_above=False)}
        found = dataclasses.replace(study, profiles=loose)
        assert bool(found.undetermined) == leaves_open, name
        assert (optimum(found, BUDGETS[-1]).params.note == NOT_DETERMINED) == leaves_open
        assert (lifetime_optimum(found, 1.6, 1e9).params.note == NOT_DETERMINED) == leaves_open
        assert not leaves_open or "The profile likelihood of alpha does not close" in found.caveats[0]
    at_bound = study.law.intervals | {"alpha": dataclasses.replace(study.law.intervals["alpha"], note=AT_BOUND)}
    loose = study.profiles | {"alpha": dataclasses.replace(study.profiles["alpha"], closed_below=False)}
    held = dataclasses.replace(study, profiles=loose, law=dataclasses.replace(study.law, intervals=at_bound))
    assert not held.undetermined


def test_only_exponents_are_constants_without_a_unit():
    """R_N, which the published runs leave open, is a number of sizes: optima do not hang on it alone."""
    plain = [p.name for p in find("data_constrained").parameters if p.unit == "1"]
    assert plain == ["alpha", "beta"]


def test_every_note_of_intervals_that_come_one_by_one_is_explained():
    notes = (NOT_DETERMINED, AT_BOUND)
    (paragraph,) = notes_on(Interval(0.0, 0.0, 1.0, note) for note in notes)
    assert all(NOTES[note] in markdown(paragraph) for note in notes)


def checkpoints(runs, rows=4, noise=0.004):
    generator = np.random.default_rng(runs)
    params = np.repeat(np.geomspace(1e4, 1e6, runs), rows)
    tokens = params * np.tile(np.geomspace(2, 80, rows), runs)
    shared = np.repeat(generator.standard_normal(runs), rows)
    loss = planted_loss(params, tokens) * np.exp(noise * (shared + 0.1 * generator.standard_normal(runs * rows)))
    names = [f"run-{i}" for i in np.repeat(np.arange(runs), rows)]
    return pd.DataFrame({"run": names, "params": params, "tokens": tokens, "loss_nats": loss})


def test_a_caveat_counts_independent_runs_and_not_their_rows():
    """32 rows are many points, and few runs; rows that are runs of their own are as many as they seem."""
    few, many = fit_table(checkpoints(8), sampling=Sampling(20)), fit_table(checkpoints(20), sampling=Sampling(20))
    assert (few.units, few.unit) == (8, "runs") and few.caveats == (
        "8 runs for 5 constants are few: of such simulated tables 83 to 99% had the truth inside a 90% interval. Read "
        "them as too narrow",
    )
    text = markdown(study_report(checkpoints(8), few).document())
    assert text.count("8 runs for 5 constants are few") == 1 and "the caveats of the law above" in text
    assert (many.units, many.unit) == (20, "runs") and not many.caveats
    alone = fit_table(checkpoints(8).drop(columns="run"), sampling=Sampling(20))
    assert (alone.units, alone.unit) == (32, "points") and not alone.caveats
    groups = checkpoints(20).assign(third=np.repeat(["a", "b", "c"], [24, 28, 28]))
    grouped = fit_table(groups, sampling=Sampling(20), resampling=Resampling("third"))
    assert (grouped.units, grouped.unit) == (3, "groups of equal third")
    assert grouped.caveats[0].startswith("3 groups of equal third for 5 constants are few")
    # Two runs cannot be resampled by run, and are no more independent for that.
    two = fit_table(checkpoints(2, rows=20).assign(params=1e5), law=find("kaplan_tokens"), sampling=Sampling(20))
    assert (two.units, two.unit) == (2, "runs") and two.caveats

"""What is said beside intervals that promise too much: few independent units, and optima that nothing determines."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import tyro
from planted_tables import BUDGETS, planted_loss, planted_table

from analysis.command.predict import predict as predict_command
from analysis.figures import loss_against_compute, loss_surface, optimal_allocation
from analysis.fit import FitError
from analysis.intervals import AT_BOUND, NOT_DETERMINED, Interval, Resampling
from analysis.intervals.interval import NOTES
from analysis.laws import find
from analysis.report import held_out_section, study_report
from analysis.report.captions import study_figures
from analysis.report.document import notes_on
from analysis.report.markdown import markdown
from analysis.sampling import Sampling
from analysis.studies import (
    cost_of_departing,
    fit_table,
    frontier_exponents,
    lifetime_optimum,
    optimum,
    predict,
    score,
)
from analysis.studies.caveats import coverage_of_few


@pytest.fixture(scope="module")
def study():
    return fit_table(planted_table(), sampling=Sampling(20))


def near_twenty(seed=1):
    """Seven runs of which params and tokens grow together: their terms cannot be told apart."""
    generator = np.random.default_rng([20, seed])
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


NO_OPTIMUM = "The law has no optimum: {}, and a compute-optimal run trades the term of {} against another's"


@pytest.mark.parametrize(
    ("held", "state"),
    [
        ({"A": 0.0}, "A is held at 0"),
        ({"beta": 0.0, "B": 0.0}, "B is held at 0 and beta is held at 0"),
        ({"alpha": 0.34, "beta": 0.28}, "A is 0, at its bound"),
        ({"E": 0.0, "alpha": 0.34, "beta": 0.28}, "A is 0, at its bound"),  # no optimum needs E
    ],
)
def test_a_law_without_one_of_its_terms_has_no_optimum(held, state):
    """A search along a budget then ends at an edge, 1e-13 times any size trained, and every resample does."""
    found = fit_table(near_twenty(3), law=find("chinchilla").fix(**held), sampling=Sampling(20))
    names = " and ".join(part.split()[0] for part in state.split(" and "))
    assert found.no_optimum == NO_OPTIMUM.format(state, names) and found.no_optimum in found.caveats
    best, away = optimum(found, 1e22), cost_of_departing(found, 1e22)[0]
    optima = (best.params, best.tokens, best.tokens_per_param, best.loss_nats)
    for interval in (*frontier_exponents(found), *optima, away.loss_penalty, away.compute):
        assert np.isnan(interval.value) and interval.note == NOT_DETERMINED
    assert best.reach.quantity == "compute" and best.reach.factor == pytest.approx(1e22 / found.largest_flops)
    with pytest.raises(FitError, match="target_loss = 2: The law has no optimum.* Fix:"):
        lifetime_optimum(found, 2.0, 1e9)
    report = study_report(near_twenty(3), found)
    text = markdown(report.document())
    assert "Approach 3 has no optimum." in text and found.no_optimum in text and "nan" not in text
    figures = {one.figure.name for one in study_figures(near_twenty(3), report)}
    assert not figures & {"loss_against_compute", "loss_surface", "optimal_allocation"}


def test_a_budget_chooses_no_run_where_the_law_has_no_optimum(tmp_path):
    near_twenty(3).to_csv(tmp_path / "runs.csv", index=False)
    asked = (str(tmp_path / "runs.csv"), "--flops", "1e22", "--fix", "A=0", "--out", str(tmp_path / "p.json"))
    message = "flops = 1e.22: chooses no run. The law has no optimum: A is held at 0, .* Fix: name the run, as --at"
    with pytest.raises(FitError, match=message):
        tyro.cli(predict_command, args=[*asked, "--bootstraps", "20"])
    assert not (tmp_path / "p.json").exists()


def test_a_prediction_is_determined_as_far_as_the_law_is():
    """Where one term is zero there is no optimum, but the others may still say what a run will reach."""
    at = {"params": 1e12, "tokens": 2e13}
    found = fit_table(near_twenty(), sampling=Sampling(20))
    loose = predict(found, at)
    assert not loose.determined and (loose.low, loose.high) == (-np.inf, np.inf)
    inside = predict(found, {"params": 3e8, "tokens": 6e9})
    assert inside.reach.factor <= 1 and inside.determined and inside.high - inside.low < 0.2 * inside.value
    assert str(loose) == f"{loose.value:.2g} nats per token, 90% interval not determined"
    scored = score(loose, 1.3)
    assert scored.inside is None and "which is no test of the law" in str(scored)
    text = markdown(held_out_section(loose, scored))
    assert "not determined" in text and "inside" not in text and "inf" not in text.replace("fitted", "")
    bare = fit_table(near_twenty(3), law=find("chinchilla").fix(E=0.0, B=0.0, beta=1.0), sampling=Sampling(20))
    assert bare.no_optimum and not bare.unpredictable and predict(bare, at).determined


def test_an_open_exponent_leaves_optima_open_and_one_at_its_bound_leaves_none(study):
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
    assert held.undetermined == (NO_OPTIMUM.format("alpha is 0, at its bound", "alpha"),)
    floor = study.law.intervals | {"E": dataclasses.replace(study.law.intervals["E"], note=AT_BOUND)}
    assert not dataclasses.replace(study, law=dataclasses.replace(study.law, intervals=floor)).undetermined


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


def test_the_advice_on_few_units_is_what_was_measured_for_as_many():
    """Coverage that reaches the promise is not called too narrow; units beyond the fewest simulated are as those."""
    assert coverage_of_few(6, "points", 5).endswith("in 47 to 69% of the tables, by quantity; read them as too narrow")
    assert coverage_of_few(2, "runs", 5).startswith("in simulated tables of 0.6 runs per constant")
    assert coverage_of_few(6, "groups of equal id", 5).endswith(
        "87 to 97% of the tables, by quantity; some are too narrow"
    )


def test_a_caveat_counts_independent_runs_and_not_their_rows():
    """32 rows are many points, and few runs; rows that are runs of their own are as many as they seem."""
    few, many = fit_table(checkpoints(8), sampling=Sampling(20)), fit_table(checkpoints(20), sampling=Sampling(20))
    assert (few.units, few.unit) == (8, "runs") and few.caveats == (
        "8 runs for 5 constants are few: in simulated tables of 1.6 runs per constant 90% intervals held the truth in "
        "83 to 99% of the tables, by quantity; some are too narrow",
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

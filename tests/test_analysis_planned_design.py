"""A plan judged under a prior law: what its runs could tell, and what would tell twice as much."""

import dataclasses
import json

import numpy as np
import pytest
from planted_tables import TRUTH, planted_table

from analysis.fit import FitError
from analysis.report import planned_design_section, study_report
from analysis.report.markdown import markdown
from analysis.sampling import Sampling
from analysis.studies import fit_table, judge, planned_design, prior_of

BUDGETS = (1e17, 4e17, 1.6e18, 6.4e18)
HOFFMANN = {"E": 1.69, "A": 406.4, "B": 410.7, "alpha": 0.34, "beta": 0.28}


@pytest.fixture(scope="module")
def rows():
    return planted_table(noise=0.0, sizes=6, budgets=BUDGETS, truth=HOFFMANN)[
        ["budget_flops", "params", "tokens", "flops"]
    ]


@pytest.fixture(scope="module")
def judged(rows):
    return judge(rows, prior_of("hoffmann2022", rows, noise_nats=0.01))


def test_four_seeds_halve_what_one_leaves_open(judged):
    """Widths go with the noise of a mean, as long as it is small: to the 8 % that 200 sweeps know a width by."""
    plans = {variant.name: variant for variant in judged.variants}
    alone, four = plans["as planned"], plans["4 seeds for each"]
    width = [variant.design.support("law").exponent_width for variant in (alone, four)]
    assert width[0] / width[1] == pytest.approx(2.0, rel=0.16) and four.cost == 4.0
    assert alone.design.exponent == pytest.approx(0.28 / 0.62, rel=1e-6)
    # The noise of the held-out run stays: no plan brings its interval below that.
    floor = 2 * 1.645 * 0.01 / 3.0
    assert all(plan.design.support("law").prediction_width > 0.8 * floor for plan in plans.values())
    assert plans["2 times the sizes"].cost == pytest.approx(11 / 6)
    assert plans["a further budget, 2 times the largest"].cost == pytest.approx(1 + 2 * 6.4 / sum((0.1, 0.4, 1.6, 6.4)))


def test_the_section_says_what_halves_the_interval(judged):
    text = markdown(planned_design_section(judged))
    assert "What this plan can tell" in text and "Hoffmann et al. 2022" in text
    assert "Cheapest here to halve the exponent's interval" in text
    assert text.count("| a further budget") == 4


def test_a_prior_far_from_its_own_runs_is_said_to_be_extrapolated(judged, rows):
    """Of a published law by what its paper says of its runs, of a law.json by what was fitted."""
    least, prior = rows["params"].min(), prior_of("hoffmann2022", rows, noise_nats=0.01)
    outside = max(7e7 / least, 5e9 / rows["tokens"].min())
    assert judged.reach.factor == pytest.approx(outside) and outside > 10
    assert "The prior is extrapolated" in markdown(planned_design_section(judged))
    near = dataclasses.replace(prior, ranges={"params": (2 * least, 1e12), "tokens": (1.0, 1e13)})
    reach = planned_design._reach(rows, near)
    text = markdown(planned_design_section(dataclasses.replace(judged, reach=reach)))
    assert reach.factor == pytest.approx(2.0) and "prior is extrapolated" not in text and "not known here" not in text
    far = dataclasses.replace(prior, ranges={"params": (50 * least, 1e12), "tokens": (1.0, 1e13)})
    reach = planned_design._reach(rows, far)
    assert (reach.quantity, reach.factor) == ("params", pytest.approx(50.0))
    text = markdown(planned_design_section(dataclasses.replace(judged, reach=reach)))
    assert "The prior is extrapolated: the plan lies 50 times beyond the params that it was fitted to" in text
    assert planned_design._reach(rows, dataclasses.replace(prior, ranges=None)) is None
    assert "is not known here" in markdown(planned_design_section(dataclasses.replace(judged, reach=None)))


def test_plans_that_do_not_support_approach_2_are_named(judged):
    bad = [one.name for one in judged.variants if not one.design.supports_well(one.design.support(judged.reading))]
    text = markdown(planned_design_section(judged))
    assert ("is not supported by" in text) == bool(bad)
    support = dataclasses.replace(judged.variants[1].design.support(judged.reading), exponent_bias=0.3)
    design = dataclasses.replace(judged.variants[1].design, supports=(support,))
    law = judged.variants[1].design.support("law")
    biased = dataclasses.replace(judged.variants[1], design=dataclasses.replace(design, supports=(support, law)))
    good = [one for one in judged.variants if one.name not in bad][:1]
    found = dataclasses.replace(judged, variants=(*good, biased))
    named = "these plans: 2 seeds for each." if good else "any of these plans."
    assert f"is not supported by {named}" in markdown(planned_design_section(found))


def test_a_prior_is_a_published_law_or_the_law_of_a_fit(tmp_path, rows):
    table = planted_table(sizes=6, budgets=(1e11, 4e11, 1.6e12, 6.4e12))
    study = fit_table(table, sampling=Sampling(20))
    path = tmp_path / "law.json"
    path.write_text(json.dumps(study_report(table, study).to_dict()))
    prior = prior_of(str(path), rows)
    np.testing.assert_allclose(prior.surface.values, study.law.fit.array())
    assert prior.noise == study.isoflop.design.noise and prior.surface.rule.coefficient == pytest.approx(6.0)
    assert prior.ranges == {name: study.ranges[name] for name in ("params", "tokens")}
    assert prior_of(str(path), rows, noise_nats=0.02).noise.value == 0.02
    assert set(TRUTH) == set(prior.surface.law.names)


@pytest.mark.parametrize("content", [b"no JSON", b"[1]", b"\xff"])
def test_a_file_that_is_no_law_is_no_prior(tmp_path, rows, content):
    (tmp_path / "law.json").write_bytes(content)
    with pytest.raises(
        FitError, match="law.json': is no law.json that can be used .*Fix: use the file that isoflop fit"
    ):
        prior_of(str(tmp_path / "law.json"), rows)


@pytest.mark.parametrize(
    ("value", "said"), [("nan", "alpha = nan: must be finite"), (-0.3, "alpha = -0.3: must lie between 0 and inf")]
)
def test_a_law_whose_constants_were_changed_is_no_prior(tmp_path, rows, value, said):
    table = planted_table(sizes=6, budgets=(1e11, 4e11, 1.6e12, 6.4e12))
    data = fit_table(table, sampling=Sampling(20)).to_dict()
    data["law"]["fit"]["values"]["alpha"] = value
    (tmp_path / "law.json").write_text(json.dumps(data))
    with pytest.raises(FitError, match=f"prior = .*law.json': is no law.json that can be used .{said}"):
        prior_of(str(tmp_path / "law.json"), rows)
    (tmp_path / "law.json").write_text(json.dumps({name: data[name] for name in data if name != "format"} | {"sd": 1}))
    other = (
        r"law.json': format = not stated: another version .*field 'sd' is unknown.* Fix: fit the table again, as isof"
    )
    with pytest.raises(FitError, match=other):
        prior_of(str(tmp_path / "law.json"), rows)


def test_what_cannot_be_judged_is_refused(rows):
    for name, noise, message in (
        ("hoffmann2022", None, "its paper states no noise of a run"),
        ("hoffman", 0.01, "no published law, and no file. Fix: use one of hoffmann2022, besiroglu2024"),
        ("hoffmann2022", -1.0, "noise_nats = -1: must be positive and finite"),
        ("hoffmann2022", 0.0, "noise_nats = 0: must be positive and finite, since all that a design leaves open"),
    ):
        with pytest.raises(FitError, match=message):
            prior_of(name, rows, noise)
    prior = prior_of("besiroglu2024", rows, 0.01)
    with pytest.raises(FitError, match="budgets = 2: a frontier needs 3"):
        judge(rows[rows["budget_flops"] < 1e18], prior)
    with pytest.raises(FitError, match="2 sizes; a valley needs 3"):
        judge(rows[(rows["budget_flops"] < 1e18) | (rows.groupby("budget_flops").cumcount() < 2)], prior)

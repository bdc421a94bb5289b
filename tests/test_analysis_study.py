import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import scipy.optimize
from planted_tables import BUDGETS, TRUTH, planted_loss, planted_optimum, planted_table

from analysis import json_values
from analysis.compute import FlopRule, efficient_runs, fit_flop_rule
from analysis.fit import HUBER, FitError, fit_points, select
from analysis.intervals import Resampling, predictive, predictive_interval
from analysis.laws import CHINCHILLA, LOSS_FRONTIER, find
from analysis.runs_table import TableError, complete
from analysis.sampling import Sampling
from analysis.studies import Study, fit_table, fitted_rows, frontier_exponents, optimum, predict

VALUES = np.array([[TRUTH[name] for name in CHINCHILLA.names]])


@pytest.fixture(scope="module")
def table():
    """Planted runs, one that failed, and one held-out run at four times the largest budget."""
    planted = planted_table()
    flops = 4 * BUDGETS[-1]
    params = planted_optimum(flops)
    held = planted.iloc[[0]].assign(
        run="held",
        held_out=True,
        budget_flops=flops,
        flops=flops,
        params=params,
        tokens=flops / 6 / params,
        loss_nats=planted_loss(params, flops / 6 / params),
    )
    failed = planted.iloc[[1]].assign(run="bad", status="failed", loss_nats=np.nan)
    return pd.concat([planted, failed, held], ignore_index=True)


@pytest.fixture(scope="module")
def study(table):
    return fit_table(table, sampling=Sampling(200))


def test_optimum_equals_the_closed_form():
    """Hoffmann et al. 2022, equation 4, at budgets over ten orders of magnitude."""
    for flops in (1e10, 1e15, 1e20):
        params, tokens, loss = efficient_runs(CHINCHILLA, VALUES, FlopRule(6.0), flops)
        assert params[0] == pytest.approx(planted_optimum(flops), rel=1e-12)
        assert 6 * params[0] * tokens[0] == pytest.approx(flops, rel=1e-12)
        assert loss[0] == pytest.approx(planted_loss(params[0], tokens[0]), rel=1e-13)


def test_optimum_under_another_flop_rule_equals_numeric_minimisation():
    rule = FlopRule(9.0, 0.93)
    params, _, loss = efficient_runs(CHINCHILLA, VALUES, rule, 1e14)
    found = scipy.optimize.minimize_scalar(
        lambda u: planted_loss(np.exp(u), rule.tokens(1e14, np.exp(u))), bounds=(5, 25), method="bounded",
        options={"xatol": 1e-9},
    )  # fmt: skip
    # A minimum is flat: a value known to 1e-16 places it to about 1e-8 of its width.
    assert np.log(params[0]) == pytest.approx(found.x, abs=1e-6)
    assert loss[0] <= found.fun * (1 + 1e-15)


def test_flop_rule_is_read_off_the_table():
    params, tokens = np.geomspace(1e4, 1e6, 9), np.geomspace(1e8, 1e7, 9)
    rule = fit_flop_rule(params, tokens, 7.5 * params**0.9 * tokens)
    assert (rule.coefficient, rule.params_exponent) == pytest.approx((7.5, 0.9), rel=1e-10)
    assert rule.largest_error < 1e-10
    assert rule.flops(1e5, rule.tokens(1e12, 1e5)) == pytest.approx(1e12, rel=1e-12)
    assert fit_flop_rule(np.full(3, 1e5), tokens[:3], 6e5 * tokens[:3]).params_exponent == 1.0


def test_study_predicts_the_held_out_run_and_states_how_far_it_goes(study, table):
    held = table.iloc[-1]
    best = optimum(study, held["flops"])
    assert best.reach.factor == pytest.approx(4.0) and best.reach.quantity == "compute" and not best.reach.warning
    assert best.params.contains(held["params"]) and best.tokens.contains(held["tokens"])
    assert best.params.value * best.tokens_per_param.value == pytest.approx(best.tokens.value, rel=1e-12)
    prediction = predict(study, held[["params", "tokens"]])
    assert prediction.low < held["loss_nats"] < prediction.high
    assert prediction.reach.factor == pytest.approx(4.0, rel=1e-6)
    assert (prediction.output, prediction.unit, prediction.points) == ("loss_nats", "nats per token", 18)
    # A new run is less certain than the law: it has the run's noise on top of the constants' uncertainty.
    assert prediction.high - prediction.low > best.loss_nats.high - best.loss_nats.low


def test_both_approaches_agree_on_the_exponents(study):
    params, tokens = frontier_exponents(study)
    alpha, beta = study.law.fit.values["alpha"], study.law.fit.values["beta"]
    assert params.value == pytest.approx(beta / (alpha + beta), rel=1e-9)
    assert tokens.value == pytest.approx(alpha / (alpha + beta), rel=1e-9)
    assert params.contains(TRUTH["beta"] / (TRUTH["alpha"] + TRUTH["beta"]))
    second = optimum(study, BUDGETS[-1], approach=2)
    assert second.params.value == pytest.approx(planted_optimum(BUDGETS[-1]), rel=0.1)
    assert second.loss_nats is None and second.reach.factor == 1.0


def test_left_out_runs_have_their_reasons(study):
    assert {item.run: item.reason for item in study.left_out} == {"bad": "status failed", "held": "held out"}


def test_law_json_round_trip(study):
    text = json_values.dumps(study)
    again = Study.from_dict(json.loads(text))
    assert json_values.dumps(again) == text
    asked = {"params": 1e6, "tokens": 1e7}
    assert optimum(again, 1e13) == optimum(study, 1e13) and predict(again, asked) == predict(study, asked)
    with pytest.raises(json_values.FileError, match="field 'law' is missing"):
        Study.from_dict({key: value for key, value in study.to_dict().items() if key != "law"})


def test_a_file_of_another_version_is_told_from_a_damaged_one(study):
    """By the fields that the version had: one without `ranges`, and with one that there is no more."""
    data = json.loads(json_values.dumps(study.to_dict()))
    assert (
        Study.from_dict({**data, "format": "Study-of another version, whose fields are these"}).ranges == study.ranges
    )
    for change in (lambda fit: fit.pop("ranges"), lambda fit: fit.update(spread=1.0)):
        changed = json.loads(json.dumps(data))
        change(changed["law"]["fit"])
        wrong = "spread" if "spread" in changed["law"]["fit"] else "ranges"
        older = {**changed, "format": "Study-00000000"}, {k: v for k, v in changed.items() if k != "format"}
        for file, stated in zip(older, ("Study-00000000", "not stated"), strict=True):
            with pytest.raises(
                json_values.FormatError,
                match=rf"format = {stated}: another version .*law.fit: field '{wrong}' is .*Fix: fit the table again",
            ):
                Study.from_dict(file)
        for file in (changed, {**changed, "format": "Prediction-00000000"}, {"name": "no study"}):
            with pytest.raises(json_values.FileError, match="Fix: write the file again") as refused:
                Study.from_dict(file)
            assert not isinstance(refused.value, json_values.FormatError)


def test_the_same_seed_gives_the_same_study(table, study):
    assert json_values.dumps(fit_table(table, sampling=Sampling(200))) == json_values.dumps(study)


def test_other_laws_need_no_change():
    """The same call fits a law of compute alone; what needs params and tokens says so."""
    flops = np.geomspace(1e12, 1e18, 12)
    noise = 0.002 * np.random.default_rng(0).standard_normal(12)
    study = fit_table(pd.DataFrame({"flops": flops, "loss_nats": (1.5 + 300 * flops**-0.2) * np.exp(noise)}),
                      law=LOSS_FRONTIER, sampling=Sampling(100))  # fmt: skip
    assert study.law.intervals["E"].contains(1.5) and study.isoflop is None and study.flop_rule is None
    asked = {"params": 1e6, "tokens": 1e7}
    for ask in (lambda: optimum(study, 1e20), lambda: predict(study, asked), lambda: frontier_exponents(study)):
        with pytest.raises(FitError, match="loss_frontier"):
            ask()
    prediction = predict(study, {"flops": 1e20})
    assert prediction.low < 1.5 + 300 * 1e20**-0.2 < prediction.high
    assert prediction.reach.factor == pytest.approx(100) and "extrapolates 100 times" in prediction.reach.warning


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t[t["budget_flops"] == BUDGETS[0]], "budget_flops = 1e\\+11 in every usable run"),
        (lambda t: t.assign(family=["a", "b"] * (len(t) // 2)), "one law describes one family"),
        (lambda t: t.assign(tokens=1e7), "tokens = 1e\\+07 in all 18 usable points"),
        (lambda t: t.assign(loss_nats=np.nan), "points = 0: .* needs at least 6"),
        (lambda t: t.drop(columns=["tokens", "flops", "budget_flops"]), "missing column 'tokens'"),
        (lambda t: t.assign(flops=[0.0, *t["flops"][1:]]), "flops of run 'run-0': must be positive"),
        (lambda t: t.iloc[:0], "points = 0"),
    ],
)
def test_hostile_tables_get_a_clear_error(change, message):
    with pytest.raises(ValueError, match=message):
        fit_table(change(planted_table()), sampling=Sampling(20))


def test_wrong_questions_are_refused(study):
    with pytest.raises(FitError, match="flops = -1.0: must be positive"):
        optimum(study, -1)
    with pytest.raises(FitError, match="tokens = 0.0: must be positive"):
        predict(study, {"params": 1e6, "tokens": 0})


def checkpoints(runs=8, rows=5, noise=0.012, seed=0):
    """Runs that share their noise: a factor for all of a run's losses, and a tenth of it for each."""
    generator = np.random.default_rng(seed)
    params = np.repeat(np.geomspace(1e4, 1e6, runs), rows)
    tokens = params * np.tile(np.linspace(4, 80, rows), runs)
    shared = np.repeat(generator.standard_normal(runs), rows)
    loss = planted_loss(params, tokens) * np.exp(noise * (shared + 0.1 * generator.standard_normal(runs * rows)))
    names = [f"run-{i}" for i in np.repeat(np.arange(runs), rows)]
    return pd.DataFrame({"run": names, "params": params, "tokens": tokens, "loss_nats": loss})


def test_rows_of_one_run_are_drawn_together_and_said_to_be():
    table = checkpoints()
    study = fit_table(table, sampling=Sampling(20))
    asked = fit_table(table, sampling=Sampling(20), resampling=Resampling(by="run"))
    assert "groups of equal run" in study.law.method and len(fitted_rows(table, study)) == 40
    np.testing.assert_array_equal(study.law.draws, asked.law.draws)
    again = Study.from_dict(json.loads(json.dumps(study.to_dict())))  # which has no jackknife, an array without rows
    assert optimum(again, 1e12) == optimum(study, 1e12)
    assert study.table_notes == ("40 rows of 8 runs: rows of one run are not independent, and are resampled by run",)
    # Without names, a column of steps says which rows are checkpoints of one run; without it they are runs.
    unnamed = table.drop(columns="run")
    stepped = fit_table(unnamed.assign(step=np.tile(np.arange(5), 8)), sampling=Sampling(20))
    np.testing.assert_array_equal(stepped.law.draws, study.law.draws)
    assert stepped.table_notes == study.table_notes and not fit_table(unnamed, sampling=Sampling(20)).table_notes
    few = fit_table(table.assign(params=1e5)[table["run"] < "run-2"], law=find("kaplan_tokens"), sampling=Sampling(20))
    assert "2 cannot be resampled by run" in few.table_notes[0]


def test_one_name_of_two_sizes_is_no_run():
    table = checkpoints()
    table.loc[39, "run"] = "run-0"
    with pytest.raises(TableError, match="run = 'run-0': has 10000 params in one row and 1e.06 in another.*--ignore"):
        fit_table(table, sampling=Sampling(20))


def test_intervals_of_a_new_run_cover_noise_that_the_rows_of_a_run_share():
    """40 tables of 8 runs of 5 rows: 90 % intervals, which by points cover about half, hold the new run.

    Of 40 runs that are covered with probability 0.9 fewer than 31 are inside with probability 0.005 (binomial).
    """
    inside = {"run": 0, "point": 0}
    for seed in range(40):
        table, new = checkpoints(seed=seed), {"params": 4e6, "tokens": 8e7}
        measured = planted_loss(**new) * np.exp(0.012 * np.random.default_rng([seed, 1]).standard_normal())
        points, left_out = select(CHINCHILLA, complete(table))
        result = fit_points(CHINCHILLA, points, left_out, HUBER)
        for unit, runs in (("run", points.runs), ("point", tuple(map(str, points.rows)))):
            spread = predictive(result, dataclasses.replace(points, runs=runs), sampling=Sampling(100))
            inside[unit] += predictive_interval(CHINCHILLA, result, spread, new, 0.9).contains(measured)
    assert inside["run"] >= 31 > inside["point"]

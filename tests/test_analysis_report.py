"""Reports: one document for file and terminal, nothing in it that law.json does not hold, no name that breaks it."""

import dataclasses
import json
import re

import numpy as np
import pandas as pd
import pytest
from planted_tables import BUDGETS, planted_loss, planted_optimum, planted_table

from analysis import figures, runs_table
from analysis.laws import CHINCHILLA
from analysis.report import Questions, backtest_section, held_out_section, study_report, time_account
from analysis.report.beyond_the_runs import optima_section
from analysis.report.captions import study_figures
from analysis.report.document import (
    Number,
    leaves,
    residue,
)
from analysis.report.files import write_study
from analysis.report.fitted_law import law_section
from analysis.report.markdown import markdown
from analysis.report.residual_checks import checks_section
from analysis.sampling import Sampling
from analysis.studies import LackOfFit, Study, backtest, fit_table, optimum, predict, score

TIMINGS = {
    "model_flops": 3e13, "executed_flops": 4e13, "matmul_flops_per_second": 5e11,
    "wall_seconds": 160.0, "run_seconds": 300.0,
    "phase_seconds": {"start": 9.0, "compile": 36.0, "train": 180.0, "data": 4.5, "evaluation": 9.0, "checkpoint": 4.5},
}  # fmt: skip
HOSTILE = "a|b [bold]c[/bold] <d> `e` *f* _g_"


@pytest.fixture(scope="module")
def table():
    table = planted_table()
    table.loc[3, ["status", "loss_nats"]] = ["failed", np.nan]
    table.loc[4, ["run", "held_out"]] = [HOSTILE, True]
    return runs_table.validate(table)


@pytest.fixture(scope="module")
def study(table):
    return fit_table(table, sampling=Sampling(50))


@pytest.fixture(scope="module")
def prediction(study):
    params = planted_optimum(4 * BUDGETS[-1])
    return predict(study, {"params": params, "tokens": 4 * BUDGETS[-1] / 6 / params})


@pytest.fixture(scope="module")
def report(table, study, prediction):
    return study_report(
        table,
        study,
        prediction=prediction,
        score=score(prediction, planted_loss(**prediction.inputs)),
        backtest=backtest(CHINCHILLA, table, cuts=[6e11, 4e12], sampling=Sampling(20)),
        time=time_account(TIMINGS),
        questions=Questions(served=(1.5, 1e12)),
    )


@pytest.mark.slow
def test_report_end_to_end(tmp_path, table, study, prediction, report):
    measured = planted_loss(**prediction.inputs)
    paths = write_study(tmp_path, table, report)
    assert paths[0] == tmp_path / "law.json" and paths[-1] == tmp_path / "report.md"
    assert len(paths) == 20 and all(path.stat().st_size > 500 for path in paths)
    text = paths[-1].read_text()
    assert "**inside** the interval" in text and f"measured loss_nats | {measured:.4f} | nats per token" in text
    assert f"{100 * (prediction.value / measured - 1):+.2f}% of it" in text
    assert "| run-3 | status failed |" in text and "16 fitted, 2 left out" in text
    for name in ("E", "A", "B", "alpha", "beta"):
        assert re.search(rf"\| {name} \| \S+ \| \S+ to \S+ \| [^|]+ \| [^|]+ \|", text)
    assert "At that rate they take 80.0 s, 50.0% of the sweep's wall time of 160.0 s" in text
    assert "| training steps | 180.0 | 60.0% |" in text and "\n40.0% of the workers' 300.0 s passed outside" in text
    assert "| no run, or a run that is not done | 57.0 | 19.0% |" in text
    for link in re.findall(r"\]\(([^)]+)\)", text):
        assert (tmp_path / link).exists(), link
    assert Study.from_dict(json.loads(paths[0].read_text())).law.intervals == study.law.intervals


def values_in(data):
    """Every number and every string of a JSON value, its keys and the lengths of its lists among them."""
    if isinstance(data, dict):
        yield from data
        data = list(data.values())
    elif isinstance(data, list):
        yield len(data)
    else:
        yield data
    for item in data if isinstance(data, list) else ():
        yield from values_in(item)


def test_every_number_that_a_report_prints_is_in_law_json(table, report):
    """Numbers unrounded; those inside a sentence to the digits it prints, or as part of the same text."""
    held = set(values_in(json.loads(json.dumps(report.to_dict()))))
    numbers = [value for value in held if isinstance(value, (int, float))]
    texts = " ".join(value for value in held if isinstance(value, str))
    law = report.study.law.fit.law
    named = [law.formula, law.citation, *(p.unit for p in law.parameters), "approach 2", "approach 3", "Approach 2"]
    named += ["Approach 3", "Sardana et al. 2024", "at 1 FLOP", "optimal params = scale", "law.json"]
    document = report.document([one.figure for one in study_figures(table, report)])
    shown = list(leaves(document))
    assert sum(isinstance(leaf, Number) for leaf in shown) > 200
    for leaf in shown:
        if isinstance(leaf, Number):
            assert leaf.value in held, leaf
            continue
        for name in named:
            leaf = leaf.replace(name, "")
        for digits in re.findall(r"\d[\d.]*(?:e[+-]?\d+)?", leaf.rstrip(".")):
            precision = len(digits.partition("e")[0].replace(".", "").lstrip("0")) or 1
            rounded = (abs(value - float(digits)) <= 0.51 * 10.0**-precision * 10 * abs(value) for value in numbers)
            assert digits in texts or any(rounded), (digits, leaf)


def test_a_miss_is_reported_as_one(prediction):
    text = markdown(held_out_section(prediction, score(prediction, prediction.high * 1.02)))
    assert "**outside** the interval, above it" in text and "no test" not in text
    assert "has not been measured yet" in markdown(held_out_section(prediction, None))
    late = dataclasses.replace(prediction, measured_before=True)
    assert "not been measured" not in markdown(held_out_section(late, None))
    assert "had been measured when this was written: it is no test" in markdown(
        held_out_section(late, score(late, prediction.value))
    )


def test_what_goes_far_is_said_in_the_report(table, study):
    far = predict(study, {"params": 1e8, "tokens": 1e10})
    text = markdown(held_out_section(far, None))
    assert "**This run extrapolates 1.5e+06 times beyond the fitted compute, more than 10: no run tests the law" in text
    text = markdown(study_report(table, study, prediction=far).document())
    for row in ("| 4e+14 | **100 (compute)** | params (count) |", "| 4e+13 | 10 (compute) | params (count) |"):
        assert row in text
    assert "- **4e+14 FLOP extrapolates 100 times beyond the fitted compute" in text


def test_weakly_identified_constants_are_flagged_with_their_open_profiles():
    """Sizes that span a factor of two under large noise cannot tell how the loss ends."""
    generator = np.random.default_rng(0)
    params, tokens = (grid.ravel() for grid in np.meshgrid(np.geomspace(1e6, 2e6, 4), np.geomspace(1e8, 2e8, 4)))
    loss = planted_loss(params, tokens) * np.exp(0.02 * generator.standard_normal(16))
    weak = fit_table(pd.DataFrame({"params": params, "tokens": tokens, "loss_nats": loss}), sampling=Sampling(50))
    assert any("profile likelihood does not close" in reason for reason in weak.weakly_identified.values())
    text = markdown(law_section(weak))
    assert "is weakly identified**" in text
    at_bound = [name for name, interval in weak.law.intervals.items() if interval.low <= interval.zero]
    shown = r"(0 to \S+(, open below)?|at its bound, below \S+|not determined)"
    assert at_bound and all(re.search(rf"\| {name} \| \S+ \| {shown} \|", text) for name in at_bound)
    assert "interval, 0 (its bound) to" in text and not re.search(r"\de-\d\d to", text)


def test_a_back_test_in_the_report(table):
    text = markdown(backtest_section(backtest(CHINCHILLA, table, cuts=[6e11, 1e12], sampling=Sampling(20))))
    assert "## Back-test" in "#" + text and "| 1e+12 | 10 | 6 |" in text
    assert "| 6e+11 | 4 | 0 | 40 | no fit |" in text and "- No fit below 6e+11: points = 4" in text


def test_report_without_budgets_says_why_approach_2_is_missing(tmp_path, table):
    bare = table.assign(budget_flops=np.nan)
    study = fit_table(bare, sampling=Sampling(50))
    paths = write_study(tmp_path, bare, study_report(bare, study))
    assert "Not fitted. budget_flops: no run states its budget" in paths[-1].read_text()
    assert not any("valleys" in path.name for path in paths)
    with pytest.raises(figures.FigureError, match="no valleys to draw"):
        figures.isoflop_valleys(study)


def test_how_far_an_optimum_lies_is_said_of_what_lies_out(table, study):
    """Sizes around the optimum of each budget, of which the largest is left out: its optimum lies beyond the others."""
    small = table[table["params"] < planted_optimum(BUDGETS[-1]) / 2]
    best = optimum(fit_table(small, sampling=Sampling(20)), BUDGETS[-1])
    assert best.reach.quantity == "params" and 1 < best.reach.factor < 10
    text = markdown(optima_section([best], (best.params, best.tokens), ()))
    assert f"| {best.reach.factor:.3g} (params) |" in text


def test_a_table_that_names_no_experiment_is_called_by_its_output(table):
    foreign = runs_table.complete(table.drop(columns="experiment"))
    text = markdown(study_report(foreign, fit_table(foreign, sampling=Sampling(20))).document())
    assert text.startswith("# Scaling law of loss_nats\n")
    assert markdown(study_report(table, fit_table(table, sampling=Sampling(20))).document()).startswith(
        "# Scaling law of plant"
    )


@pytest.mark.parametrize(("p_value", "said"), [(0.045, "No lack of fit at the 1% level"), (0.005, "by more than that")])
def test_the_level_of_a_test_of_lack_of_fit_is_said_beside_its_outcome(table, study, p_value, said):
    lack = LackOfFit(18, 0.01, 0.004, 36, 13, 2.0, p_value, ())
    text = markdown(checks_section(dataclasses.replace(study.checks, lack_of_fit=lack), study.law.fit))
    assert said in text and "at the 1% level" in text and f"p = {p_value}." in text


def test_reports_count_runs_and_their_rows():
    """Four rows of each of 12 runs, two of them held out: rows are not called runs anywhere."""
    params = np.repeat(np.geomspace(1e4, 1e6, 12), 4)
    tokens = params * np.tile(np.geomspace(2, 80, 4), 12)
    noise = np.repeat(0.004 * np.random.default_rng(0).standard_normal(12), 4)
    names = [f"run-{i}" for i in np.repeat(np.arange(12), 4)]
    table = pd.DataFrame({"run": names, "params": params, "tokens": tokens})
    table["loss_nats"] = planted_loss(params, tokens) * np.exp(noise)
    study = fit_table(table.assign(held_out=table["run"].isin(["run-3", "run-11"])), sampling=Sampling(20))
    test = backtest(CHINCHILLA, table, cuts=[params[40] * tokens[40]], sampling=Sampling(20))
    predicted = predict(study, {"params": 2e6, "tokens": 2e7})
    report = study_report(table, study, prediction=predicted, backtest=test)
    text = markdown(report.document([one.figure for one in study_figures(table, report)]))
    assert "from 40 rows of 10 runs (8 left out)" in text and "40 fitted, of 10 runs, 8 left out." in text
    assert "fitted to 40 rows of 10 runs (8 left out)" in text and "of the 40 fitted rows of 10 runs" in text
    assert "| run-3 | held out (4 rows) |" in text and text.count("| run-3 |") == 1
    cut = test.cuts[0]
    fitted, scored = f"{cut.fitted // 4} ({cut.fitted} rows)", f"{len(set(cut.runs))} ({len(cut.runs)} rows)"
    assert f"| {fitted} | {scored} |" in text and cut.fitted_runs == cut.fitted // 4
    assert (
        f"({cut.fitted_runs})** runs for 5 constants of chinchilla are few: in simulated tables of 0.8 runs per "
        "constant 90% intervals held the truth in 60 to 73%" in text
    )


def test_what_is_below_rounding_is_printed_as_zero():
    """Runs without noise: no sentence and no table has a residual, a spread or an error of 1e-14."""
    table = planted_table(noise=0.0)
    study = fit_table(table, sampling=Sampling(20))
    assert 0 < study.law.fit.residual_scale < 1e-12
    test = backtest(CHINCHILLA, table, sampling=Sampling(20))
    report = study_report(table, study, backtest=test)
    law, checks, *_, design, _ = report.findings()
    assert "Standard deviation of the residuals 0.00%." in markdown(law)
    assert "Most of what the law leaves over is rounding" in markdown(checks) and "robust scale" not in markdown(checks)
    shown = markdown(design) + markdown(backtest_section(test))
    assert "noise of a run is 0.00%" in shown and not re.search(r"\de-(0[89]|[1-9]\d)", shown)
    assert "have no noise to speak of" in shown and shown.count("| no noise |") == sum(
        not cut.reason for cut in test.cuts
    )
    noisy = markdown(backtest_section(backtest(CHINCHILLA, planted_table(), sampling=Sampling(20))))
    assert "no noise" not in noisy and "+0 |" not in noisy
    assert (str(residue(9e-8, ".2%")), str(residue(2e-7, ".2%"))) == ("0.00%", "2e-05%")
    assert str(residue(2e-7, ".3g", "nats", of=3.0)) == "0 nats"

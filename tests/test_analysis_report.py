import dataclasses
import json
import re

import numpy as np
import pandas as pd
import pytest
from planted_tables import BUDGETS, planted_loss, planted_optimum, planted_table

from analysis import figures, runs_table
from analysis.laws import CHINCHILLA
from analysis.report import beyond_the_runs, law_section, write_study
from analysis.studies import Study, backtest, fit_table, predict, score

TIMINGS = {
    "model_flops": 3e13, "executed_flops": 4e13, "matmul_flops_per_second": 5e11,
    "wall_seconds": 160.0, "run_seconds": 300.0,
    "phase_seconds": {"start": 9.0, "compile": 36.0, "train": 180.0, "data": 4.5, "evaluation": 9.0, "checkpoint": 4.5},
}  # fmt: skip


@pytest.fixture(scope="module")
def table():
    table = planted_table()
    table.loc[3, ["status", "loss_nats"]] = ["failed", np.nan]
    return runs_table.validate(table)


@pytest.fixture(scope="module")
def study(table):
    return fit_table(table, bootstraps=100)


@pytest.fixture(scope="module")
def prediction(study):
    params = planted_optimum(4 * BUDGETS[-1])
    return predict(study, {"params": params, "tokens": 4 * BUDGETS[-1] / 6 / params})


def test_report_end_to_end(tmp_path, table, study, prediction):
    measured = planted_loss(**prediction.inputs)
    paths = write_study(tmp_path, table, study, score(prediction, measured), TIMINGS)
    assert paths[0] == tmp_path / "law.json" and paths[-1] == tmp_path / "report.md"
    assert len(paths) == 18 and all(path.stat().st_size > 500 for path in paths)
    text = paths[-1].read_text()
    assert "**inside** the interval" in text and f"measured loss_nats | {measured:.4f} | nats per token" in text
    assert f"{100 * (prediction.value / measured - 1):+.2f} % of it" in text
    assert "| run-3 | status failed |" in text and "17 fitted, 1 left out" in text
    for name in ("E", "A", "B", "alpha", "beta"):
        assert re.search(rf"\| {name} \| \S+ \| \S+ to \S+ \| [^|]+ \| [^|]+ \|", text)
    assert "time at that rate: 80.0 s; wall time of the sweep: 160.0 s, 2.00 times that" in text
    assert "start, data, evaluation, checkpoint together: 27.0 s, 9.0 %" in text
    for link in re.findall(r"\]\(([^)]+)\)", text):
        assert (tmp_path / link).exists(), link
    assert Study.from_dict(json.loads(paths[0].read_text())).law.intervals == study.law.intervals


def test_a_miss_is_reported_as_one(prediction):
    text = beyond_the_runs.held_out(score(prediction, prediction.high * 1.02))
    assert "**outside** the interval, above it" in text and "no test" not in text
    assert "has not been measured yet" in beyond_the_runs.held_out(prediction)
    late = dataclasses.replace(prediction, measured_before=True)
    assert "had been measured when this was written: no test" in beyond_the_runs.held_out(score(late, prediction.value))


def test_what_goes_far_is_said_in_the_report(study):
    far = predict(study, {"params": 1e8, "tokens": 1e10})
    assert "**The run extrapolates 1.5e+06 times beyond the fitted compute, more than 10" in beyond_the_runs.held_out(
        far
    )
    text = beyond_the_runs.optima(study, far)
    assert "| **100** | 3 |" in text and "| 10 | 3 |" in text
    assert "- **4e+14 FLOP extrapolates 100 times beyond the fitted compute" in text


def test_weakly_identified_constants_are_flagged_with_their_open_profiles():
    """Sizes that span a factor of two under large noise cannot tell how the loss ends."""
    generator = np.random.default_rng(0)
    params, tokens = (grid.ravel() for grid in np.meshgrid(np.geomspace(1e6, 2e6, 4), np.geomspace(1e8, 2e8, 4)))
    loss = planted_loss(params, tokens) * np.exp(0.02 * generator.standard_normal(16))
    weak = fit_table(pd.DataFrame({"params": params, "tokens": tokens, "loss_nats": loss}), bootstraps=50)
    assert any("profile likelihood does not close" in reason for reason in weak.weakly_identified.values())
    assert "is weakly identified**" in law_section(weak)


def test_a_back_test_in_the_report(table):
    found = backtest(CHINCHILLA, table, cuts=[1e12], bootstraps=20)
    text = beyond_the_runs.backtest(found)
    assert "## Back-test" in text and "| 1e+12 | 11 | 6 |" in text and beyond_the_runs.backtest(None) == ""


def test_report_without_budgets_says_why_approach_2_is_missing(tmp_path, table):
    bare = table.assign(budget_flops=np.nan)
    study = fit_table(bare, bootstraps=50)
    paths = write_study(tmp_path, bare, study)
    assert "Not fitted. budget_flops: no run states its budget" in paths[-1].read_text()
    assert not any("valleys" in path.name for path in paths)
    with pytest.raises(figures.FigureError, match="no valleys to draw"):
        figures.isoflop_valleys(bare, study)

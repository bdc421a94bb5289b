import json
import re

import numpy as np
import pytest
from matplotlib.image import imread
from planted_tables import BUDGETS, planted_loss, planted_optimum, planted_table

from analysis import figures, report, runs_table
from analysis.study import Study, fit_table, predict

TIMINGS = {
    "model_flops": 4e13, "matmul_flops_per_second": 5e11, "wall_seconds": 160.0, "run_seconds": 300.0,
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
    return predict(study, params, 4 * BUDGETS[-1] / 6 / params)


def test_report_end_to_end(tmp_path, table, study, prediction):
    measured = planted_loss(prediction.params, prediction.tokens)
    paths = report.write(tmp_path, table, study, prediction, measured, TIMINGS)
    assert paths[0] == tmp_path / "law.json" and paths[-1] == tmp_path / "report.md"
    assert len(paths) == 10 and all(path.stat().st_size > 500 for path in paths)
    text = paths[-1].read_text()
    assert "**inside** the interval" in text and f"measured loss | {measured:.4f} | nats per token" in text
    assert f"{100 * (prediction.value / measured - 1):+.2f} % of it" in text
    assert "| run-3 | status failed |" in text and "17 fitted, 1 left out" in text
    for name in ("E", "A", "B", "alpha", "beta"):
        assert re.search(rf"\| {name} \| \S+ \| \S+ to \S+ \| [^|]+ \| [^|]+ \|", text)
    assert "time at that rate: 80.0 s; wall time of the sweep: 160.0 s, 2.00 times that" in text
    assert "start, data, evaluation, checkpoint together: 27.0 s, 9.0 %" in text
    for link in re.findall(r"\]\(([^)]+)\)", text):
        assert (tmp_path / link).exists(), link
    assert Study.from_dict(json.loads(paths[0].read_text())).law.intervals == study.law.intervals


def test_a_miss_is_reported_as_one(tmp_path, table, study, prediction):
    text = report.write(tmp_path, table, study, prediction, prediction.high * 1.02)[-1].read_text()
    assert "**outside** the interval, above it" in text and "## Time" not in text
    text = report.write(tmp_path, table, study, prediction)[-1].read_text()
    assert "has not been measured yet" in text


def test_report_without_budgets_says_why_approach_2_is_missing(tmp_path, table):
    bare = table.assign(budget_flops=np.nan)
    paths = report.write(tmp_path, bare, fit_table(bare, bootstraps=50))
    assert "Not fitted. budget_flops: no run states its budget" in paths[-1].read_text()
    assert not any("valleys" in path.name for path in paths)
    with pytest.raises(figures.FigureError, match="no valleys to draw"):
        figures.isoflop_valleys(bare, fit_table(bare, bootstraps=50))


@pytest.mark.parametrize("columns", ["one", "two"])
def test_figures_have_their_printed_width(tmp_path, table, study, prediction, columns):
    drawn = {
        "valleys": figures.isoflop_valleys(table, study, columns),
        "loss": figures.loss_against_compute(table, study, columns, held_out=(prediction.flops, 2.2)),
        "allocation": figures.optimal_allocation(table, study, columns, target_flops=1e15),
        "prediction": figures.prediction_against_measurement(table, study, columns, prediction, 2.2),
    }
    for name, figure in drawn.items():
        assert figure.get_size_inches()[0] == figures.WIDTH_INCHES[columns]
        png, pdf = figures.save(figure, tmp_path / name)
        # 300 dots per inch; a fraction of a dot is cut off.
        assert abs(imread(png).shape[1] - 300 * figures.WIDTH_INCHES[columns]) <= 1
        assert pdf.read_bytes().startswith(b"%PDF")


def test_unknown_columns_are_refused(table, study):
    with pytest.raises(figures.FigureError, match="columns = 'three'"):
        figures.isoflop_valleys(table, study, "three")

"""A prediction is written before its run, kept, and scored after it."""

import dataclasses
import json

import pytest
from planted_tables import BUDGETS, planted_loss, planted_table

from analysis.fit import FitError
from analysis.runs_table import TableError, digest
from analysis.sampling import Sampling
from analysis.studies import PredictionError, fit_table, predict, prediction, score
from analysis.tables.units import with_stated

AT = {"params": 3e6, "tokens": 2e8}


@pytest.fixture(scope="module")
def study():
    return fit_table(planted_table(), sampling=Sampling(100))


def test_a_prediction_survives_its_file_and_an_older_one_is_kept(tmp_path, study):
    path = tmp_path / "deep" / "prediction.json"
    first = prediction.write(path, predict(study, AT, run="big"))
    assert first.written.endswith("+00:00") and prediction.read(path) == first
    assert first.table_digest == study.table_digest and first.constants == study.law.fit.values
    assert first.reach.quantity == "compute" and first.reach.factor == pytest.approx(3.6e15 / BUDGETS[-1])
    path.write_text(path.read_text().replace(first.written, "2020-01-01T00:00:00+00:00"))
    second = prediction.write(path, predict(study, AT))
    kept = prediction.read(path.with_name("prediction-2020-01-01T000000+0000.json"))
    assert kept == dataclasses.replace(first, written="2020-01-01T00:00:00+00:00") and prediction.read(path) == second


def test_a_prediction_from_before_notes_were_kept_can_still_be_scored(tmp_path, study):
    found = prediction.write(tmp_path / "p.json", dataclasses.replace(predict(study, AT), table_notes=("a rate?",)))
    assert prediction.read(tmp_path / "p.json").table_notes == ("a rate?",)
    data = json.loads((tmp_path / "p.json").read_text())
    del data["table_notes"]
    (tmp_path / "p.json").write_text(json.dumps(data))
    assert prediction.read(tmp_path / "p.json") == dataclasses.replace(found, table_notes=())
    (tmp_path / "p.json").write_text(json.dumps({**data, "format": "Prediction-00000000", "digest": "1"}))
    with pytest.raises(PredictionError, match="format = Prediction-00000000: another version.* Fix: predict again"):
        prediction.read(tmp_path / "p.json")


def test_a_score_says_inside_or_outside_and_when_it_is_no_test(study):
    predicted = predict(study, AT)
    good, bad = score(predicted, planted_loss(**AT)), score(predicted, predicted.high + 0.1)
    assert good.inside and "inside it" in str(good) and not bad.inside and "OUTSIDE it" in str(bad)
    assert good.error == pytest.approx(predicted.value - planted_loss(**AT))
    assert good.relative_error == pytest.approx(good.error / planted_loss(**AT))
    late = score(dataclasses.replace(predicted, measured_before=True), 1.5)
    assert "no test" in str(late)
    with pytest.raises(PredictionError, match="measured = nan: must be finite"):
        score(predicted, float("nan"))
    with pytest.raises(PredictionError, match="measured = -1: must be positive, as any loss_nats is.*nats per token"):
        score(predicted, -1)
    linear = dataclasses.replace(predicted, positive=False)  # such as the log of an odds ratio
    assert score(linear, -1).error == pytest.approx(predicted.value + 1)


def test_a_digest_is_of_what_a_fit_reads():
    table, names = planted_table(), ("params", "tokens", "loss_nats")
    same = [
        table.sample(frac=1, random_state=0),
        table.assign(wall_seconds=99.0),
        table.assign(loss_nats=table["loss_nats"] * (1 + 1e-15)),
    ]
    assert {digest(other, names) for other in same} == {digest(table, names)}
    held_out = table.assign(held_out=[True] + [False] * 17)
    changed = [table.assign(loss_nats=table["loss_nats"] * 1.001), table[:-1], held_out, table.assign(status="failed")]
    assert len({digest(other, names) for other in [table, *changed]}) == 5
    assert digest(held_out, names) == digest(table[1:], names)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"params": 1e6}, "tokens: is not given, and law 'chinchilla' needs it"),
        ({**AT, "experts": 8}, "experts: is no input of law 'chinchilla'"),
        ({**AT, "tokens": -1}, "tokens = -1.0: must be positive and finite"),
        ({**AT, "params": float("inf")}, "params = inf: must be positive and finite"),
        ({"params": 0.5, "tokens": 10}, "params = 0.5; tokens = 10: below 1000, which is no count; in billions"),
    ],
)
def test_wrong_inputs_are_refused(study, inputs, message):
    with pytest.raises((FitError, TableError), match=message):
        predict(study, inputs)


def test_counts_below_a_thousand_are_predicted_where_the_fitted_ones_are_as_small():
    table = planted_table()
    table["params"] /= 1e3
    table.attrs = with_stated(table, {"params": 1.0, "flops": 1.0}).attrs
    small = fit_table(table, sampling=Sampling(20))
    assert small.ranges["params"][0] < 1000 and predict(small, {**AT, "params": 500}).inputs["params"] == 500


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: "", r"is not a prediction \("),
        (lambda text: "{}", "field 'constants' is missing"),
        (lambda text: text.replace('"value"', '"valeu"'), "is not a prediction"),
        (lambda text: json.dumps({**json.loads(text), "low": "low"}), "low = 'low': must be float"),
        (lambda text: "[1, 2]", "must be an object"),
    ],
)
def test_hostile_files_get_a_clear_error(tmp_path, study, change, message):
    path = tmp_path / "prediction.json"
    prediction.write(path, predict(study, AT))
    path.write_text(change(path.read_text()))
    with pytest.raises(PredictionError, match=message):
        prediction.read(path)
    with pytest.raises(PredictionError, match=r"absent.json.*: no such file"):
        prediction.read(tmp_path / "absent.json")
    for path, message in ((tmp_path, "is a folder. Fix: give a file"), (tmp_path / ("long" * 99), "no such file")):
        with pytest.raises(PredictionError, match=message):
            prediction.read(path)

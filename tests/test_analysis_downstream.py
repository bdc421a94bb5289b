import json

import numpy as np
import pandas as pd
import pytest
import tyro

from analysis.command.downstream import downstream
from analysis.command.request import Reading, Source
from analysis.fit import LEAST_SQUARES, FitError
from analysis.intervals import estimate
from analysis.laws import evaluate, find
from analysis.report import forecast_sections
from analysis.report.fitted_law import weak_constants
from analysis.report.markdown import markdown
from analysis.runs_table import complete
from analysis.sampling import Sampling
from analysis.studies import fit_two_steps, forecast_tasks, predict_task, smoothed
from analysis.tables.smoothing import Smoothing
from analysis.tables.units import check_shares

LOSS = {"E": 0.4, "A": 40.0, "B": 200.0, "alpha": 0.25, "beta": 0.28}
ACCURACY = {"floor": 0.25, "gain": 0.7, "k": 6.0, "middle": 0.8}


def planted_ladder(noise=0.0, seed=0):
    """16 runs of 20 checkpoints: early ones have the loss of a run of that length, so both laws hold at every one."""
    generator, rows = np.random.default_rng(seed), []
    for params in (1.9e8, 3.7e8, 7.6e8, 1.3e9):
        for ratio in (20, 40, 100, 200):
            for step in range(1, 21):
                rows.append((f"{params:g}-{ratio}", params, ratio * params * step / 20, step))
    table = pd.DataFrame(rows, columns=["run", "params", "tokens", "steps"])
    loss = evaluate(find("task_loss"), np.array(list(LOSS.values())), table[["params", "tokens"]])
    accuracy = evaluate(find("task_accuracy"), np.array(list(ACCURACY.values())), {"task_loss": loss})
    table["task_loss_quiz"] = loss * np.exp(noise * generator.standard_normal(len(table)))
    table["accuracy_quiz"] = accuracy + noise * generator.standard_normal(len(table))
    return complete(table, ("task_loss_quiz", "accuracy_quiz"))


def test_both_steps_come_back_and_predict_a_larger_run():
    target = {"params": 7e9, "tokens": 4e12}
    exact = fit_two_steps(smoothed(planted_ladder(), "quiz", window=1), sampling=Sampling(50))
    assert exact.task_loss.fit.values == pytest.approx(LOSS, rel=1e-4)
    assert exact.accuracy.fit.values == pytest.approx(ACCURACY, rel=1e-6)
    loss = evaluate(find("task_loss"), np.array(list(LOSS.values())), target)
    accuracy = evaluate(find("task_accuracy"), np.array(list(ACCURACY.values())), {"task_loss": loss}).item()
    predicted = predict_task(exact, target)
    assert predicted.task_loss.value == pytest.approx(loss.item(), rel=1e-6)
    assert predicted.accuracy.value == pytest.approx(accuracy, rel=1e-6)
    noisy = predict_task(
        fit_two_steps(smoothed(planted_ladder(0.01), "quiz", window=1), sampling=Sampling(200, level=0.99)), target
    )
    assert noisy.accuracy.contains(accuracy) and noisy.task_loss.contains(loss.item())


def test_smoothing_averages_the_last_checkpoints_of_the_same_run_only():
    table = planted_ladder(noise=0.01).sample(frac=1.0, random_state=0)
    rows = smoothed(table, "quiz", window=3, skip=0.1)
    assert rows["steps"].min() == 3  # of 20: the first tenth is left away
    assert rows.groupby("run")["last"].sum().eq(1).all() and rows[rows["last"]]["steps"].eq(20).all()
    for run, mine in rows.groupby("run"):
        of_run = table[table["run"] == run].sort_values("steps")["accuracy_quiz"].to_numpy()
        expected = [of_run[max(step - 3, 0) : step].mean() for step in mine["steps"]]
        np.testing.assert_allclose(mine["accuracy"], expected, rtol=1e-12)


def test_rows_that_look_like_checkpoints_of_a_run_are_said_to():
    """One name per row is what a table of evaluated checkpoints may have; its runs are another column's."""
    table = checkpoints(0.01).assign(ladder=lambda t: t["run"], run=lambda t: [f"row-{i}" for i in t.index])
    asked = "every run has one row, and rows of equal ladder have one size at different tokens"
    for rows, settings, notes in (
        (table, {}, 1),
        (table, {"smoothing": Smoothing(by="ladder")}, 0),
        (table.assign(ladder=table["params"].map("{:g}".format)), {}, 0),  # a size's name, which groups nothing else
    ):
        found = forecast_tasks(rows, ["quiz"], sampling=Sampling(20), **settings)
        assert sum(note.startswith(asked) for note in found.table_notes) == notes


def test_what_is_averaged_and_left_away_is_said(tmp_path, capsys):
    table = planted_ladder(0.01).assign(
        task_loss_more=lambda t: t["task_loss_quiz"], accuracy_more=lambda t: 0.9 * t["accuracy_quiz"]
    )
    table.to_csv(tmp_path / "runs.csv", index=False)
    held = ("--held-out", "1.3e+09-200", "--bootstraps", "20", "--json", str(tmp_path / "found.json"))
    tyro.cli(downstream, args=[str(tmp_path / "runs.csv"), *held])
    shown = " ".join(capsys.readouterr().out.split())
    assert "the mean over the last 5 checkpoints" in shown and "The first 10% of each run is left away" in shown
    left = json.loads((tmp_path / "found.json").read_text())["left_out"]
    assert len(left) == 16 and all("(2 rows) is left away" in item["reason"] for item in left)
    assert "Constants of both steps" in shown and "objective huber" in shown and "bootstrap resamples of" in shown
    # The error's unit is a hundredth of an accuracy, which is what the file has.
    found = forecast_tasks(table, ["quiz", "more"], held_out=["1.3e+09-200"], sampling=Sampling(20))
    text = "".join(markdown(section) for section in forecast_sections(found))
    assert f"| 1.3e+09-200 | 2 | {100 * found.errors[0].absolute:.2f} |" in text
    assert "mean absolute error of accuracy (percentage points)" in text and "measured (mean of the last 5)" in text


def test_what_is_missing_is_named():
    with pytest.raises(FitError, match="missing column 'task_loss_riddles' for task 'riddles'"):
        smoothed(planted_ladder(), "riddles")
    with pytest.raises(FitError, match="window = 0, skip = 0.1"):
        smoothed(planted_ladder(), "quiz", window=0)


def test_a_run_of_one_row_needs_no_place_and_one_of_several_does():
    table = planted_ladder()
    final = table.iloc[[-1]].assign(run="bigger", steps=np.nan)
    rows = smoothed(pd.concat([table, final]), "quiz")
    assert rows[rows["run"].eq("bigger")]["last"].tolist() == [True]
    with pytest.raises(FitError, match="steps of run '1.9e\\+08-20': is missing, and the run has several checkpoints"):
        smoothed(table.assign(steps=table["steps"].where(table.index > 0)), "quiz")


def test_the_ideal_point_closes_the_upper_end_of_the_sigmoid():
    """Planted with full accuracy at no task loss: the point agrees with the truth, and says what the runs do not."""
    gain = 0.75 * (1 + np.exp(-ACCURACY["k"] * ACCURACY["middle"]))
    truth = {**ACCURACY, "gain": gain}
    table = planted_ladder()
    loss = table["task_loss_quiz"].to_numpy()
    exact = evaluate(find("task_accuracy"), np.array(list(truth.values())), {"task_loss": loss})
    table["accuracy_quiz"] = exact + 0.01 * np.random.default_rng(1).standard_normal(len(table))
    rows, target = smoothed(table[loss > 0.7], "quiz", window=1), {"task_loss": 0.3}
    open_end, closed = (
        fit_two_steps(rows, ideal_point=ideal, sampling=Sampling(100, level=0.99)).accuracy for ideal in (False, True)
    )
    true = evaluate(find("task_accuracy"), np.array(list(truth.values())), target).item()
    intervals = [step.at(target, 0.99) for step in (open_end, closed)]
    assert intervals[1].contains(true)
    assert intervals[1].high - intervals[1].low < 0.5 * (intervals[0].high - intervals[0].low)
    drawn = "groups of equal run within each kind of point (measured or ideal)"
    assert drawn in closed.method and "within" not in open_end.method
    assert len(closed.fit.used) == len(open_end.fit.used) + 1 and closed.fit.used[-1] == "the ideal model"


def test_runs_held_out_are_predicted_and_scored_from_the_command_line(tmp_path, capsys):
    """Noiseless, so that what is predicted is what was measured; the accuracy at a run's end is its own, not a mean."""
    table = planted_ladder().rename(columns={"run": "name", "accuracy_quiz": "quiz"})
    table.assign(task_loss_riddles=1.0, accuracy_riddles=0.5).to_csv(tmp_path / "runs.csv", index=False)
    source = (tmp_path / "runs.csv", "--column", "accuracy_quiz=quiz", "--by", "name", "--window", 1)
    held = ("--held-out", "1.3e+09-200", "1.3e+09-100", "--at", "params=7e9", "tokens=4e13")
    settings = ("--bootstraps", 30, "--json", tmp_path / "found.json")
    tyro.cli(downstream, args=[str(argument) for argument in (*source, *held, *settings)])
    shown = " ".join(capsys.readouterr().out.split())
    assert "params=7e+09 tokens=4e+13 extrapolates 263 times beyond the fitted tokens, more than 10" in shown
    assert "Tasks that were not fitted" in shown and "Step 1 task_loss = E" in shown
    found = json.loads((tmp_path / "found.json").read_text())
    assert list(found["steps"]) == ["quiz"] and [task for task, _ in found["without"]] == ["riddles"]
    assert found["steps"]["quiz"]["accuracy"]["fit"]["values"] == pytest.approx(ACCURACY, rel=1e-6)
    for one in found["forecasts"][:2]:
        assert one["predicted"]["accuracy"]["value"] == pytest.approx(one["accuracy"], abs=1e-6)
    assert [error["run"] for error in found["errors"]] == ["1.3e+09-100", "1.3e+09-200"]
    assert max(error["absolute"] for error in found["errors"]) < 1e-6


def checkpoints(noise=0.0):
    """Four checkpoints of each planted run."""
    table = planted_ladder(noise)
    return table[table["steps"] % 5 == 0].reset_index(drop=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda accuracy: 100 * accuracy, r"64 of 64 rows\): .*in percent\? Fix: .*--unit accuracy_quiz=0.01"),
        (lambda accuracy: accuracy.where(accuracy.index != 3, 1.3), r"accuracy_quiz = 1.3 of run '1.9e\+08-20' \(1 of"),
        (lambda accuracy: accuracy.where(accuracy.index != 3, -0.1), "0 to 1. Fix: mend these rows"),
        (
            lambda accuracy: accuracy.where(accuracy.index < 0, 0.5),
            "accuracy = 0.5 in all 64 checkpoints that measured it: nothing",
        ),
    ],
)
def test_what_is_no_share_or_does_not_vary_is_refused(change, message):
    table = checkpoints().assign(accuracy_quiz=lambda t: change(t["accuracy_quiz"]))
    with pytest.raises(ValueError, match=message):
        forecast_tasks(table, ["quiz"], sampling=Sampling(20))


def test_percent_that_is_said_to_be_is_read(tmp_path):
    table = checkpoints(0.01).assign(accuracy_quiz=lambda t: 100 * t["accuracy_quiz"])
    table.to_csv(tmp_path / "percent.csv", index=False)
    reading = Reading(unit=(("accuracy_quiz=0.01",),))
    read = Source(tmp_path / "percent.csv", reading).read(("params", "tokens", "accuracy_quiz"))
    check_shares(read, ("accuracy_quiz",))
    np.testing.assert_allclose(read["accuracy_quiz"], checkpoints(0.01)["accuracy_quiz"], rtol=1e-12)


def test_no_mean_stands_for_what_a_checkpoint_has_not_measured():
    """A loss that is no loss enters no window: what is left is what a table without its row gives."""
    table = checkpoints(0.01)
    spoilt = table.assign(task_loss_quiz=table["task_loss_quiz"].where(table.index != 5, -1.0))
    rows = smoothed(spoilt, "quiz", window=3)
    assert rows["task_loss"].isna().sum() == 1 and np.isnan(rows.loc[5, "task_loss"])
    of_run = table["task_loss_quiz"]
    assert rows.loc[6, "task_loss"] == pytest.approx((of_run[4] + of_run[6]) / 2, rel=1e-12)
    assert rows.loc[7, "task_loss"] == pytest.approx((of_run[6] + of_run[7]) / 2, rel=1e-12)


def test_words_and_rows_that_were_not_read_are_named(tmp_path, capsys):
    table = checkpoints(0.01).astype({"accuracy_quiz": object})
    table.loc[1, "accuracy_quiz"] = "n/a?"
    table.loc[[6, 9], "task_loss_quiz"] = -1.0
    table["status"] = "done"
    table.loc[14, "status"] = "failed"
    table.loc[63, ["accuracy_quiz", "task_loss_quiz"]] = None  # of a run that is held out: predicted, and not scored
    pd.concat([table, table.loc[[20]]]).to_csv(tmp_path / "runs.csv", index=False)
    held = ("--held-out", "1.3e+09-200", "--bootstraps", "20", "--json", str(tmp_path / "found.json"))
    tyro.cli(downstream, args=[str(tmp_path / "runs.csv"), *held])
    shown = " ".join(capsys.readouterr().out.split())
    assert shown.startswith("Of the table, first - accuracy_quiz = 'n/a?' in row 1: no number, read as missing")
    assert "60 rows of 15 runs: rows of one run are not independent" in shown
    found = json.loads((tmp_path / "found.json").read_text())
    reasons = {item["run"]: item["reason"] for item in found["left_out"]}
    assert reasons == {
        "1.9e+08-20 at tokens 1.9e+09": "accuracy_quiz = 'n/a?' is not a number",
        "1.9e+08-40 at tokens 5.7e+09": "task_loss_quiz = -1 is not positive and finite",
        "1.9e+08-100 at tokens 9.5e+09": "task_loss_quiz = -1 is not positive and finite",
        "1.9e+08-200 at tokens 2.85e+10": "status failed",
        table["run"][20]: "exact copy of an earlier row",
    }
    assert all(run in shown for run in reasons) and len(found["table_notes"]) == 2
    assert found["forecasts"][0]["accuracy"] is None and found["errors"] == []


def test_a_constant_between_two_bounds_is_not_called_at_its_bound():
    """Noisy, and each well inside: floor 0.25 of 0 to 1, gain 0.7 of 0 to 2."""
    for seed in range(3):
        step = fit_two_steps(smoothed(planted_ladder(0.01, seed), "quiz"), sampling=Sampling(20)).accuracy
        assert {interval.note for interval in step.intervals.values()} == {""} and step.weakly_identified == {}


def test_runs_that_never_leave_the_upper_half_do_not_tell_the_floor():
    table = checkpoints(0.01)
    rows = smoothed(table[table["task_loss_quiz"] < 0.85], "quiz", window=1)
    shown = weak_constants(estimate(find("task_accuracy"), rows, objective=LEAST_SQUARES, sampling=Sampling(20)))
    assert "floor" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--held-out", "2e9-20"), "held-out '2e9-20': no such run; the first are 1.3e\\+09-100"),
        (("--at", "params=7e9"), "at = {'params': 7000000000.0}: must be positive params and tokens"),
        (("--at", "params=7", "tokens=4e12"), "params = 7: below 1000, which is no count"),
        (("--task", "riddles"), "missing column"),
        (("--window", "0"), "tasks: none can be fitted. The first, quiz"),
    ],
)
def test_what_cannot_be_predicted_is_refused(tmp_path, arguments, message):
    planted_ladder().to_csv(tmp_path / "runs.csv", index=False)
    with pytest.raises(ValueError, match=message):
        tyro.cli(downstream, args=[str(tmp_path / "runs.csv"), *arguments, "--bootstraps", "20"])


def test_a_table_without_tasks_says_how_to_name_them(tmp_path):
    planted_ladder().drop(columns="task_loss_quiz").to_csv(tmp_path / "runs.csv", index=False)
    with pytest.raises(FitError, match="task: no task_loss_TASK and accuracy_TASK in the table. Fix: name yours"):
        tyro.cli(downstream, args=[str(tmp_path / "runs.csv")])

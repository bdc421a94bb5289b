"""Bhagia et al. 2024 (arXiv:2412.04403): accuracy of the largest ladder runs from the smaller ones, task by task."""

import json
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import tyro
from published_tables import published_table

from analysis.command.downstream import downstream
from analysis.fit import HUBER, LEAST_SQUARES, fit
from analysis.laws import evaluate, find
from analysis.studies import smoothed

TASKS = (
    "hellaswag_val_rc",
    "arc_challenge_test_rc",
    "arc_easy_test_rc",
    "piqa_val_rc",
    "csqa_val_rc",
    "socialiqa_val_rc",
    "openbookqa_test_rc",
    "mmlu_stem_test_rc",
    "mmlu_humanities_test_rc",
    "mmlu_social_sciences_test_rc",
    "mmlu_other_test_rc",
    "boolq_val_rc",
    "winogrande_val_rc",
)
LEFT_OUT_BY_THE_PAPER = TASKS[-2:]  # close to chance at these sizes, so that no step holds
HELD_OUT = {
    "1B-10xC": lambda table: table["ladder_run"].eq("1B-10xC"),
    "all of 1B": lambda table: table["params"].gt(1e9),
}
FAR = {"all of 760M and 1B": lambda table: table["ladder_run"].str.startswith(("760M", "1B"))}
IDEAL = pd.DataFrame({"run": ["ideal"], "task_loss": [0.0], "accuracy": [1.0], "status": ["done"], "held_out": [False]})


class Errors(NamedTuple):
    """Means over the held-out runs of |predicted - measured|: relative, relative, and in accuracy itself."""

    task_loss: float
    accuracy: float
    points: float


def held_out_runs(table, task, held_out, ideal_point=False):
    """Both steps without the held-out runs, and these, by name, as measured and as predicted from params and tokens."""
    checkpoints = smoothed(table, task, by="ladder_run")
    out = (HELD_OUT | FAR)[held_out](checkpoints)
    seen, scored = checkpoints[~out], checkpoints[out & checkpoints["last"]].set_index("ladder_run")
    first, second = find("task_loss"), find("task_accuracy")
    loss = evaluate(first, fit(first, seen[seen["last"]], HUBER).array(), scored)
    points = pd.concat([seen, IDEAL], ignore_index=True) if ideal_point else seen
    accuracy = evaluate(second, fit(second, points, LEAST_SQUARES).array(), {"task_loss": loss})
    return scored.assign(predicted_loss=loss, missed=np.abs(accuracy - scored["accuracy"]))


def predict_held_out(table, task, held_out):
    found = held_out_runs(table, task, held_out)
    return Errors(
        float(np.mean(np.abs(found["predicted_loss"] / found["task_loss"] - 1))),
        float(np.mean(found["missed"] / found["accuracy"])),
        float(np.mean(found["missed"])),
    )


def all_tasks(table, held_out):
    return {task: predict_held_out(table, task, held_out) for task in TASKS}


@pytest.mark.slow
@pytest.mark.parametrize("held_out", HELD_OUT)
def test_the_largest_runs_are_predicted_task_by_task(held_out):
    """Over the 11 tasks the paper keeps: accuracy within 1 point on the mean and 2.6 on each (benchmark prints them).

    It names the two it leaves out for the reason seen here: BoolQ and Winogrande miss by 3.5 to 7.4 points.
    """
    found = all_tasks(published_table("olmo_ladder"), held_out)
    kept = [errors for task, errors in found.items() if task not in LEFT_OUT_BY_THE_PAPER]
    assert np.mean([errors.points for errors in kept]) < 0.010
    assert max(errors.points for errors in kept) < 0.026
    assert max(errors.task_loss for errors in kept) < 0.026
    assert min(found[task].points for task in LEFT_OUT_BY_THE_PAPER) > 0.03


KEPT = [task for task in TASKS if task not in LEFT_OUT_BY_THE_PAPER]


def by_steps(table, held_out, tasks, ideal_point=False):
    """Mean error of these tasks by held-out run."""
    return sum(held_out_runs(table, task, held_out, ideal_point)["missed"] for task in tasks) / len(tasks)


def by_command(table_path, out, tasks, *settings):
    """What `isoflop downstream` finds of these tasks: mean error by run."""
    source = (table_path, "--by", "ladder_run", "--task", *tasks, "--bootstraps", 20, "--json", out)
    tyro.cli(downstream, args=[str(argument) for argument in (*source, *settings)])
    return {error["run"]: error["absolute"] for error in json.loads(out.read_text())["errors"]}


@pytest.mark.slow
def test_the_command_predicts_as_the_steps_do(tmp_path):
    """Of two tasks, with one run or with all of the largest held out, without the ideal point and with it."""
    table, two, path = published_table("olmo_ladder"), KEPT[:2], tmp_path / "ladder.parquet"
    table.to_parquet(path)
    largest = [name for name in table["ladder_run"].unique() if name.startswith(("760M", "1B"))]
    for held_out, runs, *point in (
        ("1B-10xC", ["1B-10xC"]),
        ("all of 760M and 1B", largest),
        ("all of 760M and 1B", largest, "--ideal-point"),
    ):
        found = by_command(path, tmp_path / "found.json", two, "--held-out", *runs, *point)
        assert set(found) == set(runs)
        assert found == pytest.approx(by_steps(table, held_out, two, bool(point)).to_dict(), rel=1e-9)


@pytest.mark.slow
def test_the_ideal_point_helps_far_away():
    """With all of 760M and 1B held out, 8 runs of up to 3.4 times the largest params and tokens that are left, the
    ideal point lowers the mean error of each: of 1B-10xC, the furthest, from 3.7 to 3.4 points."""
    table = published_table("olmo_ladder")
    far, ideal = (by_steps(table, "all of 760M and 1B", KEPT, point) for point in (False, True))
    assert len(far) == 8 and (ideal < far).all()
    assert ideal["1B-10xC"] < 0.035 < far["1B-10xC"]

import numpy as np
import pandas as pd
import pytest

from analysis.fit import FitError
from analysis.laws import evaluate, find
from analysis.studies import fit_two_steps, predict_task, smoothed

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
    return table


def test_both_steps_come_back_and_predict_a_larger_run():
    target = {"params": 7e9, "tokens": 4e12}
    exact = fit_two_steps(smoothed(planted_ladder(), "quiz", window=1), bootstraps=50)
    assert exact.task_loss.fit.values == pytest.approx(LOSS, rel=1e-4)
    assert exact.accuracy.fit.values == pytest.approx(ACCURACY, rel=1e-6)
    loss = evaluate(find("task_loss"), np.array(list(LOSS.values())), target)
    accuracy = evaluate(find("task_accuracy"), np.array(list(ACCURACY.values())), {"task_loss": loss}).item()
    predicted = predict_task(exact, target)
    assert predicted.task_loss.value == pytest.approx(loss.item(), rel=1e-6)
    assert predicted.accuracy.value == pytest.approx(accuracy, rel=1e-6)
    noisy = predict_task(
        fit_two_steps(smoothed(planted_ladder(0.01), "quiz", window=1), bootstraps=200, level=0.99), target
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


def test_what_is_missing_is_named():
    with pytest.raises(FitError, match="missing column 'task_loss_riddles' for task 'riddles'"):
        smoothed(planted_ladder(), "riddles")
    with pytest.raises(FitError, match="window = 0, skip = 0.1"):
        smoothed(planted_ladder(), "quiz", window=0)

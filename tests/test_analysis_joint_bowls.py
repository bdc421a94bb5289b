"""Laws through the bowls of all cells: planted ones come back, with intervals that hold them."""

import numpy as np
import pandas as pd
import pytest
from planted_tables import FLATTENING, SWEPT, TILTED, best_batch, best_rate, noisy_sweep

from analysis.fit import LEAST_SQUARES, fit
from analysis.intervals.interval import DEGENERATE, NOT_DETERMINED
from analysis.laws import evaluate, find
from analysis.runs_table import complete
from analysis.studies import cells_of, fit_bowls, optima_table, sweep_laws
from analysis.studies.hyperparameters import CELL
from analysis.studies.joint_bowls import fit_joint, jackknife_interval
from analysis.studies.sweep_laws import WAYS

LAWS = [find("learning_rate_params_tokens"), find("batch_tokens_tokens")]
BY_AXIS = {law.output: law for law in LAWS}
EXPONENTS = {
    ("learning_rate", "params_exponent"): -0.4,
    ("learning_rate", "tokens_exponent"): 0.1,
    ("batch_tokens", "tokens_exponent"): 0.5,
}
TRUE = {"learning_rate": best_rate, "batch_tokens": lambda params, tokens: best_batch(tokens)}


def test_a_sweep_without_noise_gives_its_laws_and_its_bowl():
    joint = sweep_laws(noisy_sweep(0, 0.0), laws=LAWS).joint
    assert joint.laws["learning_rate"].values == pytest.approx(
        {"scale": 0.005, "params_exponent": -0.4, "tokens_exponent": 0.1}, rel=1e-6
    )
    assert joint.laws["batch_tokens"].values == pytest.approx({"scale": 3.0, "tokens_exponent": 0.5}, rel=1e-6)
    # The centre is where the planted curvature, whose size is 1 at 3e8 parameters, is held.
    np.testing.assert_allclose(joint.curvature, TILTED * (joint.centre["params"] / 3e8) ** FLATTENING, rtol=1e-6)
    assert joint.exponents["params"].value == pytest.approx(FLATTENING, abs=1e-6)
    assert joint.exponents["tokens"].value == pytest.approx(0.0, abs=1e-6) and joint.noise < 1e-9
    assert joint.method.startswith("delete-one jackknife of 6 cells")


def joint_of(table, bowls):
    """The joint fit alone, which nothing follows; cells without an optimum start at the best run."""
    starts = optima_table(bowls).assign(status="done", failure_reason=None)
    return fit_joint([group for _, group in cells_of(table, CELL)], bowls, complete(starts), BY_AXIS)


def test_intervals_hold_what_was_planted_as_often_as_they_say():
    """90 % intervals in 16 sweeps, half of which scatter around the law: far fewer or more inside is no chance."""
    cells, exponents = [], []
    for seed in range(16):
        scatter = 0.1 * (seed % 2)
        table = noisy_sweep(seed, 5e-4, scatter)
        bowls = fit_bowls(table)
        laws = joint_of(table, bowls).laws
        exponents += [laws[axis].intervals[name].contains(value) for (axis, name), value in EXPONENTS.items()]
        if not scatter:
            cells += [b.intervals[axis].contains(TRUE[axis](**b.cell)) for b in bowls for axis in TRUE]
    assert len(cells) == 96 and 0.82 <= np.mean(cells) <= 0.97
    assert len(exponents) == 48 and 0.8 <= np.mean(exponents) < 1


def test_with_few_runs_a_cell_the_joint_law_is_the_closer_one():
    """6 runs of a cell, as many as a quadratic has coefficients: one shape for all leaves the noise less to say."""
    cells = tuple((params, ratio) for params in (1e8, 3e8, 1e9) for ratio in (10, 20, 40, 80))
    at, joint, of_optima = {"params": 3e8, "tokens": 1e10}, [], []
    for seed in range(6):
        table = noisy_sweep(seed, 3e-4, cells=cells, side=5, kept=6)
        bowls = fit_bowls(table)
        joint.append(np.log(joint_of(table, bowls).laws["learning_rate"].at(at, 0.9).value / best_rate(**at)))
        law = fit(LAWS[0], optima_table(bowls), LEAST_SQUARES)
        of_optima.append(np.log(evaluate(law.law, law.array(), at).item() / best_rate(**at)))
    assert np.linalg.norm(joint) < 0.5 * np.linalg.norm(of_optima) and np.abs(joint).max() < 0.05


def test_a_cell_whose_best_was_not_run_takes_part():
    """Rates cut off below the best of one cell: it has no optimum, and what it has still moves no law away."""
    table = noisy_sweep(1, 1e-4)
    first = table["params"].eq(1e8) & table["tokens"].eq(2e9)
    table = table[~(first & (table["learning_rate"] > 0.55 * best_rate(1e8, 2e9)))]
    found = sweep_laws(table, laws=LAWS)
    assert found.bowls[0].reason and len(found.joint.laws["learning_rate"].cells) == len(SWEPT)
    assert found.joint.laws["learning_rate"].values["params_exponent"] == pytest.approx(-0.4, abs=0.02)
    assert found.followed[0].outside == ("learning_rate",)


def test_a_cell_of_one_run_counts_for_nothing_and_is_followed():
    table = noisy_sweep(2, 3e-4)
    one = table.tail(1).assign(params=3e9, tokens=6e10, run="alone")
    found, without = sweep_laws(pd.concat([table, one]), laws=LAWS), sweep_laws(table, laws=LAWS)
    law = found.joint.laws["learning_rate"]
    assert law.intervals == without.joint.laws["learning_rate"].intervals
    assert len(law.cells) == len(SWEPT) and found.bowls[-1].runs == 1
    said = law.at({"params": 3e9, "tokens": 6e10}, 0.9).value
    assert found.followed[-1].recommended["learning_rate"] == pytest.approx(said)


def test_an_axis_without_a_law_is_free_in_each_cell():
    table = noisy_sweep(0, 0.0).assign(momentum=lambda t: t["batch_tokens"] ** 2)
    found = sweep_laws(table, axes=("learning_rate", "momentum"))
    assert list(found.joint.laws) == ["learning_rate"] and "momentum" in found.law_notes and not found.followed
    assert found.joint.laws["learning_rate"].values["params_exponent"] == pytest.approx(-0.4, rel=1e-5)


def test_a_sweep_whose_runs_determine_no_bowl_is_said_to_have_no_law():
    table = noisy_sweep(0, 1e-4).assign(loss_nats=lambda t: 8 / t["loss_nats"])
    found = sweep_laws(table, laws=LAWS)
    assert found.joint is None and not found.followed
    assert all("finds no minimum" in note and "Fix:" in note for note in found.law_notes.values())


def test_other_ways_are_followed_in_the_same_cells():
    """The nearest cell's best run, and the optima's law, by hand for one cell."""
    table = noisy_sweep(3, 3e-4)
    found = sweep_laws(table, laws=LAWS)
    assert {way: len(excess) for way, excess in found.excess.items()} == dict.fromkeys(found.excess, len(SWEPT))
    cells = [group for _, group in table.groupby(["params", "tokens"])]
    best = cells[1].loc[cells[1]["loss_nats"].idxmin()]  # 4 times the tokens; 3 times the params needs 3 times those
    steps = np.log(cells[0][list(TRUE)] / best[list(TRUE)].astype(float)) / (np.log(2) / 2)
    nearest = cells[0]["loss_nats"].iloc[int(np.argmin((steps**2).sum(axis=1)))]
    assert found.followed[0].by_nearest_cell == pytest.approx(nearest / cells[0]["loss_nats"].min() - 1)
    four = sweep_laws(noisy_sweep(3, 3e-4, cells=SWEPT[:4]), laws=LAWS)
    assert list(four.excess) == [WAYS[0], WAYS[2]]  # 3 optima are too few for 3 constants and their noise
    assert all(len(excess) == 4 for excess in four.excess.values())


def test_more_noise_gives_wider_intervals_of_a_cell():
    wide, narrow = (fit_bowls(noisy_sweep(5, noise)) for noise in (1e-3, 1e-4))
    for one, other in zip(wide, narrow, strict=True):
        for axis in TRUE:
            ratio = np.log(one.intervals[axis].high / one.intervals[axis].low)
            ratio /= np.log(other.intervals[axis].high / other.intervals[axis].low)
            assert 7 < ratio < 13  # noise alone is 10 times; the weights follow the place
    six = pd.concat([group.head(6) for _, group in noisy_sweep(0, 0.0, side=3, kept=6).groupby(["params", "tokens"])])
    shown = [bowl for bowl in fit_bowls(six) if not bowl.reason]
    assert shown and all(bowl.intervals["learning_rate"].note == NOT_DETERMINED for bowl in shown)


def test_the_jackknife_of_a_mean_is_students_interval():
    values = np.array([1.0, 2.0, 4.0, 7.0])
    without = (values.sum() - values) / 3
    found = jackknife_interval(values.mean(), without, 1, 0.9)
    reach = 2.3533634 * values.std(ddof=1) / 2  # Student's t of 3 degrees of freedom
    assert (found.low, found.high) == pytest.approx((3.5 - reach, 3.5 + reach), rel=1e-6)
    assert jackknife_interval(1.0, np.ones(4), 1, 0.9).note == DEGENERATE
    assert jackknife_interval(1.0, np.array([1.0, 2.0, np.nan]), 1, 0.9).note == NOT_DETERMINED

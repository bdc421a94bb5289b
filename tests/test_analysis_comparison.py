"""Families side by side: the best rate of each, what is flagged, and planted laws recovered."""

import json

import numpy as np
import pandas as pd
import pytest

from analysis.fit import FitError
from analysis.laws import evaluate, find
from analysis.report import comparison_document
from analysis.report.document import Number, leaves
from analysis.report.files import write_comparison
from analysis.sampling import Sampling
from analysis.studies import by_length, compare

BUDGETS, RATES, SEEDS = (1e10, 4e10, 16e10, 64e10), (1e-3, 2e-3, 4e-3), (0, 1)
EXPONENTS = {"a": 0.05, "b": 0.08}
BEST = {"a": 2e-3, "b": 4e-3}


def _table(noise=1e-3):
    generator = np.random.default_rng(0)
    rows = []
    for family, exponent in EXPONENTS.items():
        for budget in BUDGETS:
            for rate in RATES:
                for seed in SEEDS:
                    loss = 3.0 * (1e10 / budget) ** exponent + 0.1 * np.log(rate / BEST[family]) ** 2
                    loss *= np.exp(noise * generator.standard_normal())
                    rows.append((f"r{len(rows)}", family, budget, rate, seed, loss))
    table = pd.DataFrame(rows, columns=["run", "family", "budget_flops", "learning_rate", "seed", "loss_nats"])
    return table.assign(status="done", flops=table["budget_flops"], params=1e6, exact_match_copy_10=0.5)


def test_each_family_stands_at_its_best_rate_with_its_own_law():
    found = {family.name: family for family in compare(_table(), sampling=Sampling(200)).families}
    assert list(found) == ["a", "b"]
    for name, family in found.items():
        assert [cell.budget_flops for cell in family.cells] == list(BUDGETS)
        assert {cell.learning_rate for cell in family.cells} == {BEST[name]}
        assert all(len(cell.runs) == 2 and cell.lowest <= cell.loss_nats <= cell.highest for cell in family.cells)
        assert family.law.intervals["alpha"].contains(EXPONENTS[name])
    assert not any(cell.at_edge for cell in found["a"].cells)
    assert all(cell.at_edge for cell in found["b"].cells)  # the sweep's largest: b may do better beyond it


def test_one_law_of_all_families_is_recovered_from_their_best_runs(tmp_path):
    """Clark's law planted over 6 expert counts and 4 sizes; runs at a worse rate, 5 % higher, must not be in it."""
    law, generator = find("routed"), np.random.default_rng(0)
    planted = {"a": -0.08, "b": -0.1, "c": 0.008, "d": 1.1, "E_start": 2.0, "E_max": 250.0}
    table = pd.DataFrame(
        [(2**i, 1e6 * 8**j, rate) for i in range(0, 11, 2) for j in range(4) for rate in (1e-3, 2e-3)],
        columns=["experts", "active_params", "learning_rate"],
    )
    constants = np.array([planted[parameter.name] for parameter in law.parameters])
    loss = evaluate(law, constants, {name: table[name].to_numpy(float) for name in law.inputs})
    loss = (
        loss
        * np.where(table["learning_rate"] == 1e-3, 1.0, 1.05)
        * np.exp(1e-3 * generator.standard_normal(len(table)))
    )
    table = table.assign(
        loss_nats=loss, family=table["experts"].astype(str), budget_flops=table["active_params"] * 1e9, status="done",
        flops=table["active_params"] * 1e9, params=table["active_params"], run=[f"r{i}" for i in range(len(table))],
    )  # fmt: skip
    comparison = compare(table, law="routed", sampling=Sampling(500, level=0.99))
    assert len(comparison.joint.fit.used) == len(table) / 2
    for name, interval in comparison.joint.intervals.items():
        assert interval.contains(planted[name]), (name, interval)
    report = write_comparison(tmp_path, "grid", "Do experts help?", comparison)[-1].read_text()
    assert "## All families together" in report and "| E_start | " in report
    without = compare(
        table.drop(columns="active_params").assign(active_params=1e6), law="routed", sampling=Sampling(50)
    )
    assert without.joint is None or without.joint.weakly_identified  # one size cannot give an exponent of size


def test_runs_that_cannot_be_used_are_named():
    table = _table()
    table.loc[0, ["status", "loss_nats"]] = ["failed", np.nan]
    table.loc[1, "loss_nats"] = -1.0
    family = compare(table, sampling=Sampling(50)).families[0]
    assert [(item.run, item.reason) for item in family.left_out] == [
        ("r0", "status failed"),
        ("r1", "loss_nats = -1 is not positive and finite"),
    ]


def test_rows_that_no_fit_may_use_take_no_part_in_a_comparison():
    table = _table().assign(held_out=False)
    table.loc[0, "held_out"] = True
    table.loc[1, "status"] = None
    table.loc[2, "learning_rate"] = np.nan
    family = compare(table, sampling=Sampling(50)).families[0]
    reasons = {item.run: item.reason for item in family.left_out}
    assert reasons == {"r0": "held out", "r1": "status unknown", "r2": "learning_rate is missing or NaN"}
    assert not {"r0", "r1", "r2"} & {run for cell in family.cells for run in cell.runs}
    table.loc[3, "family"] = None
    with pytest.raises(FitError, match="family of run 'r3': is missing"):
        compare(table, sampling=Sampling(50))


def test_without_budgets_runs_of_equal_compute_are_a_cell():
    """As where every size is trained for the same steps."""
    planned, without = (
        compare(table, sampling=Sampling(50)).families[0] for table in (_table(), _table().drop(columns="budget_flops"))
    )
    assert [cell.runs for cell in without.cells] == [cell.runs for cell in planned.cells]
    assert {cell.budget_flops for cell in without.cells} == {None} and without.law.intervals == planned.law.intervals
    one = compare(_table().assign(budget_flops=float("nan"), flops=1e10), sampling=Sampling(50)).families[0]
    assert len(one.cells) == 1 and one.law is None and "needs at least 3" in one.law_note


def test_no_finished_run_is_an_error():
    with pytest.raises(FitError, match="no run of any family is done"):
        compare(_table().assign(status="pending"))


def test_measures_by_length_are_sorted():
    table = _table().assign(exact_match=0.7, exact_match_copy_5=0.9)
    lengths, values = by_length(compare(table, sampling=Sampling(50)).families[0].cells[0], "exact_match")
    np.testing.assert_array_equal(lengths, [5, 10])
    np.testing.assert_allclose(values, [0.9, 0.5])


def test_the_report_holds_every_family_figure_and_left_out_run(tmp_path):
    table = _table().assign(exact_match_copy_5=0.9)
    table.loc[0, ["status", "loss_nats"]] = ["failed", np.nan]
    paths = write_comparison(tmp_path, "grid", "Which is better?", compare(table, sampling=Sampling(50)))
    assert all(path.stat().st_size > 0 for path in paths)
    text = (tmp_path / "report.md").read_text()
    for wanted in (
        "Which is better?",
        "| a | 1e+10 | 1e+06 | 1e+06 | 0.002 | 3 | 2 |",
        "| b | 1e+10 | 1e+06 | 1e+06 | 0.004 \\* | 3 | 2 |",
        "\\* the best lies at an end of the values that were run: the family may do better beyond it.",
        "exact_match by length",
        "| a | r0 | status failed |",
    ):
        assert wanted in text
    names = {path.name for path in paths}
    assert {"loss_by_family.png", "loss_by_family.pdf", "exact_match_by_length.png", "comparison.json"} <= names


def test_every_number_of_the_report_is_in_comparison_json(tmp_path):
    """Unrounded; the numbers of seeds are the lengths of the lists of runs."""
    comparison = compare(_table().assign(exact_match_copy_5=0.9, exact_match=0.7), sampling=Sampling(50))
    write_comparison(tmp_path, "grid", "Which is better?", comparison)
    held = set()

    def collect(value):
        held.add(len(value) if isinstance(value, list) else value if isinstance(value, (int, float)) else None)
        for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            collect(item)

    collect(json.loads((tmp_path / "comparison.json").read_text()))
    shown = [leaf for leaf in leaves(comparison_document("grid", "?", comparison)) if isinstance(leaf, Number)]
    assert len(shown) > 60 and [number for number in shown if number.value not in held] == []

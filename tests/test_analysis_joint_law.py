"""A law with some constants shared between groups of runs and others of each: planted, fitted, and asked of a group."""

import numpy as np
import pandas as pd
import pytest
import tyro
from planted_tables import TRUTH, planted_optimum, planted_table

from analysis.command.fit import fit as fit_command
from analysis.fit import FitError, fit, select
from analysis.intervals import estimate
from analysis.laws import CHINCHILLA, LawError, evaluate, joint
from analysis.runs_table import complete
from analysis.sampling import Sampling
from analysis.studies import fit_table, optimum, predict

GROUPS = ("adamw", "muon")
MUON = {**TRUTH, "A": 0.7 * TRUTH["A"], "B": 0.8 * TRUTH["B"]}  # a rescaling, with the exponents of the other
LAW = joint(CHINCHILLA, GROUPS, ("A", "B"))
SHARED = ("E", "alpha", "beta")


def two_groups(noise=0.004):
    """The same budgets and sizes under both optimizers, each with noise of its own."""
    parts = [planted_table(noise, truth=truth, seed=i).assign(group=i) for i, truth in enumerate((TRUTH, MUON))]
    table = pd.concat(parts, ignore_index=True)
    return table.assign(run=[f"run-{i}" for i in table.index])


def test_planted_constants_come_back():
    exact = fit(LAW, two_groups(noise=0.0))
    truth = {**{name: TRUTH[name] for name in SHARED}, "A_adamw": TRUTH["A"], "A_muon": MUON["A"]}
    truth |= {"B_adamw": TRUTH["B"], "B_muon": MUON["B"]}
    assert set(LAW.names) == set(truth)
    # Residuals at rounding (1e-16) times the condition number (some hundreds) leave 1e-12; 1e-8 allows for flatness.
    assert exact.values == pytest.approx(truth, rel=1e-8)


def test_what_is_shared_is_known_better_than_from_either_group():
    table = two_groups()
    both = estimate(LAW, table, sampling=Sampling(200, level=0.99))
    assert all(both.intervals[name].contains(TRUTH[name]) for name in SHARED)
    assert both.intervals["A_muon"].contains(MUON["A"]) and both.intervals["B_adamw"].contains(TRUTH["B"])
    for group in (0, 1):
        alone = estimate(CHINCHILLA, table[table["group"].eq(group)], sampling=Sampling(200, level=0.99))
        assert all(np.std(both.draws[:, LAW.names.index(n)]) < np.std(alone.draws[:, CHINCHILLA.names.index(n)])
                   for n in ("alpha", "beta"))  # fmt: skip


def test_each_group_has_the_law_of_its_constants():
    values = [1.2, 0.35, 0.4, 60.0, 42.0, 200.0, 160.0]
    at = {"params": np.array([1e5, 1e6]), "tokens": np.array([1e7, 1e8])}
    for i, mine in enumerate(([1.2, 60.0, 200.0, 0.35, 0.4], [1.2, 42.0, 160.0, 0.35, 0.4])):
        joined = evaluate(LAW, np.array(values), {**at, "group": np.full(2, i)})
        np.testing.assert_allclose(joined, evaluate(CHINCHILLA, np.array(mine), at), rtol=1e-15)


def test_optima_and_predictions_are_those_of_a_group(tmp_path, capsys):
    study = fit_table(two_groups(noise=0.0), law=LAW, sampling=Sampling(20), given={"group": 1})
    assert optimum(study, 1e13).params.value == pytest.approx(planted_optimum(1e13, MUON), rel=1e-5)
    with pytest.raises(FitError, match="group = 2: must be one of 0, 1 in law 'chinchilla_by_group'"):
        predict(study, {"params": 1e6, "tokens": 1e8, "group": 2})
    two_groups().drop(columns="budget_flops").to_csv(tmp_path / "runs.csv", index=False)
    own = "from analysis.laws import CHINCHILLA, joint\nLAW = joint(CHINCHILLA, ('adamw', 'muon'), ('A', 'B'))\n"
    (tmp_path / "own.py").write_text(own)
    law = ("--law", f"{tmp_path / 'own.py'}:LAW", "--given", "group=0", "--bootstraps", "20")
    tyro.cli(fit_command, args=[str(tmp_path / "runs.csv"), *law])
    shown = capsys.readouterr().out
    assert "A_muon" in shown and "tokens to the power" in shown and "0 adamw, 1 muon" in shown


def test_rows_of_no_group_and_what_cannot_be_joined_are_named():
    _, left_out = select(LAW, complete(two_groups().assign(group=[7, np.nan, *[0, 1] * 17])))
    assert [item.reason for item in left_out] == ["group = 7.0 is none of 0, 1", "group is missing or NaN"]
    for groups, own, message in (
        (("adamw",), ("A",), "groups = adamw: must be two or more different ones"),
        (("a", "a"), ("A",), "groups = a, a: must be two"),
        (GROUPS, ("alpha",), "own = 'alpha': is no constant in which law 'chinchilla' is linear. Fix: use some of E"),
        (GROUPS, (), "needs constants of each group"),
    ):
        with pytest.raises(LawError, match=message):
            joint(CHINCHILLA, groups, own)

"""`isoflop compare`: laws ranked by back-test on the same runs, with differences beside their noise."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import tyro
from planted_tables import planted_table

from analysis.command.compare import compare
from analysis.fit import FitError
from analysis.intervals import NOT_DETERMINED
from analysis.laws import CHINCHILLA, find
from analysis.report.law_ranking import ranking_sections
from analysis.report.markdown import markdown
from analysis.runs_table import TableError
from analysis.sampling import Sampling
from analysis.studies import backtest, rank_laws
from analysis.studies.law_ranking import fewest_runs

BUDGETS = (1e11, 4e11, 1.6e12, 6.4e12, 2.5e13)
CUTS = (6e12, 2e13)
KAPLAN, FRONTIER = find("kaplan"), find("loss_frontier")


@pytest.fixture(scope="module")
def table():
    return planted_table(noise=0.002, budgets=BUDGETS)


def test_the_planted_law_wins_and_each_has_its_own_back_test(table):
    found = rank_laws([KAPLAN, CHINCHILLA], table, cuts=CUTS, sampling=Sampling(20))
    assert [one.law.name for one in found.ranked] == ["chinchilla", "kaplan"] and found.cuts == CUTS
    best, worse = found.ranked
    assert best.worse is None and worse.apart and worse.worse.low > 0
    assert worse.worse.value == pytest.approx(worse.mean_absolute_error - best.mean_absolute_error, rel=1e-12)
    for one in found.ranked:
        alone = backtest(one.law, table, cuts=CUTS, sampling=Sampling(20))
        errors = np.concatenate([np.abs(cut.predicted - cut.measured) for cut in alone.cuts])
        inside = np.concatenate([(cut.low <= cut.measured) & (cut.measured <= cut.high) for cut in alone.cuts])
        assert one.mean_absolute_error == pytest.approx(errors.mean(), rel=1e-12)
        assert one.hit_rate == inside.mean() and found.scored == len(errors) == 6 + 12 and found.runs == 12
    assert (best.constants, worse.constants) == (5, 4)


def test_a_verdict_is_given_with_cuts_weighted_equally_too(table):
    """12 of 18 predictions are of the lower cut: the mean over pairs is mostly its own."""
    found = rank_laws([KAPLAN, CHINCHILLA], table, cuts=CUTS, sampling=Sampling(20))
    best = found.ranked[0]
    assert found.lowest_half == 1
    assert (12 * found.by_cut(best)[0] + 6 * found.by_cut(best)[1]) / 18 == pytest.approx(best.mean_absolute_error)
    shown = markdown(ranking_sections(found)[0])
    assert "Half of the predictions or more are of the 1 lowest of 2 cuts." in shown
    equally = ", ".join(f"{one.law.name} {found.by_cut(one).mean():.4g}" for one in found.ranked)
    assert f"has the least mean absolute error ({equally}); chinchilla is best or level above" in shown
    assert "residual scale (of log loss_nats)" in shown and "worse than the best by (nats per token)" in shown


def test_two_laws_that_say_the_same_cannot_be_told_apart(table):
    twin = dataclasses.replace(CHINCHILLA, name="twin")
    found = rank_laws([CHINCHILLA, twin], table, cuts=CUTS[:1], sampling=Sampling(20))
    assert found.ranked[1].worse.value == 0.0 and not found.ranked[1].apart
    assert "cannot be told apart on these runs" in str(ranking_sections(found)[0])


def test_few_predicted_runs_claim_nothing(table):
    """With the same sign in all of n runs, which happens to equal laws with probability 2 * 0.5^n, an interval of
    resampled runs leaves zero out whatever n is."""
    assert [fewest_runs(level) for level in (0.5, 0.9, 0.95)] == [2, 5, 6]
    rows = table["flops"].rank(method="first", ascending=False)
    for above, claims in ((1, False), (4, False), (5, True)):
        kept = table[(table["flops"] < CUTS[0]) | (rows <= above)].assign(held_out=False)
        found = rank_laws([KAPLAN, CHINCHILLA], kept, cuts=(CUTS[0],), sampling=Sampling(20))
        shown = markdown(ranking_sections(found)[0])
        other = found.ranked[1]
        assert found.runs == above and (other.worse.note != NOT_DETERMINED) == claims
        assert ("No law is called better" in shown) != claims and (claims or not other.apart)
        assert claims == ("extrapolates better" in shown or "cannot be told apart" in shown)
        assert f"below 1 cut of flops and scored on the same runs above: {above} prediction" in shown
    assert "1 predictions" not in shown and "5 runs, objective" in shown


def test_all_laws_see_the_same_runs(table):
    """Runs without a price, which one law needs, are left out for the other law, too: as if they were not there."""
    priced = table.assign(flops=table["flops"].where(table.index % 5 != 1))
    found = rank_laws([CHINCHILLA, FRONTIER], priced, by="budget_flops", cuts=CUTS[:1], sampling=Sampling(20))
    rest = rank_laws(
        [CHINCHILLA, FRONTIER], priced.dropna(subset="flops"), by="budget_flops", cuts=CUTS, sampling=Sampling(20)
    )
    assert found.without == 6 and rest.without == 0 and rest.left_out == ()
    assert [item.run for item in found.left_out] == priced["run"][priced["flops"].isna()].tolist()
    assert {item.reason for item in found.left_out} == {"flops is missing or NaN"}
    for one, same in zip(found.ranked, rest.ranked, strict=True):
        assert one.law == same.law and one.residual_scale == same.residual_scale
        assert one.backtest.cuts[0].mean_absolute_error == same.backtest.cuts[0].mean_absolute_error


def test_cuts_below_which_a_law_has_no_fit_do_not_count(table):
    found = rank_laws([CHINCHILLA, FRONTIER], table, cuts=(3e11, *CUTS), sampling=Sampling(20))
    assert found.cuts == (6e12, 2e13) and found.scored == 18
    reasons = {one.law.name: one.backtest.cuts[0].reason for one in found.ranked}
    assert "one compute budget" in reasons["chinchilla"]
    assert "chinchilla has no fit below " in str(ranking_sections(found)[1])
    with pytest.raises(FitError, match="cuts: below none of them all laws have a fit|none can be back-tested"):
        rank_laws([CHINCHILLA, FRONTIER], table, cuts=(3e11,), sampling=Sampling(20))


def test_what_cannot_be_compared_is_named(table, tmp_path, capsys):
    columns = ["params", "tokens", "budget_flops", "flops", "loss_nats"]
    spoilt = pd.concat([table[columns].astype({"loss_nats": object}), table[columns].tail(2)], ignore_index=True)
    spoilt.loc[spoilt.index[-2:], "loss_nats"] = ["diverged", -1.0]
    spoilt.to_csv(tmp_path / "runs.csv", index=False)
    laws = ("--laws", "chinchilla", "kaplan", "data_constrained", "learning_rate_params")
    settings = ("--bootstraps", "20", "--cuts", "2e13", "--json", str(tmp_path / "ranking.json"))
    tyro.cli(compare, args=[str(tmp_path / "runs.csv"), *laws, *settings])
    shown = " ".join(capsys.readouterr().out.split())
    assert "missing column 'unique_tokens' of law 'data_constrained'" in shown
    assert "gives learning_rate, and chinchilla loss_nats" in shown and "chinchilla extrapolates better" in shown
    assert shown.startswith(f"Of the table, first - loss_nats = 'diverged' in row {len(table)}: no number")
    found = json.loads((tmp_path / "ranking.json").read_text())
    reasons = [item["reason"] for item in found["left_out"]]
    assert reasons == ["loss_nats = 'diverged' is not a number", "loss_nats = -1 is not positive and finite"]
    assert all(reason in shown for reason in reasons) and len(found["table_notes"]) == 1
    assert [one["law"]["name"] for one in found["ranked"]] == ["chinchilla", "kaplan"]
    with pytest.raises(TableError, match="missing columns 'unique_tokens', 'learning_rate'"):
        tyro.cli(compare, args=[str(tmp_path / "runs.csv"), "--laws", "data_constrained", "learning_rate_params"])
    for chosen in ([CHINCHILLA], [CHINCHILLA, CHINCHILLA]):
        with pytest.raises(FitError, match="must be two or more different ones"):
            rank_laws(chosen, table)
    few = table.assign(loss_nats=table["loss_nats"].where(table.index < 6))
    with pytest.raises(FitError, match=r"\(24 of 30 rows are left out: run-6: loss_nats is missing .*; and 19 more\)"):
        rank_laws([CHINCHILLA, KAPLAN], few, cuts=CUTS[:1])
    with pytest.raises(FitError, match="laws: no run can be used by all of them"):
        rank_laws([CHINCHILLA, KAPLAN], pd.DataFrame({"loss_nats": [2.0, 2.1]}))

"""Recipes scored on sweeps: the planted one costs nothing, others cost what the bowl says, and who saw what is said."""

import json
import math

import pandas as pd
import pytest
import tyro
from planted_tables import SWEPT, best_batch, best_rate, planted_sweep
from published_tables import published_table

from analysis.command.bowls import bowls
from analysis.fit import FitError
from analysis.studies import Condition, Recommended, recipe_scores, swept_cells
from research.command import cli
from research.command.recipes import recipes
from research.config import ConfigError
from research.plan.recipes import RULES

LARGEST = (Condition.parse("params>=1e9"),)


def recommended(name, cells, rate=1.0, batch=1.0, seen=False):
    """The planted law with its rate and its batch multiplied; no batch if that is None."""
    settings = [{"learning_rate": rate * best_rate(cell["params"], cell["tokens"])} for cell in cells]
    if batch is not None:
        settings = [one | {"batch_tokens": batch * best_batch(cell["tokens"])} for one, cell in zip(settings, cells)]
    return Recommended(name, tuple(settings), (seen,) * len(cells), (False,) * len(cells))


def scores(*asked, **settings):
    table = planted_sweep()
    cells = swept_cells(table, **settings)
    found = recipe_scores(table, [recommended(name, cells, **how) for name, how in asked], **settings)
    return found, {score.name: score for score in found.scores}


def run(verb, *arguments):
    tyro.cli(verb, args=[str(argument) for argument in arguments])


def test_the_planted_recipe_costs_nothing_and_another_what_the_bowl_says():
    """The grid lies 0.2 steps below the best rate; three times that rate is nearest to the run 1.8 steps above it."""
    found, by_name = scores(("wrong", {"rate": 3.0}), ("planted", {}))
    assert [score.name for score in found.scores] == ["planted", "wrong"]
    assert (found.cells, found.all_cells) == (len(SWEPT), len(SWEPT))
    assert by_name["planted"].mean_excess == by_name["planted"].worst_excess == 0
    expected = math.expm1(0.01 * math.log(2) ** 2 * (1.8**2 - 0.2**2))
    assert by_name["wrong"].mean_excess == pytest.approx(expected, abs=3e-5)
    assert by_name["wrong"].outside == 0 and by_name["wrong"].worst_excess > by_name["wrong"].mean_excess


def test_what_lies_outside_of_the_values_run_is_counted_and_named():
    _, by_name = scores(("far", {"rate": 64.0}), ("planted", {}))
    assert by_name["far"].outside == len(SWEPT) and by_name["planted"].outside == 0
    assert {one.outside for one in by_name["far"].outcomes} == {("learning_rate",)}


def test_a_setting_that_is_not_said_is_granted_as_the_best_run_has_it():
    found, by_name = scores(("rate alone", {"batch": None}), ("small batch", {"batch": 0.3}))
    assert {one.granted for one in by_name["rate alone"].outcomes} == {("batch_tokens",)}
    assert by_name["rate alone"].mean_excess == 0 < by_name["small batch"].mean_excess
    assert not found.silent


def test_only_cells_asked_for_are_counted():
    found, by_name = scores(("planted", {}), unseen=LARGEST)
    assert (found.cells, found.all_cells) == (2, 6)
    assert {one.cell["params"] for one in by_name["planted"].outcomes} == {1e9}
    for text, count in (("flops>4.7e20", 1), ("tokens<=2e9", 1), ("params < 3e8", 2)):
        assert len(swept_cells(planted_sweep(), unseen=(Condition.parse(text),))) == count


def test_a_recipe_that_has_seen_the_cells_is_ranked_after_those_that_have_not():
    found, _ = scores(("seen", {"seen": True}), ("unseen", {"rate": 2.0}), ("worse", {"rate": 8.0}))
    assert [(score.name, score.seen) for score in found.scores] == [("unseen", 0), ("worse", 0), ("seen", 6)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"unseen": (Condition.parse("params>1e12"),)}, "none of the 6 cells has params > 1e\\+12. Fix: ask for less"),
        ({"unseen": (Condition.parse("width>3"),)}, "unseen width: is no number of the cells. Fix: name one of params"),
        ({"axes": ("params",)}, "axis params: has one value in each cell"),
        ({"axes": ("beta2",)}, "missing column 'beta2'"),
    ],
)
def test_cells_that_cannot_be_counted_say_why(settings, message):
    with pytest.raises(FitError, match=message):
        swept_cells(planted_sweep(), **settings)


def test_a_recipe_without_a_word_on_the_axes_is_named_and_not_scored():
    table = planted_sweep()
    cells = swept_cells(table)
    silent = Recommended("silent", ({"beta2": 0.95},) * len(cells), (False,) * len(cells), (False,) * len(cells))
    found = recipe_scores(table, [silent, recommended("planted", cells)])
    assert found.silent == ("silent",) and [score.name for score in found.scores] == ["planted"]
    with pytest.raises(FitError, match="no recipe says anything of learning_rate, batch_tokens"):
        recipe_scores(table, [silent])
    for wrong in ("params", "params=3", "params>many"):
        with pytest.raises(FitError, match="must be COLUMN>NUMBER.*in quotes"):
            Condition.parse(wrong)


def test_laws_of_smaller_cells_are_scored_where_they_saw_none(tmp_path, capsys):
    sweep = planted_sweep()
    sweep.to_csv(tmp_path / "sweep.csv", index=False)
    laws, out = tmp_path / "small.json", tmp_path / "scores.json"
    run(bowls, tmp_path / "sweep.csv", "--where", "params=1e8", "params=3e8", "--json", laws)
    run(recipes, tmp_path / "sweep.csv", "--fitted", laws, "--unseen", "params>=1e9", "--json", out)
    shown = capsys.readouterr().out
    assert "Counted are 2 of 6 cells: those with params >= 1e+09." in shown and "no test of it" not in shown
    found = {score["name"]: score for score in json.loads(out.read_text())["scores"]}
    assert set(found) == {"kaplan", "deepseek", "porian", "step_law", "fitted"}
    assert found["fitted"]["mean_excess"] == 0 and (found["fitted"]["seen"], found["fitted"]["beyond"]) == (0, 2)
    assert found["step_law"]["mean_excess"] > 0
    run(recipes, tmp_path / "sweep.csv", "--fitted", laws)
    assert "fitted has seen 4 of these cells: its excess there is no test" in capsys.readouterr().out


def test_what_every_recipe_says_is_printed_with_its_source_and_its_range(tmp_path, capsys):
    run(recipes, "--params", "1e9", "--tokens", "2e10", "--json", tmp_path / "said.json")
    shown = capsys.readouterr().out
    said = {one["recipe"]: one for one in json.loads((tmp_path / "said.json").read_text())}
    assert set(said) == {name for name, rule in RULES.items() if rule.constants == () and not rule.relative}
    for name, one in said.items():
        line = next(line for line in shown.splitlines() if line.startswith(f"{name} "))
        assert f"{one['learning_rate']:.4g}" in line and RULES[name].source in shown
        assert ("head_params 2.5e+07 to 1.1e+08" in line) == (name == "porian")
    assert said["step_law"]["outside"] == []
    assert said["deepseek"]["learning_rate"] == pytest.approx(0.3118 * (6 * 1e9 * 2e10) ** -0.125)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--params = None: is needed without a table. Fix: give --params 7e9"),
        (("--params", "1e9"), "--tokens = None: is needed"),
        (("--params", "1e9", "--tokens", "-1"), "--tokens = -1.0: must be above zero"),
        (("--params", "1e9", "--tokens", "1e9", "--unseen", "params>1"), "--unseen = .*chooses cells of a table"),
        (("sweep.csv", "--tokens", "1e9"), "--tokens = 1000000000.0: is read of each cell"),
        (("sweep.csv", "--cell", "params"), "--cell = .*has no tokens, which recipes are read at"),
        (("sweep.csv", "--fitted", "sweep.csv"), "fitted = 'sweep.csv': holds no fitted laws of a sweep"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_words(arguments, message, tmp_path, monkeypatch):
    planted_sweep().to_csv(tmp_path / "sweep.csv", index=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message):
        run(recipes, *arguments)


def test_the_command_has_the_verb(capsys):
    assert cli.main(["recipes", "--params", "1e8", "--tokens", "2e9"]) == 0
    assert "step_law" in capsys.readouterr().out
    assert cli.main(["recipes"]) == cli.USAGE_ERROR


def test_step_law_is_not_tested_on_its_own_sweep(tmp_path, capsys):
    """The mean is that of tests/test_published_hyperparameters.py; the other recipes cost 7 to 14 times as much."""
    table = published_table("steplaw_dense")
    table.to_csv(tmp_path / "sweep.csv", index=False)
    run(recipes, tmp_path / "sweep.csv", "--json", tmp_path / "scores.json")
    found = pd.DataFrame(json.loads((tmp_path / "scores.json").read_text())["scores"]).set_index("name")
    assert list(found.index) == ["porian", "deepseek", "kaplan", "step_law"]
    assert found.loc["step_law", "mean_excess"] == pytest.approx(0.001045, abs=1e-6)
    assert found["mean_excess"].drop("step_law").min() > 7 * found.loc["step_law", "mean_excess"]
    assert found["seen"].to_dict() == {"porian": 0, "deepseek": 0, "kaplan": 0, "step_law": 17}
    assert "step_law has seen 17 of these cells: its excess there is no test" in capsys.readouterr().out

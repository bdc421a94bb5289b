"""The best of a sweep at an end of what was swept: found by the mean over seeds, and marked wherever it is shown."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import tyro
from planted_tables import planted_sweep
from test_analysis_comparison import BUDGETS, EXPONENTS, _table

from analysis import figures
from analysis.command.bowls import bowls
from analysis.report import best_runs_section, comparison_document, optima_section, recipe_sections, sweep_sections
from analysis.report.files import write_sweep
from analysis.report.markdown import markdown
from analysis.sampling import Sampling
from analysis.studies import Recommended, compare, fit_bowls, optima_table, recipe_scores, sweep_laws, swept_cells
from analysis.studies.edges import best_settings, edges_of

NOTE = "the best lies at an end of the values that were run"


def test_what_diverged_was_tried_too():
    """A best rate beside one at which runs failed is at no end, in each of the three places that ask."""
    table = cut_sweep().assign(status="done", family="a", budget_flops=1e10, flops=1e10)
    largest = table["params"] == 1e9
    further = table[largest].assign(learning_rate=1.0, loss_nats=np.nan, status="failed")
    told = {"learning_rate": 1e-3, "batch_tokens": 2.0**18}
    for rows, edges in ((table, ("learning_rate",)), (pd.concat([table, further], ignore_index=True), ())):
        assert [bowl.at_edge for bowl in fit_bowls(rows)] == [()] * 4 + [edges] * 2
        score = recipe_scores(rows, [Recommended("one", (told,) * 6, (False,) * 6, (False,) * 6)]).scores[0]
        assert [one.at_edge for one in score.outcomes] == [()] * 4 + [edges] * 2
        one_cell = rows[(rows["params"] == 1e9) & (rows["tokens"] == 2e10)]
        one_cell = one_cell[one_cell["batch_tokens"] == one_cell["batch_tokens"].median()]
        (cell,) = compare(one_cell.reset_index(drop=True), sampling=Sampling(10)).families[0].cells
        assert cell.at_edge is bool(edges)


def cut_sweep() -> pd.DataFrame:
    """The planted sweep, in whose largest cells the rates above the best one were not run."""
    table = planted_sweep()
    group = table.groupby(["params", "tokens"])
    best = table["learning_rate"].loc[group["loss_nats"].idxmin()].to_numpy()[group.ngroup().to_numpy()]
    return table[(table["params"] < 1e9) | (table["learning_rate"] <= best)].reset_index(drop=True)


@pytest.mark.parametrize(
    ("losses", "edges"),
    [
        ([[3, 3], [2, 2], [4, 4]], ()),
        ([[1, 4], [2, 2], [4, 4]], ()),  # the luckiest run of all is of a setting that is worse on average
        ([[1, 1], [2, 2], [4, 4]], ("learning_rate",)),
        ([[3, 3], [2, 2], [1, 1]], ("learning_rate",)),
    ],
)
def test_an_end_is_the_best_by_the_mean_over_seeds(losses, edges):
    rows = [(rate, seed, loss) for rate, pair in zip((1e-3, 2e-3, 4e-3), losses) for seed, loss in enumerate(pair)]
    group = pd.DataFrame(rows, columns=["learning_rate", "seed", "loss_nats"]).assign(batch_tokens=512)
    assert edges_of(group, ["learning_rate"]) == edges_of(group, ["batch_tokens", "learning_rate"]) == edges
    assert best_settings(group, ["learning_rate"])[1] == min(map(np.mean, losses))
    assert edges_of(group.query("learning_rate == 2e-3"), ["learning_rate"]) == ()  # nothing was swept


@pytest.fixture(scope="module")
def found():
    return sweep_laws(cut_sweep())


def test_cells_at_an_end_are_starred_in_every_table_of_a_sweep(found):
    assert [bowl.at_edge for bowl in found.bowls] == [()] * 4 + [("learning_rate",)] * 2
    assert list(optima_table(found.bowls)["at_edge"]) == [""] * 4 + ["learning_rate"] * 2
    sections = sweep_sections(found)
    assert sections[:2] == (best_runs_section(found), optima_section(found))
    starred = [section for section in sections if NOTE in markdown(section)]
    assert [section.title for section in starred] == [
        "The best runs of each cell", "The best settings of each cell", "What following the laws costs"
    ]  # fmt: skip
    assert [markdown(section).count(" \\* |") for section in starred] == [2, 2, 2]
    inside = replace(found, bowls=tuple(replace(bowl, at_edge=()) for bowl in found.bowls))
    assert not any(NOTE in markdown(section) or " \\* |" in markdown(section) for section in sweep_sections(inside))


def test_the_command_says_which_cells_lie_at_an_end(tmp_path, capsys):
    cut_sweep().to_csv(tmp_path / "sweep.csv", index=False)
    axes = ["--cell", "params", "tokens", "batch_tokens", "--axes", "learning_rate"]
    tyro.cli(bowls, args=[str(tmp_path / "sweep.csv"), *axes, "--json", str(tmp_path / "b.json")])
    assert NOTE in capsys.readouterr().out
    cells = json.loads((tmp_path / "b.json").read_text())["bowls"]
    at_edge = [cell["cell"]["params"] == 1e9 for cell in cells]
    assert [cell["at_edge"] for cell in cells] == [["learning_rate"] if edge else [] for edge in at_edge]


def test_cells_at_an_end_have_rings_and_hollow_marks(found, tmp_path):
    rates, batches = figures.hyperparameter_bowls(cut_sweep(), found.bowls).axes
    rings = [line for line in rates.lines if line.get_markersize() > 6 and line.get_marker() == "o"]
    at = [line.get_xdata()[0] for line in rings if len(line.get_xdata())]
    assert at == [bowl.best_settings["learning_rate"] for bowl in found.bowls if bowl.at_edge]
    assert not [line for line in batches.lines if line.get_markersize() > 6 and line.get_marker() == "o"]
    hollow = [
        [
            line.get_markerfacecolor() == "white"
            for line in panel.lines
            if line.get_marker() == "o" and len(line.get_xdata())
        ]
        for panel in figures.optima_against_laws(found).axes
    ]
    shown = [bowl for bowl in found.bowls if not bowl.reason]
    assert hollow == [[bool(bowl.at_edge) for bowl in shown], [False] * len(shown)]
    paths = write_sweep(tmp_path, "mine", "Which?", found, cut_sweep())
    report = paths[-1].read_text()
    assert "# mine" in report and "a ring stands where the best lies at an end" in report
    assert {"sweep.json", "bowls.png", "bowls.pdf"} <= {path.name for path in paths}


def test_recipes_are_starred_where_the_cells_best_may_lie_further():
    table = cut_sweep()
    cells = swept_cells(table)
    told = {"learning_rate": 1e-3, "batch_tokens": 2.0**18}
    found = recipe_scores(table, [Recommended("one", (told,) * 6, (False,) * 6, (False,) * 6)])
    assert len(cells) == 6
    assert [one.at_edge for one in found.scores[0].outcomes] == [()] * 4 + [("learning_rate",)] * 2
    *_, by_cell = recipe_sections(found)
    assert markdown(by_cell).count(" \\* |") == 2 and NOTE in markdown(by_cell)


def test_families_at_an_end_are_starred_wherever_their_best_is_shown():
    """Family b is best at the largest rate of every budget; a's best is inside."""
    comparison = compare(_table().assign(exact_match_copy_5=0.9), law="kaplan_compute", sampling=Sampling(50))
    text = markdown(comparison_document("grid", "?", comparison))
    assert text.count("| b \\* |") == 2 and text.count("| a \\* |") == 0  # its law, and its measure by length
    cells = len(BUDGETS) * len(EXPONENTS)
    assert f"In {len(BUDGETS)} of its {cells} cells the best rate lies at an end of the sweep." in text
    assert text.count(NOTE) == 3  # and of its cells
    (panel,) = figures.measure_by_length(comparison).axes
    assert [line.get_label() for line in panel.lines] == ["a", "b *"]
    inside = replace(comparison, families=comparison.families[:1])
    assert NOTE not in markdown(comparison_document("grid", "?", inside))

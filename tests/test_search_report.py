"""What follows from a search's runs: its columns in the runs table, its cells, the planted best, and the report."""

import io
import math
from dataclasses import replace

import pytest
from fake_trainers import BEST_RATE, planted_loss
from rich.console import Console
from test_rounds import FAR, SEARCH, write
from test_search import BASE

from research.command import conclusion
from research.plan import Axis
from research.runs import PlanFolder, collect, setting_column

BETA = 0.9  # the planted best of beta2
AXES = (
    Axis("optimizer.learning_rate", 2.5e-3, 4e-2, in_grid=5),
    Axis("optimizer.beta2", 0.7, 0.99, "linear", in_grid=4),
    Axis("training.batch_size", 5, 7, "integer"),
    Axis("model.tied_embeddings", scale="choices", choices=("true", "false")),
)


def loss(run):
    rate = math.log(run.optimizer.learning_rate / BEST_RATE)
    beta, batch = math.log(run.optimizer.beta2 / BETA), math.log(run.training.batch_size / 6)
    bowl = 0.02 * rate**2 + 0.5 * beta**2 + 0.1 * batch**2
    return planted_loss(replace(run, training=BASE.training)) * math.exp(bowl) + 0.01 * run.model.tied_embeddings


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    """A search in a grid whose runs are all done, at two sizes."""
    search = replace(SEARCH, axes=AXES, sizes=((8, 1), (16, 2)))
    folder = PlanFolder(search, tmp_path_factory.mktemp("runs"))
    for config in folder.configs:
        write(folder.runs_dir, config, loss(config))
    return folder


def test_each_field_has_a_column_whatever_else_the_table_has(plan):
    table = collect(plan.configs, plan.runs_dir, plan.experiment.searched)
    assert [setting_column(axis.field) for axis in AXES] == [
        "learning_rate", "beta2", "batch_tokens", "tied_embeddings"
    ]  # fmt: skip
    for row, config in zip(table.itertuples(), plan.configs, strict=True):
        assert row.beta2 == config.optimizer.beta2 and row.tied_embeddings == config.model.tied_embeddings
        assert (row.learning_rate, row.batch_tokens) == (config.optimizer.learning_rate, config.training.batch_tokens)
    assert "beta2" not in collect(plan.configs[:1], plan.runs_dir).columns


def test_the_planted_best_is_found_in_each_cell_and_names_make_cells(plan, tmp_path):
    """Tokens differ by whole steps of 5, 6 and 7 sequences, and a cell is one all the same."""
    fitted = conclusion.fit(plan)
    assert fitted.table["tokens"].nunique() == 3 and fitted.study is None
    found = fitted.sweep
    assert found.axes == ("learning_rate", "beta2", "batch_tokens")
    assert found.cell == ("params", "tokens", "tied_embeddings")
    assert len(found.bowls) == 4 and {bowl.runs for bowl in found.bowls} == {60}
    for bowl in found.bowls:
        assert bowl.best_settings == {"learning_rate": 0.01, "beta2": 0.893, "batch_tokens": 6 * 32}
        assert not bowl.at_edge and not bowl.reason
        expected = {"learning_rate": BEST_RATE, "beta2": BETA, "batch_tokens": 6 * 32}
        assert bowl.optimum == pytest.approx(expected, rel=1e-3)
    console = Console(file=io.StringIO(), width=200)
    conclusion.write_report(plan, fitted, console, tmp_path)
    assert "The best runs of each cell" in console.file.getvalue() and "No law" not in console.file.getvalue()
    report = (tmp_path / "report.md").read_text()
    assert "## The best runs of each cell" in report and "The law of beta2" in report and "figures/bowls.png" in report


def test_a_best_at_an_end_is_starred_in_the_report(tmp_path):
    plan = PlanFolder(replace(SEARCH, axes=(FAR,)), tmp_path)
    for config in plan.configs:
        write(tmp_path, config, 1 / config.optimizer.learning_rate)
    conclusion.write_report(plan, conclusion.fit(plan), Console(file=io.StringIO()), tmp_path / "report")
    report = (tmp_path / "report" / "report.md").read_text()
    assert "| 0.0012 \\* |" in report and "the best lies at an end of the values that were run" in report


def test_a_search_of_names_alone_says_what_to_do_instead(tmp_path):
    axes = (Axis("optimizer.schedule", scale="choices", choices=("cosine", "wsd")),)
    plan = PlanFolder(replace(SEARCH, axes=axes), tmp_path)
    for config in plan.configs:
        write(tmp_path, config, 3.0)
    assert conclusion.fit(plan).why_not.startswith("schedule: have no bowl, being names. Fix: compare them as families")

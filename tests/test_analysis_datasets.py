import os

import numpy as np
import pandas as pd
import pytest
from published_tables import published_table

from analysis.datasets import SETTING, SOURCES, DatasetError, load, source
from analysis.runs_table import COLUMNS, REQUIRED

# name: rows, runs a fit may use, columns of its own, then a check that a unit or a sign was not lost on the way.
SHAPES = {
    "chinchilla_epoch": (
        245,
        240,
        (),
        lambda t: t.loc[t["held_out"], "loss_nats"].min() > t.loc[~t["held_out"], "loss_nats"].max(),
    ),
    "datablations": (182, 182, ("unique_tokens",), lambda t: (t["tokens"] / t["unique_tokens"]).max() == 9000),
    "porian_refinedweb": (1166, 1166, ("configuration",), lambda t: t["configuration"].nunique() == 10),
    "steplaw_dense": (1911, 1911, ("learning_rate",), lambda t: len(t.groupby(["params", "tokens"])) == 17),
    "routed_moe": (223, 223, ("experts",), lambda t: set(t["family"]) == {"Dense", "Hash", "S-Base", "RL-R"}),
    "overtraining_gadre": (104, 104, ("accuracy_copa",), lambda t: t["tokens"].div(t["params"]).round().max() == 640),
    "olmo_ladder": (1566, 1566, ("last",), lambda t: t["last"].sum() == 16),
    "marin_isoflops": (258, 258, (), lambda t: set(t["family"]) == {"comma", "dclm", "nemotron"}),
    "misfitting": (261, 261, ("model",), lambda t: (t["embedding_params"] < t["params"]).all()),
    "obs_scaling": (148, 148, ("accuracy_mmlu",), lambda t: t["flops"].max() > 1e25),
    "beyond_chinchilla": (47, 47, ("accuracy_core_average",), lambda t: t["tokens"].div(t["params"]).max() == 1e4),
    "supercollapse": (37410, 37410, ("curve",), lambda t: t["curve"].nunique() == 96),
}


@pytest.mark.parametrize("name", SOURCES)
def test_every_published_table_is_a_runs_table(name):
    table = published_table(name)
    rows, usable, own, check = SHAPES[name]
    assert len(table) == rows and (~table["held_out"]).sum() == usable
    assert set(REQUIRED) <= set(table.columns) and set(own) <= set(table.columns)
    assert check(table)


def test_every_source_says_where_it_comes_from():
    for found in SOURCES.values():
        assert found.url.startswith("https://github.com/") and len(found.commit) == 40
        assert found.files and found.paper and found.licence


def test_without_the_setting_the_error_says_what_to_get_from_where(monkeypatch):
    monkeypatch.delenv(SETTING, raising=False)
    with pytest.raises(DatasetError, match=f"{SETTING}: not set.*huggingface/datablations.*Apache-2.0.*Cite"):
        load("datablations")


def test_a_missing_file_is_named_with_its_origin(tmp_path):
    with pytest.raises(DatasetError, match=r"no file .*models.csv.*mlfoundations/scaling.*hyperparameters hp_"):
        load("overtraining_gadre", tmp_path)


def test_a_missing_column_is_named(tmp_path):
    (tmp_path / "datablations").mkdir()
    pd.DataFrame({"params": [1.0]}).to_csv(tmp_path / "datablations" / "runs.csv", index=False)
    with pytest.raises(DatasetError, match="column 'tokens' is missing"):
        load("datablations", tmp_path)


def test_an_unknown_name_brings_up_the_nearest():
    with pytest.raises(DatasetError, match="no such data set.*chinchilla_epoch"):
        source("chinchila")


def test_the_argument_wins_over_the_setting(tmp_path, monkeypatch):
    monkeypatch.setenv(SETTING, os.fspath(tmp_path / "elsewhere"))
    (tmp_path / "datablations").mkdir()
    row = {"name": ["a"], "params": [1e6], "tokens": [2e6], "unique_tokens": [1e6], "val_loss": [3.0]}
    pd.DataFrame(row).to_csv(tmp_path / "datablations" / "runs.csv", index=False)
    table = load("datablations", tmp_path)
    assert table["flops"].item() == 12e12 and table["status"].item() == "done"
    assert np.isnan(table["budget_flops"].item()) and "loss_nats" in {column.name for column in COLUMNS}

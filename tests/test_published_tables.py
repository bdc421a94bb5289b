"""Published tables, as their authors wrote them, through the public commands alone: no reader of ours stands between.

Each gives what the package's own reader of it gives, and approach 2 what its authors published.
"""

import csv
import json
import os
from pathlib import Path

import pytest
import tyro
from published_tables import published_table

from analysis.command.bowls import bowls
from analysis.command.fit import fit
from analysis.datasets import SETTING
from analysis.fit import fit as fit_law
from analysis.laws import find
from analysis.studies import fit_bowls

SETTINGS_OF_PORIAN = ("dataset", "hparams", "warmup", "decay", "param_count", "val")


def authors_file(source, name):
    published_table(source)  # skips where there is none
    return Path(os.environ[SETTING]) / source / name


def by_command(verb, out, path, *options):
    tyro.cli(verb, args=[str(path), *options, "--json", str(out)])
    return json.loads(out.read_text())


@pytest.mark.parametrize(
    ("source", "name", "options", "rows"),
    [
        (
            "chinchilla_epoch",
            "svg_extracted_data.csv",
            ("--column", "params=Model Size", "flops=Training FLOP", "loss_nats=loss"),
            lambda table: table.assign(held_out=False),  # our reader leaves five out, as the paper does
        ),
        (
            "overtraining_gadre",
            "models.csv",
            (
                *("--where", "dataset=rpj", "--column", "run=name", "params=hp_params", "tokens=hp_tokens"),
                "loss_nats=loss_c4_val_shard-{0000000..0000010}",
            ),
            lambda table: table[table["family"] == "rpj"],
        ),
        (
            "marin_isoflops",
            "isoflops.csv",
            ("--where", "dataset=comma", "--column", "budget_flops=budget", "loss_nats=loss"),
            lambda table: table[table["family"] == "comma"],
        ),
        (
            "misfitting",
            "scaling_results_last_ckpt_only.csv",
            ("--column", "params=N", "tokens=D", "flops=C", "loss_nats=C4 Eval Loss"),
            lambda table: table,
        ),
        (
            "beyond_chinchilla",
            "trainingresults.csv",
            ("--column", "params=Parameters", "tokens=Tokens", "loss_nats=Smoothed Loss"),
            lambda table: table,
        ),
    ],
)
def test_the_command_reads_what_the_authors_wrote(tmp_path, source, name, options, rows):
    path = authors_file(source, name)
    found = by_command(fit, tmp_path / "law.json", path, *options, "--bootstraps", "20")
    expected = fit_law(find("chinchilla"), rows(published_table(source)))
    assert found["law"]["fit"]["values"] == pytest.approx(expected.values, rel=1e-6)
    assert len(found["law"]["fit"]["used"]) == len(expected.used)


def test_the_five_runs_that_besiroglu_leaves_out_are_named_outliers(tmp_path):
    path = authors_file("chinchilla_epoch", "svg_extracted_data.csv")
    columns = ("--column", "params=Model Size", "flops=Training FLOP", "loss_nats=loss")
    found = by_command(fit, tmp_path / "law.json", path, *columns, "--bootstraps", "20")
    assert found["table_notes"] == ["tokens are not in the table: they are taken as flops / (6 * params)"]
    assert {f"row {i}" for i in range(5)} <= {run["run"] for run in found["checks"]["outliers"]}


@pytest.mark.slow
def test_all_ten_exponents_of_porian(tmp_path):
    """With the noise that they state, the default is their reading and lies inside their intervals."""
    path = authors_file("porian_refinedweb", "isoflop_points.csv")
    with (path.parent / "published_exponents.csv").open() as file:
        settings = list(csv.DictReader(file))
    assert len(settings) == 10
    for setting in settings:
        chosen = [f"{name}={setting[name]}" for name in SETTINGS_OF_PORIAN]
        columns = ("--column", "params=n", "budget_flops=flops", "loss_nats=loss")
        options = ("--noise-nats", "0.002", "--bootstraps", "20")
        found = by_command(fit, tmp_path / "law.json", path, "--where", *chosen, *columns, *options)
        exponent = found["isoflop"]["params"]["exponent"]["value"]
        assert float(setting["ci_lo"]) <= exponent <= float(setting["ci_hi"])


def test_the_bowls_of_step_law(tmp_path):
    path = authors_file("steplaw_dense", "dense_lr_bs_loss.csv")
    columns = ("params=N", "tokens=D", "learning_rate=lr", "batch_tokens=bs", "loss_nats=smooth loss")
    found = by_command(bowls, tmp_path / "bowls.json", path, "--column", *columns, "--unit", "batch_tokens=2048")
    expected = fit_bowls(published_table("steplaw_dense"))
    for bowl, ours in zip(found["bowls"], expected, strict=True):
        assert bowl["optimum"] == pytest.approx(ours.optimum, rel=1e-6)

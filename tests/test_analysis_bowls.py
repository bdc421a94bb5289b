"""`isoflop bowls`: sweep -> best settings -> laws -> excess loss in cells that the laws have not seen."""

import json

import pandas as pd
import pytest
import tyro
from planted_tables import SWEPT, best_batch, best_rate, planted_sweep

from analysis.command.bowls import bowls
from analysis.command.fit import fit
from analysis.fit import FitError
from analysis.laws import find
from analysis.runs_table import TableError
from analysis.studies import excess_loss, sweep_laws

FEW = ("--bootstraps", "30")


def run(verb, *arguments):
    tyro.cli(verb, args=[str(argument) for argument in arguments])


def test_a_sweep_becomes_laws_and_a_table_that_fit_reads(tmp_path, capsys):
    planted_sweep().rename(columns={"learning_rate": "lr"}).to_csv(tmp_path / "sweep.csv", index=False)
    files = ("--out", tmp_path / "new" / "best.csv", "--json", tmp_path / "b.json", "--figures", tmp_path / "figures")
    target = ("--at", "params=7e10", "tokens=1.4e12")
    run(bowls, tmp_path / "sweep.csv", "--column", "learning_rate=lr", *files, *target)
    shown = " ".join(capsys.readouterr().out.split())
    assert "Excess loss over 6 cells, relative" in shown and "isoflop fit calls it batch_tokens_params_tokens" in shown
    assert "extrapolates 70 times beyond the fitted params, more than 10" in shown
    for figure in ("bowls", "optima"):
        assert (tmp_path / "figures" / f"{figure}.pdf").read_bytes().startswith(b"%PDF")
    found = json.loads((tmp_path / "b.json").read_text())
    for axis, true in (("learning_rate", best_rate(7e10, 1.4e12)), ("batch_tokens", best_batch(1.4e12))):
        assert found["advice"]["values"][axis]["value"] == pytest.approx(true, rel=0.02)
    best = pd.read_csv(tmp_path / "new" / "best.csv")
    assert len(best) == len(SWEPT) and list(best["status"].unique()) == ["done"]
    law = ("--law", "learning_rate_params_tokens", "--objective", "least_squares")
    run(fit, tmp_path / "new" / "best.csv", *law, *FEW, "--json", tmp_path / "law.json")
    again = json.loads((tmp_path / "law.json").read_text())["law"]["fit"]["values"]
    joint = found["joint"]["laws"]["learning_rate"]["intervals"]
    for name in ("params_exponent", "tokens_exponent"):
        assert again[name] == pytest.approx(joint[name]["value"], abs=2e-3)


def test_a_cell_is_followed_by_laws_that_have_not_seen_it():
    """Each cell's recommendation is what the laws of a table without the cell say of it, and its cost a run's."""
    table = planted_sweep()
    whole = sweep_laws(table)
    assert len(whole.followed) == len(SWEPT)
    for i in (0, 4):
        (params, ratio), one = SWEPT[i], whole.followed[i]
        at = {"params": params, "tokens": ratio * params}
        rest = sweep_laws(table[~(table["params"].eq(params) & table["tokens"].eq(at["tokens"]))], at=at)
        for axis in whole.axes:
            assert one.recommended[axis] == pytest.approx(rest.advice.values[axis].value, rel=1e-9)
        cell = excess_loss(table, {axis: lambda _, v=value: v for axis, value in one.recommended.items()}).iloc[i]
        assert one.excess == cell["excess"] and one.reach == rest.advice.reach
    assert whole.followed[0].reach.factor == pytest.approx(3.0) and whole.followed[0].reach.quantity == "tokens"


def test_cells_without_an_optimum_axes_without_a_law_and_rows_left_out_are_named(tmp_path, capsys):
    table = planted_sweep().assign(group=lambda t: t["params"].map({1e8: "a", 3e8: "b", 1e9: "c"}))
    edge = table["params"].eq(1e8) & (table["learning_rate"] > 0.4 * best_rate(1e8, table["tokens"]))
    table = table[~(edge & table["tokens"].eq(2e9))]
    table = table.astype({"loss_nats": object})
    table.loc[table.index[-1], "loss_nats"] = "diverged"
    table.assign(momentum=table["learning_rate"] / 2).to_csv(tmp_path / "sweep.csv", index=False)
    cell = ("--cell", "group", "tokens")
    run(bowls, tmp_path / "sweep.csv", *cell, "--figures", tmp_path, "--json", tmp_path / "b.json")
    shown = capsys.readouterr().out
    assert shown.startswith("Of the table, first\n- loss_nats = 'diverged' in row ")
    found = json.loads((tmp_path / "b.json").read_text())
    assert len(found["left_out"]) == 1
    assert [note.split(" ")[0] for note in found["table_notes"]] == [
        "loss_nats",
        "params",
    ]  # sizes are no part of --cell
    assert "too few runs near the lowest loss" in shown and "isoflop fit calls it learning_rate_tokens" in shown
    assert "loss_nats = 'diverged' is not a number" in shown and "over 6 cells" in shown
    run(bowls, tmp_path / "sweep.csv", *cell, "--axes", "momentum", "batch_tokens")
    shown = capsys.readouterr().out
    assert "There is none: no law has it as a power of tokens. Fix: name one with --law" in shown
    assert "Not known: there is no law of momentum" in shown
    run(bowls, tmp_path / "sweep.csv", "--axes", "batch_tokens", "--law", "batch_tokens_flops")
    assert "isoflop fit calls it batch_tokens_flops" in capsys.readouterr().out


def test_what_a_sweep_varied_beside_its_axes_is_said():
    """Batches within cells, and sizes between them, that no law reads: both move the exponent that is fitted."""
    table = planted_sweep().assign(group=lambda t: t["params"].map({1e8: "a", 3e8: "b", 1e9: "c"}))
    found = sweep_laws(table, cell=("group", "tokens"), axes=("learning_rate",))
    batch, params = found.table_notes
    assert batch.startswith("batch_tokens takes up to 5 values within a cell, in 6 of 6")
    assert params.startswith("params differs between cells, and no law here reads it")
    assert not sweep_laws(table).table_notes
    in_sequences = table.assign(batch_tokens=table["batch_tokens"] / 2**15)
    (sequences,) = sweep_laws(in_sequences).table_notes
    assert sequences.startswith("batch_tokens is below 1000 in 150 of 150 rows") and "--unit batch_tokens=" in sequences


def test_a_recommendation_outside_what_was_run_is_flagged(tmp_path, capsys):
    table = planted_sweep()
    low = table["params"].eq(1e9) & (table["learning_rate"] > 1.01 * best_rate(1e9, table["tokens"]) / 2)
    table[~low].to_csv(tmp_path / "sweep.csv", index=False)
    run(bowls, tmp_path / "sweep.csv", "--law", "learning_rate_params_tokens", "batch_tokens_tokens")
    shown = capsys.readouterr().out.split("What following the laws costs")[1]
    assert " ".join(shown.split()).count("outside") == 1  # the heading
    assert sum(line.rstrip().endswith(" learning_rate") for line in shown.splitlines()) == 2


def test_what_cannot_be_followed_is_refused():
    table = planted_sweep()
    for change, settings, message in (
        (lambda t: t.assign(batch_tokens=8), {}, "axis batch_tokens: has one value in each cell. Fix: leave it out"),
        (lambda t: t, {"laws": [find("chinchilla")]}, "law 'chinchilla': gives loss_nats, which is none of the axes"),
        (lambda t: t, {"laws": [find("batch_tokens_params")] * 2}, "is the second of batch_tokens. Fix: keep one"),
        (lambda t: t, {"at": {"params": 1e9}}, "at tokens = None: the laws need a positive one"),
        (
            lambda t: t,
            {"at": {"params": 7, "tokens": 140e9}},
            r"params = 7: below 1000, .* write it out, as params=7e9",
        ),
        (
            lambda t: t,
            {"at": {"flops": 5.0}, "axes": ["batch_tokens"], "laws": [find("batch_tokens_flops")]},
            r"flops = 5: below 1000, .* write it out, as flops=1e21",
        ),
        (lambda t: t.drop(columns="params"), {}, "missing column 'params'"),
        (lambda t: t.assign(params=t["params"] / 1e9), {}, "params = 0.1 of run .* --unit params=1e9"),
    ):
        with pytest.raises((FitError, TableError), match=message):
            sweep_laws(change(table), **settings)
    one = sweep_laws(table[table["params"].eq(1e8)])
    assert one.joint is None and "points = 2" in one.law_notes["learning_rate"] and not one.followed

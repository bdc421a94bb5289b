"""What a table means: units, rates, rows off by a thousand, scores; the rows and units a user states."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import tyro
from planted_tables import TRUTH, planted_loss, planted_table
from published_tables import published_table

from analysis.command.backtest import backtest
from analysis.command.fit import fit
from analysis.command.predict import predict
from analysis.command.request import Reading
from analysis.command.score import score
from analysis.fit import FitError, select
from analysis.laws import CHINCHILLA, LAWS
from analysis.report import study_report
from analysis.report.markdown import markdown
from analysis.runs_table import TableError, complete
from analysis.sampling import Sampling
from analysis.studies import Study, fit_table, prediction
from analysis.studies import backtest as backtest_of
from analysis.tables.choice import chosen_rows, in_units
from analysis.tables.units import FROM_MEDIAN, HIGHEST, LOWEST, check_units, unit_notes

FEW = ("--bootstraps", 20)


def table():
    """24 runs of four budgets, no noise: what is said of it comes from its units alone."""
    flops = np.repeat([1e16, 1e17, 1e18, 1e19], 6)
    params = np.sqrt(flops / 120) * np.tile(np.geomspace(0.3, 3, 6), 4)
    tokens = flops / 6 / params
    return pd.DataFrame(
        {
            "params": params,
            "tokens": tokens,
            "flops": flops,
            "budget_flops": flops,
            "loss_nats": planted_loss(params, tokens),
        }
    )


def checked(frame, law=CHINCHILLA):
    rows = complete(frame)
    check_units(law, rows)
    return unit_notes(law, rows)


def test_runs_of_one_ratio_of_tokens_to_params_are_said_to_be():
    """Both terms of the law are then one power of size; one decade of ratios is enough for them to be two."""
    params = np.geomspace(1e8, 1e10, 7)
    shares = np.array([0.99, 1.0, 1.01, 1.0, 0.99, 1.01, 1.0])
    runs = pd.DataFrame({"params": params, "tokens": 20 * params * shares, "loss_nats": 20 * params**-0.1})
    (note,) = checked(runs)
    assert note.startswith("tokens are 19.8 to 20.2 times params in every run") and "--law kaplan_params" in note
    assert checked(runs.assign(tokens=20 * params))[0].startswith("tokens are 20 times params in every run")
    assert checked(runs.assign(tokens=params * np.geomspace(6, 60, 7)[[3, 0, 6, 1, 5, 2, 4]])) == ()
    assert checked(table()) == ()


def run(verb, *arguments):
    tyro.cli(verb, args=[str(argument) for argument in arguments])


def one_row(frame, name, factor):
    return frame.assign(**{name: frame[name] * np.where(np.arange(len(frame)) == 7, factor, 1.0)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t.assign(params=t["params"] / 1e9, tokens=t["tokens"] / 1e9, flops=np.nan),
            r"params = .* of run 'row 0', .*\(24 of 24 runs\); tokens = .*: below 1000.*--unit params=1e9 tokens=1e9\.",
        ),
        (
            lambda t: t.assign(params=t["params"] / 1e9),
            r"params = .*\(24 of 24 runs\): below 1000.*--unit params=1e9\.",
        ),
        (lambda t: one_row(t, "params", 1e-9), r"params = .* of run 'row 7' \(1 of 24 runs\): below.*mend these rows"),
        (
            lambda t: t.assign(flops=t["flops"] / 1e18, budget_flops=t["flops"] / 1e18),
            r"flops = 0.01 .*\(24 of 24 runs\): 1e-18 times 6.*--unit flops=1e18 budget_flops=1e18\.",
        ),
        (lambda t: t.assign(params=t["params"] / 1e3), r"flops = .*1e\+03 times 6 .*--unit params=1e3\."),
        (lambda t: t.assign(flops=3.1e14), r"flops = 3.1e\+14 in every row, while 6 .*: a rate .*--ignore flops"),
        (
            lambda t: one_row(t, "flops", 1e3),
            r"flops = 1e\+20 of run 'row 7' \(1 of 24 runs\): 1e\+03 times what the other",
        ),
        (
            lambda t: one_row(t, "tokens", 1e3),
            r"flops = 1e\+17 of run 'row 7' \(1 of 24 runs\): 0.001 times what the other",
        ),
        (
            lambda t: t.assign(budget_flops=t["budget_flops"] / 1e18),
            r"budget_flops = 0.01 of .*\(24 of 24 runs\): 1e-18 times the run's flops.*--unit budget_flops=1e18\.",
        ),
    ],
)
def test_numbers_that_no_run_can_have_are_named_and_nothing_is_fitted(change, message):
    for attempt in (checked, lambda t: fit_table(t, sampling=Sampling(20)), lambda t: backtest_of(CHINCHILLA, t)):
        with pytest.raises(TableError, match=message):
            attempt(change(table()))


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (lambda t: t["loss_nats"], None),
        (lambda t: t["loss_nats"] / (np.log(2) * 4.3), "below 1.2 in .* of 24 runs, down to .*bits per byte"),
        (lambda t: np.exp(2 * t["loss_nats"]), "above 12.5 in .* of 24 runs, up to .*perplexity"),
        (lambda t: 10 - 2 * t["loss_nats"], "grows with params and tokens: is it a score"),
    ],
)
def test_an_unlikely_loss_is_said_and_fitted(loss, said):
    notes = checked(table().assign(loss_nats=loss))
    assert len(notes) == (said is not None)
    assert said is None or re.search(said, notes[0])


def test_what_counts_rows_says_rows_where_a_run_has_several():
    frame = table().assign(loss_nats=np.exp(2 * table()["loss_nats"]), budget_flops=2 * table()["flops"])
    for names, word in ((np.arange(24), "runs"), (np.arange(24) // 2, "rows")):
        named = frame.assign(run=[f"r{name}" for name in names])
        doubled, perplexity = checked(named)
        assert f"(in the median of 24 {word})" in doubled and f"of 24 {word}, up to" in perplexity
        with pytest.raises(TableError, match=rf"of run .* \(24 of 24 {word}\)"):
            checked(named.assign(params=named["params"] / 1e9))


def test_budgets_that_are_not_what_their_runs_cost_are_said():
    """Approach 2 and approach 3 cannot agree on such a table, whichever of the two columns is right."""
    for factor, said in ((2.0, "2 times"), (0.5, "0.5 times"), (1.2, None), (1.0, None)):
        notes = checked(table().assign(budget_flops=factor * table()["flops"]))
        assert len(notes) == (said is not None)
        assert said is None or f"budget_flops are {said} the runs' flops (in the median of 24 runs)" in notes[0]


def test_what_attention_embeddings_and_experts_explain_is_no_fault():
    """The bounds are those of the module's evidence: what its counts say passes, a factor of 1,000 more does not."""
    plain = table()
    for explained in (0.05, 1 / 3, 0.74, 5.0, 22.0):
        told = plain.assign(flops=plain["flops"] * explained, budget_flops=np.nan)
        assert checked(told) == ()
        for wrong in (1e3, 1e-3):
            if not LOWEST <= explained * wrong <= HIGHEST:
                with pytest.raises(TableError, match="6 . params . tokens"):
                    checked(told.assign(flops=told["flops"] * wrong))
    wide = plain.assign(flops=plain["flops"] * np.geomspace(0.2, 5, 24))
    assert checked(wide.assign(budget_flops=np.nan)) == () and FROM_MEDIAN > 19
    # 512 experts, of which a token passes 2: a share that the table states is none of the margin.
    routed = plain.assign(active_params=plain["params"] / 256, flops=plain["flops"] / 256, budget_flops=np.nan)
    assert checked(routed) == ()
    with pytest.raises(TableError, match="0.00391 times 6"):
        checked(routed.drop(columns="active_params"))
    assert checked(routed.drop(columns=["active_params", "flops"])) == ()
    long = plain.assign(depth=2.0, width=64.0, sequence_length=2.0**20, budget_flops=np.nan)
    scores = 12 * long["depth"] * long["width"] * long["sequence_length"]
    assert checked(long.assign(flops=(6 * long["params"] + scores) * long["tokens"])) == ()


@pytest.mark.parametrize(
    "name",
    ["beyond_chinchilla", "chinchilla_epoch", "datablations", "marin_isoflops", "misfitting", "olmo_ladder",
     "overtraining_gadre", "porian_refinedweb", "routed_moe", "steplaw_dense", "supercollapse"],
)  # fmt: skip
def test_no_published_table_raises_an_alarm(name):
    published = complete(published_table(name))
    for law in ("chinchilla", "kaplan_params", "kaplan_tokens", "kaplan_compute"):
        points, _ = select(LAWS[law], published)
        rows = published.iloc[points.rows]
        check_units(LAWS[law], rows)
        assert unit_notes(LAWS[law], rows) == ()


def test_rows_are_chosen_by_value():
    frame = pd.DataFrame({"family": ["A", "B", None, "A "], "size": [1e9, 2, "1000000000", 3]})
    assert list(chosen_rows(frame, {"family": ["A"]}).index) == [0, 3]
    assert list(chosen_rows(frame, {"family": ["A", "B"]}).index) == [0, 1, 3]
    assert list(chosen_rows(frame, {"size": ["1e9"]}).index) == [0, 2]
    assert list(chosen_rows(frame, {"size": ["1e9", "3"], "family": ["A"]}).index) == [0, 3]
    with pytest.raises(TableError, match="--where family=C or D: no row has it; there are A, B, A "):
        chosen_rows(frame, {"family": ["C", "D"]})
    with pytest.raises(TableError, match="--where kind: no such column; present: family, size"):
        chosen_rows(frame, {"kind": ["A"]})


def test_a_name_that_rows_are_given_is_no_column_of_the_file(tmp_path):
    """Rows without names can be chosen by their number, but the file has no column `run` to be named instead."""
    path = tmp_path / "runs.csv"
    planted_table()[["params", "tokens", "loss_nats"]].to_csv(path, index=False)
    needed = ("params", "tokens", "loss_nats")
    with pytest.raises(TableError, match="--where sed: no such column; present: params, tokens, loss_nats. Fix"):
        Reading(where=(("sed=0",),)).read(path, needed)
    assert list(Reading(where=(("run=row 3",),)).read(path, needed)["run"]) == ["row 3"]


def test_a_unit_multiplies_numbers_and_leaves_words():
    frame = pd.DataFrame({"N": [1, 2], "D": ["3.5", "-"]})
    changed = in_units(frame, {"N": 1e9, "D": 1e6})
    assert list(changed["N"]) == [1e9, 2e9] and list(changed["D"]) == [3.5e6, "-"]
    for unit in (0.0, -1.0, np.inf):
        with pytest.raises(TableError, match="--unit N = .*: must be positive and finite"):
            in_units(frame, {"N": unit})
    with pytest.raises(TableError, match="--unit M: no such column"):
        in_units(frame, {"M": 1e9})


def test_every_verb_is_told_units_and_rows(tmp_path, capsys):
    """A file in billions and exaFLOP with a second family in it, read by all four verbs, is the plain table."""
    odd = pd.concat([table().assign(arch="mine"), table().assign(arch="theirs", loss_nats=9.0)], ignore_index=True)
    odd = odd.assign(N=odd["params"] / 1e9, tokens=odd["tokens"] / 1e9, flops=odd["flops"] / 1e18).drop(
        columns="params"
    )
    odd.drop(columns="budget_flops").to_csv(tmp_path / "odd.csv", index=False)
    told = ("--column", "params=N", "family=arch", "--unit", "params=1e9", "tokens=1e9", "flops=1e18")
    source = (tmp_path / "odd.csv", *told)
    with pytest.raises(FitError, match="family = 'mine', 'theirs': .* as --where family=mine"):
        run(fit, *source, *FEW)
    source = (*source, "--where", "family=mine")
    run(fit, *source, *FEW, "--json", tmp_path / "law.json")
    study = Study.from_dict(json.loads((tmp_path / "law.json").read_text()))
    plain = fit_table(table().drop(columns="budget_flops"), sampling=Sampling(20))
    np.testing.assert_allclose(study.law.fit.array(), plain.law.fit.array(), rtol=1e-6)
    assert study.flop_rule.coefficient == pytest.approx(6, rel=1e-6) and study.table_notes == ()
    run(predict, *source, *FEW, "--at", "params=1e9", "tokens=2e10", "--out", tmp_path / "p.json")
    assert prediction.read(tmp_path / "p.json").value == pytest.approx(planted_loss(1e9, 2e10), rel=1e-6)
    run(backtest, *source, *FEW, "--cuts", 5e18)
    made = pd.DataFrame(
        {"N": [1.0, 1.0], "tokens": [20.0, 20.0], "loss": [planted_loss(1e9, 2e10), 9.0], "arch": ["mine", "no"]}
    )
    made.to_csv(tmp_path / "made.csv", index=False)
    told = ("--column", "params=N", "loss_nats=loss", "--unit", "params=1e9", "tokens=1e9", "--where", "arch=mine")
    capsys.readouterr()
    run(score, tmp_path / "p.json", "--table", tmp_path / "made.csv", *told)
    assert "error +0.00%" in capsys.readouterr().out.replace("-0.00%", "+0.00%")


def test_flops_that_are_none_are_priced_or_believed_as_told(tmp_path, capsys):
    rate = table().assign(flops=3.1e14).drop(columns="budget_flops")
    rate.to_csv(tmp_path / "rate.csv", index=False)
    with pytest.raises(TableError, match="flops = 3.1e.14 in every row"):
        run(fit, tmp_path / "rate.csv", *FEW)
    for told in (("--flops", "6nd"), ("--ignore", "flops")):
        run(fit, tmp_path / "rate.csv", *FEW, *told, "--json", tmp_path / "law.json")
        study = Study.from_dict(json.loads((tmp_path / "law.json").read_text()))
        assert study.largest_flops == pytest.approx(1e19) and study.flop_rule.coefficient == pytest.approx(6)
    small = table().assign(flops=table()["flops"] / 400).drop(columns="budget_flops")
    small.to_csv(tmp_path / "small.csv", index=False)
    with pytest.raises(TableError, match="0.0025 times 6 .*, as --unit flops=1"):
        run(fit, tmp_path / "small.csv", *FEW)
    run(fit, tmp_path / "small.csv", *FEW, "--unit", "flops=1", "--json", tmp_path / "law.json")
    assert Study.from_dict(json.loads((tmp_path / "law.json").read_text())).largest_flops == pytest.approx(1e19 / 400)


def test_notes_reach_the_terminal_the_report_and_the_json(tmp_path, capsys):
    odd = table().assign(loss_nats=np.exp(2 * table()["loss_nats"]))
    odd.to_csv(tmp_path / "odd.csv", index=False)
    run(fit, tmp_path / "odd.csv", *FEW, "--json", tmp_path / "law.json")
    shown = capsys.readouterr().out
    study = Study.from_dict(json.loads((tmp_path / "law.json").read_text()))
    report = markdown(study_report(odd, study).document())
    assert "is it a perplexity?" in study.table_notes[0]
    for text in (shown, report):
        assert text.index("is it a perplexity?") < text.index("The parametric law")
    for verb, more in ((backtest, ()), (predict, ("--at", "params=1e9", "tokens=2e10", "--out", tmp_path / "p.json"))):
        run(verb, tmp_path / "odd.csv", *FEW, *more)
        assert "is it a perplexity?" in capsys.readouterr().out
    assert prediction.read(tmp_path / "p.json").table_notes == study.table_notes


def test_a_run_with_checkpoints_lies_on_one_side_of_a_cut_and_is_predicted_at_its_end(tmp_path, capsys):
    params = np.repeat(np.geomspace(1e6, 1e8, 8), 6)
    tokens = params * np.tile(np.geomspace(2, 64, 6), 8)
    names = [f"run-{i}" for i in np.repeat(np.arange(8), 6)]
    noise = np.repeat(0.01 * np.random.default_rng(0).standard_normal(8), 6)
    frame = pd.DataFrame(
        {"run": names, "params": params, "tokens": tokens, "loss_nats": planted_loss(params, tokens) * np.exp(noise)}
    )
    flops = 6 * params * tokens
    cut = flops[(frame["run"] == "run-5") & (frame["tokens"] / params > 20)].min()
    found = backtest_of(CHINCHILLA, frame, cuts=[cut], sampling=Sampling(20))
    assert found.cuts[0].fitted == 30 and set(found.cuts[0].runs) == {"run-5", "run-6", "run-7"}
    assert len(found.cuts[0].runs) == int((flops >= cut).sum()) and (found.cuts[0].at >= cut).all()
    assert "a run is fitted below the cut where all its rows are" in found.table_notes[0]

    frame.to_csv(tmp_path / "runs.csv", index=False)
    run(predict, tmp_path / "runs.csv", "--run", "run-7", *FEW, "--out", tmp_path / "p.json")
    written = prediction.read(tmp_path / "p.json")
    assert written.inputs == {"params": 1e8, "tokens": 6.4e9} and written.points == 42 and written.measured_before
    assert "42 rows of 7 runs" in capsys.readouterr().out
    run(score, tmp_path / "p.json", "--table", tmp_path / "runs.csv")
    assert f"measured {frame['loss_nats'].iloc[-1]:.4f}" in capsys.readouterr().out
    run(
        predict,
        tmp_path / "runs.csv",
        "--run",
        "run-7",
        "--at",
        f"tokens={tokens[-3]:.17g}",
        *FEW,
        "--out",
        tmp_path / "p.json",
    )
    assert prediction.read(tmp_path / "p.json").inputs["tokens"] == tokens[-3]


def test_columns_that_no_fit_reads_may_hold_anything(tmp_path):
    odd = {"width": "512x8", "seed": "s0", "accuracy": "63.2%", "experts": "8x2", "status": "finished", "step": "last"}
    table().assign(**odd).to_csv(tmp_path / "runs.csv", index=False)
    run(fit, tmp_path / "runs.csv", *FEW, "--json", tmp_path / "law.json")
    values = Study.from_dict(json.loads((tmp_path / "law.json").read_text())).law.fit.values
    assert values == pytest.approx(TRUTH, rel=1e-3)

"""The verbs on anyone's table: fit, predict, score and backtest, on columns of any name, for any law."""

import json
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import tyro
from planted_laws import PLANTED, planted_law_table
from planted_tables import BUDGETS, TRUTH, planted_loss, planted_optimum, planted_table

from analysis.command.backtest import backtest
from analysis.command.fit import fit
from analysis.command.predict import predict
from analysis.command.score import score
from analysis.fit import FitError
from analysis.laws import LAWS, LawError, evaluate, load
from analysis.runs_table import TableError
from analysis.studies import PredictionError, Study, prediction


def foreign(tmp_path, table=None, name="theirs.csv"):
    table = planted_table() if table is None else table
    renamed = table[["params", "tokens", "loss_nats", "budget_flops"]].set_axis(["N", "D", "loss", "C"], axis=1)
    renamed.to_csv(tmp_path / name, index=False)
    return tmp_path / name


def run(verb, *arguments):
    tyro.cli(verb, args=[str(argument) for argument in arguments])


NAMES = ("--column", "params=N", "tokens=D", "loss_nats=loss")
FEW = ("--bootstraps", 50)


def test_fits_a_table_this_project_did_not_make(tmp_path, capsys):
    out = tmp_path / "new" / "law.json"
    columns = (*NAMES, "--column", "budget_flops=C")
    run(fit, foreign(tmp_path), *columns, *FEW, "--law", "chinchilla", "--json", out, "--budgets", "1e15")
    study = Study.from_dict(json.loads(out.read_text()))
    assert study.law.intervals["alpha"].contains(TRUTH["alpha"]) and len(study.isoflop.valleys) == 3
    shown = capsys.readouterr().out
    assert "loss = E + A / params^alpha + B / tokens^beta" in shown and "approach 2" in shown and "1e+15 FLOP" in shown
    assert "extrapolates 250 times beyond the fitted compute" in " ".join(shown.split())
    assert "The cost of another size at 1e+15 FLOP" in shown


def test_its_own_table_needs_no_options(tmp_path, capsys):
    planted_table().assign(held_out=[True] + [False] * 17).to_parquet(tmp_path / "runs.parquet")
    run(fit, tmp_path / "runs.parquet", "--objective", "least_squares", *FEW)
    shown = capsys.readouterr().out
    assert re.search(r"run-0 +held out", shown) and "least_squares" in shown


def test_constants_held_objectives_flop_rules_and_lifetimes(tmp_path, capsys):
    arguments = ("--fix", "E=1.2", "alpha=0.35", "--objective", "huber_likelihood", "--flops", "6.1 * params^0.99")
    life = ("--target-loss", "1.5", "--inference-tokens", "1e12")
    run(fit, foreign(tmp_path), *NAMES, *FEW, *arguments, *life, "--json", tmp_path / "law.json")
    shown = " ".join(capsys.readouterr().out.split())
    assert shown.count(" held ") == 2 and "huber_likelihood(delta = 0.001)" in shown and "Fitted scale" in shown
    assert "flops = 6.1 * params^0.99 * tokens" in shown and "Cheapest run of loss 1.5 nats per token" in shown
    law = json.loads((tmp_path / "law.json").read_text())["law"]["fit"]
    assert law["law"]["fixed"] == {"E": 1.2, "alpha": 0.35} and set(law["values"]) == {"A", "B", "beta"}


def test_hyperparameters_of_a_table_of_their_own(tmp_path, capsys):
    params, tokens = (grid.ravel() for grid in np.meshgrid(np.geomspace(1e4, 1e7, 4), np.geomspace(1e6, 1e9, 4)))
    best = pd.DataFrame({"params": params, "tokens": tokens, "learning_rate": 2 * params**-0.7 * tokens**0.3})
    best.to_csv(tmp_path / "best.csv", index=False)
    law = f"learning_rate_params_tokens={tmp_path / 'best.csv'}"
    run(fit, foreign(tmp_path), *NAMES, *FEW, "--hyperparameters", law)
    size = planted_optimum(BUDGETS[-1])
    shown = capsys.readouterr().out
    assert "Hyperparameters (learning_rate) are read at approach 3's optimum." in shown
    line = next(line for line in shown.splitlines() if line.strip().startswith("learning_rate"))
    value = float(line.split()[-1])
    assert value == pytest.approx(2 * size**-0.7 * (BUDGETS[-1] / 6 / size) ** 0.3, rel=0.1)
    assert "learning_rate at approach" not in shown
    best[best["params"] < 5e5].to_csv(tmp_path / "best.csv", index=False)
    run(fit, foreign(tmp_path), *NAMES, *FEW, "--hyperparameters", law)
    assert re.search(
        r"learning_rate at approach 3's optimum of \S+ FLOP extrapolates \S+ times beyond the fitted params",
        " ".join(capsys.readouterr().out.split()),
    )


@pytest.mark.slow
def test_figures_and_report_from_a_foreign_table(tmp_path, capsys):
    run(fit, foreign(tmp_path), *NAMES, *FEW, "--figures", tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text()
    assert "# Scaling law of loss_nats" in text and (tmp_path / "report" / "figures" / "loss_surface.pdf").exists()
    assert "## Back-test" in text and (tmp_path / "report" / "figures" / "backtest.png").exists()
    run(backtest, foreign(tmp_path), *NAMES, *FEW, "--figures", tmp_path / "report", "--cuts", "1e12")
    assert (tmp_path / "report" / "backtest.pdf").read_bytes().startswith(b"%PDF")
    assert "Law chinchilla on loss_nats" in capsys.readouterr().out


@pytest.mark.parametrize("law", ["data_constrained", "routed", "task_accuracy"])
def test_any_law_from_the_same_four_commands(tmp_path, law):
    """Laws of other inputs and of an output that is no loss, under other names: fitted, predicted, scored, cut."""
    wanted, table = LAWS[law], planted_law_table(law, seed=0)
    names = (*wanted.inputs, wanted.output)
    table.rename(columns={name: f"their {name}" for name in names}).to_csv(tmp_path / "table.csv", index=False)
    columns = ["--column", *(f"{name}=their {name}" for name in names)]
    source = (tmp_path / "table.csv", "--law", law, *columns, *FEW)
    run(fit, *source, "--json", tmp_path / "law.json")
    fitted = Study.from_dict(json.loads((tmp_path / "law.json").read_text())).law
    assert all(interval.low <= interval.high for interval in fitted.intervals.values())
    middle = {name: float(table[name].median()) for name in wanted.inputs}
    run(predict, *source, "--at", *(f"{name}={value}" for name, value in middle.items()), "--out", tmp_path / "p.json")
    truth = np.array([PLANTED[law].truth[name] for name in wanted.names])
    found = prediction.read(tmp_path / "p.json")
    # Noise of 1 % and a 90 % interval of a new run, on the law's own curve: within one half of its width.
    assert found.low < evaluate(wanted, truth, middle).item() < found.high
    run(score, tmp_path / "p.json", "--measured", found.value)
    by = wanted.inputs[0]
    run(backtest, *source, "--by", by, "--cuts", table[by].quantile(0.8), "--json", tmp_path / "backtest.json")
    cut = json.loads((tmp_path / "backtest.json").read_text())["cuts"][0]
    assert not cut["reason"] and cut["hit_rate"] > 0.5


OWN_LAW = """
from analysis.laws import Law, Parameter, power

RATIO = Law(
    name="ratio",
    formula="loss = E + A / (params tokens)^alpha",
    citation="made for this test",
    inputs=("params", "tokens"),
    output="loss_nats",
    parameters=(Parameter("E", "1", "floor"), Parameter("A", "1", "scale"), Parameter("alpha", "1", "", (0.1, 0.3))),
    predict=lambda p, x: p["E"] + p["A"] * power(x["params"] * x["tokens"], -p["alpha"]),
)
"""


def test_a_law_of_the_users_own_file(tmp_path, capsys):
    (tmp_path / "own.py").write_text(OWN_LAW)
    source = (foreign(tmp_path), *NAMES, *FEW, "--law", f"{tmp_path / 'own.py'}:RATIO")
    assert load(source[-1]) is load(source[-1])
    run(fit, *source)
    run(predict, *source, "--at", "params=1e6", "tokens=1e7", "--out", tmp_path / "p.json")
    run(score, tmp_path / "p.json", "--measured", "2.5")
    run(backtest, *source)
    shown = capsys.readouterr().out
    assert shown.count("loss = E + A / (params tokens)^alpha") == 2 and "Law ratio on loss_nats" in shown
    with pytest.raises(LawError, match="'RATE': .*own.py defines no such law. Fix: use one of RATIO"):
        run(fit, *source[:-1], f"{tmp_path / 'own.py'}:RATE")
    with pytest.raises(LawError, match="absent.py': no such Python file"):
        run(fit, *source[:-1], f"{tmp_path / 'absent.py'}:RATIO")


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('p["E"]', 'p["EE"]', r"law 'ratio': predict asks for 'EE'. Fix: its parameters are E, A, alpha, its inputs"),
        ('x["tokens"]', 'x["token"]', r"predict asks for 'token'"),
        ('"", (0.1, 0.3)', '"", (0.1, 0.3), start_unit="prams"', r"start_unit = 'prams' of alpha in law 'ratio'"),
        (
            '"", (0.1, 0.3)',
            '""',
            r"starts of alpha in law 'ratio': are empty, which .* linear in E and A and alpha together",
        ),
        ("power(", "float(power(", r"predict fails in jax, .* Fix: write it in jax.numpy"),
    ],
)
def test_a_mistake_in_a_law_of_ones_own_is_a_sentence(before, after, message, tmp_path):
    text = OWN_LAW.replace(before, after)
    text = text.replace('-p["alpha"])', '-p["alpha"]))') if after.startswith("float") else text
    (tmp_path / "own.py").write_text(text)
    with pytest.raises(LawError, match=message):
        load(f"{tmp_path / 'own.py'}:RATIO")


def isoflop(*arguments):
    command = [sys.executable, "-m", "research.command.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_a_prediction_written_and_scored_through_the_command_line(tmp_path):
    """The whole of it in processes of their own: a planned run of the table, predicted, made, scored from the table."""
    table = planted_table().assign(run=[f"run-{i}" for i in range(18)])
    planned = table.iloc[[0]].assign(run="big", params=2e6, tokens=1e8, loss_nats=np.nan, status="pending")
    table = pd.concat([table, planned], ignore_index=True)[["run", "status", "params", "tokens", "loss_nats"]]
    table.to_csv(tmp_path / "runs.csv", index=False)
    out = tmp_path / "prediction.json"
    done = isoflop("predict", tmp_path / "runs.csv", "--run", "big", "--out", out, *FEW)
    assert done.returncode == 0, done.stderr
    assert "extrapolates 300 times beyond the fitted compute" in " ".join(done.stdout.split())
    written = prediction.read(out)
    assert written.run == "big" and not written.measured_before and written.inputs == {"params": 2e6, "tokens": 1e8}
    assert written.points == 18 and written.left_out == 1

    early = isoflop("score", out, "--table", tmp_path / "runs.csv")
    assert early.returncode == 2 and "loss_nats of run 'big': is missing. Fix: wait for it." in early.stderr
    table.loc[18, ["loss_nats", "status"]] = [planted_loss(2e6, 1e8), "done"]
    table.to_csv(tmp_path / "runs.csv", index=False)
    done = isoflop("score", out, "--table", tmp_path / "runs.csv", "--json", tmp_path / "score.json")
    assert done.returncode == 0, done.stderr
    scored = json.loads((tmp_path / "score.json").read_text())
    assert (
        scored["inside"] and "inside it" in done.stdout and scored["measured"] == pytest.approx(planted_loss(2e6, 1e8))
    )
    # Once it is measured it can still be predicted, out of the fit, but that is no test.
    done = isoflop("predict", tmp_path / "runs.csv", "--run", "big", "--out", out, *FEW)
    again = prediction.read(out)
    assert again.measured_before and again.value == written.value and again.table_digest == written.table_digest
    assert "no test" in done.stdout and len(list(tmp_path.glob("prediction-*.json"))) == 1


def test_a_budget_chooses_its_run(tmp_path, capsys):
    out = tmp_path / "prediction.json"
    run(predict, foreign(tmp_path), *NAMES, *FEW, "--flops", 4 * BUDGETS[-1], "--run", "next", "--out", out)
    found = prediction.read(out)
    assert found.run == "next" and found.optimum_params == found.inputs["params"]
    assert found.flops == pytest.approx(4 * BUDGETS[-1], rel=1e-6)
    assert found.inputs["params"] == pytest.approx(planted_optimum(4 * BUDGETS[-1]), rel=0.2)
    capsys.readouterr()
    run(score, out, "--measured", planted_loss(**found.inputs))
    assert capsys.readouterr().out.startswith("next, loss_nats: predicted ")
    planted_table()[:1].assign(run="next", **found.inputs).to_csv(tmp_path / "after.csv", index=False)
    run(score, out, "--table", tmp_path / "after.csv")


@pytest.mark.parametrize(
    ("change", "arguments", "error", "message"),
    [
        (lambda t: t, (), TableError, "missing columns 'params', 'tokens', 'loss_nats'; present: N, D, loss, C"),
        (
            lambda t: t,
            ("--column", "params=M", "tokens=D"),
            TableError,
            "missing columns 'M', 'loss_nats'.*--column params=Y",
        ),
        (lambda t: t, (*NAMES, "--column", "params=C"), FitError, "--column params: is given twice, 'N' and 'C'"),
        (lambda t: t, ("--column", "params"), FitError, "--column = 'params': must be NAME=VALUE"),
        (lambda t: t, (*NAMES, "--column", "parms=N"), TableError, "column 'parms': neither of the law .* params"),
        (lambda t: t, (*NAMES, "--law", "nonsense"), LawError, "no such law"),
        (lambda t: t, (*NAMES, "--column", "flops=X"), TableError, "missing column 'X'"),
        (lambda t: t, (*NAMES, "--ignore", "loss"), FitError, "--ignore loss: is read here. .* --column loss_nats=Y"),
        (lambda t: t, (*NAMES, "--ignore", "los"), FitError, "--ignore los: no such column; present: .*loss.* Fix"),
        (lambda t: t, (*NAMES, "--delta", "0"), FitError, "delta = 0: must be positive"),
        (lambda t: t, (*NAMES, "--objective", "least_squares", "--delta", "1"), FitError, "least_squares has none"),
        (lambda t: t, (*NAMES, "--objective", "mse"), FitError, "objective = 'mse': must be one of huber"),
        (lambda t: t, (*NAMES, "--fix", "gamma=1"), LawError, "gamma: no such free parameter"),
        (lambda t: t, (*NAMES, "--fix", "E=low"), FitError, "--fix E = 'low': must be a number"),
        (lambda t: t, (*NAMES, "--seed", "-1"), FitError, "seed = -1: must not be negative. Fix: use 0"),
        (lambda t: t, (*NAMES, "--flops", "gpt"), FitError, "flop rule = 'gpt'"),
        (lambda t: t, (*NAMES, "--target-loss", "2"), FitError, "belong together"),
        (lambda t: t, (*NAMES, "--given", "experts=8"), FitError, "given experts: not a further input"),
        (lambda t: t[:3], NAMES, FitError, "points = 3"),
        (lambda t: t.assign(params=5e5), NAMES, FitError, "params = 500000 in all 18"),
        (lambda t: t.assign(loss_nats=-1.0), NAMES, FitError, "points = 0: .*loss_nats = -1 is not positive"),
        (lambda t: t[:6], NAMES, FitError, "lie on one line"),
        (
            lambda t: t.assign(loss_nats=t["loss_nats"].where(t.index < 6)),
            NAMES,
            FitError,
            r"lie on one line.* \(12 of 18 rows are left out: row 6: loss_nats is missing or NaN; .*; and 7 more\)",
        ),
        (lambda t: t, (*NAMES, "--budgets", "0"), FitError, "budgets = 0: must be positive and finite. Fix: give raw"),
        (
            lambda t: t,
            (*NAMES, "--hyperparameters", "chinchilla=best.csv"),
            FitError,
            "--hyperparameters chinchilla: gives loss_nats, which is no hyperparameter. Fix: name a law of one",
        ),
        (lambda t: t.assign(tokens="many"), NAMES, TableError, "tokens = 'many' in row 0: must be a number"),
    ],
)
def test_hostile_tables_get_a_clear_error(tmp_path, change, arguments, error, message):
    with pytest.raises(error, match=message):
        run(fit, foreign(tmp_path, change(planted_table())), *arguments, *FEW)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "at: which run is predicted is not said. Fix: give --at params=... tokens=... or --flops, or the"),
        (
            ("--run", "raw 3"),
            "run = 'raw 3': no such run in the table; nearest: row 3, .*Fix: name one of its rows",
        ),
        (("--run", "row \udcff"), "no such run in the table"),  # a byte that is no UTF-8, as Python hands it on
        (("--at", "params=1e7"), "tokens: is not given"),
        (("--at", "params=1e7", "tokens=x"), "--at tokens = 'x': must be a number"),
        (("--at", "params=1e7", "tokens=1e9", "--flops", "1e15"), "flops: chooses params and tokens by itself"),
        (("--run", "row 3", "--at", "params=7"), r"at params = 7: the table says [\d.e+]+ for this run"),
    ],
)
def test_a_prediction_of_nothing_is_refused(tmp_path, arguments, message):
    with pytest.raises(FitError, match=message):
        run(predict, foreign(tmp_path), *NAMES, *FEW, *arguments, "--out", tmp_path / "p.json")
    assert not (tmp_path / "p.json").exists()


def test_what_cannot_be_scored_is_refused(tmp_path):
    out, table = tmp_path / "p.json", planted_table()
    run(predict, foreign(tmp_path), *NAMES, *FEW, "--at", "params=1e7", "tokens=1e9", "--run", "big", "--out", out)
    big = table[:1].assign(run="big", params=1e7, tokens=1e9)
    tables = {
        "twice": pd.concat([big, big.assign(run="bigger")]),
        "other": big.assign(tokens=2e9),
        "none": table,
    }
    for name, rows in tables.items():
        rows.to_csv(tmp_path / f"{name}.csv", index=False)
    for arguments, message in (
        ((), "measured and table: give what was measured in one way"),
        (("--measured", "2", "--table", tmp_path / "none.csv"), "measured and table"),
        (("--measured", "nan"), "measured = nan: must be finite"),
        (("--table", tmp_path / "none.csv"), "run = 'big': is not in the table"),
        (("--table", tmp_path / "other.csv"), "run = 'big': its inputs are not the predicted params = 1e\\+07"),
    ):
        with pytest.raises(PredictionError, match=message):
            run(score, out, *arguments)
    run(predict, foreign(tmp_path), *NAMES, *FEW, "--at", "params=1e7", "tokens=1e9", "--out", out)
    with pytest.raises(PredictionError, match=r"table: 2 rows have params = 1e\+07.*Fix: name the run's row"):
        run(score, out, "--table", tmp_path / "twice.csv")
    run(score, out, "--table", tmp_path / "twice.csv", "--run", "bigger")


def test_importing_analysis_loads_no_training_library_and_leaves_the_precision():
    code = (
        "import sys, analysis.command.fit, analysis.command.predict, analysis.command.score\n"
        "import analysis.command.backtest, analysis.report, jax, jax.numpy as jnp\n"
        "print([m for m in ('research', 'flax', 'optax', 'orbax', 'tensorflow', 'seqio') if m in sys.modules],\n"
        "      jax.config.jax_enable_x64, jnp.ones(1).dtype)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "False", "float32"]


def test_fitting_leaves_the_precision_too():
    code = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "from planted_tables import planted_table\n"
        "from analysis.sampling import Sampling\n"
        "from analysis.studies import fit_table\n"
        "import jax.numpy as jnp\n"
        "fit_table(planted_table(), sampling=Sampling(20))\n"
        "print(jnp.ones(1).dtype)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["float32"]

import json
import subprocess
import sys

import numpy as np
import pytest
import tyro
from planted_tables import TRUTH, planted_table

from analysis.command import fit
from analysis.fitting import FitError
from analysis.runs_table import TableError
from analysis.study import Study


def foreign(tmp_path, table=None, name="theirs.csv"):
    table = planted_table() if table is None else table
    renamed = table[["params", "tokens", "loss_nats", "budget_flops"]].set_axis(["N", "D", "loss", "C"], axis=1)
    renamed.to_csv(tmp_path / name, index=False)
    return tmp_path / name


def run(*arguments):
    tyro.cli(fit, args=[str(argument) for argument in (*arguments, "--bootstraps", 50)])


NAMES = ("--params-column", "N", "--tokens-column", "D", "--loss-column", "loss")


def test_fits_a_table_this_project_did_not_make(tmp_path, capsys):
    out = tmp_path / "new" / "law.json"
    run(foreign(tmp_path), *NAMES, "--law", "chinchilla", "--budget-column", "C", "--json", out, "--budgets", "1e15")
    study = Study.from_dict(json.loads(out.read_text()))
    assert study.law.intervals["alpha"].contains(TRUTH["alpha"]) and len(study.isoflop.valleys) == 3
    shown = capsys.readouterr().out
    assert "loss = E + A / params^alpha + B / tokens^beta" in shown and "approach 2" in shown and "1e+15 FLOP" in shown


def test_its_own_table_needs_no_options(tmp_path, capsys):
    planted_table().assign(held_out=[True] + [False] * 17).to_parquet(tmp_path / "runs.parquet")
    run(tmp_path / "runs.parquet", "--objective", "least_squares")
    shown = capsys.readouterr().out
    assert "left out run-0: held out" in shown and "least_squares" in shown


def test_another_law_from_the_same_command(tmp_path, capsys):
    flops = np.geomspace(1e12, 1e18, 12)
    table = planted_table()[:12].assign(flops=flops, loss_nats=1.5 + 300 * flops**-0.2)
    table[["flops", "loss_nats"]].to_csv(tmp_path / "compute.csv", index=False)
    run(tmp_path / "compute.csv", "--law", "loss_frontier")
    assert "loss = E + scale / flops^exponent" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "arguments", "error", "message"),
    [
        (lambda t: t, (), TableError, "missing columns 'params', 'tokens', 'loss_nats'; present: N, D, loss, C"),
        (lambda t: t, (*NAMES, "--law", "nonsense"), ValueError, "no such law"),
        (lambda t: t, (*NAMES, "--flops-column", "X"), TableError, "missing column 'X'"),
        (lambda t: t, (*NAMES, "--delta", "0"), FitError, "delta = 0: must be positive"),
        (lambda t: t[:3], NAMES, FitError, "points = 3"),
        (lambda t: t.assign(params=5.0), NAMES, FitError, "params = 5 in all 18"),
        (lambda t: t.assign(loss_nats=-1.0), NAMES, FitError, "points = 0: .*loss_nats = -1 is not positive"),
        (lambda t: t[:6], NAMES, FitError, "lie on one line"),
        (lambda t: t.assign(tokens="many"), NAMES, TableError, "tokens = 'many' in row 0: must be a number"),
    ],
)
def test_hostile_tables_get_a_clear_error(tmp_path, change, arguments, error, message):
    with pytest.raises(error, match=message):
        run(foreign(tmp_path, change(planted_table())), *arguments)


def test_importing_analysis_loads_no_training_library_and_leaves_the_precision():
    code = (
        "import sys, analysis.command, analysis.report, jax, jax.numpy as jnp\n"
        "print([m for m in ('research', 'flax', 'optax', 'orbax', 'tensorflow', 'seqio') if m in sys.modules],\n"
        "      jax.config.jax_enable_x64, jnp.ones(1).dtype)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "False", "float32"]


def test_fitting_leaves_the_precision_too():
    code = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "from planted_tables import planted_table\n"
        "from analysis.study import fit_table\n"
        "import jax.numpy as jnp\n"
        "fit_table(planted_table(), bootstraps=20)\n"
        "print(jnp.ones(1).dtype)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["float32"]

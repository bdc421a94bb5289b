"""The isoflop command on fakes: what each verb prints, writes, refuses, and how it goes on after an interruption."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_isoflop import pretend

from analysis import runs_table
from analysis.sampling import Sampling
from research.command import cli, conclusion, verbs
from research.execution import local
from research.runs import Status, folder_of, prediction

TESTS = Path(__file__).parent
EXPERIMENT = """
from research.config import (
    AttentionConfig, DataConfig, EvaluationConfig, MlpConfig, ModelConfig, RunConfig, TrainingConfig
)
from research.plan import IsoFlop

EXPERIMENT = IsoFlop(
    name="tiny",
    question="Does a planted law come back?",
    base=RunConfig(
        model=ModelConfig(width=16, depth=2, attention=AttentionConfig(2, 2, 8), mlp=MlpConfig(hidden=40)),
        data=DataConfig(train_tokens=10_000_000),
        training=TrainingConfig(batch_size=64, sequence_length=32),
    ),
    budgets=(1e10, 3e10),
    sizes=((8, 1), (16, 1), (16, 2), (24, 2), (32, 2)),
    tokens_per_param=(0.1, 1000.0),
    min_sizes=4,
    min_steps=10,
    held_out_factor=4,
)
"""


@pytest.fixture
def experiment(tmp_path) -> str:
    path = tmp_path / "tiny.py"
    path.write_text(EXPERIMENT)
    return str(path)


@pytest.fixture
def command(monkeypatch, tmp_path, experiment):
    """`isoflop VERB FILE ...` in this process, on fakes; returns the exit code."""
    monkeypatch.setattr(local, "LocalEngine", local.LocalEngine)  # both are put back at the end
    monkeypatch.setattr(verbs, "_prepare", verbs._prepare)
    monkeypatch.setattr(conclusion, "fit_table", partial(conclusion.fit_table, sampling=Sampling(50)))
    pretend("train_unless_broken")

    def run(verb: str, *arguments: str) -> int:
        return cli.main([verb, experiment, "--runs-dir", str(tmp_path / "runs"), *arguments])

    return run


def plan_folder(runs_dir: Path, label: str = "default") -> Path:
    """Of the only plan whose key begins with `label`."""
    (folder,) = (runs_dir / "tiny" / "plans").glob(f"{label}-????????????")
    return folder


def python(code: str, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=300)


def sessions(runs_dir: Path) -> dict[str, int]:
    """How many times each run was taken up."""
    paths = runs_dir.glob("tiny/*/metrics.jsonl")
    return {path.parent.name: path.read_text().count('"session"') for path in paths}


def test_plan_prints_the_runs_writes_nothing_and_imports_no_tensorflow(experiment, tmp_path):
    code = "import sys; from research.command import cli; code = cli.main(sys.argv[1:]); "
    code += "assert not {'tensorflow', 'seqio', 'orbax'} & set(sys.modules); sys.exit(code)"
    done = python(code, "plan", experiment, "--runs-dir", str(tmp_path / "runs"))
    assert done.returncode == 0, done.stderr
    assert "tiny: Does a planted law come back?" in done.stdout
    assert "10 runs and, last line, a held-out one" in done.stdout
    # 5 runs at each budget and one at 4 times the largest; each rounds its steps, so the sum is right to 2 %.
    total = float(done.stdout.split(" training FLOPs")[0].split()[-1])
    np.testing.assert_allclose(total, 5 * 1e10 + 5 * 3e10 + 4 * 3e10, rtol=0.02)
    assert not (tmp_path / "runs").exists()


def test_a_plan_is_judged_by_a_prior_law(experiment, tmp_path, capsys):
    budgets = ["--set", "budgets=[1e10, 3e10, 9e10]"]
    prior = ["--prior", "hoffmann2022", "--noise-nats", "0.01"]
    assert cli.main(["plan", experiment, "--runs-dir", str(tmp_path / "runs"), *budgets, *prior]) == 0
    shown = capsys.readouterr().out
    assert "What this plan can tell" in shown and "at 3.6e+11 FLOP would be best" in shown
    assert "as planned" in shown and "4 seeds for each" in shown and "a further budget, 16 times the largest" in shown
    assert not (tmp_path / "runs").exists()


def test_help_lists_the_verbs(capsys):
    with pytest.raises(SystemExit) as exit:
        cli.main(["--help"])
    assert exit.value.code == 0
    printed = capsys.readouterr().out
    verbs = (
        "plan run status report data fit predict score backtest compare bowls critical-batch samples downstream laws"
    )
    assert all(f" {verb} " in printed for verb in verbs.split())


BLOCKED = """
import json, sys
for name in ("flax", "optax", "orbax", "tensorflow", "tensorflow_datasets", "seqio", "sentencepiece", "tensorboardX"):
    sys.modules[name] = None
from research.command import cli
sys.exit(max(cli.main(command) for command in json.loads(sys.argv[1])))
"""


@pytest.mark.slow
def test_the_verbs_on_a_table_need_the_analysis_alone(tmp_path, experiment):
    params, tokens = (grid.ravel() for grid in np.meshgrid(np.geomspace(1e6, 1e9, 6), np.geomspace(1e8, 1e11, 6)))
    loss = 1.8 + 480 / params**0.35 + 2100 / tokens**0.37
    pd.DataFrame({"N": params, "D": tokens, "loss": loss}).to_csv(tmp_path / "table.csv", index=False)
    columns = ["--column", "params=N", "tokens=D", "loss_nats=loss", "--bootstraps", "20"]
    law, predicted, scored, cuts = (str(tmp_path / f"{name}.json") for name in ("law", "predicted", "scored", "cuts"))
    commands = [
        ["fit", str(tmp_path / "table.csv"), *columns, "--json", law],
        ["predict", str(tmp_path / "table.csv"), *columns, "--at", "params=1e10", "tokens=1e12", "--out", predicted],
        ["score", predicted, "--measured", "2.0", "--json", scored],
        ["backtest", str(tmp_path / "table.csv"), *columns, "--cuts", "1e18", "--json", cuts],
    ]
    done = python(BLOCKED, json.dumps(commands))
    assert done.returncode == 0, done.stderr
    assert all(Path(path).exists() for path in (law, predicted, scored, cuts))
    done = python(BLOCKED, json.dumps([["plan", experiment]]))
    assert done.returncode == 2
    assert "is not installed" in done.stderr and "pip install '.[train]'" in done.stderr


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["plan", "absent.py"], "FILE = 'absent.py': no such file"),
        (["plan", "{tmp}/empty.py"], "defines no EXPERIMENT"),
        (["plan", "{tmp}/text.txt"], "must be a Python file"),
        (["plan", "{tmp}/tiny.py", "--noise-nats", "0.01"], "--noise-nats = 0.01: says nothing alone"),
        (["plan", "{tmp}/tiny.py", "--prior", "hoffmann2022"], "its paper states no noise of a run"),
        (["plan", "{tmp}/number.py"], "EXPERIMENT = 'int': must be a plan"),
        (
            ["plan", "{tmp}/tiny.py", "--set", "base.model.widht=3"],
            "base.model.widht: unknown field 'widht'. Near",
        ),
        (["plan", "{tmp}/tiny.py", "--set", "min_steps=x"], "min_steps = 'x': must be int"),
        (["plan", "{tmp}/tiny.py", "--set", "min_steps"], "--set = 'min_steps': must be key=value"),
        (["plan", "{tmp}/tiny.py", "--set", "name=../up"], "name = '../up': must be usable as the name of a folder"),
        (["plan", "{tmp}/tiny.py", "--set", "held_out_factor=1e6"], "training.steps = "),
        (["run", "{tmp}/tiny.py", "--only", "transformer-1e10-w8-d9-seed0"], "Nearest: transformer-1e10-w8-d1-seed0"),
        (["run", "{tmp}/tiny.py", "--workers", "0"], "--workers = 0: must be at least 1"),
        (["run", "{tmp}/tiny.py", "--runs-dir", "{tmp}/text.txt"], "text.txt/"),
        (["status", "{tmp}/tiny.py", "--runs-dir", "{tmp}/text.txt"], "text.txt/"),
        (["plan", "{tmp}/tiny.py", "--set", "seeds=0,0"], "stands 2 times in the plan"),
        (["fit", "{tmp}/absent.csv"], "no such file"),
        (["score", "{tmp}/absent.json", "--measured", "2"], "no such file. Fix: give a file that isoflop predict"),
        (["backtest", "{tmp}/absent.csv", "--law", "chinchila"], "no such law. Fix: use one of chinchilla"),
    ],
)
def test_mistakes_are_answered_in_a_line_with_exit_code_2(arguments, words, command, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.py").write_text("")
    (tmp_path / "text.txt").write_text("")
    (tmp_path / "number.py").write_text("EXPERIMENT = 3")
    assert cli.main([argument.format(tmp=tmp_path) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert words in error and "Traceback" not in error and len(error.splitlines()) == 1


def test_several_overrides_in_one_set_and_in_two(command, capsys):
    assert command("plan", "--set", "budgets=1e10,2e10,4e10", "held_out_factor=none", "--set", "seeds=0,1") == 0
    assert "30 runs" in capsys.readouterr().out


@pytest.mark.slow
def test_everything_and_again(command, tmp_path, capsys, monkeypatch):
    written_for = []
    write = prediction.write

    def write_and_look(plan, config, *rest):
        written_for.append(folder_of(plan.runs_dir, config).status())
        return write(plan, config, *rest)

    monkeypatch.setattr(prediction, "write", write_and_look)
    assert command("run") == 0
    printed = capsys.readouterr().out
    folder = plan_folder(tmp_path / "runs")
    assert f"Written to {folder}:" in printed
    table = runs_table.read(folder / "runs.parquet")
    assert list(table["status"]) == ["done"] * 11 and table["held_out"].sum() == 1
    pd.testing.assert_frame_equal(table, runs_table.read(folder / "runs.csv"), check_dtype=False)
    assert written_for == [Status.PENDING]  # the prediction came before the run
    assert "11 of 11 runs are done." in printed and "Held out: predicted" in printed and "measured" in printed
    assert {path.name for path in folder.iterdir()} >= {
        "law.json",
        "report.md",
        "figures",
        "timings.jsonl",
        "plan.json",
    }
    stored = json.loads((folder / "prediction.json").read_text())
    assert stored["run"] == table.loc[table["held_out"], "run"].item() and not stored["measured_before"]
    phases = [json.loads(line) for line in (folder / "timings.jsonl").read_text().splitlines()]
    assert [p["phase"] for p in phases] == ["prepare", "sweep", "fit", "prepare", "held_out", "report"]

    runs = tmp_path / "runs" / "tiny"
    before = {path: path.read_bytes() for path in (*runs.glob("*/metrics.jsonl"), folder / "prediction.json")}
    assert len(before) == 12
    assert command("run") == 0
    assert "preparing data" not in capsys.readouterr().out  # nothing to train, so nothing to prepare
    assert {path: path.read_bytes() for path in before} == before
    assert command("status") == 0
    assert "11 of 11 runs done" in capsys.readouterr().out
    assert command("status", "--set", "budgets=1e10,2e10") == 0
    assert "5 of 10 runs done" in capsys.readouterr().out  # another plan: the held-out run is not its

    # A table that changed afterwards: a new prediction, which says that it came too late to be one.
    result_path = next(runs.glob("transformer-1e10-w8-*/result.json"))
    result_path.write_text(json.dumps({**json.loads(result_path.read_text()), "loss_nats": 9.0}))
    assert command("run") == 0
    assert len(list(folder.glob("prediction-*.json"))) == 1
    assert json.loads((folder / "prediction.json").read_text())["measured_before"] is (written_for[1] == Status.DONE)


def test_only_some_runs_and_a_report_of_what_is_there(command, tmp_path, capsys):
    assert command("run", "--only", "*-w8-*") == 0
    printed = capsys.readouterr().out
    assert "2 of 10 runs are done; 8 pending." in printed and "No law was fitted." in printed
    assert set(sessions(tmp_path / "runs").values()) == {1} and len(sessions(tmp_path / "runs")) == 2
    folder = plan_folder(tmp_path / "runs")
    assert not (folder / "prediction.json").exists()
    assert command("report") == 0
    report = (folder / "report.md").read_text()
    assert "No law was fitted." in report and report.count("| pending |") == 8
    assert len(sessions(tmp_path / "runs")) == 2


def test_failed_runs_are_retried_only_when_asked(command, tmp_path, capsys):
    folder = tmp_path / "runs" / "tiny"
    folder.mkdir(parents=True)
    (folder / "broken").touch()
    assert command("run", "--only", "transformer-1e10-w8-d1-seed0", "--workers", "1") == 1
    assert "ValueError: broken" in capsys.readouterr().out
    (folder / "broken").unlink()
    assert command("run", "--only", "transformer-1e10-w8-d1-seed0") == 1  # still not everything is done
    assert "1 failed before and stay so; --retry-failed" in capsys.readouterr().out
    table = runs_table.read(plan_folder(tmp_path / "runs") / "runs.csv")
    assert table.loc[table["status"] == "failed", "failure_reason"].item() == "ValueError: broken"
    assert command("run", "--only", "transformer-1e10-w8-d1-seed0", "--retry-failed") == 0
    assert sessions(tmp_path / "runs").popitem()[1] == 1
    table = runs_table.read(plan_folder(tmp_path / "runs") / "runs.csv")
    assert table["status"].tolist().count("done") == 1


@pytest.mark.slow
def test_ctrl_c_and_again(experiment, tmp_path):
    runs_dir = tmp_path / "runs"
    script = [sys.executable, str(TESTS / "fake_isoflop.py"), "train"]
    arguments = ["run", experiment, "--runs-dir", str(runs_dir), "--only", "*-w8-*"]
    environment = {**os.environ, "PYTHONPATH": str(TESTS.parent)}
    process = subprocess.Popen(
        [*script, *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    while not process.stdout.readline().startswith("done"):
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert f"go on with: isoflop run {experiment} --runs-dir {runs_dir}" in errors and "Traceback" not in errors
    first = sessions(runs_dir)
    done = [path.parent.name for path in runs_dir.glob("tiny/*/result.json")]
    assert len(done) == 1 and len(first) == 2
    assert json.loads((plan_folder(runs_dir) / "timings.jsonl").read_text().splitlines()[-1])["phase"] == "sweep"
    again = subprocess.run([*script, *arguments], env=environment, capture_output=True, text=True, timeout=60)
    assert again.returncode == 0, again.stderr
    second = sessions(runs_dir)
    assert len(second) == 2 and second[done[0]] == 1 and sum(second.values()) == 3


@pytest.mark.parametrize("arguments", [("fit", "--help"), ("plan", "FILE")])
def test_a_reader_that_leaves_is_no_error(arguments, experiment):
    """As `isoflop plan FILE | head -1`."""
    code = "import sys; from research.command.cli import main; sys.exit(main(sys.argv[1:]))"
    arguments = [str(experiment) if argument == "FILE" else argument for argument in arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code, *arguments], **pipes) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(timeout=60) == 1


def test_plans_of_one_experiment_keep_their_own_reports_and_share_their_runs(command, tmp_path):
    assert command("run", "--only", "*-1e10-*") == 0
    default = plan_folder(tmp_path / "runs")
    before = {path: path.read_bytes() for path in default.rglob("*") if path.is_file()}
    assert command("run", "--set", "budgets=1e10", "min_sizes=3", "held_out_factor=none") == 0
    other = plan_folder(tmp_path / "runs", "budgets-min_sizes-held_out_factor")
    assert {path: path.read_bytes() for path in before} == before
    assert set(sessions(tmp_path / "runs").values()) == {1}
    assert len(runs_table.read(other / "runs.csv")) == 5 and len(runs_table.read(default / "runs.csv")) == 10
    assert json.loads((other / "plan.json").read_text())["plan"]["budgets"] == [1e10]
    # The same plan by another way, or with a question in other words, is the same plan.
    assert command("report", "--set", "held_out_factor=none", "min_sizes=3", "budgets=[1e10]", "question=What?") == 0
    assert command("report", "--set", "min_sizes=4") == 0
    assert sorted((tmp_path / "runs" / "tiny" / "plans").iterdir()) == sorted([default, other])


def test_without_locks_nothing_is_trained(command, tmp_path, capsys, monkeypatch):
    def flock(*arguments):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", flock)
    assert command("run") == 2
    error = capsys.readouterr().err
    assert "cannot lock files (flock: Function not implemented)" in error and "Fix: set --runs-dir" in error
    assert len(error.splitlines()) == 1 and [p.name for p in (tmp_path / "runs" / "tiny").iterdir()] == ["plans"]


def test_faults_of_the_machine_end_the_command_and_mark_no_run(command, tmp_path, capsys):
    pretend("train_or_fail")
    assert command("run", "--set", "base.family=refused", "--only", "*-w8-*") == 1
    error = capsys.readouterr().err
    assert "the machine refused twice" in error and "Input/output error" in error and len(error.splitlines()) == 1
    assert not list(tmp_path.glob("runs/tiny/*/failure.json"))
    assert not list(tmp_path.glob("runs/tiny/plans/*/report.md"))


def test_full_disk_is_said_so(command, capsys):
    pretend("train_or_fail")
    assert command("run", "--set", "base.family=disk_full", "--only", "*-w8-*") == 1
    assert "the disk is full" in capsys.readouterr().err

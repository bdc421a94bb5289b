"""The real command on the real corpus: interrupted, resumed, extended, and with a run that fails."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

pytestmark = pytest.mark.slow
SMOKE = Path(__file__).parent.parent / "experiments" / "smoke.py"


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "research.command.cli", *arguments]


def _environment() -> dict[str, str]:
    """Without the tests' eight virtual devices: a worker has one core, and XLA's devices would wait for each other."""
    return {**os.environ, "XLA_FLAGS": "", "PYTHONPATH": str(SMOKE.parent.parent)}


def _run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(_command(*arguments), capture_output=True, text=True, env=_environment(), timeout=600)


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """A smoke run stopped with Ctrl-C after its first finished run: (runs dir, exit code, finished results)."""
    runs_dir = tmp_path_factory.mktemp("runs")
    process = subprocess.Popen(
        _command("run", str(SMOKE), "--runs-dir", str(runs_dir)), env=_environment(), stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 500
    while not list(runs_dir.glob("smoke/*/result.json")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    code = process.wait(timeout=120)
    results = {path: path.stat().st_mtime_ns for path in runs_dir.glob("smoke/*/result.json")}
    return runs_dir, code, results


def test_ctrl_c_and_the_same_command_again_finish_the_experiment(interrupted):
    runs_dir, code, results = interrupted
    assert code == 130 and 1 <= len(results) < 6
    done = _run("run", str(SMOKE), "--runs-dir", str(runs_dir))
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path: path.stat().st_mtime_ns for path in results} == results  # retrained nothing that was done
    (plan,) = runs_dir.glob("smoke/plans/default-*")
    table = pd.read_parquet(plan / "runs.parquet")
    assert len(table) == 6 and set(table["status"]) == {"done"}
    assert (table["loss_nats"] < 5.55).all()  # ln(256): the prediction in the experiment's file
    pd.testing.assert_frame_equal(pd.read_csv(plan / "runs.csv")[["params"]], table[["params"]])
    assert "nats" in (plan / "report.md").read_text()


def test_plan_status_and_report_train_nothing(interrupted, tmp_path):
    runs_dir, _, _ = interrupted
    before = sorted(path for path in runs_dir.rglob("*") if path.name in ("result.json", "metrics.jsonl"))
    for verb in ("plan", "status", "report"):
        done = _run(verb, str(SMOKE), "--runs-dir", str(runs_dir))
        assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(p for p in runs_dir.rglob("*") if p.name in ("result.json", "metrics.jsonl")) == before
    assert _run("plan", str(SMOKE), "--runs-dir", str(tmp_path / "none")).returncode == 0
    assert not (tmp_path / "none").exists()


def test_a_failed_run_leaves_the_others_alone_and_is_named(tmp_path):
    """A learning rate that overflows float32 in every run: all fail with their step, the command ends and says so."""
    assignments = ("--set", "base.optimizer.learning_rate=1e30", "base.optimizer.clip_norm=none", "budgets=1e9")
    done = _run("run", str(SMOKE), *assignments, "--runs-dir", str(tmp_path))
    failures = [json.loads(path.read_text()) for path in tmp_path.glob("smoke/*/failure.json")]
    assert len(failures) == 3 and all(failure["failure_step"] >= 1 for failure in failures)
    assert "No law was fitted" in done.stdout
    (plan,) = tmp_path.glob("smoke/plans/*")
    assert set(pd.read_parquet(plan / "runs.parquet")["status"]) == {"failed"}

"""A plan's folder: its key, what it refuses, and what a damaged prediction or a read-only runs folder costs."""

import errno
import io
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from rich.console import Console

from research.command import conclusion, verbs
from research.config import (
    AttentionConfig,
    ConfigError,
    DataConfig,
    MlpConfig,
    ModelConfig,
    RunConfig,
    TrainingConfig,
    override,
    run_name,
    to_dict,
)
from research.plan import IsoFlop
from research.runs import NotWritableError, PlanFolder, open_run, plan_folder, prediction
from research.runs.plan_folder import make_folder

EXPERIMENT = IsoFlop(
    "tiny",
    "?",
    RunConfig(
        model=ModelConfig(width=16, depth=2, attention=AttentionConfig(2, 2, 8), mlp=MlpConfig(hidden=40)),
        data=DataConfig(train_tokens=10_000_000),
        training=TrainingConfig(batch_size=64, sequence_length=32),
    ),
    budgets=(3e10,),
    sizes=((8, 1), (16, 1), (16, 2)),
    tokens_per_param=(0.1, 1000.0),
    min_sizes=3,
    min_steps=10,
    held_out_factor=4.0,
)


@dataclass(frozen=True)
class Asked:
    file: Path
    runs_dir: Path
    only: str | None = None
    assignments: tuple[str, ...] = ()


@pytest.fixture
def read_only(monkeypatch):
    def refuse(path, *arguments, **keywords):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(plan_folder.Path, "mkdir", refuse)


def changed(tmp_path, *assignments: str) -> PlanFolder:
    return PlanFolder(override(EXPERIMENT, assignments), tmp_path, assignments)


def test_the_key_is_the_plan_behind_a_label(tmp_path):
    plain, other = changed(tmp_path), changed(tmp_path, "seeds=0,1", "base.training.z_loss=1e-4")
    assert plain.path.parent == other.path.parent == tmp_path / "tiny" / "plans"
    assert plain.path.name.startswith("default-") and other.path.name.startswith("seeds-z_loss-")
    assert len({plan.path.name.rpartition("-")[2] for plan in (plain, other, changed(tmp_path, "seeds=1"))}) == 3
    other.make()
    swapped = changed(tmp_path, "base.training.z_loss=1e-4", "seeds=0,1", "question=In other words?")
    assert swapped.path == other.path  # the folder that is there, whatever the label would be
    assert changed(tmp_path, "base.logging.every=7").path.name.endswith(plain.path.name.removeprefix("default"))
    plan = json.loads((other.path / "plan.json").read_text())
    assert plan == {"set": list(other.assignments), "plan": to_dict(other.experiment)}


def test_a_read_only_folder_is_named(tmp_path, read_only):
    with pytest.raises(NotWritableError, match=r"plans/default-.*: cannot be written to \(Read-only.*\). Fix:"):
        changed(tmp_path).make()


@pytest.mark.parametrize("kind", ["file", "below a file", "dangling link"])
def test_a_path_that_is_no_folder_is_named(tmp_path, kind):
    path = tmp_path / "runs"
    path.symlink_to("nowhere") if kind == "dangling link" else path.touch()
    with pytest.raises(NotWritableError, match=r"runs.*: cannot be written to \(.*\). Fix: .* another --out"):
        make_folder(path / "below" if kind == "below a file" else path, "--out")


def test_many_may_ask_at_once_whether_a_folder_can_be_written_to(tmp_path):
    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(lambda _: make_folder(tmp_path / "one", "--out"), range(400))) == {None}
    assert not list((tmp_path / "one").iterdir())


def test_a_run_that_is_planned_twice_or_has_too_long_a_name_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"runs of tiny = '.*': stands 2 times in the plan. Fix:"):
        _ = changed(tmp_path, "seeds=0,0").configs
    with pytest.raises(ConfigError, match=r"family = 'x{300}-.*': gives a folder's name of 3\d\d bytes"):
        _ = changed(tmp_path, f"base.family={'x' * 300}").configs


def test_a_report_of_a_read_only_folder_is_printed(tmp_path, read_only):
    path = tmp_path / "tiny.py"
    path.write_text("from test_plan_folder import EXPERIMENT")
    console = Console(file=io.StringIO(), width=200)
    assert verbs.report(Asked(path, tmp_path / "runs"), console) == 1
    printed = console.file.getvalue()
    assert "0 of 3 runs done" in printed and "No law was fitted." in printed
    assert "Nothing was written. " in printed and "give another --out." in printed
    assert not (tmp_path / "runs").exists()


def test_a_report_goes_where_it_is_asked_to(tmp_path):
    path, out = tmp_path / "tiny.py", tmp_path / "elsewhere"
    path.write_text("from test_plan_folder import EXPERIMENT")
    assert verbs.report(Asked(path, tmp_path / "runs"), Console(file=io.StringIO()), out) == 0
    assert {file.name for file in out.iterdir()} == {"runs.csv", "runs.parquet", "report.md"}
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("text", ["", '{"run": "a"', "[]", "\0" * 100])
def test_a_damaged_prediction_is_none_and_is_kept_when_another_is_written(tmp_path, caplog, text, monkeypatch):
    plan = changed(tmp_path)
    plan.make()
    plan.prediction_path.write_text(text)
    assert prediction.of_plan(plan) is None
    assert str(plan.prediction_path) in caplog.text and "writes another" in caplog.text
    from analysis.studies import Prediction

    monkeypatch.setattr("analysis.studies.prediction.write", lambda path, value: value)
    empty = Prediction(*[None] * 19)
    assert prediction.write(plan, plan.configs[0], empty, 1e4).prediction.run == run_name(plan.configs[0])
    assert (plan.path / "prediction-damaged.json").read_text() == text and not plan.prediction_path.exists()


def test_a_held_out_run_that_failed_is_said_and_blocks_nothing(tmp_path, monkeypatch):
    plan = changed(tmp_path)
    held_out = prediction.HeldOut(plan.experiment.held_out_run(1e4), "3.0 nats per token")
    open_run(tmp_path, held_out.config).result_path.write_text('{"loss_nats": NaN}')
    monkeypatch.setattr(prediction, "of_plan", lambda plan: held_out)
    console = Console(file=io.StringIO(), width=400)
    conclusion.write_report(plan, conclusion.fit(plan), console, None)
    printed = console.file.getvalue()
    assert "0 of 4 runs are done; 3 pending, 1 failed." in printed
    assert "Held out: predicted 3.0 nats per token; the run failed, so the prediction is not tested." in printed
    assert "result.json: is damaged, NaN is no number of JSON" in printed
    assert replace(held_out.config, held_out=False) not in plan.configs

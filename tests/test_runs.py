"""Run folders: atomic, claimed by one, status from files alone, and the table that is collected from them."""

import json
import multiprocessing
import os
import signal
import threading
from dataclasses import replace

import pytest

from research.config import (
    ConfigError,
    DataConfig,
    MeshConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    TrainingConfig,
    fingerprint,
    run_label,
    run_name,
    short_number,
)
from research.plan import run_cost
from research.runs import (
    ClaimError,
    LockError,
    RunFolder,
    Status,
    check_locks,
    collect,
    folder,
    one_at_a_time,
    open_run,
    write_atomically,
)

CONFIG = RunConfig(experiment="exp", budget_flops=1.2e11, model=ModelConfig(width=64, depth=4))


def hold_claim(path, held):
    with RunFolder(path).claim():
        held.set()
        signal.pause()


def test_name_is_readable_and_unique():
    assert run_name(CONFIG) == f"transformer-1.2e11-w64-d4-seed0-{fingerprint(CONFIG)}"
    other = replace(CONFIG, optimizer=OptimizerConfig(learning_rate=1e-2))
    assert run_label(other) == run_label(CONFIG)
    assert run_name(other) != run_name(CONFIG)
    assert run_label(replace(CONFIG, family="a/b c", budget_flops=None)) == "a_b_c-w64-d4-seed0"


@pytest.mark.parametrize("value, text", [(1.2e11, "1.2e11"), (3e9, "3e9"), (512, "512"), (0, "0"), (123456, "1.23e5")])
def test_short_number(value, text):
    assert short_number(value) == text


def test_folder_is_shared_by_what_is_not_identity(tmp_path):
    first = open_run(tmp_path, CONFIG)
    assert first.path == tmp_path / "exp" / run_name(CONFIG)
    assert open_run(tmp_path, replace(CONFIG, mesh=MeshConfig(data=1), held_out=True)) == first
    assert [path.name for path in first.path.iterdir()] == ["config.json"]
    assert len(list(first.path.parent.iterdir())) == 1  # no temporary folder left


def test_folder_of_another_run_names_the_field(tmp_path):
    folder = open_run(tmp_path, CONFIG)
    stored = json.loads(folder.config_path.read_text())
    stored["optimizer"]["learning_rate"] = 0.5
    folder.config_path.write_text(json.dumps(stored))
    with pytest.raises(ConfigError, match=r"optimizer.learning_rate = 0.003: the folder .* holds a run with 0.5. Fix:"):
        open_run(tmp_path, CONFIG)
    stored["optimizer"]["momentum"] = 0.9
    folder.config_path.write_text(json.dumps(stored))
    with pytest.raises(ConfigError, match=r"not a run of this version of the code: optimizer\.momentum: unknown field"):
        open_run(tmp_path, CONFIG)
    folder.config_path.unlink()
    with pytest.raises(ConfigError, match=r"config\.json is missing"):
        open_run(tmp_path, CONFIG)


def test_many_processes_may_make_the_same_folder(tmp_path):
    threads = [threading.Thread(target=open_run, args=(tmp_path, CONFIG)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path.name for path in (tmp_path / "exp").iterdir()] == [run_name(CONFIG)]


def test_status_follows_the_files(tmp_path):
    folder = RunFolder(tmp_path / "exp" / run_name(CONFIG))
    assert folder.status() == Status.PENDING
    folder = open_run(tmp_path, CONFIG)
    assert folder.status() == Status.PENDING
    with folder.claim():
        assert folder.status() == Status.RUNNING
    assert folder.status() == Status.PENDING
    folder.checkpoints_path.mkdir()
    assert folder.status() == Status.PARTIAL
    folder.write_failure(7, "loss_nats = nan at step 7")
    assert folder.status() == Status.FAILED
    folder.forget_failure()
    assert folder.status() == Status.PARTIAL
    folder.write_result({"loss_nats": 3.0})
    assert folder.status() == Status.DONE
    with folder.claim():
        assert folder.status() == Status.DONE


def test_claim_is_for_one_process_and_ends_with_it(tmp_path):
    folder = open_run(tmp_path, CONFIG)
    context = multiprocessing.get_context("spawn")
    held = context.Event()
    holder = context.Process(target=hold_claim, args=(folder.path, held))
    holder.start()
    assert held.wait(30)
    assert folder.status() == Status.RUNNING
    with pytest.raises(ClaimError, match=f"is being trained by process {holder.pid} on .*Fix:"), folder.claim():
        pass
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    with folder.claim():
        assert folder.claim_path.read_text().startswith(f"process {os.getpid()} on ")


def test_a_block_for_one_process_at_a_time(tmp_path):
    order = []

    def second():
        with one_at_a_time(tmp_path):
            order.append("second")

    with one_at_a_time(tmp_path):
        other = threading.Thread(target=second)
        other.start()
        other.join(0.2)
        order.append("first")
    other.join(10)
    assert order == ["first", "second"]


def test_locks_are_found_missing(tmp_path, monkeypatch):
    check_locks(tmp_path)
    monkeypatch.setattr(folder.fcntl, "flock", lambda *arguments: os.lseek(-1, 0, 0))  # raises an OSError
    with pytest.raises(LockError, match=r"cannot lock files \(flock: Bad file descriptor\).*Fix: set --runs-dir"):
        check_locks(tmp_path)
    assert not list(tmp_path.iterdir())


def test_atomic_write_leaves_the_old_file_or_the_new_one(tmp_path):
    path = tmp_path / "file.json"
    write_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "new \ud800")  # cannot be encoded: fails in the middle of writing
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_steps_are_read_from_complete_lines_and_checkpoints(tmp_path):
    folder = open_run(tmp_path, CONFIG)
    assert (folder.last_step(), folder.checkpoint_step()) == ((0, None), 0)
    lines = [{"kind": "session", "step": 0}, {"kind": "train", "step": 4, "loss_nats": 2.5}]
    lines += [{"kind": "evaluation", "step": 5, "loss_nats": 2.0}]
    folder.metrics_path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"kind": "train", "st')
    for name in ("3", "12", "20.orbax-checkpoint-tmp"):
        (folder.checkpoints_path / name).mkdir(parents=True)
    assert (folder.last_step(), folder.checkpoint_step()) == ((4, 2.5), 12)


def test_table_has_a_row_for_every_planned_run(tmp_path):
    data = DataConfig(train_tokens=10_000_000)
    done, failed, pending = (replace(CONFIG, data=data, training=TrainingConfig(seed=seed)) for seed in range(3))
    open_run(tmp_path, done).write_result({"loss_nats": 2.5, "loss_nats_prose": 2.0, "not_a_column": 1, "devices": 1})
    open_run(tmp_path, failed).write_failure(7, "loss_nats = nan at step 7", "a traceback")
    table = collect([done, failed, pending], tmp_path)
    assert list(table["status"]) == ["done", "failed", "pending"]
    assert list(table["run"]) == [run_name(config) for config in (done, failed, pending)]
    assert table["loss_nats"].tolist()[0] == 2.5 and table["loss_nats"].isna().tolist() == [False, True, True]
    assert table["loss_nats_prose"].iloc[0] == 2.0
    assert table["failure_step"].iloc[1] == 7 and table["failure_reason"].iloc[1] == "loss_nats = nan at step 7"
    assert (table["params"] == run_cost(done).params).all() and (table["flops"] == run_cost(done).flops).all()
    assert "not_a_column" not in table and "traceback" not in table and "flops_per_step" not in table

"""Run folders: atomic, claimed by one, status from files alone, and the table that is collected from them."""

import json
import multiprocessing
import os
import re
import signal
import threading
from dataclasses import replace

import pytest

from analysis.files import write_atomically
from research.config import (
    AdamWConfig,
    ConfigError,
    DataConfig,
    MeshConfig,
    ModelConfig,
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
    DamagedFileError,
    LockError,
    RunFolder,
    Status,
    check_locks,
    collect,
    folder,
    one_at_a_time,
    open_run,
)
from research.runs.records import append_line, read_last_line, read_lines

CONFIG = RunConfig(experiment="exp", budget_flops=1.2e11, model=ModelConfig(width=64, depth=4))


def hold_claim(path, held):
    with RunFolder(path).claim():
        held.set()
        signal.pause()


def test_name_is_readable_and_unique():
    assert run_name(CONFIG) == f"transformer-1.2e11-w64-d4-seed0-{fingerprint(CONFIG)}"
    other = replace(CONFIG, optimizer=AdamWConfig(learning_rate=1e-2))
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
    write_atomically(path, b"old")
    with pytest.raises(TypeError):
        write_atomically(path, "text")  # no bytes: fails in the middle of writing
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


DAMAGED = {
    "": "is empty",
    "\0\0\0": "is empty",
    '{"loss_nats": 2.5': "is damaged, Expecting",
    "[2.5]": r"must hold a JSON object, and holds \[2.5\]",
    '{"loss_nats": NaN}': "is damaged, NaN is no number of JSON",
    '{"loss_nats": null}': "is damaged, loss_nats = None is no number",
    '{"loss_nats": 2.5, "devices": "two"}': "is damaged, devices = 'two' is no number",
}


@pytest.mark.parametrize("text", DAMAGED)
def test_a_damaged_result_fails_its_run_alone_and_is_mended_by_a_retry(tmp_path, text):
    damaged, good = (replace(CONFIG, training=TrainingConfig(seed=seed)) for seed in range(2))
    folder = open_run(tmp_path, damaged)
    folder.result_path.write_text(text)
    open_run(tmp_path, good).write_result({"loss_nats": 2.5})
    table = collect([damaged, good], tmp_path)
    assert list(table["status"]) == ["failed", "done"] and table["loss_nats"].isna().tolist() == [True, False]
    reason = table["failure_reason"].iloc[0]
    assert re.search(f"^{folder.result_path}: {DAMAGED[text]}.*Fix: .*--retry-failed", reason)
    folder.forget_failure()
    assert folder.status() == Status.PENDING
    assert (folder.path / "result-before.json").read_text() == text


def test_a_result_that_is_a_folder_fails_its_run_alone(tmp_path):
    folder = open_run(tmp_path, CONFIG)
    folder.result_path.mkdir()
    status, outcome = folder.outcome()
    assert status == Status.FAILED and "result.json: is no file (Is a directory)" in outcome["failure_reason"]


def test_a_damaged_failure_is_a_failure(tmp_path):
    folder = open_run(tmp_path, CONFIG)
    folder.failure_path.write_bytes(b"\xff{}")
    status, outcome = folder.outcome()
    assert status == Status.FAILED and "failure.json: is damaged, byte 0 is no UTF-8" in outcome["failure_reason"]


def test_no_result_is_written_that_json_cannot_hold(tmp_path):
    folder = open_run(tmp_path, CONFIG)
    with pytest.raises(DamagedFileError, match=r"result.json: exact_match = nan is no measurement"):
        folder.write_result({"loss_nats": 2.5, "exact_match": float("nan")})
    assert folder.status() == Status.PENDING and not list(folder.path.glob("*result*"))


def test_a_damaged_config_is_written_again(tmp_path, caplog):
    folder = open_run(tmp_path, CONFIG)
    whole = folder.config_path.read_text()
    folder.config_path.write_text(whole[:100])
    open_run(tmp_path, CONFIG)
    assert f"{folder.config_path}: is damaged, " in caplog.text and "written again" in caplog.text
    assert folder.config_path.read_text() == whole


def test_lines_are_kept_around_one_that_a_full_disk_cut(tmp_path, caplog):
    path = tmp_path / "timings.jsonl"
    append_line(path, {"kind": "a", "step": 1})
    path.write_text(path.read_text() + '{"kind": "a", "st')
    append_line(path, {"kind": "a", "step": 3})
    path.write_text(path.read_text() + '{"kind": "b"}\n{"kind": "a", "step": 5')
    assert [line["step"] for line in read_lines(path, ("step",))] == [1, 3]
    messages = [f"{path}: line {number} is damaged and left out" for number in (2, 4)]
    assert [record.getMessage() for record in caplog.records] == messages
    assert read_last_line(path, "a", ("step",)) == {"kind": "a", "step": 3}
    assert read_lines(tmp_path / "absent") == [] and read_last_line(tmp_path / "absent", "a", ()) is None


@pytest.mark.parametrize("after", [0, 1, 41, 1000])
def test_the_last_line_is_found_however_much_follows(tmp_path, after):
    """4096 bytes are read first: the line may lie within them, across their beginning, or before it."""
    path = tmp_path / "metrics.jsonl"
    wanted = {"kind": "train", "step": 7, "note": "x" * 90}
    lines = [{"kind": "train", "step": 6}, wanted, *[{"kind": "evaluation", "note": "y" * 60}] * after]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_last_line(path, "train", ("step",)) == wanted

"""The local engine: runs are handed out in order, a lost worker loses one run, signals stop at a checkpoint."""

import contextlib
import errno
import io
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from research.command.progress import duration, show
from research.config import ConfigError, DataConfig, ModelConfig, RunConfig, run_name
from research.execution import local, worker
from research.execution.events import Ended, Outcome, Progressed, Ready, Started, Stopping, Tick
from research.execution.sweep import new_sweep
from research.execution.worker import is_disk_full
from research.runs import Status, folder_of, open_run

DRIVER = Path(__file__).parent / "fake_trainers.py"
BASE = RunConfig(experiment="exp", model=ModelConfig(width=64), data=DataConfig(train_tokens=100_000_000))


def make_configs(*families: str, steps: int = 5) -> list[RunConfig]:
    training = replace(BASE.training, steps=steps)
    return [replace(BASE, family=family, training=replace(training, seed=i)) for i, family in enumerate(families)]


def run_all(configs, runs_dir, trainer="train_or_fail", **kwargs) -> tuple[Outcome, list]:
    events = []
    outcome = local.run_all(configs, runs_dir, watch=events.append, trainer=f"fake_trainers:{trainer}", **kwargs)
    return outcome, [event for event in events if not isinstance(event, Tick)]


def statuses(configs, runs_dir) -> list[Status]:
    return [folder_of(runs_dir, config).status() for config in configs]


def test_runs_are_trained_once_in_order_by_workers_that_stay(tmp_path):
    configs = make_configs(*["ok"] * 6)
    outcome, events = run_all(configs, tmp_path, workers=2)
    assert outcome == replace(Outcome(), worker_start_seconds=outcome.worker_start_seconds)
    assert statuses(configs, tmp_path) == [Status.DONE] * 6
    assert sorted(event.run for event in events if isinstance(event, Ended)) == sorted(map(run_name, configs))
    # Two workers take runs in turn, so a run may overtake one neighbour but no more.
    started = [event.run for event in events if isinstance(event, Started)]
    assert all(abs(started.index(run_name(config)) - i) <= 1 for i, config in enumerate(configs))
    processes = {
        json.loads(folder_of(tmp_path, config).metrics_path.read_text().splitlines()[0])["process"]
        for config in configs
    }
    assert len(processes) == 2
    last = [event for event in events if isinstance(event, Progressed)][-1]
    assert last.step == 5 and last.loss_nats > 0
    assert outcome.worker_start_seconds == sum(event.seconds for event in events if isinstance(event, Ready)) > 0


def test_cores_are_shared_and_a_single_run_gets_all(tmp_path):
    cores = os.sched_getaffinity(0)
    for workers in (1, 2, 3, 1000):
        shares = local.share_cores(workers)
        assert len(shares) == min(workers, len(cores))
        assert sorted(core for share in shares for core in share) == sorted(cores)
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
    one = make_configs("ok", steps=1)
    run_all(one, tmp_path)
    assert folder_of(tmp_path, one[0]).result()["devices"] == len(cores)


def test_one_bad_run_loses_no_other(tmp_path):
    configs = make_configs("ok", "raises", "diverges", "killed", "ok", "ok")
    outcome, events = run_all(configs, tmp_path, workers=2)
    done, failed, partial = Status.DONE, Status.FAILED, Status.PARTIAL
    assert statuses(configs, tmp_path) == [done, failed, failed, partial, done, done]
    raises, diverges, killed = (folder_of(tmp_path, config) for config in configs[1:4])
    assert set(outcome.errors) == {raises.name, killed.name}  # a loss that became infinite is a result
    assert "signal SIGKILL, as happens when memory runs out" in outcome.errors[killed.name]
    assert "signal SIGKILL" in killed.log_path.read_text()
    failure = raises.result()
    assert failure["failure_reason"] == "ValueError: a bug in the trainer"
    assert "with a second line" in failure["traceback"] and "fake_trainers.py" in failure["traceback"]
    assert "ValueError: a bug in the trainer" in raises.log_path.read_text()
    assert diverges.result()["failure_step"] == 3
    reasons = {event.run: event.reason for event in events if isinstance(event, Ended)}
    assert reasons[diverges.name] == "loss_nats = nan at step 3"


def test_killed_worker_is_replaced_and_its_run_resumed(tmp_path):
    configs = make_configs("ok", "ok", steps=100)
    victim = run_name(configs[0])

    def kill_its_worker(event):
        if isinstance(event, Progressed) and event.run == victim:
            line = folder_of(tmp_path, configs[0]).metrics_path.read_text().splitlines()[0]
            os.kill(json.loads(line)["process"], signal.SIGKILL)

    outcome = local.run_all(configs, tmp_path, watch=kill_its_worker, workers=1, trainer="fake_trainers:train")
    assert statuses(configs, tmp_path) == [Status.PARTIAL, Status.DONE]
    assert set(outcome.errors) == {victim}
    outcome, _ = run_all(configs[:1], tmp_path, "train")
    assert outcome.errors == {} and statuses(configs, tmp_path) == [Status.DONE, Status.DONE]


def test_full_disk_stops_the_sweep(tmp_path):
    configs = make_configs("disk_full", "ok", "ok")
    outcome, events = run_all(configs, tmp_path, workers=1)
    assert outcome.is_disk_full and "could not save" in outcome.errors[run_name(configs[0])]
    assert statuses(configs, tmp_path) == [Status.PENDING] * 3  # not failed: it was not the runs' fault
    assert any(isinstance(event, Stopping) for event in events)


def test_disk_full_is_seen_through_libraries_words():
    assert is_disk_full(OSError(errno.EDQUOT, "quota"))
    assert is_disk_full(ValueError(f"tensorstore: {os.strerror(errno.ENOSPC)} [OS error 28]"))
    assert not is_disk_full(OSError(errno.EACCES, "no"))


def test_run_that_another_process_trains_is_left_to_it(tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "CLAIM_PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr(worker, "_log_to", lambda path: None)
    folder = open_run(tmp_path, BASE)
    ours, theirs = multiprocessing.Pipe()
    with folder.claim():
        ended = worker._train_one(lambda *_: pytest.fail("trained"), BASE, folder, theirs, lambda: False)
    assert ended.status == Status.RUNNING and ended.is_error
    assert f"is being trained by process {os.getpid()}" in ended.reason
    assert not folder.failure_path.exists() and not ours.poll()


def test_claim_of_a_worker_that_is_about_to_end_is_waited_for(tmp_path):
    configs = make_configs("ok")
    with contextlib.ExitStack() as stack:
        stack.enter_context(open_run(tmp_path, configs[0]).claim())
        timer = threading.Timer(2.0, stack.close)
        timer.start()
        outcome, _ = run_all(configs, tmp_path)
        timer.join()
    assert outcome.errors == {} and statuses(configs, tmp_path) == [Status.DONE]


def test_folder_of_another_run_is_an_error_before_any_training(tmp_path):
    configs = make_configs("ok", "ok")
    folder = open_run(tmp_path, configs[1])
    stored = json.loads(folder.config_path.read_text())
    folder.config_path.write_text(json.dumps({**stored, "budget_flops": 1.0}))
    with pytest.raises(ConfigError, match="budget_flops"):
        run_all(configs, tmp_path)
    assert statuses(configs, tmp_path) == [Status.PENDING] * 2


def test_workers_that_cannot_start_are_an_error_with_their_last_words(tmp_path):
    with pytest.raises(local.WorkerError, match=r"(?s)exit code 1 while it started.*has no attribute 'absent'"):
        run_all(make_configs("ok", "ok"), tmp_path, "absent")


def drive(runs_dir: Path, steps: int = 10_000) -> subprocess.Popen:
    """`run_all` of three runs in a process group of its own, which prints a line for each start."""
    return subprocess.Popen(
        [sys.executable, str(DRIVER), str(runs_dir), str(steps)],
        env={**os.environ, "PYTHONPATH": str(DRIVER.parents[1])},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


@pytest.mark.parametrize("send", [os.killpg, os.kill], ids=["group", "process"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_stops_runs_at_a_checkpoint(tmp_path, send, number):
    process = drive(tmp_path)
    assert process.stdout.readline() == process.stdout.readline() == "started\n"
    time.sleep(0.3)
    send(process.pid, number)
    output, _ = process.communicate(timeout=20)
    assert "interrupted=True" in output
    folders = [path for path in (tmp_path / "exp").iterdir() if path.is_dir()]
    steps = sorted(int(checkpoint.name) for path in folders for checkpoint in path.glob("checkpoints/*"))
    assert len(steps) == 2 and steps[0] > 0  # the two that were at work; the third never began


def test_second_signal_kills_at_once(tmp_path):
    process = drive(tmp_path / "stubborn")  # its trainer never looks at should_stop
    assert process.stdout.readline() == "started\n"
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=20)
    assert "KeyboardInterrupt" in output


def test_workers_of_a_killed_parent_save_and_end(tmp_path):
    process = drive(tmp_path)
    assert process.stdout.readline() == process.stdout.readline() == "started\n"
    time.sleep(0.3)
    process.kill()
    process.communicate(timeout=20)
    deadline = time.monotonic() + 20
    while len(list(tmp_path.glob("exp/*/checkpoints/*"))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    while Status.RUNNING in [folder_of(tmp_path, config).status() for config in make_configs("ok", "ok", "ok")]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_lines_where_there_is_no_terminal(tmp_path, capsys):
    configs = make_configs("ok", "raises")
    with show(Console(force_terminal=False, width=400), new_sweep(configs, configs, tmp_path, 1)) as watch:
        local.run_all(configs, tmp_path, watch=watch, workers=1, trainer="fake_trainers:train_or_fail")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["start", "done", "start", "failed"]
    assert "training loss" in lines[1] and "ValueError: a bug in the trainer" in lines[3]


def test_live_lines_show_runs_and_the_sweep(tmp_path):
    configs = make_configs("ok", "ok", steps=1000)
    console = Console(force_terminal=True, width=120, record=True, file=io.StringIO())
    names = [run_name(config) for config in configs]
    with show(console, new_sweep(configs, configs, tmp_path, 2)) as watch:
        for event in (Started(names[0], 0), Started(names[1], 40), Progressed(names[0], 10, 4.25)):
            watch(event)
        time.sleep(0.01)
        watch(Progressed(names[0], 30, 4.125))
        watch(Ended(names[1], Status.DONE))
    text = console.export_text()
    assert "30/1,000" in text and "loss 4.125" in text and "tokens/s" in text
    assert "1/2 runs" in text and "FLOPs" in text and "left" in text


@pytest.mark.parametrize("seconds, text", [(12.4, "12s"), (185, "3m 05s"), (7620, "2h 07m"), (59.7, "1m 00s")])
def test_duration(seconds, text):
    assert duration(seconds) == text

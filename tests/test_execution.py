"""Sweeps on the local engine: runs in order, what is tried again, what stops it, and signals."""

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from research.config import ConfigError, DataConfig, ModelConfig, RunConfig, run_name
from research.execution import local, process
from research.execution.drive import drive
from research.execution.engine import WorkerError
from research.execution.events import Cause, Ended, Following, Outcome, Progressed, Ready, Started, Stopping, Tick
from research.runs import Status, folder_of, open_run

DRIVER = Path(__file__).parent / "fake_trainers.py"
BASE = RunConfig(experiment="exp", model=ModelConfig(width=64), data=DataConfig(train_tokens=100_000_000))


def make_configs(*families: str, steps: int = 5) -> list[RunConfig]:
    training = replace(BASE.training, steps=steps)
    return [replace(BASE, family=family, training=replace(training, seed=i)) for i, family in enumerate(families)]


def engine(runs_dir, runs, trainer="train_or_fail", workers=None, together=1) -> local.LocalEngine:
    return local.LocalEngine(runs_dir / "exp", runs, workers, together, trainer=f"fake_trainers:{trainer}")


def run_all(configs, runs_dir, trainer="train_or_fail", workers=None, together=1) -> tuple[Outcome, list]:
    events = []
    outcome = drive(engine(runs_dir, len(configs), trainer, workers, together), configs, runs_dir, events.append)
    return outcome, [event for event in events if not isinstance(event, Tick)]


def session_processes(config, runs_dir) -> list[int]:
    """The process of every time the run was taken up."""
    lines = map(json.loads, folder_of(runs_dir, config).metrics_path.read_text().splitlines())
    return [line["process"] for line in lines if line["kind"] == "session"]


def statuses(configs, runs_dir) -> list[Status]:
    return [folder_of(runs_dir, config).status() for config in configs]


def test_runs_are_trained_once_in_order_by_workers_that_stay(tmp_path):
    configs = make_configs(*["meets"] * 6)
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


def test_cores_are_shared_evenly_and_a_single_run_gets_all(tmp_path, monkeypatch):
    with monkeypatch.context() as eight:
        eight.setattr(local, "usable_cores", lambda: tuple(range(10, 18)))
        for workers, size in ((1, 8), (2, 4), (3, 2), (8, 1), (1000, 1)):
            shares = local.share_cores(workers)
            assert [len(share) for share in shares] == [size] * min(workers, 8)
            shared = [core for share in shares for core in share]
            assert len(set(shared)) == len(shared) and set(shared) <= set(range(10, 18))
    cores = local.usable_cores()
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


def test_runs_of_one_program_are_one_job_and_one_bad_run_of_it_fails_alone(tmp_path):
    """Four seeds in a job: one raises, by which the job ends; each is then taken up by itself."""
    configs = make_configs("ok", "raises", "ok", "diverges")
    outcome, events = run_all(configs, tmp_path, workers=1, together=4)
    assert statuses(configs, tmp_path) == [Status.DONE, Status.FAILED, Status.DONE, Status.FAILED]
    assert list(outcome.errors) == [run_name(configs[1])] and not outcome.fault
    kinds = [type(event) for event in events if isinstance(event, Started | Ended)]
    assert kinds[:8] == [Started] * 4 + [Ended] * 4 and kinds.count(Ended) == 8
    assert {event.cause for event in events if isinstance(event, Ended)} == {Cause.SHARED, Cause.ERROR, None}
    first = folder_of(tmp_path, configs[0])
    log = folder_of(tmp_path, configs[2]).log_path.read_text()
    assert f"trained together with {first.name}" in log


def test_a_job_of_several_runs_that_is_lost_is_tried_again_run_by_run(tmp_path):
    configs = make_configs("ok", "killed once", "ok")
    outcome, events = run_all(configs, tmp_path, workers=1, together=8)
    assert statuses(configs, tmp_path) == [Status.DONE] * 3 and not outcome.errors
    lost = [event for event in events if isinstance(event, Ended) and event.cause == Cause.LOST]
    assert {event.run for event in lost} <= set(map(run_name, configs)) and run_name(configs[1]) in {
        e.run for e in lost
    }


def once(happening):
    """`happening()` at the first progress of a run, as a function that watches."""
    pending = [happening]

    def watch(event):
        if isinstance(event, Progressed) and pending:
            pending.pop()()

    return watch


def test_a_run_whose_worker_is_lost_is_tried_once_more(tmp_path):
    configs = make_configs("killed once", "killed", "ok")
    outcome, events = run_all(configs, tmp_path, workers=1)
    assert statuses(configs, tmp_path) == [Status.DONE, Status.PARTIAL, Status.DONE]
    assert set(outcome.errors) == {run_name(configs[1])}
    reasons = [event.reason for event in events if isinstance(event, Ended) and event.cause == Cause.LOST]
    assert [reason.endswith("; tried again") for reason in reasons] == [True, True, False]
    taken_up = [event.run for event in events if isinstance(event, Started)]
    assert taken_up == [run_name(configs[i]) for i in (0, 0, 1, 1, 2)]  # again at once, and not at the end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP])
def test_a_signal_to_one_worker_loses_no_run(tmp_path, monkeypatch, number):
    monkeypatch.setattr(process, "SUSPENDED_SECONDS", 0.5)
    configs = make_configs("ok", "ok", steps=100)
    watch = once(lambda: os.kill(session_processes(configs[0], tmp_path)[0], number))
    outcome = drive(engine(tmp_path, 2, "train", workers=1), configs, tmp_path, watch)
    assert outcome.errors == {} and statuses(configs, tmp_path) == [Status.DONE] * 2
    assert [len(session_processes(config, tmp_path)) for config in configs] == [2, 1]
    saved = sorted(int(path.name) for path in folder_of(tmp_path, configs[0]).checkpoints_path.iterdir())
    assert (len(saved) == 2) == (number != signal.SIGKILL) and saved[-1] == 100


def test_a_suspended_worker_stops_with_the_sweep(tmp_path):
    configs = make_configs("ok", steps=10_000)

    def suspend_it_and_stop_us():
        os.kill(session_processes(configs[0], tmp_path)[0], signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGTERM)

    outcome = drive(engine(tmp_path, 1, "train"), configs, tmp_path, once(suspend_it_and_stop_us))
    assert outcome.interrupted and folder_of(tmp_path, configs[0]).checkpoint_step() > 0


def test_a_worker_that_ends_while_it_is_looked_at(tmp_path, monkeypatch):
    worker = process.WorkerProcess(local.usable_cores(), "fake_trainers:train", tmp_path / "worker.log")
    monkeypatch.setattr(worker, "has_ended", lambda: False)  # as it was a moment ago
    worker.kill()
    os.waitid(os.P_PID, worker._process.pid, os.WEXITED | os.WNOWAIT)
    worker.look_after()
    worker.let_go()
    worker.wait(10)


def test_a_worker_that_does_not_stop_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "STOP_SECONDS", 0.5)
    configs = make_configs("ok", steps=10_000)
    watch = once(lambda: os.kill(os.getpid(), signal.SIGTERM))
    outcome = drive(engine(tmp_path, 1, "train_stubbornly"), configs, tmp_path, watch)
    assert outcome.interrupted and "did not stop within" in outcome.errors[run_name(configs[0])]


def test_a_worker_that_hangs_ends_and_its_log_says_where(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "SILENT_SECONDS", 2.0)
    configs = make_configs("hangs once", "hangs", steps=5)
    outcome, _ = run_all(configs, tmp_path, workers=2)
    assert statuses(configs, tmp_path) == [Status.DONE, Status.PENDING]
    assert "by an error or since it did nothing for 2 s" in outcome.errors[run_name(configs[1])]
    assert "in train_or_fail" in folder_of(tmp_path, configs[1]).log_path.read_text()


def test_faults_of_the_machine_are_tried_again_and_then_stop_the_sweep(tmp_path):
    configs = make_configs("refused once", "refused", "ok", "ok")
    outcome, events = run_all(configs, tmp_path, workers=1)
    assert outcome.fault == f"{run_name(configs[1])}: OSError: [Errno 5] Input/output error"
    assert outcome.errors == {} and not outcome.is_disk_full and not outcome.interrupted
    pending = Status.PENDING
    assert statuses(configs, tmp_path) == [Status.DONE, pending, pending, pending]  # none is failed
    assert sum(isinstance(event, Stopping) for event in events) == 1


def test_full_disk_stops_the_sweep(tmp_path):
    configs = make_configs("disk_full", "ok", "ok")
    outcome, events = run_all(configs, tmp_path, workers=1)
    assert outcome.is_disk_full and "could not save" in outcome.fault
    assert statuses(configs, tmp_path) == [Status.PENDING] * 3  # not failed: it was not the runs' fault
    assert any(isinstance(event, Stopping) for event in events)


def test_runs_that_another_process_trains_are_left_to_it_and_then_followed(tmp_path):
    """Of three runs another process holds two: one it finishes, the other it lets go."""
    configs = make_configs("ok", "ok", "ok")
    finished, let_go = (open_run(tmp_path, config) for config in configs[:2])
    events = []
    with contextlib.ExitStack() as claims:
        for held in (finished, let_go):
            claims.enter_context(held.claim())

        def watch(event):
            events.append(event)
            if isinstance(event, Following) and len(event.runs) == 2:
                assert statuses(configs, tmp_path) == [Status.RUNNING, Status.RUNNING, Status.DONE]
                finished.write_result({"loss_nats": 3.0})
            if isinstance(event, Ended) and event.run == finished.name and event.cause is None:
                claims.close()

        outcome = drive(engine(tmp_path, 3, "train", workers=1), configs, tmp_path, watch)
    assert outcome.errors == {} and statuses(configs, tmp_path) == [Status.DONE] * 3
    assert finished.result() == {"loss_nats": 3.0}  # theirs
    ends = [(event.run, event.cause) for event in events if isinstance(event, Ended)]
    names = [run_name(config) for config in configs]
    held = [(names[0], Cause.HELD), (names[1], Cause.HELD)]
    assert ends == [*held, (names[2], None), (names[0], None), (names[1], Cause.STOPPED), (names[1], None)]
    assert f"left to process {os.getpid()}" in next(event.reason for event in events if isinstance(event, Ended))


def test_two_engines_at_once_share_the_runs(tmp_path):
    engines = [drive_three(tmp_path, 200) for _ in range(2)]
    outputs = [process.communicate(timeout=60)[0] for process in engines]
    assert [process.returncode for process in engines] == [0, 0]
    assert all("errors={}" in output for output in outputs)
    assert len(list(tmp_path.glob("exp/*/result.json"))) == 3
    assert [path.read_text().count('"session"') for path in tmp_path.glob("exp/*/metrics.jsonl")] == [1, 1, 1]
    assert sum(output.count("started") for output in outputs) == 3


@pytest.mark.parametrize("error", [BrokenPipeError(), SystemExit(1), OSError(errno.EACCES, "no")])
def test_an_error_of_the_engine_costs_no_step(tmp_path, error):
    configs = make_configs("ok", steps=10_000)

    def fail():
        raise error

    with pytest.raises(type(error)):
        drive(engine(tmp_path, 1, "train"), configs, tmp_path, once(fail))
    deadline = time.monotonic() + 20
    while statuses(configs, tmp_path) == [Status.RUNNING]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    run = folder_of(tmp_path, configs[0])
    assert run.checkpoint_step() == run.last_step()[0] > 0


def test_workers_do_not_run_what_lies_in_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "select.py").write_text("raise SystemExit('a file of the current folder was run')")
    monkeypatch.chdir(tmp_path)
    configs = make_configs("ok")
    assert run_all(configs, tmp_path)[0].errors == {}
    assert statuses(configs, tmp_path) == [Status.DONE]


def test_a_run_that_is_left_alone_has_as_many_cores_as_before(tmp_path):
    configs = make_configs("ok", "ok")
    for left in (configs, configs[1:]):  # two runs, and then one that is left of the two
        drive(engine(tmp_path, 2, "train", workers=2), left, tmp_path, lambda event: None)
        devices = [folder_of(tmp_path, config).result()["devices"] for config in configs]
        assert devices == [len(share) for share in local.share_cores(2)]
        folder_of(tmp_path, configs[1]).result_path.unlink()


def test_folder_of_another_run_is_an_error_before_any_training(tmp_path):
    configs = make_configs("ok", "ok")
    folder = open_run(tmp_path, configs[1])
    stored = json.loads(folder.config_path.read_text())
    folder.config_path.write_text(json.dumps({**stored, "budget_flops": 1.0}))
    with pytest.raises(ConfigError, match="budget_flops"):
        run_all(configs, tmp_path)
    assert statuses(configs, tmp_path) == [Status.PENDING] * 2


def test_workers_that_cannot_start_are_an_error_with_their_last_words(tmp_path):
    with pytest.raises(WorkerError, match=r"(?s)while it started: .*exit code 1.*absent': must be module:function"):
        run_all(make_configs("ok", "ok"), tmp_path, "absent")


def drive_three(runs_dir: Path, steps: int = 10_000) -> subprocess.Popen:
    """`drive` with three runs in a process group of its own, which prints a line for each start."""
    return subprocess.Popen(
        [sys.executable, str(DRIVER), str(runs_dir), str(steps)],
        env={**os.environ, "PYTHONPATH": str(DRIVER.parents[1])},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


@pytest.mark.parametrize("send", [os.killpg, os.kill], ids=["group", "process"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_stops_runs_at_a_checkpoint(tmp_path, send, number):
    process = drive_three(tmp_path)
    assert process.stdout.readline() == process.stdout.readline() == "started\n"
    time.sleep(0.3)
    send(process.pid, number)
    output, _ = process.communicate(timeout=20)
    assert "interrupted=True" in output
    folders = [path for path in (tmp_path / "exp").iterdir() if path.is_dir()]
    steps = sorted(int(checkpoint.name) for path in folders for checkpoint in path.glob("checkpoints/*"))
    assert len(steps) == 2 and steps[0] > 0  # the two that were at work; the third never began


def test_second_signal_kills_at_once(tmp_path):
    process = drive_three(tmp_path / "stubborn")  # its trainer never looks at should_stop
    assert process.stdout.readline() == "started\n"
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=20)
    assert "KeyboardInterrupt" in output


def test_workers_of_a_killed_parent_save_and_end(tmp_path):
    process = drive_three(tmp_path)
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

"""Faults of the machine are told from a run's own, also through the words of libraries; what a sweep makes of each."""

import errno
import os

import jax
import pytest

from research.config import DataConfig, RunConfig
from research.execution.drive import Books, settle
from research.execution.events import Cause, Ended
from research.execution.faults import MachineError, machine_fault
from research.execution.trainer import train_runs
from research.runs import Status


def wrapped(cause: BaseException) -> BaseException:
    error = RuntimeError("could not save")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error, expected",
    [
        (OSError(errno.ENOSPC, "full"), Cause.DISK_FULL),
        (OSError(errno.EDQUOT, "quota"), Cause.DISK_FULL),
        (ValueError(f"tensorstore: {os.strerror(errno.ENOSPC)} [OS error 28]"), Cause.DISK_FULL),
        (wrapped(OSError(errno.EIO, "bad block")), Cause.MACHINE),
        (OSError(errno.EFBIG, os.strerror(errno.EFBIG)), Cause.MACHINE),
        (OSError(errno.EROFS, os.strerror(errno.EROFS)), Cause.MACHINE),
        (PermissionError(errno.EACCES, os.strerror(errno.EACCES)), Cause.MACHINE),
        (OSError(errno.ENOSYS, os.strerror(errno.ENOSYS)), Cause.MACHINE),  # no flock
        (ValueError(f"tensorstore: {os.strerror(errno.EROFS)} [OS error 30]"), Cause.MACHINE),
        (ImportError("libcudnn.so.9: cannot open shared object file"), Cause.MACHINE),
        (RuntimeError("Unable to initialize backend 'cuda': FAILED_PRECONDITION: no CUDA driver"), Cause.MACHINE),
        (wrapped(MachineError("two processes")), Cause.MACHINE),
        (ValueError("Permission denied by the trainer"), None),  # words that a run's own error may use
        (FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)), None),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes"), None),  # the run is too large
        (ZeroDivisionError("division by zero"), None),
    ],
)
def test_whose_fault_an_exception_is(error, expected):
    assert machine_fault(error) == expected


def ended(cause: Cause | None) -> Ended:
    return Ended("run", Status.PARTIAL, "why", cause)


AT_WORK = Books(frozenset({"run", "other"}))
OTHERS = frozenset({"other"})


@pytest.mark.parametrize("cause", [Cause.LOST, Cause.STOPPED, Cause.MACHINE])
def test_tried_again_once(cause):
    books, again = settle(AT_WORK, ended(cause))
    assert again and books.at_work == AT_WORK.at_work and not books.errors and not books.fault
    books, again = settle(books, ended(cause))
    assert not again and books.at_work == OTHERS
    assert (books.fault, books.errors) == (("run: why", {}) if cause == Cause.MACHINE else ("", {"run": "why"}))


@pytest.mark.parametrize("cause", [Cause.LOST, Cause.STOPPED, Cause.MACHINE])
def test_nothing_is_tried_again_while_stopping(cause):
    books, again = settle(Books(AT_WORK.at_work, stopping=True), ended(cause))
    assert not again and books.at_work == OTHERS
    assert books.errors == ({"run": "why"} if cause == Cause.LOST else {})


@pytest.mark.parametrize("cause", [None, Cause.ERROR, Cause.DISK_FULL])
def test_not_tried_again(cause):
    books, again = settle(AT_WORK, ended(cause))
    assert not again and books.at_work == OTHERS
    assert books.errors == ({"run": "why"} if cause == Cause.ERROR else {})
    assert books.is_disk_full == (cause == Cause.DISK_FULL)


def test_a_run_let_go_by_another_process_has_its_own_try_left():
    books, again = settle(AT_WORK, ended(Cause.HELD))
    assert not again and books.held == {"run"} and books.at_work == OTHERS
    books, again = settle(books, ended(Cause.STOPPED))
    assert again and not books.held and books.at_work == AT_WORK.at_work
    assert settle(books, ended(Cause.LOST))[1]


def test_a_worker_in_a_program_of_several_processes_refuses(monkeypatch, tmp_path):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr("research.training.runtime.configure", lambda: None)
    config = RunConfig(data=DataConfig(train_tokens=1_000_000))
    with pytest.raises(MachineError, match=r"jax.process_count\(\) = 2.*Fix: start isoflop outside"):
        train_runs([(config, None)], None, None)

"""One worker process: trains the runs it is sent, one after the other, until there are no more.

    python -P -m research.execution.worker CONNECTION CORES TRAINER SILENT_SECONDS

CONNECTION is the file descriptor of a socket to the engine, CORES the comma-separated cores this process may use,
TRAINER the "module:function" that trains one run. The engine sends (config, folder) pairs, None after the last, and
STOP when the current run is to stop; the worker sends the events of events.py. A run that raises ends its worker: after
an arbitrary exception, the state of the libraries is anyone's guess, and the engine starts another. A run that takes no
step for SILENT_SECONDS ends its worker too, which first writes to its log where it hangs.
"""

import contextlib
import faulthandler
import importlib
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from research.config import RunConfig
from research.execution.events import Cause, Ended, Progressed, Ready, Started, ended_as_filed
from research.execution.faults import machine_fault
from research.runs import ClaimError, RunFolder, Status

STOP = "stop"
CLAIM_PATIENCE_SECONDS = 0.1  # for `status`, which holds the lock for microseconds; a training process keeps it
PROGRESS_SECONDS = 0.2  # between two reports of progress
SIGN_SECONDS = 10.0  # between two signs of life, at least


def main(connection_number: str, cores: str, trainer: str, silent_seconds: str) -> None:
    began = time.monotonic()
    sign_of_life = end_if_silent(float(silent_seconds))
    limit_to_cores(cores)
    os.set_inheritable(int(connection_number), False)  # a process that a library starts must not keep the socket open
    connection = Connection(int(connection_number))
    should_stop = _stop_flag(connection, sign_of_life)
    train = resolve(trainer)
    _send(connection, Ready(time.monotonic() - began))
    while (job := _receive(connection)) not in (None, STOP):
        sign_of_life()
        ended = _train_one(train, *job, connection, should_stop)
        _send(connection, ended)
        if ended.cause == Cause.STOPPED:  # if only by a signal to this process alone
            return
        _send(connection, Ready(0.0))


def end_if_silent(seconds: float) -> Callable[[], None]:
    """End this process, however it hangs, when the function returned has not been called for `seconds`.

    Python's own watchdog needs neither the interpreter nor the main thread; it writes the stack of every thread.
    """
    last_sign = float("-inf")

    def sign_of_life() -> None:
        nonlocal last_sign
        now = time.monotonic()
        if now - last_sign >= min(SIGN_SECONDS, seconds / 10):
            last_sign = now
            faulthandler.dump_traceback_later(seconds, exit=True)

    sign_of_life()
    return sign_of_life


def limit_to_cores(cores: str) -> None:
    """Keep this process to its share of the machine; XLA and BLAS size their thread pools by it when first imported."""
    if hasattr(os, "sched_setaffinity"):  # not on macOS, where the workers share all cores
        os.sched_setaffinity(0, {int(core) for core in cores.split(",")})


def resolve(reference: str) -> Callable:
    """The function named by "module:function". Raises ImportError for anything else."""
    module, _, name = reference.partition(":")
    found = getattr(importlib.import_module(module), name, None) if name else None
    if not callable(found):
        raise ImportError(f"trainer = {reference!r}: must be module:function, of a function there. Fix: correct it.")
    return found


def _train_one(
    train: Callable, config: RunConfig, folder: RunFolder, connection: Connection, should_stop: Callable[[], bool]
) -> Ended:
    try:
        _log_to(folder.log_path)
        with folder.claim(CLAIM_PATIENCE_SECONDS):
            status = folder.status()
            if status not in (Status.DONE, Status.FAILED):  # unless another process was faster
                _send(connection, Started(folder.name, folder.checkpoint_step()))
                status = train(config, folder, _reporter(connection, folder, config), should_stop)
            return ended_as_filed(folder, status)
    except ClaimError:
        return Ended(folder.name, Status.RUNNING, f"left to {folder.claim_path.read_text().strip()}", Cause.HELD)
    except BaseException as error:
        _send(connection, _record(folder, error))
        raise


def _record(folder: RunFolder, error: BaseException) -> Ended:
    """What ended the run, told to the engine and, unless it is the machine's fault, kept in the run's folder."""
    reason = f"{type(error).__name__}: {error}".splitlines()[0]
    fault = machine_fault(error)
    if fault is None:
        try:
            folder.write_failure(folder.last_step()[0], reason, "".join(traceback.format_exception(error)))
            return Ended(folder.name, Status.FAILED, f"{reason} (traceback in {folder.failure_path})", Cause.ERROR)
        except OSError as refused:
            reason, fault = f"{type(refused).__name__}: {refused}", Cause.MACHINE
    return Ended(folder.name, Status.PARTIAL, reason, fault)  # it stays as its files are, to be resumed


def _reporter(connection: Connection, folder: RunFolder, config: RunConfig) -> Callable[[int, float], None]:
    last_sent = float("-inf")

    def on_progress(step: int, loss_nats: float) -> None:
        nonlocal last_sent
        now = time.monotonic()
        if now - last_sent < PROGRESS_SECONDS and step < config.training.steps:
            return
        # An engine that is suspended does not read: training goes on, and the next report is as good.
        if select.select([], [connection], [], 0)[1]:
            last_sent = now
            _send(connection, Progressed(folder.name, step, float(loss_nats)))

    return on_progress


def _stop_flag(connection: Connection, sign_of_life: Callable[[], None]) -> Callable[[], bool]:
    """A function that says whether to stop: the engine said so, it is gone, or this process got SIGINT or SIGTERM.

    A trainer calls it at every step, which is its sign of life.
    """
    stopped = False

    def on_signal(number: int, frame: object) -> None:
        nonlocal stopped
        stopped = True

    def should_stop() -> bool:
        nonlocal stopped
        sign_of_life()
        if not stopped and connection.poll():
            stopped = _receive(connection) in (None, STOP)
        return stopped

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    return should_stop


def _send(connection: Connection, event: object) -> None:
    # If the engine is gone, `should_stop` sees it too and the run stops at a checkpoint.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.send(event)


def _receive(connection: Connection) -> object:
    """The next message; None once the engine has gone."""
    try:
        return connection.recv()
    except (EOFError, ConnectionResetError):
        return None


def _log_to(path: Path) -> None:
    """Send standard output and error, of this process and its C++ libraries, to the end of `path`."""
    sys.stdout.flush()
    sys.stderr.flush()
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)


if __name__ == "__main__":
    main(*sys.argv[1:])

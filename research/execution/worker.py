"""One worker process: trains the jobs it is sent, one after the other, until there are no more.

    python -P -m research.execution.worker CONNECTION CORES TRAINER SILENT_SECONDS

CONNECTION is the file descriptor of a socket to the engine, CORES the comma-separated cores this process may use,
TRAINER the "module:function" that trains the runs of a job. The engine sends jobs, sequences of (config, folder) that
train together, None after the last, and STOP when the current one is to stop; the worker sends the events of events.py.
A job that raises ends its worker: after an arbitrary exception, the state of the libraries is anyone's guess, and the
engine starts another. One that takes no step for SILENT_SECONDS ends its worker too, which first writes to its log
where it hangs. A job of several runs has one log, the first's.
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
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection

from research.execution.events import Cause, Ended, Progressed, Ready, Started, ended_as_filed
from research.execution.faults import machine_fault
from research.execution.jobs import Job
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
        ended = _train(train, job, connection, should_stop)
        for event in ended:
            _send(connection, event)
        if any(event.cause == Cause.STOPPED for event in ended):  # if only by a signal to this process alone
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


def _train(train: Callable, job: Sequence[Job], connection: Connection, should_stop: Callable[[], bool]) -> list[Ended]:
    """How each run of the job ended. What another process holds or has finished is left to it, or as it is."""
    ended: list[Ended] = []
    todo: list[Job] = []
    try:
        _log_to([folder for _, folder in job])
        with contextlib.ExitStack() as claims:
            for config, folder in job:
                try:
                    claims.enter_context(folder.claim(CLAIM_PATIENCE_SECONDS))
                except ClaimError:
                    reason = f"left to {folder.claim_path.read_text().strip()}"
                    ended.append(Ended(folder.name, Status.RUNNING, reason, Cause.HELD))
                    continue
                status = folder.status()
                if status in (Status.DONE, Status.FAILED):  # another process was faster
                    ended.append(ended_as_filed(folder, status))
                else:
                    todo.append((config, folder))
            for config, folder in todo:
                _send(connection, Started(folder.name, max(folder.checkpoint_step(), config.first_step)))
            statuses = train(todo, _reporter(connection, todo), should_stop) if todo else []
            ended += [ended_as_filed(folder, status) for (_, folder), status in zip(todo, statuses, strict=True)]
        return ended
    except BaseException as error:
        blamed = todo or job
        for _, folder in blamed:
            _send(connection, _record(folder, error, len(blamed)))
        raise


def _record(folder: RunFolder, error: BaseException, together: int) -> Ended:
    """What ended the run, told to the engine and, if it is the run's own fault, kept in its folder: not the machine's,
    and not perhaps that of another run it trained together with."""
    reason = f"{type(error).__name__}: {error}".splitlines()[0]
    fault = machine_fault(error) or (Cause.SHARED if together > 1 else None)
    if fault is None:
        try:
            folder.write_failure(folder.last_step()[0], reason, "".join(traceback.format_exception(error)))
            return Ended(folder.name, Status.FAILED, f"{reason} (traceback in {folder.failure_path})", Cause.ERROR)
        except OSError as refused:
            reason, fault = f"{type(refused).__name__}: {refused}", Cause.MACHINE
    return Ended(folder.name, Status.PARTIAL, reason, fault)  # it stays as its files are, to be resumed


def _reporter(connection: Connection, job: Sequence[Job]) -> Callable[[RunFolder, int, float], None]:
    last_sent = {folder.name: float("-inf") for _, folder in job}
    steps = {folder.name: config.training.steps for config, folder in job}

    def on_progress(folder: RunFolder, step: int, loss_nats: float) -> None:
        run, now = folder.name, time.monotonic()
        if now - last_sent[run] < PROGRESS_SECONDS and step < steps[run]:
            return
        # An engine that is suspended does not read: training goes on, and the next report is as good.
        if select.select([], [connection], [], 0)[1]:
            last_sent[run] = now
            _send(connection, Progressed(run, step, float(loss_nats)))

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


def _log_to(folders: Sequence[RunFolder]) -> None:
    """Send standard output and error, of this process and its C++ libraries, to the end of the first run's log."""
    first, *others = folders
    for folder in others:
        with open(folder.log_path, "a") as log:
            log.write(f"trained together with {first.name}, whose log has what is printed\n")
    sys.stdout.flush()
    sys.stderr.flush()
    file = os.open(first.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)


if __name__ == "__main__":
    main(*sys.argv[1:])

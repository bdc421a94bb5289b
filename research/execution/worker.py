"""One worker process: trains the runs it is sent, one after the other, until there are no more.

    python -m research.execution.worker CONNECTION CORES TRAINER

CONNECTION is the file descriptor of a socket to the engine, CORES the comma-separated cores this process may use,
TRAINER the "module:function" that trains one run. The engine sends (config, folder) pairs, None after the last, and
STOP when the current run is to stop; the worker sends the events of events.py. A run that raises ends its worker: after
an arbitrary exception, the state of the libraries is anyone's guess, and the engine starts another.
"""

import contextlib
import errno
import importlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from research.config import RunConfig
from research.execution.events import Ended, Progressed, Ready, Started
from research.runs import ClaimError, RunFolder, Status

STOP = "stop"
CLAIM_PATIENCE_SECONDS = 20.0  # a worker whose engine was killed may still be saving its last checkpoint
PROGRESS_SECONDS = 0.2  # between two reports of progress


def main(connection_number: str, cores: str, trainer: str) -> None:
    began = time.monotonic()
    limit_to_cores(cores)
    os.set_inheritable(int(connection_number), False)  # a process that a library starts must not keep the socket open
    connection = Connection(int(connection_number))
    should_stop = _stop_flag(connection)
    train = resolve(trainer)
    _send(connection, Ready(time.monotonic() - began))
    while (job := _receive(connection)) not in (None, STOP):
        ended = _train_one(train, *job, connection, should_stop)
        _send(connection, ended)
        if ended.status == Status.PARTIAL:  # told to stop, if only by a signal to this process alone
            return
        _send(connection, Ready(0.0))


def limit_to_cores(cores: str) -> None:
    """Keep this process to its share of the machine; XLA and BLAS size their thread pools by it when first imported."""
    if hasattr(os, "sched_setaffinity"):  # not on macOS, where the workers share all cores
        os.sched_setaffinity(0, {int(core) for core in cores.split(",")})


def resolve(reference: str) -> Callable:
    """The function named by "module:function"."""
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)


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
            return Ended(folder.name, status, folder.result().get("failure_reason", ""))
    except ClaimError as error:
        return Ended(folder.name, Status.RUNNING, str(error), is_error=True)
    except BaseException as error:
        _send(connection, _record(folder, error))
        raise


def _record(folder: RunFolder, error: BaseException) -> Ended:
    """What ended the run, told to the engine and, unless the disk is full, kept in the run's folder."""
    reason = f"{type(error).__name__}: {error}".splitlines()[0]
    if is_disk_full(error):  # not the run's fault: it stays as its files are, to be resumed
        return Ended(folder.name, Status.PARTIAL, reason, is_error=True, is_disk_full=True)
    folder.write_failure(folder.last_step()[0], reason, "".join(traceback.format_exception(error)))
    return Ended(folder.name, Status.FAILED, f"{reason} (traceback in {folder.failure_path})", is_error=True)


def is_disk_full(error: BaseException | None) -> bool:
    """Whether a full disk or quota is behind an exception; libraries may pass on only the operating system's words."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if os.strerror(errno.ENOSPC) in str(error) or os.strerror(errno.EDQUOT) in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _reporter(connection: Connection, folder: RunFolder, config: RunConfig) -> Callable[[int, float], None]:
    last_sent = -PROGRESS_SECONDS

    def on_progress(step: int, loss_nats: float) -> None:
        nonlocal last_sent
        now = time.monotonic()
        if now - last_sent >= PROGRESS_SECONDS or step == config.training.steps:
            last_sent = now
            _send(connection, Progressed(folder.name, step, float(loss_nats)))

    return on_progress


def _stop_flag(connection: Connection) -> Callable[[], bool]:
    """A function that says whether to stop: the engine said so, it is gone, or this process got SIGINT or SIGTERM."""
    stopped = False

    def on_signal(number: int, frame: object) -> None:
        nonlocal stopped
        stopped = True

    def should_stop() -> bool:
        nonlocal stopped
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

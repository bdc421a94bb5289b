"""One worker process as its engine sees it: start it, talk to it, look after it, and say how it ended."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from multiprocessing.connection import Pipe
from pathlib import Path

from research.execution.events import Event
from research.execution.worker import STOP
from research.runs import RunFolder

SILENT_SECONDS = 3600.0  # how long a worker may do nothing: longer than any one compilation, step or evaluation
SUSPENDED_SECONDS = 60.0  # how long it may be suspended, say by SIGSTOP, before it is told to save and end
STOP_SECONDS = 600.0  # how long it may take to do so before it is killed


class WorkerProcess:
    """A running `worker.main` that may use `cores` and writes what it prints to `log_path`, until it has a job."""

    def __init__(self, cores: tuple[int, ...], trainer: str, log_path: Path):
        self.is_ready = False
        self.job: list[RunFolder] = []  # the runs it is at work on
        self.log_path = log_path
        self.told_why = ""  # what it was told to end for, if not by the user
        self._suspended_since: float | None = None
        self._kill_at: float | None = None
        self.connection, theirs = Pipe()
        arguments = [str(theirs.fileno()), ",".join(map(str, cores)), trainer, str(SILENT_SECONDS)]
        with open(log_path, "a") as log:
            self._process = subprocess.Popen(
                # -P: a numpy.py in the current folder is none of its business.
                [sys.executable, "-P", "-m", "research.execution.worker", *arguments],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},  # it finds what we find
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        theirs.close()

    def send(self, message: object) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it has just ended: the engine will see
            self.connection.send(message)

    def drain(self) -> list[Event]:
        """Every event that has arrived; a worker that ended in the middle of one leaves none of it."""
        events = []
        with contextlib.suppress(EOFError, ConnectionResetError):
            while self.connection.poll():
                events.append(self.connection.recv())
        return events

    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def stop(self) -> None:
        """Have it save a checkpoint at its next step and end, even if it is suspended; it has STOP_SECONDS for it."""
        self.send(STOP)
        self._process.send_signal(signal.SIGCONT)
        self._kill_at = time.monotonic() + STOP_SECONDS

    def look_after(self) -> None:
        """Stop it if it has been suspended for too long, and kill it if it was told to end and does not."""
        now = time.monotonic()
        if self._kill_at is not None and now > self._kill_at:
            self.told_why = self.told_why or f"it did not stop within {STOP_SECONDS:.0f} s of being told to"
            self.kill()
        elif not self._is_suspended():
            self._suspended_since = None
        elif self._suspended_since is None:
            self._suspended_since = now
        elif now - self._suspended_since > SUSPENDED_SECONDS:
            self.told_why = f"its worker was suspended for {SUSPENDED_SECONDS:.0f} s"
            self.stop()

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)

    def let_go(self) -> None:
        """Close the connection, upon which it saves a checkpoint at its next step and ends."""
        self.connection.close()
        self._process.send_signal(signal.SIGCONT)

    def wait(self, seconds: float) -> None:
        """Wait for the process to exit; kill it after `seconds`."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            self._process.wait()

    def cause_of_death(self) -> str:
        code = self._process.returncode
        if self.told_why:
            return self.told_why
        if code == -signal.SIGKILL:
            return "its worker ended by signal SIGKILL, as happens when memory runs out"
        if code < 0:
            return f"its worker ended by signal {signal.Signals(-code).name}"
        return f"its worker ended by exit code {code}, by an error or since it did nothing for {SILENT_SECONDS:.0f} s"

    def _is_suspended(self) -> bool:
        if self.has_ended() or not hasattr(os, "waitid"):  # macOS does not say so before Python 3.13
            return False
        try:
            return os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:  # it has ended since
            return False

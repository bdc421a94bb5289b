"""A run's folder: made atomically, claimed by one process at a time, its status derived from its files.

`<runs-dir>/<experiment>/<run name>/` holds config.json, metrics.jsonl, checkpoints/, log.txt and, at the end,
result.json or failure.json. Nothing else records what happened to a run, so no file can disagree with another. All
plans of an experiment share its runs; what follows from the runs of one plan is in plan_folder.py.
"""

import contextlib
import errno
import fcntl
import json
import logging
import math
import os
import shutil
import socket
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from analysis.files import write_atomically
from analysis.lifecycle import Status
from research.config import (
    ConfigError,
    RunConfig,
    differences,
    from_dict,
    identity,
    run_name,
    to_json,
)
from research.runs.records import DamagedFileError, read_last_line, read_object

CLAIM_PATIENCE_SECONDS = 0.5  # `status` holds the lock for microseconds; a training process holds it for good


TEXT_MEASURES = ("backend", "algorithms")  # what a result holds that is no number
RETRY = "Fix: repeat `isoflop run` with --retry-failed; the run resumes from its latest checkpoint."


class ClaimError(RuntimeError):
    """Another live process is training this run."""


class LockError(RuntimeError):
    """The file system has no locks, so that two processes might train one run."""


@dataclass(frozen=True)
class RunFolder:
    """Paths and small state files of one run; the folder itself is made by `open_run`."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def config_path(self) -> Path:
        return self.path / "config.json"

    @property
    def metrics_path(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def checkpoints_path(self) -> Path:
        return self.path / "checkpoints"

    @property
    def tensorboard_path(self) -> Path:
        return self.path / "tensorboard"

    @property
    def log_path(self) -> Path:
        """Standard output and error of the processes that trained the run."""
        return self.path / "log.txt"

    @property
    def result_path(self) -> Path:
        return self.path / "result.json"

    @property
    def failure_path(self) -> Path:
        return self.path / "failure.json"

    @property
    def claim_path(self) -> Path:
        return self.path / "claim.lock"

    def status(self) -> Status:
        """Derived from the files alone; a finished run stays finished whoever holds the claim."""
        return self.outcome()[0]

    def outcome(self) -> tuple[Status, dict[str, Any]]:
        """The status, and with it the measured columns of a done run, the failure's columns of a failed one, else {}.

        A run whose result.json or failure.json is damaged is failed, for a reason that names the file: what it measured
        is lost, and with --retry-failed it resumes from its checkpoint.
        """
        try:
            with contextlib.suppress(FileNotFoundError):
                return Status.DONE, _checked(self.result_path, read_object(self.result_path))
            with contextlib.suppress(FileNotFoundError):
                return Status.FAILED, read_object(self.failure_path)
        except DamagedFileError as error:
            return Status.FAILED, {"failure_reason": f"{error}. {RETRY}", "traceback": str(error)}
        if self._is_claimed():
            return Status.RUNNING, {}
        begun = self.metrics_path.exists() or self.checkpoints_path.exists()
        return (Status.PARTIAL if begun else Status.PENDING), {}

    @contextlib.contextmanager
    def claim(self, patience_seconds: float = CLAIM_PATIENCE_SECONDS) -> Iterator[None]:
        """Hold the run for this process; the operating system frees it when the process ends, however it ends.

        Raises ClaimError, naming the holder, if another process still has it after `patience_seconds`.
        """
        with open(self.claim_path, "a+") as file:
            deadline = time.monotonic() + patience_seconds
            while not _lock(file, fcntl.LOCK_EX):
                if time.monotonic() > deadline:
                    file.seek(0)
                    holder = file.read().strip() or "another process"
                    raise ClaimError(f"{self.path}: is being trained by {holder}. Fix: wait for it, or stop it.")
                time.sleep(0.02)
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            file.flush()
            yield

    def write_result(self, result: dict[str, Any]) -> None:
        """Mark the run done; keys are the measured columns of the runs table.

        Raises DamagedFileError, and writes nothing, for a number that is not finite: it would be no measurement.
        """
        _checked(self.result_path, result)
        write_atomically(self.result_path, (json.dumps(result, indent=2, allow_nan=False) + "\n").encode())

    def write_failure(self, step: int | None, reason: str, traceback: str = "") -> None:
        """Mark the run failed at `step` (None: before the first); it is not trained again unless asked."""
        failure = {"failure_step": step, "failure_reason": reason, "traceback": traceback}
        write_atomically(self.failure_path, (json.dumps(failure, indent=2) + "\n").encode())

    def forget_failure(self) -> None:
        """Let a failed run be trained again, from its newest checkpoint; what it left is kept to be read."""
        for path in (self.failure_path, self.result_path):  # the latter if it is damaged: then, too, the run is failed
            if path.exists():
                path.replace(path.with_name(f"{path.stem}-before{path.suffix}"))

    def result(self) -> dict[str, Any]:
        """The measured columns of a done run, the failure's columns of a failed one, else nothing."""
        return self.outcome()[1]

    def loss_nats(self) -> float | None:
        """The held-out loss of a finished run, in nats per token; None as long as there is none.

        Infinite where the loss became so in training, which is a result, too; a run that an exception ended has none.
        """
        status, outcome = self.outcome()
        if status == Status.DONE:
            return float(outcome["loss_nats"])
        return math.inf if status == Status.FAILED and not outcome.get("traceback") else None

    def last_step(self) -> tuple[int, float | None]:
        """(optimizer steps logged, training loss in nats of the last); (0, None) before the first."""
        line = read_last_line(self.metrics_path, "train", ("step", "loss_nats"))
        return (line["step"], line["loss_nats"]) if line else (0, None)

    def checkpoint_step(self) -> int:
        """Step of the newest finished checkpoint, from which training goes on; 0 if there is none."""
        if not self.checkpoints_path.exists():
            return 0
        return max((int(path.name) for path in self.checkpoints_path.iterdir() if path.name.isdigit()), default=0)

    def _is_claimed(self) -> bool:
        if not self.claim_path.exists():
            return False
        with open(self.claim_path) as file:
            return not _lock(file, fcntl.LOCK_SH)


def folder_of(runs_dir: Path, config: RunConfig) -> RunFolder:
    """Where the run of `config` is or would be."""
    return RunFolder(Path(runs_dir) / config.experiment / run_name(config))


def open_run(runs_dir: Path, config: RunConfig) -> RunFolder:
    """The run's folder, made whole or not at all, holding `config`.

    Raises ConfigError, naming the field and both values, if the folder there holds another run.
    """
    folder = folder_of(runs_dir, config)
    if not folder.path.exists():
        made = folder.path.with_name(f".{folder.name}.{uuid.uuid4().hex}")
        made.mkdir(parents=True)
        try:
            write_atomically(made / "config.json", to_json(config).encode())
            made.rename(folder.path)
        except OSError as error:
            shutil.rmtree(made, ignore_errors=True)
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # those: another process was first, which is fine
                raise
    _verify(folder, config)
    return folder


def check_locks(folder: Path) -> None:
    """Raise LockError if files in `folder` cannot be locked, as on a Lustre mounted without flock."""
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            _lock(file, fcntl.LOCK_EX)
        except OSError as error:
            raise LockError(
                f"{folder}: its file system cannot lock files (flock: {error.strerror}), and without locks two "
                "processes might train one run. Fix: set --runs-dir to a folder on a local disk, or mount the file "
                "system with flock."
            ) from error


@contextlib.contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """A block that one process at a time is in, of those that ask about `folder`; the others wait."""
    with open(folder / ".lock", "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _verify(folder: RunFolder, config: RunConfig) -> None:
    advice = f"Fix: move {folder.path} away, or use another --runs-dir."
    if not folder.config_path.exists():
        raise ConfigError(f"{folder.path}: is not a run folder, config.json is missing. {advice}")
    try:
        stored = from_dict(RunConfig, read_object(folder.config_path))
    except DamagedFileError as error:
        # The folder's name carries the fingerprint, so this is the folder of `config` whatever the file says.
        write_atomically(folder.config_path, to_json(config).encode())
        logging.getLogger(__name__).warning("%s. It has been written again, from the plan.", error)
        return
    except ValueError as error:
        raise ConfigError(f"{folder.config_path}: not a run of this version of the code: {error} {advice}") from error
    for field, found, asked in differences(identity(stored), identity(config)):
        raise ConfigError(f"{field} = {asked!r}: the folder {folder.path} holds a run with {found!r}. {advice}")


def _checked(path: Path, result: dict[str, Any]) -> dict[str, Any]:
    """`result` if it is what a done run measures: finite numbers, the loss among them. Raises DamagedFileError."""
    for name, value in {"loss_nats": None, **result}.items():
        if name not in TEXT_MEASURES and not isinstance(value, int | float):
            raise DamagedFileError(f"{path}: is damaged, {name} = {value!r} is no number")
        if isinstance(value, float) and not math.isfinite(value):
            raise DamagedFileError(f"{path}: {name} = {value} is no measurement")
    return result


def _lock(file: IO[str], kind: int) -> bool:
    """Whether the lock was got; it goes when the file is closed."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

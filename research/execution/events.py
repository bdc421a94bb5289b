"""What an engine reports while it trains, and what remains of it at the end."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from research.runs import RunFolder, Status


class Cause(enum.StrEnum):
    """Why a run stopped without an outcome; a loss that became infinite is an outcome and has no cause here."""

    ERROR = "error"  # an exception of its own: the run is marked failed
    MACHINE = "machine"  # the machine refused something (research/execution/faults.py): not the run's failure
    DISK_FULL = "disk full"  # the machine again, but there is no use in trying again
    LOST = "lost"  # its worker was killed or did nothing any more
    STOPPED = "stopped"  # told to: by this process or by a signal to its worker
    HELD = "held"  # another process is training it
    SHARED = "shared"  # an exception while it trained together with others, of which any may be to blame


@dataclass(frozen=True)
class Ready:
    """A worker asks for a job; getting ready, for its first the import of the training libraries, took `seconds`."""

    seconds: float


@dataclass(frozen=True)
class Started:
    """A worker took up `run`, at optimizer step `step`."""

    run: str
    step: int


@dataclass(frozen=True)
class Progressed:
    """`run` has done `step` steps; its last training loss is `loss_nats` per token."""

    run: str
    step: int
    loss_nats: float


@dataclass(frozen=True)
class Ended:
    """No worker of this engine is at work on `run` any more; `reason` says in a line why it is not done."""

    run: str
    status: Status
    reason: str = ""
    cause: Cause | None = None


def ended_as_filed(folder: RunFolder, status: Status) -> Ended:
    """The end of a run that its files tell; `status` is theirs, which a process that holds the claim cannot ask for."""
    if status == Status.FAILED:
        failure = folder.result()
        reason = failure.get("failure_reason") or "failed"
        return Ended(folder.name, status, reason, Cause.ERROR if failure.get("traceback") else None)
    return Ended(folder.name, status, cause=None if status == Status.DONE else Cause.STOPPED)


@dataclass(frozen=True)
class Following:
    """Nothing is left to train but `runs`, which other processes are training."""

    runs: tuple[str, ...]


@dataclass(frozen=True)
class Stopping:
    """The sweep was told to stop, or cannot go on: runs save a checkpoint at their next step."""


@dataclass(frozen=True)
class Tick:
    """Nothing happened; comes at least once a second, so that a display can move on."""


Event = Ready | Started | Progressed | Ended | Following | Stopping | Tick


@dataclass(frozen=True)
class Outcome:
    """How a sweep ended; the runs' own outcomes are in their folders."""

    interrupted: bool = False
    errors: Mapping[str, str] = field(default_factory=dict)  # run -> reason, of the runs that ended with an error
    fault: str = ""  # of the machine, which stopped the sweep
    is_disk_full: bool = False
    worker_start_seconds: float = 0.0  # summed over workers

"""What an engine reports while it trains, and what remains of it at the end."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from research.runs import Status


@dataclass(frozen=True)
class Ready:
    """A worker asks for a run; getting ready, for its first the import of the training libraries, took `seconds`."""

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
    """No worker is at work on `run` any more.

    `reason` says in a line why it is not done. `is_error` tells what should not have happened (an exception, a killed
    worker, a run that another process has) from a result (a loss that became infinite) and from what was asked for.
    """

    run: str
    status: Status
    reason: str = ""
    is_error: bool = False
    is_disk_full: bool = False


@dataclass(frozen=True)
class Stopping:
    """The engine was told to stop: workers save a checkpoint at their next step."""


@dataclass(frozen=True)
class Tick:
    """Nothing happened; comes at least twice a second, so that a display can move on."""


Event = Ready | Started | Progressed | Ended | Stopping | Tick


@dataclass(frozen=True)
class Outcome:
    """How a sweep ended; the runs' own outcomes are in their folders."""

    interrupted: bool = False
    is_disk_full: bool = False
    errors: Mapping[str, str] = field(default_factory=dict)  # run -> reason, of the runs that ended with an error
    worker_start_seconds: float = 0.0  # summed over workers

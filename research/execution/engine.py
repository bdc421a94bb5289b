"""What an engine is: something that trains the runs submitted to it and reports what happens to them."""

from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, Self

from research.config import RunConfig
from research.execution.events import Event


class Engine(Protocol):
    """A context manager, used inside its block; research/execution/drive.py calls it, and nothing else does.

    Leaving the block ends every process that the engine started: by KeyboardInterrupt at once, by anything else with a
    checkpoint saved, so that no error of this process costs more than a step.
    """

    workers: int
    """Jobs that are trained at the same time."""

    together: int
    """Runs of one program that a worker trains as one job, at most."""

    def submit(self, job: Sequence[RunConfig]) -> None:
        """Queue runs whose folders exist, and that train together if they are several.

        Jobs are taken up in the order submitted, but one whose run was submitted before goes first. Each run of a
        submission ends in one Ended event.
        """
        ...

    def poll(self) -> Sequence[Event]:
        """What has happened since the last call, in order; waits a fraction of a second for something to happen.

        Raises WorkerError if runs are queued and no worker can be started.
        """
        ...

    def cancel(self) -> None:
        """Take up no more runs, and have those at work save a checkpoint at their next step and end."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


class WorkerError(RuntimeError):
    """Workers cannot start at all, so no run can be trained."""

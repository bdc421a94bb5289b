"""The engine for one machine: a pool of worker processes that live as long as there are runs.

A worker is a process of its own because importing the training libraries takes seconds, which is paid once per worker
and not once per run; because one run's crash then loses no other; and because it can be given its own share of the
cores. Workers lead their own sessions: Ctrl-C in a terminal reaches this process alone, which tells them to stop. If
this process is killed, or leaves by an error, their sockets close, and they stop at a checkpoint too.
"""

import contextlib
import os
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from multiprocessing.connection import wait
from pathlib import Path
from types import TracebackType
from typing import Self

from analysis.cores import usable_cores
from research.config import RunConfig
from research.execution.engine import WorkerError
from research.execution.events import Cause, Ended, Event, Ready
from research.execution.jobs import Job
from research.execution.process import WorkerProcess
from research.runs import folder_of

TRAINER = "research.execution.trainer:train_runs"
TICK_SECONDS = 0.25
EXIT_SECONDS = 10.0  # for a worker without a run
ACCELERATORS = ("nvidia[0-9]*", "kfd", "accel[0-9]*", "vfio/[0-9]*")  # /dev of NVIDIA, AMD, TPU v2 to v4, TPU v5 on


def default_workers() -> int:
    """One worker per core on a CPU machine; one in all where an accelerator is, which a process has to itself."""
    has_accelerator = any(any(Path("/dev").glob(pattern)) for pattern in ACCELERATORS)
    return 1 if has_accelerator and os.environ.get("JAX_PLATFORMS") != "cpu" else len(usable_cores())


def share_cores(workers: int) -> list[tuple[int, ...]]:
    """Neighbouring groups of the usable cores for `workers`, or for fewer if there are fewer cores.

    They are of one size, so that it does not matter which worker resumes a run; cores that are left over stay idle.
    """
    cores = usable_cores()
    workers = min(workers, len(cores))
    size = len(cores) // workers
    return [cores[size * i : size * (i + 1)] for i in range(workers)]


class LocalEngine:
    """A pool of worker processes; see engine.Engine for what each method does.

    experiment_dir : where the runs' folders and the workers' own logs are.
    runs : of the sweep, those that are done included. There are no more workers than that, nor than cores, and
        their number depends on nothing else, so that a run that is resumed has as many cores as when it began: with
        another number its last bits would differ.
    workers : processes asked for; `default_workers()` if None.
    together : runs of one program that a worker trains as one, at most.
    trainer : "module:function" with the signature of trainer.train_runs, imported by the workers.
    """

    def __init__(
        self, experiment_dir: Path, runs: int, workers: int | None = None, together: int = 1, trainer: str = TRAINER
    ):
        self._experiment_dir = experiment_dir
        self._trainer = trainer
        self._shares = share_cores(max(1, min(workers or default_workers(), runs)))
        self.workers = len(self._shares)
        self.together = together
        self._queue: deque[list[Job]] = deque()
        self._submitted: set[RunConfig] = set()
        self._pool: dict[int, WorkerProcess] = {}  # by share
        self._broken: dict[int, str] = {}  # shares whose worker ended while it started: the next would end too
        self._cancelled = False

    def submit(self, job: Sequence[RunConfig]) -> None:
        placed = [(config, folder_of(self._experiment_dir.parent, config)) for config in job]
        if self._submitted.intersection(job):
            self._queue.appendleft(placed)
        else:
            self._queue.append(placed)
        self._submitted.update(job)

    def cancel(self) -> None:
        self._cancelled = True
        for worker in self._pool.values():
            worker.stop()

    def poll(self) -> list[Event]:
        if self._cancelled:
            dropped = [folder for job in self._queue for _, folder in job]
            self._queue.clear()
            if dropped:
                return [Ended(folder.name, folder.status(), cause=Cause.STOPPED) for folder in dropped]
        self._start_workers()
        wait([worker.connection for worker in self._pool.values()], timeout=TICK_SECONDS)
        events: list[Event] = []
        for share, worker in list(self._pool.items()):
            has_ended = worker.has_ended()  # asked before the connection is drained: nothing comes after
            events += [self._noted(event, worker) for event in worker.drain()]
            if has_ended:
                events += self._bury(share)
            else:
                worker.look_after()
        return events

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for worker in self._pool.values():
            if kind is not None and issubclass(kind, KeyboardInterrupt):
                worker.kill()
            worker.let_go()
        if kind is None or issubclass(kind, KeyboardInterrupt):  # else they may be long in saving
            for worker in self._pool.values():
                worker.wait(EXIT_SECONDS)

    def _start_workers(self) -> None:
        """As many as there are jobs that no worker is getting ready for, on the shares that are free."""
        free = [share for share in range(self.workers) if share not in self._pool and share not in self._broken]
        starting = sum(not worker.is_ready for worker in self._pool.values())
        for share in free[: max(0, len(self._queue) - starting)]:
            log_path = self._experiment_dir / f"worker-{share}.log"
            self._pool[share] = WorkerProcess(self._shares[share], self._trainer, log_path)
        if self._queue and not self._pool:
            raise WorkerError(list(self._broken.values())[-1])

    def _noted(self, event: Event, worker: WorkerProcess) -> Event:
        """An event of a worker. One that is ready gets the next job, or None when there is none left, which ends it."""
        if isinstance(event, Ready):
            job = self._queue.popleft() if self._queue else None
            worker.is_ready, worker.job = True, [folder for _, folder in job or ()]
            worker.send(job)
        elif isinstance(event, Ended):
            worker.job = [folder for folder in worker.job if folder.name != event.run]
            event = replace(event, reason=event.reason or worker.told_why)
        return event

    def _bury(self, share: int) -> Iterator[Event]:
        """What a worker leaves that has ended: nothing, or the runs it died in, whose files say how far they came."""
        worker = self._pool.pop(share)
        worker.let_go()
        if not worker.is_ready:
            last_words = "\n".join(worker.log_path.read_text().splitlines()[-3:])
            self._broken[share] = (
                f"no worker is left; the last, while it started: {worker.cause_of_death()}. "
                f"The end of {worker.log_path}:\n{last_words}"
            )
        for folder in worker.job:
            reason = f"{worker.cause_of_death()} (see {folder.log_path})"
            with contextlib.suppress(OSError), open(folder.log_path, "a") as log:  # the reason is reported anyway
                log.write(reason + "\n")
            yield Ended(folder.name, folder.status(), reason, Cause.LOST)

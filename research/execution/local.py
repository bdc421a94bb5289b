"""The engine for one machine: a pool of worker processes that live as long as there are runs.

A worker is a process of its own because importing the training libraries takes seconds, which is paid once a worker
and not once a run; because one run's crash then loses no other; and because it can be given its own share of the cores.
Workers lead their own sessions: Ctrl-C in a terminal reaches this process alone, which tells them to stop. If this
process is killed their sockets close, and they stop at a checkpoint too.
"""

import contextlib
import itertools
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path

from analysis.cores import usable_cores
from research.config import RunConfig
from research.execution.events import Ended, Event, Outcome, Ready, Stopping, Tick
from research.execution.worker import STOP
from research.runs import RunFolder, open_run

TRAINER = "research.execution.trainer:train_run"
TICK_SECONDS = 0.25
ACCELERATORS = ("nvidia[0-9]*", "kfd", "accel[0-9]*", "vfio/[0-9]*")  # /dev of NVIDIA, AMD, TPU v2 to v4, TPU v5 on


class WorkerError(RuntimeError):
    """Workers cannot start at all, so no run can be trained."""


@dataclass(frozen=True, eq=False)
class _Worker:
    process: subprocess.Popen
    connection: Connection
    cores: tuple[int, ...]
    log_path: Path


def run_all(
    configs: Sequence[RunConfig],
    runs_dir: Path,
    *,
    watch: Callable[[Event], None],
    workers: int | None = None,
    trainer: str = TRAINER,
) -> Outcome:
    """Train every config, each in its folder under `runs_dir`; see the package's docstring for what an engine is.

    configs : taken up in this order: put the longest first, and the sweep ends soonest.
    workers : processes, at most one per run and per core, sharing the cores evenly; default `default_workers()`.
    trainer : "module:function" with the signature of trainer.train_run, imported by the workers.

    SIGINT or SIGTERM stops the workers at their next step with a checkpoint saved; a second one kills them. Call it
    from the main thread. Raises ConfigError, before any training, if a folder holds another run, and WorkerError if no
    worker can be started.
    """
    jobs = deque((config, open_run(runs_dir, config)) for config in configs)
    if not jobs:
        return Outcome()
    experiment_dir = jobs[0][1].path.parent
    shares = share_cores(min(workers or default_workers(), len(jobs)))
    with _signal_count() as signals, _pool() as pool:
        for index, cores in enumerate(shares):
            pool.append(_start(cores, trainer, experiment_dir / f"worker-{index}.log"))
        return _conduct(pool, jobs, trainer, signals, watch)


def default_workers() -> int:
    """One worker per core on a CPU machine; one in all where an accelerator is, which a process has to itself."""
    has_accelerator = any(any(Path("/dev").glob(pattern)) for pattern in ACCELERATORS)
    return 1 if has_accelerator and os.environ.get("JAX_PLATFORMS") != "cpu" else len(usable_cores())


def share_cores(workers: int) -> list[tuple[int, ...]]:
    """This process's cores in `workers` neighbouring groups, equal give or take one; fewer if it has fewer cores."""
    cores = usable_cores()
    workers = min(workers, len(cores))
    bounds = [len(cores) * i // workers for i in range(workers + 1)]
    return [tuple(cores[low:high]) for low, high in itertools.pairwise(bounds)]


def _conduct(
    pool: list[_Worker], jobs: deque, trainer: str, signals: Callable[[], int], watch: Callable[[Event], None]
) -> Outcome:
    """Hand out the jobs and pass on the events until every worker has ended."""
    history: list[Event] = []
    job_of: dict[_Worker, RunFolder | None] = {}  # of the workers that have become ready; None while idle
    stopping = False
    while pool:
        wait([worker.connection for worker in pool], timeout=TICK_SECONDS)
        events: list[Event] = []
        for worker in list(pool):
            has_ended = worker.process.poll() is not None  # asked before the socket is drained: nothing comes after
            for event in _drain(worker):
                _keep_books(event, worker, job_of, jobs)
                events.append(event)
            if has_ended:
                pool.remove(worker)
                events += _bury(worker, job_of.get(worker))
                if jobs and worker in job_of:  # one that died while it started is not replaced: the next would die too
                    pool.append(_start(worker.cores, trainer, worker.log_path))
                elif jobs and not pool:
                    raise _worker_error(worker)
        history += events
        is_disk_full = any(isinstance(event, Ended) and event.is_disk_full for event in events)
        if (signals() or is_disk_full) and not stopping:
            stopping = True
            jobs.clear()
            for worker in pool:
                _send(worker, STOP)
            events.append(Stopping())
        for event in (*events, Tick()):
            watch(event)
    return _outcome(history, signals() > 0)


def _outcome(history: list[Event], interrupted: bool) -> Outcome:
    ended = [event for event in history if isinstance(event, Ended)]
    return Outcome(
        interrupted=interrupted,
        is_disk_full=any(event.is_disk_full for event in ended),
        errors={event.run: event.reason for event in ended if event.is_error},
        worker_start_seconds=sum(event.seconds for event in history if isinstance(event, Ready)),
    )


def _keep_books(event: Event, worker: _Worker, job_of: dict[_Worker, RunFolder | None], jobs: deque) -> None:
    """A worker that is ready gets the next job, or None when there is none left, which ends it."""
    if isinstance(event, Ready):
        job = jobs.popleft() if jobs else None
        job_of[worker] = job[1] if job else None
        _send(worker, job)
    elif isinstance(event, Ended):
        job_of[worker] = None


def _bury(worker: _Worker, folder: RunFolder | None) -> list[Event]:
    """What an ended worker leaves: nothing, or the run it died in, whose files say how far that came."""
    worker.connection.close()
    if folder is None:
        return []
    reason = f"its worker ended by {_cause_of_death(worker)}"
    if worker.process.returncode == -signal.SIGKILL:
        reason += ", as happens when memory runs out"
    reason += f" (see {folder.log_path})"
    with open(folder.log_path, "a") as log:
        log.write(reason + "\n")
    return [Ended(folder.name, folder.status(), reason, is_error=True)]


def _worker_error(worker: _Worker) -> WorkerError:
    last_words = "\n".join(worker.log_path.read_text().splitlines()[-3:])
    return WorkerError(
        f"no worker is left, the last ended by {_cause_of_death(worker)} while it started. "
        f"The end of {worker.log_path}:\n{last_words}"
    )


def _cause_of_death(worker: _Worker) -> str:
    code = worker.process.returncode
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _start(cores: tuple[int, ...], trainer: str, log_path: Path) -> _Worker:
    ours, theirs = Pipe()
    arguments = [str(theirs.fileno()), ",".join(map(str, cores)), trainer]
    with open(log_path, "a") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "research.execution.worker", *arguments],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},  # it finds what we find
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
    theirs.close()
    return _Worker(process, ours, cores, log_path)


def _drain(worker: _Worker) -> list[Event]:
    """Every event that has arrived; a worker that ended in the middle of one leaves none of it."""
    events = []
    with contextlib.suppress(EOFError, ConnectionResetError):
        while worker.connection.poll():
            events.append(worker.connection.recv())
    return events


def _send(worker: _Worker, message: object) -> None:
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it has just ended: `_bury` deals with that
        worker.connection.send(message)


@contextlib.contextmanager
def _pool() -> Iterator[list[_Worker]]:
    """The live workers; whatever ends the block, none outlives it."""
    pool: list[_Worker] = []
    try:
        yield pool
    finally:
        for worker in pool:
            worker.process.kill()
        for worker in pool:
            worker.process.wait()
            worker.connection.close()


@contextlib.contextmanager
def _signal_count() -> Iterator[Callable[[], int]]:
    """How many times SIGINT or SIGTERM came during the block; the second raises KeyboardInterrupt."""
    count = 0

    def on_signal(number: int, frame: object) -> None:
        nonlocal count
        count += 1
        if count > 1:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: count
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

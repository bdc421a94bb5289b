"""One sweep on any engine: which runs are tried again, what stops it, and what becomes of runs that others train."""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from research.config import RunConfig, run_name
from research.execution.engine import Engine
from research.execution.events import Cause, Ended, Event, Following, Outcome, Ready, Stopping, Tick, ended_as_filed
from research.execution.jobs import together
from research.runs import Status, folder_of, open_run

TRIED_AGAIN = (Cause.MACHINE, Cause.LOST, Cause.STOPPED, Cause.SHARED)  # once for each run, which is alone then
FOLLOW_SECONDS = 1.0  # between two looks at the runs that other processes train


@dataclass(frozen=True)
class Books:
    """The sweep's bookkeeping, built up from its events."""

    at_work: frozenset[str]  # submitted and not ended
    held: frozenset[str] = frozenset()  # by other processes
    tried_again: frozenset[str] = frozenset()
    errors: Mapping[str, str] = field(default_factory=dict)
    fault: str = ""
    is_disk_full: bool = False
    stopping: bool = False


def drive(engine: Engine, configs: Sequence[RunConfig], runs_dir: Path, watch: Callable[[Event], None]) -> Outcome:
    """Train every config, each in its folder under `runs_dir`; returns when nothing is left to do or it was stopped.

    configs : taken up in this order: put the longest first, and the sweep ends soonest.
    watch : called with every event as it comes.

    Runs of one program train together, as many as the engine says. A run whose worker was lost or stopped, or that met
    a fault of the machine or of one trained together with it, is tried once more, alone; its second fault of the
    machine, or a full disk, stops the sweep. A run that another process is training is left to it at once; when
    nothing else is left, such runs are followed until they are done, and taken over if they are let go unfinished.

    SIGINT or SIGTERM stops the runs at their next step with a checkpoint saved; a second one raises KeyboardInterrupt,
    which ends them as they are. Call it from the main thread. Raises, before any training, ConfigError if a folder
    holds another run and OSError if a folder cannot be made; WorkerError if no worker can be started.
    """
    by_name = {run_name(config): config for config in configs}
    for config in configs:
        open_run(runs_dir, config)
    books = Books(frozenset(by_name))
    followed: frozenset[str] = frozenset()
    worker_start_seconds = 0.0
    with _signal_count() as signals, engine:
        for job in together(list(by_name.values()), engine.together, engine.workers):
            engine.submit(job)
        while books.at_work or (books.held and not books.stopping):
            if not books.at_work and followed != books.held:
                followed = books.held
                watch(Following(tuple(sorted(followed))))
            for event in engine.poll() if books.at_work else _follow(books.held, by_name, runs_dir):
                if isinstance(event, Ready):
                    worker_start_seconds += event.seconds
                if isinstance(event, Ended):
                    books, is_tried_again = settle(books, event)
                    if is_tried_again:
                        engine.submit((by_name[event.run],))
                        event = replace(event, reason="; ".join(filter(None, [event.reason, "tried again"])))
                watch(event)
            if (signals() or books.fault) and not books.stopping:
                books = replace(books, stopping=True)
                engine.cancel()
                watch(Stopping())
            watch(Tick())
    return Outcome(signals() > 0, books.errors, books.fault, books.is_disk_full, worker_start_seconds)


def settle(books: Books, event: Ended) -> tuple[Books, bool]:
    """The books after the end of a run, and whether it is tried again."""
    run, cause = event.run, event.cause
    was_held = run in books.held
    books = replace(books, at_work=books.at_work - {run}, held=books.held - {run})
    if cause is None or (cause == Cause.STOPPED and books.stopping):
        return books, False
    if cause == Cause.HELD:
        return replace(books, held=books.held | {run}), False
    if cause in TRIED_AGAIN and not books.stopping and (was_held or run not in books.tried_again):
        tried_again = books.tried_again if was_held else books.tried_again | {run}
        return replace(books, at_work=books.at_work | {run}, tried_again=tried_again), True
    if cause in (Cause.MACHINE, Cause.DISK_FULL):
        is_disk_full = books.is_disk_full or cause == Cause.DISK_FULL
        return replace(books, fault=books.fault or f"{run}: {event.reason}", is_disk_full=is_disk_full), False
    return replace(books, errors={**books.errors, run: event.reason}), False


def _follow(held: frozenset[str], by_name: Mapping[str, RunConfig], runs_dir: Path) -> list[Ended]:
    """Which of the runs that other processes train are no longer trained, after a while."""
    time.sleep(FOLLOW_SECONDS)
    folders = [folder_of(runs_dir, by_name[run]) for run in sorted(held)]
    statuses = [(folder, folder.status()) for folder in folders]
    return [ended_as_filed(folder, status) for folder, status in statuses if status != Status.RUNNING]


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

"""Processes that are timed in turn, each set up as its users have it: one side's memory or threads are not the other's.

A side's process calls `answer`; the benchmark calls `take_turns`.
"""

import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

OUT_OF_TIME = "out of time"  # the error of a side that was stopped
MARK = "> "  # begins a line that is meant for the benchmark; frameworks write others


def answer(runs: Mapping[str, Callable[[], Any]], first: Callable[[], Any], per_round: int = 1) -> None:
    """One side's process: run each once and say `first()`, then time every run for every line that arrives."""
    for run in runs.values():
        run()  # compilation here, memory pools there
    print(f"{MARK}{json.dumps(first())}", flush=True)
    for _ in sys.stdin:
        seconds = {}
        for name, run in runs.items():
            began = time.perf_counter()
            for _ in range(per_round):
                run()
            seconds[name] = (time.perf_counter() - began) / per_round
        print(f"{MARK}{json.dumps(seconds)}", flush=True)


@dataclass
class Side:
    """What came of one side: what it said first, seconds of each run by round, and of what it died if it did."""

    first: Any = None
    seconds: list[dict[str, float]] = field(default_factory=list)
    error: str | None = None

    def median(self, run: str) -> float:
        return statistics.median(taken[run] for taken in self.seconds)


def take_turns(commands: Mapping[str, Sequence[str]], rounds: int, limit_s: float | None = None) -> dict[str, Side]:
    """Each side's outcome after `rounds` rounds in which all took their turn; what is not done in `limit_s` is left."""
    sides = {side: Side() for side in commands}
    with contextlib.ExitStack() as stack:
        processes = {side: stack.enter_context(_Process(command)) for side, command in commands.items()}
        if limit_s is not None:
            timer = threading.Timer(limit_s, lambda: [process.stop() for process in processes.values()])
            timer.start()
            stack.callback(timer.cancel)
        for turn in range(rounds + 1):
            for side, process in processes.items():
                if sides[side].error is not None:
                    continue
                try:
                    said = process.ask(turn > 0)
                except ChildProcessError as error:
                    sides[side].error = str(error)
                    continue
                if turn:
                    sides[side].seconds.append(said)
                else:
                    sides[side].first = said
    return sides


class _Process:
    """A side's process, with its children in a group of their own."""

    def __init__(self, command: Sequence[str]):
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed by __exit__)
        self.stopped = False
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            start_new_session=True,
        )

    def ask(self, for_a_round: bool) -> Any:
        """What it says next. Raises ChildProcessError, with the last line of its errors, if it says nothing more."""
        with contextlib.suppress(BrokenPipeError):
            if for_a_round:
                self.process.stdin.write("\n")
                self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith(MARK):
                return json.loads(line.removeprefix(MARK))
        if self.stopped:
            raise ChildProcessError(OUT_OF_TIME)
        self.errors.seek(0)
        lines = [line.strip() for line in self.errors if line.strip()]
        raise ChildProcessError(lines[-1] if lines else f"ended with {self.process.wait()} and said nothing")

    def stop(self) -> None:
        self.stopped = True
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def __enter__(self) -> "_Process":
        return self

    def __exit__(self, raised: type | None, *_: object) -> None:
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()  # the end of what `answer` reads
        if raised is not None:
            self.stop()
        self.process.wait()
        self.process.stdout.close()
        self.errors.close()

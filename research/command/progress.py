"""Showing a sweep: a live display in a terminal, plain lines anywhere else."""

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from research.config import short_number
from research.execution.events import Cause, Ended, Event, Following, Started, Stopping
from research.execution.sweep import RunState, Sweep, advance, seconds_left
from research.runs import Status

LINE_SECONDS = 30.0  # between two lines on the whole sweep where there is no terminal
REDRAW_SECONDS = 0.25
BAR_WIDTH = 16
STATUS_STYLES = {
    Status.PENDING: "dim",
    Status.RUNNING: "cyan",
    Status.PARTIAL: "yellow",
    Status.DONE: "green",
    Status.FAILED: "bold red",
}


@contextlib.contextmanager
def show(console: Console, sweep: Sweep) -> Iterator[Callable[[Event], None]]:
    """A function to pass an engine as `watch`; what it shows stays on the screen when the block ends."""
    if not console.is_terminal:
        yield _plain_watch(console, sweep)
        return
    with Live(render(sweep, time.monotonic()), console=console, auto_refresh=False) as live:
        yield _live_watch(live, sweep)


def _live_watch(live: Live, sweep: Sweep) -> Callable[[Event], None]:
    drawn = 0.0

    def watch(event: Event) -> None:
        nonlocal sweep, drawn
        now = time.monotonic()
        sweep = advance(sweep, event, now)
        if not isinstance(event, Started) and (
            line := describe(sweep, event)
        ):  # what has started has a line that moves
            live.console.print(line)
        if isinstance(event, Ended | Stopping) or now - drawn >= REDRAW_SECONDS:
            drawn = now
            live.update(render(sweep, now), refresh=True)

    return watch


def _plain_watch(console: Console, sweep: Sweep) -> Callable[[Event], None]:
    printed = time.monotonic()

    def watch(event: Event) -> None:
        nonlocal sweep, printed
        now = time.monotonic()
        sweep = advance(sweep, event, now)
        if line := describe(sweep, event):
            console.print(line, soft_wrap=True)
        if now - printed >= LINE_SECONDS:
            printed = now
            console.print(f"sweep: {sweep_text(sweep, now)}", soft_wrap=True)

    return watch


def describe(sweep: Sweep, event: Event) -> Text | None:
    """The line that stays on record about an event, or None for one that deserves none."""
    if isinstance(event, Stopping):
        return Text("stopping: runs save a checkpoint at their next step (Ctrl-C again ends at once)", style="yellow")
    if isinstance(event, Started):
        resumed = f" at step {event.step:,}" if event.step else ""
        return Text.assemble(("start    ", "cyan"), f"{label(sweep, event.run)}{resumed}")
    if isinstance(event, Following):
        runs = "a run" if len(event.runs) == 1 else f"{len(event.runs)} runs"
        return Text(f"waiting  for {runs} that another process is training", style="cyan")
    if not isinstance(event, Ended):
        return None
    run = sweep.runs[event.run]
    if event.cause == Cause.STOPPED and run.started is None:  # it was only in the queue
        return None
    parts = [(f"{event.status:<9}", STATUS_STYLES[event.status]), label(sweep, event.run)]
    if event.status == Status.DONE and run.started:
        parts.append(f"  {duration(run.ended_seconds - run.started.seconds)}")
    if event.status == Status.PARTIAL:
        parts.append(f"  at step {run.step:,}")
    if run.loss_nats is not None:
        parts.append(f"  training loss {run.loss_nats:.3f}")
    style = "cyan" if event.cause == Cause.HELD else "red"
    return Text.assemble(*parts, (f"  {event.reason}" if event.reason else "", style))


def render(sweep: Sweep, now: float) -> Group:
    """One line per active run, then one for the sweep. Where it is narrow, names are cut and never numbers."""
    active = {name: run for name, run in sweep.runs.items() if run.is_active}
    lines = Table.grid(padding=(0, 2))
    lines.add_column()  # may wrap as far as the grid knows, which makes it the one that gives way; its texts are cut
    lines.add_column(width=BAR_WIDTH)
    for _ in range(3):
        lines.add_column(no_wrap=True, justify="right")
    for name, run in active.items():
        text = Text(label(sweep, name), no_wrap=True, overflow="ellipsis")
        lines.add_row(text, _bar(run.step, run.steps), *_run_texts(run))
    last = Table.grid(padding=(0, 2))
    last.add_column()
    last.add_column(width=BAR_WIDTH)
    last.add_column(no_wrap=True, overflow="ellipsis")
    last.add_row(Text("sweep", style="bold"), _bar(*_flops(sweep)), Text(sweep_text(sweep, now), style="bold"))
    return Group(lines, last)


def _bar(done: float, total: float) -> ProgressBar:
    return ProgressBar(total=total, completed=done, complete_style="cyan")


def _run_texts(run: RunState) -> list[str]:
    loss = "compiling" if run.loss_nats is None else f"loss {run.loss_nats:.3f}"
    speed = "" if run.tokens_per_second is None else f"{short_count(run.tokens_per_second)} tokens/s"
    return [f"{run.step:,}/{run.steps:,}", loss, speed]


def sweep_text(sweep: Sweep, now: float) -> str:
    """Runs done, training FLOPs done, both of the whole plan, and the time left."""
    done = sum(run.status == Status.DONE for run in sweep.runs.values())
    parts = [f"{done}/{len(sweep.runs)} runs", "/".join(short_number(flops) for flops in _flops(sweep)) + " FLOPs"]
    if sweep.stopping:
        parts.append("stopping")
    elif any(sweep.runs[name].ended_seconds is None for name in sweep.selected):
        left = seconds_left(sweep, now)
        parts.append("" if left is None else f"{duration(left)} left")
    return "  ".join(filter(None, parts))


def _flops(sweep: Sweep) -> tuple[float, float]:
    runs = sweep.runs.values()
    return sum(run.flops_done for run in runs), sum(run.own_flops for run in runs)


def label(sweep: Sweep, name: str) -> str:
    """A run's name without its fingerprint, unless another run would be called the same."""
    short = name.rpartition("-")[0]
    return name if sum(other.rpartition("-")[0] == short for other in sweep.runs) > 1 else short


def short_count(value: float) -> str:
    """Three significant digits with a suffix: 812, 4.51k, 1.23M, 6.7B."""
    for size, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{suffix}"
    return f"{value:.3g}"


def duration(seconds: float) -> str:
    """12s, 3m 05s, 2h 07m."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02}m"

"""Figures as files, drawn by several processes, since drawing holds the interpreter.

A worker is a Python of its own (worker.py), not one of multiprocessing, which would run a user's script again.
"""

import contextlib
import io
import os
import pickle
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import matplotlib
import matplotlib.style
from matplotlib.figure import Figure

from analysis.cores import usable_cores
from analysis.drawing.style import STYLE
from analysis.files import write_atomically

METADATA = {"png": {}, "pdf": {"CreationDate": None}}  # no dates, so that the same study gives the same bytes
FIGURES_EACH, MOST_PROCESSES = 4, 4  # a process takes as long to start as it does to draw two figures


def save(figure: Figure, stem: Path | str) -> list[Path]:
    """Write `<stem>.png` and `<stem>.pdf`; the same study gives the same bytes."""
    return save_all({Path(stem): lambda: figure})


def save_all(figures: Mapping[Path, Callable[[], Figure]]) -> list[Path]:
    """`save` of what each function makes to its stem, shared out among the cores where there are many.

    Workers start while the figures are made. Then they take them from the end, where the costly ones are, and this
    process from the beginning, so that none waits for the share of another.
    """
    others = max(0, min(len(usable_cores()), MOST_PROCESSES, len(figures) // FIGURES_EACH) - 1)
    files: dict[Path, dict[str, bytes]] = {}
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(_Worker()) for _ in range(others)]
        waiting = deque((stem, make()) for stem, make in figures.items())
        threads = stack.enter_context(ThreadPoolExecutor(max(others, 1)))
        stack.callback(waiting.clear)  # whatever is raised, no thread goes on
        elsewhere = [threads.submit(_draw, waiting.pop, worker.drawn, files) for worker in workers]
        _draw(waiting.popleft, drawn, files)
        for end in elsewhere:
            end.result()
    paths = []
    for stem in figures:
        stem.parent.mkdir(parents=True, exist_ok=True)
        for suffix, content in files[stem].items():
            paths.append(Path(f"{stem}.{suffix}"))
            write_atomically(paths[-1], content)
    return paths


def drawn(figure: Figure) -> dict[str, bytes]:
    """The figure's files by their suffix."""
    files = {}
    # Laid out once, so that both files look alike; left to itself, matplotlib does so three times, at most of the cost
    # of a figure, and draws it once for nothing wherever it has an engine at all, or the style asks for one.
    with matplotlib.style.context([STYLE, {"figure.constrained_layout.use": False}]):
        figure.set_dpi(matplotlib.rcParams["savefig.dpi"])  # of the PNG, on whose dots the widths of letters depend
        layout = figure.get_layout_engine()
        if layout is not None:
            layout.execute(figure)
        figure.set_layout_engine(None)
        for suffix, metadata in METADATA.items():
            content = io.BytesIO()
            figure.savefig(content, format=suffix, metadata=metadata)
            files[suffix] = content.getvalue()
    return files


def _draw(
    take: Callable[[], tuple[Path, Figure]], draw: Callable[[Figure], dict[str, bytes]], files: dict[Path, dict]
) -> None:
    """Draw what `take` gives, one after another, until it has nothing left."""
    while True:
        try:
            stem, figure = take()
        except IndexError:
            return
        files[stem] = draw(figure)


class _Worker:
    """A process that draws, ended at the end of the block, whatever it is doing."""

    def __enter__(self) -> "_Worker":
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}  # as found here
        command = [sys.executable, "-m", "analysis.drawing.worker"]
        self.printed = tempfile.TemporaryFile()
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self.printed}
        self.process = subprocess.Popen(command, env=environment, **pipes)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        for file in (self.process.stdin, self.process.stdout, self.printed):
            with contextlib.suppress(OSError):  # what a process that failed has not read
                file.close()

    def drawn(self, figure: Figure) -> dict[str, bytes]:
        """`drawn` there. Raises RuntimeError with what the process printed where it fails."""
        sent = pickle.dumps(figure)
        try:
            self.process.stdin.write(sent)
            self.process.stdin.flush()
            return pickle.load(self.process.stdout)
        except (OSError, EOFError) as error:
            code = self.process.wait()
            self.printed.seek(0)
            said = self.printed.read().decode(errors="replace")
            raise RuntimeError(f"a process that draws figures ended with {code}:\n{said}") from error

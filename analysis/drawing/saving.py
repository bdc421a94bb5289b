"""Figures as files, drawn by several processes, since drawing holds the interpreter.

A worker is a Python of its own (worker.py), not one of multiprocessing, which would run a user's script again.
"""

import io
import os
import pickle
import subprocess
import sys
from collections.abc import Mapping
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
    return save_all({Path(stem): figure})


def save_all(figures: Mapping[Path, Figure]) -> list[Path]:
    """`save` of each figure to its stem, shared out among the cores where there are many."""
    stems = list(figures)
    count = max(1, min(len(usable_cores()), MOST_PROCESSES, len(stems) // FIGURES_EACH))
    first, *others = ([figures[stem] for stem in stems[i::count]] for i in range(count))
    with ThreadPoolExecutor(count) as threads:
        elsewhere = [threads.submit(_drawn_by_worker, share) for share in others]
        shares = [[drawn(figure) for figure in first], *(share.result() for share in elsewhere)]
    paths = []
    for i, stem in enumerate(stems):
        stem.parent.mkdir(parents=True, exist_ok=True)
        for suffix, content in shares[i % count][i // count].items():
            paths.append(Path(f"{stem}.{suffix}"))
            write_atomically(paths[-1], content)
    return paths


def drawn(figure: Figure) -> dict[str, bytes]:
    """The figure's files by their suffix."""
    files = {}
    with matplotlib.style.context(STYLE):
        # Laid out once, so that both files look alike; left to itself, matplotlib does so three times, at most of the
        # cost of a figure. At the dots of the PNG, on which the widths of letters depend.
        figure.set_dpi(matplotlib.rcParams["savefig.dpi"])
        layout = figure.get_layout_engine()
        if layout is not None:
            layout.execute(figure)
        figure.set_layout_engine("none")
        for suffix, metadata in METADATA.items():
            content = io.BytesIO()
            figure.savefig(content, format=suffix, metadata=metadata)
            files[suffix] = content.getvalue()
    return files


def _drawn_by_worker(figures: list[Figure]) -> list[dict[str, bytes]]:
    """`drawn` of each. Raises RuntimeError with what the worker printed where it fails."""
    command = [sys.executable, "-m", "analysis.drawing.worker"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}  # as found here
    worker = subprocess.run(command, input=pickle.dumps(figures), capture_output=True, env=environment, check=False)
    if worker.returncode:
        raise RuntimeError(f"a process that draws figures ended with {worker.returncode}:\n{worker.stderr.decode()}")
    return pickle.loads(worker.stdout)

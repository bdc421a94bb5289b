"""`isoflop coordinates FILE`: how far a few steps move every activation at several widths, or depths, of one model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from rich.console import Console

from analysis import figures
from research.command.text_table import Column, TextTable, print_table
from research.command.verbs import Request
from research.config import run_label
from research.plan import load, select
from research.runs import make_folder
from research.training.coordinates import Coordinate, coordinates

FLAT = 0.1  # a slope beyond it is shown in another colour


def show_coordinates(
    request: Request,
    console: Console,
    by: Literal["width", "depth"],
    sizes: Sequence[int],
    steps: int,
    out: Path | None,
) -> int:
    """Check the first run that is asked for, print its slopes and draw them; returns 0, whatever they are."""
    experiment = load(request.file, request.assignments)
    config = select(experiment.runs(), request.only)[0]
    folder = out or request.runs_dir / experiment.name
    make_folder(folder, "--out" if out else "--runs-dir")
    found = coordinates(config, sizes, by, steps)
    title = f"{run_label(config)}, {config.model.parametrisation.name} parametrisation"
    print_table(_table(found, by, title), console)
    for path in figures.save(figures.coordinate_changes(found, by), folder / f"coordinates-{by}"):
        console.print(f"Written to {path}", style="dim", markup=False, highlight=False, soft_wrap=True)
    return 0


def _table(found: Sequence[Coordinate], by: str, title: str) -> TextTable:
    """A line an activation after the last step."""
    last = max(one.step for one in found)
    shown = [one for one in found if one.step == last]
    rows = tuple(
        (one.activation, *(f"{change:.4f}" for change in one.changes), (f"{one.slope:+.3f}", _style(one.slope)))
        for one in shown
    )
    columns = (Column("activation", is_number=False), *(Column(f"{by}\n{size}") for size in shown[0].sizes))
    caption = f"root mean square change after {last} steps; slope of its logarithm against that of the {by}"
    return TextTable((*columns, Column("slope")), rows, title, caption)


def _style(slope: float) -> str:
    return "green" if abs(slope) <= FLAT else "red" if slope > 0 else "yellow"

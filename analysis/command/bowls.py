"""`isoflop bowls`: from a sweep to the best settings of each cell, laws of them, and what following those costs."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from analysis.command.outputs import announce, check_file, check_folder, standard_output, write_json, writing
from analysis.command.request import Assignments, Merged, Source, numbers

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from analysis.studies import SweepLaws


@dataclass(frozen=True)
class Swept:
    """What was swept, and where."""

    cell: Annotated[tuple[str, ...], tyro.conf.arg(metavar="COLUMN")] = ("params", "tokens")
    """Columns, of numbers or names, whose equal values make a cell."""
    axes: Annotated[tuple[str, ...], tyro.conf.arg(metavar="COLUMN")] = ("learning_rate", "batch_tokens")
    """Hyperparameters that were swept in each cell: learning_rate, batch_tokens, weight_decay, ..."""


@dataclass(frozen=True)
class Wanted:
    """The laws of the best settings."""

    law: Annotated[tuple[str, ...], tyro.conf.arg(metavar="LAW")] = ()
    """Laws to fit to the best settings, one for each axis;
    by default each axis' power law of what varies of params, tokens and flops in the cell."""
    at: Annotated[Assignments, tyro.conf.arg(metavar="INPUT=VALUE")] = ()
    """Inputs of the laws, as params=7e9 tokens=1.4e11, at which they are read."""

    def settings(self) -> "dict[str, Any]":
        """The same for `sweep_laws`. Raises LawError for an unknown law."""
        from analysis.laws import load

        return {
            "laws": [load(name) for name in self.law],
            "at": numbers("--at", self.at) or None,
        }


def bowls(
    source: Annotated[Source, Merged],
    *,
    swept: Annotated[Swept, Merged] = Swept(),
    wanted: Annotated[Wanted, Merged] = Wanted(),
    out: Path | None = None,
    json: Path | None = None,
    figures: Path | None = None,
    level: float = 0.9,
    far_factor: float = 10.0,
) -> None:
    """Find the best hyperparameters in each cell of a sweep, fit laws through all, and see what following those costs.

    A cell holds the runs that differ in hyperparameters alone. The table of best settings (--out) is one that `isoflop
    fit` reads, for its laws, and for --hyperparameters.

    Args:
        source: the table, with loss_nats, the columns of the cell and the axes.
        swept: the cells.
        wanted: the laws.
        out: file (.csv) for the best settings, one row per cell.
        json: file that gets everything that was found, as JSON.
        figures: folder that gets figures of the bowls, and of their optima against the laws, as PNG and PDF.
        level: share of the distribution inside each interval.
        far_factor: what lies further than this many times beyond the fitted cells is flagged.
    """
    from analysis import backend
    from analysis.report import show, sweep_sections
    from analysis.studies import sweep_laws

    backend.configure_command()
    console = standard_output()
    for option, path in (("--out", out), ("--json", json)):
        check_file(option, path)
    check_folder("--figures", figures)
    table = source.read((*swept.cell, *swept.axes, "loss_nats"))
    asked = {**vars(swept), **wanted.settings()}
    found = sweep_laws(table, level=level, far_factor=far_factor, **asked)
    show(console, *sweep_sections(found))
    write_json(console, json, found)
    if out is not None:
        _write_optima(console, out, found)
    if figures is not None:
        _draw(console, figures, table, found)


def _write_optima(console: "Console", out: Path, found: "SweepLaws") -> None:
    from analysis.files import write_atomically
    from analysis.studies import optima_table

    with writing("--out", out):
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(out, optima_table(found.bowls).to_csv(index=False).encode())
    announce(console, [out])


def _draw(console: "Console", folder: Path, table: "pd.DataFrame", found: "SweepLaws") -> None:
    from analysis.figures import save  # brings matplotlib
    from analysis.report.captions import sweep_figures

    with writing("--figures", folder):
        paths = [path for one in sweep_figures(found, table) for path in save(one.draw(), folder / one.figure.name)]
    announce(console, paths)

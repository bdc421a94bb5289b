"""`isoflop bowls`: from a sweep to the best settings of each cell, laws of them, and what following those costs."""

from pathlib import Path
from typing import Annotated

import tyro

from analysis.command.outputs import announce, check_file, check_folder, standard_output, write_json, writing
from analysis.command.request import Assignments, Merged, Request, Source, numbers
from analysis.sampling import ONE_FIT, Sampling


def bowls(
    source: Annotated[Source, Merged],
    *,
    cell: Annotated[tuple[str, ...], tyro.conf.arg(metavar="COLUMN")] = ("params", "tokens"),
    axes: Annotated[tuple[str, ...], tyro.conf.arg(metavar="COLUMN")] = ("learning_rate", "batch_tokens"),
    law: Annotated[tuple[str, ...], tyro.conf.arg(metavar="LAW")] = (),
    at: Annotated[Assignments, tyro.conf.arg(metavar="INPUT=VALUE")] = (),
    out: Path | None = None,
    json: Path | None = None,
    figures: Path | None = None,
    objective: str = "least_squares",
    sampling: Annotated[Sampling, Merged] = ONE_FIT,
    far_factor: float = 10.0,
) -> None:
    """Find the best hyperparameters in each cell of a sweep, fit laws to them, and see what following the laws costs.

    A cell holds the runs that differ in hyperparameters alone. The table of best settings (--out) is one that `isoflop
    fit` reads, for its laws, and for --hyperparameters.

    Args:
        source: the table, with loss_nats, the columns of the cell and the axes.
        cell: columns, of numbers or names, whose equal values make a cell.
        axes: hyperparameters that were swept in each cell: learning_rate, batch_tokens, weight_decay, ...
        law: laws to fit to the best settings, one for each axis; by default each axis' power law of what varies of
            params, tokens and flops in the cell.
        at: inputs of the laws, as params=7e9 tokens=1.4e11, at which they are read.
        out: file (.csv) for the best settings, one row per cell.
        json: file that gets everything that was found, as JSON.
        figures: folder that gets the figure of the bowls, as PNG and PDF.
        objective: loss of a law's residual: least_squares, huber or huber_likelihood.
        sampling: the resamples, of the cells.
        far_factor: what lies further than this many times beyond the fitted cells is flagged.
    """
    from analysis import backend
    from analysis.files import write_atomically
    from analysis.laws import load
    from analysis.report import show, sweep_sections
    from analysis.studies import optima_table, sweep_laws, sweep_rows

    backend.configure_command()
    console = standard_output()
    for option, path in (("--out", out), ("--json", json)):
        check_file(option, path)
    check_folder("--figures", figures)
    table = source.read((*cell, *axes, "loss_nats"))
    settings = {"objective": Request(objective=objective).chosen_objective(), "sampling": sampling}
    laws, asked = [load(name) for name in law], numbers("--at", at) or None
    found = sweep_laws(table, cell=cell, axes=axes, laws=laws, far_factor=far_factor, at=asked, **settings)
    show(console, *sweep_sections(found))
    write_json(console, json, found)
    if out is not None:
        with writing("--out", out):
            out.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(out, optima_table(found.bowls).to_csv(index=False).encode())
        announce(console, [out])
    if figures is not None:
        from analysis.figures import hyperparameter_bowls, save  # brings matplotlib

        with writing("--figures", figures):
            paths = save(hyperparameter_bowls(sweep_rows(table, cell, axes)[0], found.bowls), figures / "bowls")
        announce(console, paths)

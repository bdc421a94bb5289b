"""`isoflop critical-batch`: from a sweep of batches to the batch beyond which a loss takes ever more tokens."""

from pathlib import Path
from typing import Annotated

import tyro

from analysis.command.outputs import announce, check_file, standard_output, write_json, writing
from analysis.command.request import Merged, Source


def critical_batch(
    source: Annotated[Source, Merged],
    *,
    losses: Annotated[tuple[float, ...], tyro.conf.arg(metavar="NATS")] = (),
    cell: Annotated[tuple[str, ...], tyro.conf.arg(metavar="COLUMN")] = ("params",),
    out: Path | None = None,
    json: Path | None = None,
    level: float = 0.9,
) -> None:
    """Find what each batch takes to reach a loss, and the critical batch that follows, beside the runs' noise scales.

    The table has runs of several lengths in several batches, or their checkpoints; where it also has several learning
    rates, the best one counts at each length.

    Args:
        source: the table, with loss_nats, tokens, batch_tokens and the columns of the cell.
        losses: losses to reach; by default three that all batches cross.
        cell: columns whose equal values make a cell.
        out: file (.csv) for what each batch took; isoflop fit --law critical_batch reads it.
        json: file that gets everything that was found, as JSON.
        level: share of the distribution inside each interval.
    """
    from analysis import backend
    from analysis.files import write_atomically
    from analysis.report import critical_batch_sections, show
    from analysis.studies import critical_batches, points_table

    backend.configure_command()
    console = standard_output()
    for option, path in (("--out", out), ("--json", json)):
        check_file(option, path)
    table = source.read((*cell, "batch_tokens", "tokens", "loss_nats"))
    found = critical_batches(table, losses, cell=cell, level=level)
    show(console, *critical_batch_sections(found))
    write_json(console, json, found)
    if out is not None:
        with writing("--out", out):
            out.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(out, points_table(found).to_csv(index=False).encode())
        announce(console, [out])

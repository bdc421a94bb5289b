"""`isoflop compare`: several laws on one table, ranked by their extrapolations."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from analysis.command.outputs import check_file, standard_output, write_json
from analysis.command.request import Merged, Request, Source
from analysis.sampling import SEVERAL_FITS, Sampling

if TYPE_CHECKING:
    import pandas as pd

    from analysis.laws import Law


def compare(
    source: Annotated[Source, Merged],
    *,
    laws: Annotated[tuple[str, ...], tyro.conf.arg(metavar="LAW")],
    by: str = "flops",
    cuts: Annotated[tuple[float, ...], tyro.conf.arg(metavar="VALUE")] = (),
    json: Path | None = None,
    objective: str = "huber",
    delta: float | None = None,
    sampling: Annotated[Sampling, Merged] = SEVERAL_FITS,
) -> None:
    """Compare several laws on one table by back-test: each is fitted below the same cuts and scored on the same runs.

    It draws no figures; `isoflop backtest --figures` draws the back-test of one law.

    Args:
        source: the table.
        laws: two laws or more, by name or as FILE.py:NAME, as `isoflop laws` lists them, of one output.
        by: column that is cut: flops, or any other column of numbers.
        cuts: values of it; by default those of `isoflop backtest`.
        json: file that gets the ranking and every back-test, as JSON.
        objective: loss of a residual, for every law: huber, least_squares or huber_likelihood.
        delta: residual where huber turns from square to linear, as in `isoflop fit`.
        sampling: the resamples.
    """
    from analysis import backend
    from analysis.laws import load
    from analysis.report import ranking_sections, show
    from analysis.studies import rank_laws

    backend.configure_command()
    console = standard_output()
    check_file("--json", json)
    chosen = [load(name) for name in laws]
    settings = {"objective": Request(objective=objective, delta=delta).chosen_objective(), "sampling": sampling}
    found = rank_laws(chosen, _read(source, chosen, by), by=by, cuts=cuts, **settings)
    show(console, *ranking_sections(found))
    write_json(console, json, found)


def _read(source: Source, laws: "list[Law]", by: str) -> "pd.DataFrame":
    """The table with the columns of every law that can be read; those of the others are for the ranking to miss.

    Raises TableError where no law's can.
    """
    from analysis.runs_table import TableError

    cut = () if by == "flops" else (by,)
    columns = [(*law.inputs, law.output, *cut) for law in laws]
    try:
        return source.read(tuple(dict.fromkeys(name for each in columns for name in each)))
    except TableError as error:
        refused = error
    readable = []
    for each in columns:
        try:
            source.read(each)
        except TableError:
            continue
        readable += each
    if not readable:
        raise refused
    return source.read(tuple(dict.fromkeys(readable)))

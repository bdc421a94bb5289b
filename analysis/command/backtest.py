"""`isoflop backtest`: fit below a cut, score above it, for a series of cuts."""

from pathlib import Path
from typing import Annotated

import tyro

from analysis.command.outputs import announce, check_file, check_folder, standard_output, write_json, writing
from analysis.command.request import Merged, Request, Source
from analysis.sampling import SEVERAL_FITS, Sampling


def backtest(
    source: Annotated[Source, Merged],
    request: Annotated[Request, Merged],
    *,
    by: str = "flops",
    cuts: Annotated[tuple[float, ...], tyro.conf.arg(metavar="VALUE")] = (),
    sampling: Annotated[Sampling, Merged] = SEVERAL_FITS,
    json: Path | None = None,
    figures: Path | None = None,
) -> None:
    """Fit a law to the runs below each of several cuts, and score it on the runs above.

    Args:
        source: the table.
        request: the law.
        by: column that is cut: flops, or any other column of numbers.
        cuts: values of it; by default up to seven that leave 30 to 90 % of the runs below, each between two budgets
            (between clusters of runs where none is stated) and never inside one.
        sampling: the resamples.
        json: file that gets every cut and every scored run, as JSON.
        figures: folder that gets the figure, as PNG and PDF.
    """
    from analysis import backend, studies
    from analysis.report import backtest_section, left_out_section, notes_block, show

    backend.configure_command()
    console = standard_output()
    check_file("--json", json)
    check_folder("--figures", figures)
    table = request.read(source, by)
    found = studies.backtest(
        request.chosen_law(),
        table,
        by=by,
        cuts=cuts,
        objective=request.chosen_objective(),
        sampling=sampling,
    )
    show(console, *notes_block(found.table_notes), backtest_section(found), *left_out_section(found.left_out))
    write_json(console, json, found)
    if figures is not None:
        from analysis.figures import backtest_errors, save  # brings matplotlib

        with writing("--figures", figures):
            paths = save(backtest_errors(found), figures / "backtest")
        announce(console, paths)

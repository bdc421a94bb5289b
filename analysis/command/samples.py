"""`isoflop samples`: from a table of sampled answers to what more samples buy, by way of choosing among them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from analysis.command.outputs import announce, check_file, check_folder, standard_output, write_json, writing
from analysis.command.request import Merged, Source, pairs
from analysis.sampling import SEVERAL_FITS, Sampling

if TYPE_CHECKING:
    import pandas as pd

OPTIONAL = ("answer", "score", "tokens_per_sample", "params", "flops")


def samples(
    source: Annotated[Source, Merged],
    *,
    cell: Annotated[tuple[str, ...], tyro.conf.arg(metavar="COLUMN")] = (),
    out: Path | None = None,
    json: Path | None = None,
    figures: Path | None = None,
    sampling: Annotated[Sampling, Merged] = SEVERAL_FITS,
) -> None:
    """Find what more samples of an answer buy: coverage, best by score, majority and weighted votes, and their laws.

    The table has one row per sample: problem, correct (0 or 1) and, where there are any, answer (which allows votes),
    score (a verifier's, or a log-probability) and, of the model that answered, params, flops (of its training) and
    tokens_per_sample. With several sizes it also says what samples are worth in size.

    Args:
        source: the table.
        cell: columns whose equal values make one model or setting; by default those of params and flops it has.
        out: file (.csv) for success at each number of samples; isoflop fit reads it for the laws of samples.
        json: file that gets everything that was found, as JSON.
        figures: folder that gets report.md, samples.json and the figure, as PNG and PDF.
        sampling: the resamples, of the problems.
    """
    from analysis import backend
    from analysis.files import write_atomically
    from analysis.report import sample_sections, show
    from analysis.studies import sample_curves, sample_study, success_table

    backend.configure_command()
    console = standard_output()
    for option, path in (("--out", out), ("--json", json)):
        check_file(option, path)
    check_folder("--figures", figures)
    curves = sample_curves(_read(source, cell), cell, sampling)
    found = sample_study(curves)
    show(console, *sample_sections(found))
    write_json(console, json, found)
    if out is not None:
        with writing("--out", out):
            out.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(out, success_table(curves).to_csv(index=False).encode())
        announce(console, [out])
    if figures is not None:
        from analysis.report.files import write_samples  # brings matplotlib

        with writing("--figures", figures):
            paths = write_samples(figures, source.table.name, found)
        announce(console, paths)


def _read(source: Source, cell: tuple[str, ...]) -> "pd.DataFrame":
    """The table with what every table of samples has, and those of the other columns that the file has."""
    from analysis.runs_table import read_file

    reading = source.reading
    there = [*map(str, read_file(source.table, reading.decimal).columns), *pairs("--column", reading.column)]
    optional = [name for name in OPTIONAL if name in there and name not in reading.ignore]
    table = source.read(tuple(dict.fromkeys(("problem", "correct", *cell, *optional))))
    # Tokens of a table of samples are a sample's: they price no training, as those of a table of runs do.
    return table if "flops" in optional else table.drop(columns="flops")

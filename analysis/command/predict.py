"""`isoflop predict`: write down what a law says of a run before the run is made."""

import dataclasses
import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from analysis.command.outputs import check_file, standard_output, writing
from analysis.command.request import Assignments, Merged, Request, Source, is_named, numbers
from analysis.sampling import ONE_FIT, Sampling

if TYPE_CHECKING:
    import pandas as pd

    from analysis.laws import Law
    from analysis.studies import Study


def predict(
    source: Annotated[Source, Merged],
    request: Annotated[Request, Merged],
    *,
    at: Annotated[Assignments, tyro.conf.arg(metavar="INPUT=VALUE")] = (),
    flops: float | None = None,
    run: str | None = None,
    out: Path = Path("prediction.json"),
    sampling: Annotated[Sampling, Merged] = ONE_FIT,
    far_factor: float = 10.0,
) -> None:
    """Fit a law and write down what it says of one run, with its predictive interval, before the run is made.

    The run is given by its inputs (--at), as the compute-optimal one of a budget (--flops), or by its name in the table
    (--run), where its row is kept out of the fit. `isoflop score` reads the file.

    Args:
        source: the table.
        request: the law.
        at: inputs of the run, as params=7e9 tokens=1.4e11.
        flops: budget in FLOP; the run is the one the law calls best for it.
        run: name of the run; with --at or --flops, the name it will have.
        out: file for the prediction. One that is there is kept beside it under the time it was written.
        sampling: the resamples.
        far_factor: a run further than this many times beyond the fitted range is flagged.
    """
    import numpy as np

    from analysis import backend
    from analysis.report import held_out_section, left_out_section, notes_block, show
    from analysis.report.document import Bullets, Strong
    from analysis.studies import optimum, prediction

    backend.configure_command()
    console = standard_output()
    _check_out(out)
    law, inputs = request.chosen_law(), numbers("--at", at)
    table = request.read(source)
    named = is_named(table, run)
    if named.any():
        table.loc[named, "held_out"] = True
        inputs = _inputs_of(law, table[named], inputs)
    _check_asked(law, inputs, flops, table["run"], run)
    given = {} if flops is None else inputs  # what an optimum is told besides its budget
    study = request.study(table, sampling=sampling, far_factor=far_factor, given=given)
    best = None if flops is None else optimum(study, _budget_of(study, flops))
    if best is not None:
        inputs = {**inputs, "params": best.params.value, "tokens": best.tokens.value}
    found = dataclasses.replace(
        prediction.predict(study, inputs, run or ""),
        optimum_params=best.params.value if best else None,
        measured_before=bool(np.isfinite(table.loc[named, law.output].astype("float64")).any()),
    )
    with writing("--out", out):
        found = prediction.write(out, found)
    show(console, *notes_block(study.table_notes), held_out_section(found, None))
    if study.caveats:
        show(console, Bullets(tuple(Strong(f"{caveat}.") for caveat in study.caveats)))
    show(console, *left_out_section([item for item in study.left_out if item.run != run]))
    console.print(f"written to {out} at {found.written}", style="dim", highlight=False, markup=False, soft_wrap=True)


def _check_out(out: Path) -> None:
    """Refuse a file that could not be written in the end, or that is there and is no prediction, to be kept aside."""
    from analysis.studies import prediction

    check_file("--out", out)
    if out.exists():
        prediction.read(out)


def _check_asked(
    law: "Law", inputs: Mapping[str, float], flops: float | None, runs: "pd.Series", run: str | None
) -> None:
    """Raise FitError where nothing says which run is predicted, or a budget and the sizes that it chooses do."""
    from analysis.fit import FitError

    if not inputs and flops is None:
        raise FitError(_nothing_said(law, runs, run))
    if flops is not None and {"params", "tokens"} & set(inputs):
        raise FitError("flops: chooses params and tokens by itself. Fix: leave out --flops, or give it alone.")


def _budget_of(study: "Study", flops: float) -> float:
    """The budget. Raises FitError where the law calls no run best for one."""
    from analysis.fit import FitError

    if study.no_optimum:
        ways = "=... ".join(study.law.fit.law.inputs)
        raise FitError(f"flops = {flops:g}: chooses no run. {study.no_optimum}. Fix: name the run, as --at {ways}=...")
    return flops


def _nothing_said(law: "Law", runs: "pd.Series", run: str | None) -> str:
    """What is wrong where no input of the run to predict is known."""
    ways = f"--at {'=... '.join(law.inputs)}=... or --flops"
    names = list(runs.astype(str))
    if run is None:
        return f"at: which run is predicted is not said. Fix: give {ways}, or the --run of a row."
    if run in names:
        return f"run = {run!r}: its row has none of {', '.join(law.inputs)}. Fix: fill them in, or give {ways}."
    near = ", ".join(difflib.get_close_matches(run, names, n=3, cutoff=0.3) or names[:3] or ["none"])
    return f"run = {run!r}: no such run in the table; nearest: {near}. Fix: name one of its rows, or give {ways}."


def _inputs_of(law: "Law", rows: "pd.DataFrame", given: Mapping[str, float]) -> dict[str, float]:
    """A run's inputs from its row; what is given for one that the row leaves open is taken.

    Of a run with checkpoints it is the last row, by tokens, that has what is given.
    """
    import numpy as np

    from analysis.fit import FitError

    values = rows[list(law.inputs)].astype("float64")
    agrees = [np.isclose(values[name], value, rtol=1e-9) | values[name].isna() for name, value in given.items()]
    fitting = values[np.all(agrees, axis=0)] if given else values
    last = (values if fitting.empty else fitting).sort_values("tokens" if "tokens" in law.inputs else law.inputs[0])
    stated = {name: float(value) for name, value in last.iloc[-1].items() if np.isfinite(value)}
    for name in set(stated) & set(given):
        if not np.isclose(stated[name], given[name], rtol=1e-9):
            raise FitError(
                f"at {name} = {given[name]:g}: the table says {stated[name]:g} for this run. Fix: leave it out of --at."
            )
    return {**stated, **given}

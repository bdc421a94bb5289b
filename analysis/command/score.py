"""`isoflop score`: a prediction that was written down, beside what was measured."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from analysis.command.outputs import check_file, standard_output, write_json
from analysis.command.request import AS_IT_IS, Merged, Reading, is_named

if TYPE_CHECKING:
    import pandas as pd

    from analysis.studies import Prediction

SAME_INPUTS = 0.01  # relative: a run's tokens are rounded to whole steps


def score(
    file: tyro.conf.Positional[Path],
    *,
    measured: float | None = None,
    table: Path | None = None,
    reading: Annotated[Reading, Merged] = AS_IT_IS,
    run: str | None = None,
    json: Path | None = None,
) -> None:
    """Score a written prediction with a measured output, or with a table that has the run.

    Args:
        file: what `isoflop predict` wrote.
        measured: what was measured, in the prediction's unit.
        table: CSV or Parquet file that has the run: by its name, or as the only row with its inputs within 1 %.
        reading: the table, as in `isoflop fit`.
        run: name of the run in the table, where it is not the name in the prediction.
        json: file that gets the score, as JSON.
    """
    from analysis.studies import PredictionError, prediction

    console = standard_output()
    check_file("--json", json)
    found = prediction.read(file)
    if (measured is None) == (table is None):
        raise PredictionError("measured and table: give what was measured in one way. Fix: --measured or --table.")
    if table is not None:
        rows = reading.read(table, (*found.inputs, found.output))
        measured = _measured(found, rows, run or found.run)
    scored = prediction.score(found, measured)
    console.print(f"{found.run or 'the run'}, {found.output}: {scored}", highlight=False, markup=False)
    if found.reach.warning:
        console.print(f"the prediction {found.reach.warning}", highlight=False, markup=False)
    write_json(console, json, scored)


def _measured(found: "Prediction", rows: "pd.DataFrame", run: str) -> float:
    """The output of the run in a table. Raises PredictionError unless exactly one row is that run."""
    import numpy as np
    import pandas as pd

    from analysis.studies import PredictionError

    same = pd.Series(True, rows.index)
    for name, value in found.inputs.items():
        same &= np.isclose(rows[name].astype("float64"), value, rtol=SAME_INPUTS, atol=0.0)
    inputs = ", ".join(f"{name} = {value:.6g}" for name, value in found.inputs.items())
    if run:
        named = is_named(rows, run)
        if not named.any():
            raise PredictionError(f"run = {run!r}: is not in the table. Fix: name its row with --run.")
        if not (named & same).any():
            raise PredictionError(
                f"run = {run!r}: its inputs are not the predicted {inputs} within {SAME_INPUTS:.0%}. Fix: predict the "
                "run that was made."
            )
        same &= named  # of a run with checkpoints, the one that was predicted
    if same.sum() != 1:
        raise PredictionError(f"table: {same.sum()} rows have {inputs}. Fix: name the run's row with --run.")
    measured = float(rows.loc[same, found.output].iloc[0])
    if not np.isfinite(measured):
        raise PredictionError(f"{found.output} of run {rows.loc[same, 'run'].iloc[0]!r}: is missing. Fix: wait for it.")
    return measured

"""A prediction that is written down before its run, and scored after it.

The file says what was predicted, by which law, from which table and when. A prediction is never changed: a new one
takes its place and the old one stays beside it under the time it was written.
"""

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from analysis import json_values
from analysis.compute import Reach
from analysis.files import write_atomically
from analysis.fit import FitError
from analysis.intervals import NOT_DETERMINED, Interval, predictive_interval
from analysis.quantities import QUANTITY
from analysis.runs_table import unit_of
from analysis.studies.given import check_choices
from analysis.studies.reach import reach
from analysis.studies.study import Study
from analysis.tables.units import check_stated_counts


class PredictionError(ValueError):
    """A prediction cannot be read or scored; the message names the file or value, the rule and the fix."""


@dataclass(frozen=True)
class Prediction:
    """What a fitted law says of one new run.

    value, low, high: of the law's `output`, in `unit`, with the `level` predictive interval (the constants' uncertainty
    and the noise of one run), whose ends are infinite where the fitted runs do not determine it. positive: whether the
    output can be nothing else. run: its name, empty when it has none yet. flops: its price under the table's own
    counting, where the study has one. optimum_params: the law's own optimal size, where that chose the run. constants:
    fitted and held, to `points` of `fitted_runs` runs. table_digest: of the numbers the fit has read; table_notes: as
    in a `Study`. written: date and time, UTC, empty until it is written. measured_before: whether the run was already
    measured by then, in which case it is no test.
    """

    run: str
    law: str
    formula: str
    constants: dict[str, float]
    objective: str
    points: int
    fitted_runs: int
    left_out: int
    table_digest: str
    inputs: dict[str, float]
    output: str
    unit: str
    positive: bool
    value: float
    low: float
    high: float
    level: float
    flops: float | None
    reach: Reach
    optimum_params: float | None = None
    measured_before: bool = False
    written: str = ""
    table_notes: tuple[str, ...] = ()

    @property
    def determined(self) -> bool:
        """Whether the fitted runs determine it: what is not is no test of the law."""
        return math.isfinite(self.low) or math.isfinite(self.high)

    def __str__(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        if not self.determined:
            return f"{self.value:.2g}{unit}, {self.level:.0%} interval {NOT_DETERMINED}"
        value, low, high = (format(number, QUANTITY) for number in (self.value, self.low, self.high))
        return f"{value}{unit}, {self.level:.0%} interval {low} to {high}"


@dataclass(frozen=True)
class Score:
    """A prediction beside what was measured: error is predicted minus measured, relative_error a share of measured.

    inside: whether it lies in the interval; None where that is not determined.
    """

    prediction: Prediction
    measured: float
    error: float
    relative_error: float
    inside: bool | None

    def __str__(self) -> str:
        verdict = {True: "inside it", False: "OUTSIDE it", None: "which is no test of the law"}[self.inside]
        late = " The run had been measured when this was written: no test." if self.prediction.measured_before else ""
        return (
            f"predicted {self.prediction}; measured {self.measured:{QUANTITY}}, {verdict}, error "
            f"{self.relative_error:+.2%}.{late}"
        )


def predict(study: Study, inputs: Mapping[str, float], run: str = "") -> Prediction:
    """What the study's law says of one run that was not made, for any law.

    Beyond the fitted runs its interval is not determined where the study says so of what follows from the law
    (`Study.unpredictable`); between them the runs determine it themselves, whatever their constants.
    inputs: a value of each of the law's inputs. Raises FitError for one that is missing, unknown or not allowed,
    TableError for a count that is none.
    """
    fit, law = study.law.fit, study.law.fit.law
    inputs = {name: float(value) for name, value in inputs.items()}
    for name in (*law.inputs, *inputs):
        if name not in inputs or name not in law.inputs:
            known = name in law.inputs
            state = f"is not given, and law {law.name!r} needs it" if known else f"is no input of law {law.name!r}"
            raise FitError(f"{name}: {state}. Fix: give {', '.join(law.inputs)}.")
        if not (np.isfinite(inputs[name]) and (inputs[name] > 0 or (inputs[name] == 0 and name in law.may_be_zero))):
            raise FitError(f"{name} = {inputs[name]!r}: must be positive and finite. Fix: give a count.")
    check_choices(law, inputs)
    check_stated_counts(inputs, study.ranges)
    interval, far = (
        predictive_interval(law, fit, study.predictive, inputs, study.level, study.seed),
        reach(study, inputs),
    )
    if study.unpredictable and far.factor > 1:
        interval = Interval(interval.value, -math.inf, math.inf, NOT_DETERMINED)
    flops = inputs.get("flops")
    if study.flop_rule is not None:
        flops = float(study.flop_rule.flops(inputs["params"], inputs["tokens"]))
    return Prediction(
        run=run,
        law=law.name,
        formula=law.formula,
        constants={**fit.values, **dict(law.fixed)},
        objective=str(fit.objective),
        points=len(fit.used),
        fitted_runs=len(set(fit.used)),
        left_out=len(fit.left_out),
        table_digest=study.table_digest,
        inputs=inputs,
        output=law.output,
        unit=unit_of(law.output),
        positive=law.residual == "log",
        value=interval.value,
        low=interval.low,
        high=interval.high,
        level=study.level,
        flops=flops,
        reach=far,
        table_notes=study.table_notes,
    )


def score(prediction: Prediction, measured: float) -> Score:
    """The prediction against the measured output.

    Raises PredictionError for one that is not finite, or that is not positive where the output cannot be otherwise.
    """
    measured = float(measured)
    if not np.isfinite(measured):
        raise PredictionError(f"measured = {measured!r}: must be finite. Fix: wait for the run's {prediction.output}.")
    if prediction.positive and measured <= 0:
        raise PredictionError(
            f"measured = {measured:g}: must be positive, as any {prediction.output} is. Fix: give what was measured, "
            f"in the prediction's unit{f', {prediction.unit}' if prediction.unit else ''}."
        )
    error = prediction.value - measured
    relative = error / abs(measured) if measured else float("nan")
    inside = prediction.low <= measured <= prediction.high if prediction.determined else None
    return Score(prediction, measured, error, relative, inside)


def write(path: Path, prediction: Prediction) -> Prediction:
    """Write a prediction down, dated; one that is there already is kept under the time it was written."""
    path = Path(path)
    if path.exists():
        older = read(path)
        path.rename(path.with_name(f"{path.stem}-{older.written.replace(':', '')}{path.suffix}"))
    path.parent.mkdir(parents=True, exist_ok=True)
    prediction = dataclasses.replace(prediction, written=datetime.now(UTC).isoformat(timespec="seconds"))
    write_atomically(path, json_values.dumps(json_values.to_file(prediction)).encode())
    return prediction


def read(path: Path) -> Prediction:
    """The prediction in a file; one that was written before notes were kept has none.

    Raises PredictionError for a file that is absent or that holds something else.
    """
    path = Path(path)
    if not os.path.isfile(path):  # False for any path that no file can have, too, where Path.is_file may raise
        state = "is a folder" if os.path.isdir(path) else "no such file"
        raise PredictionError(f"prediction = {str(path)!r}: {state}. Fix: give a file that isoflop predict wrote.")
    try:
        data = json.loads(path.read_text())
        data = {"table_notes": [], **data} if isinstance(data, dict) else data
        return json_values.from_file(Prediction, data, "predict again, as isoflop predict TABLE --out FILE")
    except json_values.FormatError as error:
        raise PredictionError(f"prediction = {str(path)!r}: {error}") from error
    except (json.JSONDecodeError, UnicodeDecodeError, json_values.FileError) as error:
        raise PredictionError(
            f"prediction = {str(path)!r}: is not a prediction ({error}). Fix: give a file that isoflop predict wrote."
        ) from error

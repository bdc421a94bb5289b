"""The prediction for a plan's held-out run: written to disk before the run is trained, and then left alone.

prediction.json is what `isoflop predict` writes, so `isoflop score` reads it too. As long as the fitted table stays the
same the file is kept, so that no measurement can move its own prediction. If the table changes there is a new
prediction; the old one is kept beside it, and the new one says whether its run had been measured by then.
"""

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from research.config import RunConfig, run_name
from research.runs.folder import Status, folder_of
from research.runs.plan_folder import PlanFolder

if TYPE_CHECKING:
    from analysis.studies import Prediction


@dataclass(frozen=True)
class HeldOut:
    """A held-out run and what was predicted for it."""

    config: RunConfig
    prediction: "Prediction"


def of_plan(plan: PlanFolder) -> HeldOut | None:
    """The prediction on disk; None if there is none.

    A damaged file is no prediction, which is said in the log.
    """
    if plan.experiment.held_out_flops is None or not plan.prediction_path.exists():
        return None
    from analysis.studies.prediction import PredictionError, read

    try:
        prediction = read(plan.prediction_path)
    except PredictionError as error:
        logging.getLogger(__name__).warning(
            "%s Until then the plan has no prediction; `isoflop run` keeps the file and writes another.", error
        )
        return None
    if prediction.optimum_params is None:
        return None
    config = plan.experiment.held_out_run(prediction.optimum_params)
    return HeldOut(config, prediction) if run_name(config) == prediction.run else None


def write(plan: PlanFolder, config: RunConfig, prediction: "Prediction", optimum_params: float) -> HeldOut:
    """Write the prediction for `config`, whose size is the nearest to `optimum_params`."""
    from analysis.studies.prediction import PredictionError, read
    from analysis.studies.prediction import write as write_down

    path = plan.prediction_path
    if path.exists():
        try:
            read(path)
        except PredictionError:
            path.replace(path.with_name("prediction-damaged.json"))
    measured_before = folder_of(plan.runs_dir, config).status() == Status.DONE
    prediction = replace(
        prediction, run=run_name(config), optimum_params=optimum_params, measured_before=measured_before
    )
    return HeldOut(config, write_down(path, prediction))

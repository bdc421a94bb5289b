"""The prediction for an experiment's held-out run: written to disk before the run is trained, and then left alone.

prediction.json is what `isoflop predict` writes, so `isoflop score` reads it too. As long as the fitted table stays the
same the file is kept, so that no measurement can move its own prediction. If the table changes there is a new
prediction; the old one is kept beside it, and the new one says whether its run had been measured by then.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from research.config import RunConfig, run_name
from research.runs.folder import Status, folder_of

if TYPE_CHECKING:
    from analysis.studies import Prediction


@dataclass(frozen=True)
class HeldOut:
    """A held-out run and what was predicted for it."""

    config: RunConfig
    prediction: "Prediction"


def of_experiment(experiment: Any, runs_dir: Path) -> HeldOut | None:
    """The prediction on disk if it is for this plan; None for that of the same experiment under other `--set`."""
    path = _path(runs_dir, experiment.name)
    if not path.exists() or experiment.held_out_flops is None:
        return None
    from analysis.studies.prediction import read

    prediction = read(path)
    if prediction.optimum_params is None:
        return None
    config = experiment.held_out_run(prediction.optimum_params)
    return HeldOut(config, prediction) if run_name(config) == prediction.run else None


def write(runs_dir: Path, config: RunConfig, prediction: "Prediction", optimum_params: float) -> HeldOut:
    """Write the prediction for `config`, whose size is the nearest to `optimum_params`."""
    from analysis.studies.prediction import write as write_down

    measured_before = folder_of(runs_dir, config).status() == Status.DONE
    prediction = replace(
        prediction, run=run_name(config), optimum_params=optimum_params, measured_before=measured_before
    )
    return HeldOut(config, write_down(_path(runs_dir, config.experiment), prediction))


def _path(runs_dir: Path, experiment: str) -> Path:
    return Path(runs_dir) / experiment / "prediction.json"

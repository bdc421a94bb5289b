"""The prediction for the held-out run: written to disk before the run is trained, and then left alone.

prediction.json says what was predicted, when, from which table and for which run. As long as the fitted table stays
the same the file is kept, so that no measurement can move its own prediction. If the table changes there is a new
prediction; the old one is kept beside it, and the new one says whether its run had been measured by then.
"""

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from research.config import RunConfig
from research.runs import Status, folder_of, run_name, write_atomically
from research.values import from_dict, to_dict

if TYPE_CHECKING:
    import pandas

FITTED_COLUMNS = ["run", "family", "status", "budget_flops", "params", "tokens", "flops", "loss_nats"]


@dataclass(frozen=True)
class HeldOut:
    """A held-out run and what was predicted for it."""

    config: RunConfig
    loss: dict[str, Any]  # the fields of analysis.study.Prediction
    optimum_params: float  # the fitted law's optimum at the held-out budget, which chose the run's size
    fitted_table: str  # digest of the rows the law was fitted to
    written: str  # date and time, UTC
    measured_before: bool  # whether the run was already done when this was written: then it is no test


def read(experiment_dir: Path) -> HeldOut | None:
    """The prediction on disk, or None if there is none yet."""
    path = experiment_dir / "prediction.json"
    if not path.exists():
        return None
    stored = json.loads(path.read_text())
    del stored["run"]  # there for readers of the file
    return HeldOut(**{**stored, "config": from_dict(RunConfig, stored["config"])})


def of_experiment(experiment: Any, runs_dir: Path) -> HeldOut | None:
    """The prediction on disk if it is for this plan; None for that of the same experiment under other `--set`."""
    held_out = read(runs_dir / experiment.name)
    if held_out is None or experiment.held_out_flops is None:
        return None
    planned = experiment.held_out_run(held_out.optimum_params)
    return held_out if run_name(planned) == run_name(held_out.config) else None


def digest(table: "pandas.DataFrame") -> str:
    """Of everything in the runs table that a fit reads."""
    rows = table.loc[~table["held_out"], FITTED_COLUMNS].sort_values("run")
    return hashlib.sha256(rows.to_csv(index=False).encode()).hexdigest()


def write(runs_dir: Path, config: RunConfig, loss: dict[str, Any], optimum_params: float, table_digest: str) -> HeldOut:
    """Write a prediction for `config`, keeping an older one under the time it was written."""
    experiment_dir = Path(runs_dir) / config.experiment
    older = read(experiment_dir)
    if older is not None:
        (experiment_dir / "prediction.json").rename(
            experiment_dir / f"prediction-{older.written.replace(':', '')}.json"
        )
    held_out = HeldOut(
        config=config,
        loss=loss,
        optimum_params=optimum_params,
        fitted_table=table_digest,
        written=datetime.now(UTC).isoformat(timespec="seconds"),
        measured_before=folder_of(runs_dir, config).status() == Status.DONE,
    )
    stored = {**vars(held_out), "run": run_name(config), "config": to_dict(config)}
    write_atomically(experiment_dir / "prediction.json", json.dumps(stored, indent=2) + "\n")
    return held_out

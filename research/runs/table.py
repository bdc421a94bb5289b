"""The runs table: one row per run of a plan, what was planned beside what was measured."""

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from research.config import (
    ModelConfig,
    RunConfig,
    fingerprint,
    run_name,
    value_at,
)
from research.runs.folder import folder_of

if TYPE_CHECKING:
    import pandas


SETTING_COLUMNS = {"training.batch_size": "batch_tokens"}  # of fields that stand in the table by another name


def setting_column(field: str) -> str:
    """The column of the runs table for a dotted field that a plan searches: optimizer.beta2 is `beta2`."""
    return SETTING_COLUMNS.get(field, field.rpartition(".")[2])


def collect(configs: Iterable[RunConfig], runs_dir: Path, searched: Sequence[str] = ()) -> "pandas.DataFrame":
    """The runs table: one row per config, done or not; what has not been measured is missing.

    searched: dotted fields with a column each (`setting_column`), beside those that all tables have.
    Columns as documented in analysis/runs_table.py; planned and costed ones come from the config, measured ones from
    result.json. The returned table is validated.
    """
    import pandas  # here, because every worker imports this module and none needs the half second this takes

    from analysis import runs_table
    from research.plan import run_cost

    names = [column.name for column in runs_table.COLUMNS if "<" not in column.name]  # those with "<" stand for domains
    is_column = cache(lambda name: any(column.matches(name) for column in runs_table.COLUMNS))
    rows = []
    for config in configs:
        folder = folder_of(runs_dir, config)
        status, outcome = folder.outcome()
        measured = {name: value for name, value in outcome.items() if is_column(name)}
        cost = {name: value for name, value in vars(run_cost(config)).items() if name in names}
        settings = {setting_column(name): value_at(config, name) for name in searched}
        rows.append(settings | _planned(config) | cost | {"status": str(status)} | measured)
    table = pandas.DataFrame(rows)
    return runs_table.validate(table.reindex(columns=[*names, *table.columns.difference(names, sort=False)]))


def _planned(config: RunConfig) -> dict[str, Any]:
    return {
        "run": run_name(config),
        "experiment": config.experiment,
        "family": config.family,
        "fingerprint": fingerprint(config),
        "stage": config.stage,
        "parent": config.parent and config.parent.fingerprint,
        "held_out": config.held_out,
        "seed": config.training.seed,
        "budget_flops": config.budget_flops,
        "width": config.model.width,
        "depth": config.model.depth,
        "sequence_length": config.training.sequence_length,
        "batch_tokens": config.training.batch_tokens,
        "steps": config.training.steps,
        "objective": config.objective.name,
        "optimizer": config.optimizer.name,
        "parametrisation": config.model.parametrisation.name,
        "learning_rate": config.optimizer.learning_rate,
        "weight_decay": config.optimizer.weight_decay,
        **_experts(config.model),
    }


def _experts(model: ModelConfig) -> dict[str, int]:
    """Of the layers that route; a dense model is one expert that every token passes."""
    routed = any("moe" in layer for layer in model.layers)
    return {
        "experts": model.moe.experts if routed else 1,
        "experts_per_token": model.moe.active + model.moe.shared_experts if routed else 1,
    }

"""Which rows of a table are one run: checkpoints share their run's noise, so they are drawn and cut together.

Rows are of one run where they have its name. In a table without names, rows of equal params and settings whose tokens
grow with a column that counts steps are one run, too; runs of different length, such as those of an over-training
study, have no such column.
"""

import numpy as np
import pandas as pd

from analysis.tables.files import TableError

STEPS = (
    "step",
    "Step",
    "_step",
    "global_step",
    "iteration",
)  # columns of checkpoints, not the steps that a run planned
SETTINGS = ("family", "params", "seed", "width", "depth", "batch_tokens", "learning_rate", "weight_decay",
            "unique_tokens", "experts", "budget_flops")  # fmt: skip


def rows_or_runs(rows: int, runs: int) -> str:
    """What so many rows of so many runs are counted as: rows where a run has several, else runs."""
    return "runs" if rows == runs else "rows"


def with_runs(table: pd.DataFrame) -> pd.DataFrame:
    """A complete table in which rows of one run carry one name.

    Raises TableError for a name that rows of different params have, which cannot be one run.
    """
    if _is_unnamed(table):
        found = _checkpoints(table)
        return table if found is None else table.assign(run=found)
    repeated = table[table["run"].duplicated(keep=False) & table["run"].notna()]
    if len(repeated) and "params" in table.columns:
        params = pd.to_numeric(repeated["params"], errors="coerce")
        by_run = params.groupby(repeated["run"])
        low, high = by_run.min(), by_run.max()
        wrong = low.index[high > low * (1 + 1e-6)]
        if len(wrong):
            raise TableError(
                f"run = {wrong[0]!r}: has {low[wrong[0]]:g} params in one row and {high[wrong[0]]:g} in another, and "
                "so is not one run. Fix: give every run a name of its own, or leave the names out, as --ignore run."
            )
    return table


def _is_unnamed(table: pd.DataFrame) -> bool:
    return bool(table["run"].isna().all() or table["run"].astype(str).str.fullmatch(r"row \d+").all())


def _checkpoints(table: pd.DataFrame) -> list[str] | None:
    """The run of each row of a table without names; None where nothing says that rows are checkpoints."""
    counted = next((name for name in STEPS if name in table.columns), None)
    if counted is None or not {"params", "tokens"} <= set(table.columns):
        return None
    steps = pd.to_numeric(table[counted], errors="coerce").to_numpy(np.float64, na_value=np.nan)
    tokens = pd.to_numeric(table["tokens"], errors="coerce").to_numpy(np.float64, na_value=np.nan)
    settings = table[[name for name in SETTINGS if name in table.columns]].astype(str)
    groups = settings.groupby(list(settings.columns), sort=False, dropna=False).ngroup().to_numpy()
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        order = rows[np.argsort(steps[rows], kind="stable")]
        if not (np.diff(steps[order]) > 0).all() or not (np.diff(tokens[order]) > 0).all():
            return None  # two runs of equal settings, or steps that are no count of a run's own
    if len(np.unique(groups)) == len(groups):
        return None
    return [f"run {group}" for group in groups]

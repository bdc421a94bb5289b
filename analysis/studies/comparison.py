"""Families side by side: each at its best learning rate, with the spread of its seeds and its own law of compute.

An architecture is compared at the learning rate that suits it, so a sweep whose best rate is its smallest or largest is
flagged: the family may do better beyond it.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.fit import LEAST_SQUARES, FitError, LeftOut, left_out, reasons_left_out
from analysis.intervals import Estimate, estimate_rows
from analysis.laws import find
from analysis.quantities import counted
from analysis.runs_table import check_run_names, complete
from analysis.sampling import ONE_FIT, Sampling
from analysis.studies.edges import edges_of

MEASURES = ("loss_nats", "bits_per_byte", "token_accuracy", "exact_match", "brier")
NEEDED = ("family", "learning_rate", "flops", "params", "loss_nats")
MEASURES_BY_LENGTH = ("exact_match", "token_accuracy")  # of synthetic tasks, a column per length
FEWEST_BUDGETS = 3  # one more than the two constants of a power law


@dataclass(frozen=True)
class Cell:
    """One family at one budget (None: the runs state none, and are of equal flops), at the learning rate of the least
    mean loss over seeds.

    at_edge: that rate is the smallest or the largest of several, those of failed runs among them. loss_nats: mean over
    seeds; lowest and highest: of the seeds. measures: mean over seeds of each held-out measure in the table, by column.
    """

    budget_flops: float | None
    learning_rate: float
    rates: int
    at_edge: bool
    runs: tuple[str, ...]
    params: float
    active_params: float
    flops: float
    loss_nats: float
    lowest: float
    highest: float
    measures: dict[str, float]


@dataclass(frozen=True)
class Family:
    """A family's cells by budget; its law of loss against flops, or None with the reason in law_note."""

    name: str
    cells: tuple[Cell, ...]
    law: Estimate | None
    law_note: str
    left_out: tuple[LeftOut, ...]


@dataclass(frozen=True)
class Comparison:
    """What `compare` found, families in the table's order; `level` of every interval.

    joint: the law asked for, fitted to the runs of all cells together; None with the reason in joint_note.
    """

    families: tuple[Family, ...]
    level: float
    joint: Estimate | None = None
    joint_note: str = ""


def compare(table: pd.DataFrame, *, law: str | None = None, sampling: Sampling = ONE_FIT) -> Comparison:
    """Compare the families of a runs table. Needs `family`, `learning_rate`, `flops`, `params` and `loss_nats`.

    Runs that are held out or not done, or whose loss, learning rate, params or flops are not positive numbers, are left
    out with the reason. The law is a power law of
    loss against flops (Kaplan et al. 2020, equation 1.3), by least squares on log loss over the best rate's runs at
    each budget. law: one to fit to all families' best runs together, in the same way; its inputs must be columns.
    Raises FitError when no run is done, LawError for an unknown law.
    """
    measured = [name for name in table.columns if str(name).startswith((*MEASURES, "active_params"))]
    table = complete(table, (*NEEDED, *measured))
    if table["family"].isna().any():
        run = table["run"][table["family"].isna()].iloc[0]
        raise FitError(f"family of run {run!r}: is missing. Fix: fill it in.")
    check_run_names(table["run"])
    reasons = reasons_left_out(table, dict.fromkeys(NEEDED[1:], "positive and finite"))
    families = tuple(
        _family(str(name), rows, reasons[rows.index], sampling) for name, rows in table.groupby("family", sort=False)
    )
    if not any(family.cells for family in families):
        raise FitError("status: no run of any family is done. Fix: train the runs first.")
    if law is None:
        return Comparison(families, sampling.level)
    return Comparison(families, sampling.level, *_joint(law, table, families, sampling))


def _family(name: str, rows: pd.DataFrame, reasons: np.ndarray, sampling: Sampling) -> Family:
    done, unused = rows[reasons == ""], left_out(rows, reasons)
    failed = rows[rows["status"].eq("failed").to_numpy(bool, na_value=False)]
    planned = rows["budget_flops"].fillna(rows["flops"])  # without a budget, runs of equal compute are compared
    cells = tuple(
        _cell(alike, failed[planned[failed.index].eq(budget)]) for budget, alike in done.groupby(planned[done.index])
    )
    if len(cells) < FEWEST_BUDGETS:
        note = f"{counted(len(cells), 'budget')}; a power law of compute needs at least {FEWEST_BUDGETS}"
        return Family(name, cells, None, note, unused)
    best = done[done["run"].isin([run for cell in cells for run in cell.runs])]
    try:
        law = estimate_rows(find("kaplan_compute"), best, LEAST_SQUARES, sampling)
    except FitError as error:
        return Family(name, cells, None, str(error), unused)
    return Family(name, cells, law, "", unused)


def _joint(
    law: str, table: pd.DataFrame, families: tuple[Family, ...], sampling: Sampling
) -> tuple[Estimate | None, str]:
    best = [run for family in families for cell in family.cells for run in cell.runs]
    definition = find(law)
    chosen = complete(table[table["run"].isin(best)], (*definition.inputs, definition.output))
    try:
        return estimate_rows(definition, chosen, LEAST_SQUARES, sampling), ""
    except FitError as error:
        return None, str(error)


def _cell(rows: pd.DataFrame, failed: pd.DataFrame) -> Cell:
    by_rate = rows.groupby("learning_rate")["loss_nats"].mean()
    rate = float(by_rate.idxmin())
    best = rows[rows["learning_rate"] == rate]
    columns = [c for c in rows.columns if c.startswith(MEASURES) and best[c].notna().all()]
    active = best.get("active_params", best["params"])
    budget = float(rows["budget_flops"].iloc[0])
    return Cell(
        budget_flops=None if np.isnan(budget) else budget,
        learning_rate=rate,
        rates=len(by_rate),
        at_edge=bool(edges_of(rows, ["learning_rate"], failed.dropna(subset=["learning_rate"]))),
        runs=tuple(best["run"]),
        params=float(best["params"].mean()),
        active_params=float(active.mean()),
        flops=float(best["flops"].mean()),
        loss_nats=float(best["loss_nats"].mean()),
        lowest=float(best["loss_nats"].min()),
        highest=float(best["loss_nats"].max()),
        measures={c: float(best[c].mean()) for c in columns},
    )


def by_length(cell: Cell, measure: str) -> tuple[np.ndarray, np.ndarray]:
    """Lengths and values of `<measure>_<task>_<length>` columns, sorted by length; empty where there are none."""
    found = {}
    for column, value in cell.measures.items():
        length = column.rpartition("_")[2]
        if column.startswith(f"{measure}_") and length.isdigit():
            found[int(length)] = value
    lengths = sorted(found)
    return np.array(lengths), np.array([found[length] for length in lengths])

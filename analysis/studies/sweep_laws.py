"""From a sweep of hyperparameters to laws of the best ones, and what following those laws costs.

Each cell's optimum is one point of the laws (`hyperparameters.fit_bowls`). The cost is honest: in each cell the laws
fitted to the OTHER cells are followed, to the run that was made nearest to what they say, and its loss is compared with
the cell's best.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.compute import Reach
from analysis.fit import LEAST_SQUARES, FitError, LeftOut, Objective, fit_points, select
from analysis.intervals import Estimate, Interval, estimate_rows
from analysis.laws import Law, evaluate
from analysis.laws.hyperparameters import LAWS, OUTPUTS, UNITS
from analysis.runs_table import complete
from analysis.sampling import ONE_FIT, Sampling
from analysis.studies.hyperparameters import (
    AXES,
    CELL,
    Bowl,
    cells_of,
    fit_bowls,
    nearest_run,
    optima_table,
    sweep_rows,
)
from analysis.studies.reach import furthest_outside
from analysis.tables.files import notes_of
from analysis.tables.units import batch_notes, check_counts, check_stated_counts, loss_notes


@dataclass(frozen=True)
class Followed:
    """One cell by the laws fitted to the others.

    recommended: their hyperparameters; outside: those beyond the values that were run in the cell. nearest_run: the run
    nearest to them; excess: its loss over the cell's best, minus 1. reach: of the cell from those fitted. reason: why
    there is nothing of this, or nothing.
    """

    cell: dict[str, float | str]
    recommended: dict[str, float]
    outside: tuple[str, ...]
    nearest_run: str
    excess: float
    reach: Reach | None
    reason: str


@dataclass(frozen=True)
class Advice:
    """What the laws say at inputs of one's own, with the intervals of their constants."""

    at: dict[str, float]
    values: dict[str, Interval]
    reach: Reach


@dataclass(frozen=True)
class SweepLaws:
    """What `sweep_laws` found.

    bowls: of every cell, in order. left_out: rows of the table. laws: by the axis they give; law_notes: for each other
    axis, why it has none. followed: each cell by the laws of the others, empty unless every axis has a law.
    table_notes: as in a `Study`.
    """

    cell: tuple[str, ...]
    axes: tuple[str, ...]
    level: float
    bowls: tuple[Bowl, ...]
    left_out: tuple[LeftOut, ...]
    laws: dict[str, Estimate]
    law_notes: dict[str, str]
    followed: tuple[Followed, ...]
    advice: Advice | None
    table_notes: tuple[str, ...]

    @property
    def excess(self) -> np.ndarray:
        """The excess loss of each cell that has one."""
        return np.array([one.excess for one in self.followed if not one.reason])


def sweep_laws(
    table: pd.DataFrame,
    *,
    cell: Sequence[str] = CELL,
    axes: Sequence[str] = AXES,
    laws: Sequence[Law] = (),
    objective: Objective = LEAST_SQUARES,
    sampling: Sampling = ONE_FIT,
    far_factor: float = 10.0,
    at: Mapping[str, float] | None = None,
) -> SweepLaws:
    """Fit the bowl of each cell, a law of each axis to the optima, and follow the laws in cells they have not seen.

    laws: of the axes, at most one each; without any, each axis gets its power law of those of params, tokens and flops
    that are columns of the cell and vary. at: inputs at which the laws are read. Raises FitError for a missing column,
    an axis that nothing was swept along, a law of another output or two of one, or an input that `at` lacks; TableError
    for params, tokens or flops that are no counts, of a row or of `at`.
    """
    rows, left_out = sweep_rows(table, cell, axes)
    check_counts(rows, cell)
    for name in axes:
        if all(group[name].nunique() == 1 for _, group in cells_of(rows, cell)):
            raise FitError(f"axis {name}: has one value in each cell. Fix: leave it out of the axes.")
    bowls = fit_bowls(table, cell=cell, axes=axes)
    optima = complete(optima_table(bowls))
    chosen, notes = _laws_of(axes, laws, cell, rows)
    found: dict[str, Estimate] = {}
    for axis, law in chosen.items():
        try:
            found[axis] = estimate_rows(law, optima, objective, sampling)
        except FitError as error:
            notes[axis] = str(error)
    groups = [group for _, group in cells_of(rows, cell)]
    followed = () if notes else tuple(
        _follow(i, bowl, group, optima, found, far_factor) for i, (bowl, group) in enumerate(zip(bowls, groups))
    )  # fmt: skip
    advice = None if at is None else _advice(found, at, sampling.level, far_factor)
    table_notes = (
        *notes_of(rows),
        *loss_notes(rows, "loss_nats"),
        *batch_notes(rows),
        *_unread(rows, cell, axes, found),
    )
    return SweepLaws(
        tuple(cell), tuple(axes), sampling.level, bowls, left_out, found, notes, followed, advice, table_notes
    )  # fmt: skip


def _laws_of(
    axes: Sequence[str], laws: Sequence[Law], cell: Sequence[str], rows: pd.DataFrame
) -> tuple[dict[str, Law], dict[str, str]]:
    """The law of each axis, and why others have none."""
    chosen: dict[str, Law] = {}
    for law in laws:
        if law.output not in axes:
            raise FitError(f"law {law.name!r}: gives {law.output}, which is none of the axes {', '.join(axes)}.")
        if law.output in chosen:
            raise FitError(f"law {law.name!r}: is the second of {law.output}. Fix: keep one.")
        chosen[law.output] = law
    if laws:
        return chosen, {axis: "none of the laws asked for gives it" for axis in axes if axis not in chosen}
    inputs = tuple(name for name in UNITS if name in cell and rows[name].nunique() > 1)
    by = {(law.output, law.inputs): law for law in LAWS}
    notes = {}
    for axis in axes:
        if (axis, inputs) in by:
            chosen[axis] = by[axis, inputs]
        else:
            what = ", ".join(inputs) or f"nothing: none of {', '.join(UNITS)} varies between cells"
            notes[axis] = f"no law has it as a power of {what}. Fix: name one with --law (isoflop laws has all)."
    return chosen, notes


def _unread(
    rows: pd.DataFrame, cell: Sequence[str], axes: Sequence[str], laws: Mapping[str, Estimate]
) -> tuple[str, ...]:
    """What was varied within cells beside the axes, and what differs between cells and is in no law of theirs."""
    if not laws:
        return ()
    read = {name for law in laws.values() for name in law.fit.law.inputs}
    # Compute follows from params and tokens; where a law reads it, they are read by it.
    sizes = () if "flops" in read else tuple(name for name in UNITS if name != "flops")
    groups, notes = rows.groupby(list(cell), sort=False, observed=True), []
    for name in dict.fromkeys((*OUTPUTS, *UNITS, *sizes)):
        if name not in rows.columns or name in (*axes, *cell):
            continue
        values = groups[name].nunique()
        if name != "flops" and (values > 1).any():
            notes.append(
                f"{name} takes up to {values.max()} values within a cell, in {(values > 1).sum()} of {len(values)}: "
                "the best settings are over all of them. Add it to --axes or --cell, or read one value, as --where "
                f"{name}={rows[name].iloc[0]:g}"
            )
        elif name in (*OUTPUTS, *sizes) and name not in read and rows[name].nunique() > 1:
            notes.append(
                f"{name} differs between cells, and no law here reads it: what it changes is taken for the effect of "
                f"{', '.join(sorted(read))}. Add it to --cell, or read one value, as --where {name}="
                f"{rows[name].iloc[0]:g}"
            )
    return tuple(notes)


def _follow(
    row: int, bowl: Bowl, group: pd.DataFrame, optima: pd.DataFrame, laws: Mapping[str, Estimate], far: float
) -> Followed:
    """The cell in row `row` of the optima by the laws of the other rows."""
    wanted: dict[str, float] = {}
    ranges: dict[str, tuple[float, float]] = {}
    inputs: dict[str, float] = {}
    for axis, whole in laws.items():
        law = whole.fit.law
        points, _ = select(law, optima)
        others = points.where(points.rows != row)
        here = {name: float(optima[name].iloc[row]) for name in law.inputs}
        try:
            fitted = fit_points(law, others, (), whole.fit.objective)
        except FitError as error:
            reason = f"without it {axis} has no law: {error}"
            return Followed(bowl.cell, {}, (), "", float("nan"), None, reason)
        wanted[axis] = evaluate(law, fitted.array(), here).item()
        inputs |= here
        ranges |= fitted.ranges
    nearest, excess = nearest_run(group, wanted)
    outside = tuple(name for name, value in wanted.items() if not group[name].min() <= value <= group[name].max())
    reach = furthest_outside(inputs, ranges, far)
    return Followed(bowl.cell, wanted, outside, str(nearest["run"]), excess, reach, "")


def _advice(laws: Mapping[str, Estimate], at: Mapping[str, float], level: float, far: float) -> Advice:
    at = {name: float(value) for name, value in at.items()}
    if {"params", "tokens"} <= set(at) and "flops" not in at:
        at["flops"] = 6.0 * at["params"] * at["tokens"]
    needed = dict.fromkeys(name for whole in laws.values() for name in whole.fit.law.inputs)
    for name in needed:
        if not at.get(name, 0.0) > 0 or not np.isfinite(at[name]):
            raise FitError(f"at {name} = {at.get(name)}: the laws need a positive one. Fix: give {name}=VALUE.")
    if not laws:
        raise FitError("at: no axis has a law that could be read there. Fix: leave it out, or name laws with --law.")
    ranges = {name: ends for whole in laws.values() for name, ends in whole.fit.ranges.items()}
    used = {name: at[name] for name in needed}
    check_stated_counts(used, ranges)
    values = {axis: whole.at({name: at[name] for name in whole.fit.law.inputs}, level) for axis, whole in laws.items()}
    return Advice(used, values, furthest_outside(used, ranges, far))

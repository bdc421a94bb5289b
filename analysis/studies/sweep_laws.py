"""From a sweep of hyperparameters to laws of the best ones, and what following those laws costs.

`hyperparameters.fit_bowls` says what each cell shows by itself, `joint_bowls.fit_joint` fits the laws through the runs
of all cells. The cost is honest: in each cell the laws fitted to the OTHER cells are followed, to the run that was made
nearest to what they say, and its loss is compared with the cell's best; so it is for the plainer ways, laws of the
other cells' optima and the best run of the nearest other cell.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.compute import Reach
from analysis.fit import LEAST_SQUARES, FitError, LeftOut, fit_points, select
from analysis.fit.fitting import check_identifiable
from analysis.intervals import Interval
from analysis.laws import Law, evaluate
from analysis.laws.hyperparameters import LAWS, OUTPUTS, UNITS
from analysis.runs_table import complete
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
from analysis.studies.joint_bowls import AxisLaw, JointBowls, fit_joint
from analysis.studies.reach import furthest_outside
from analysis.tables.files import notes_of
from analysis.tables.units import batch_notes, check_counts, check_stated_counts, loss_notes

WAYS = ("the laws fitted jointly", "laws of the cells' optima", "the best run of the nearest cell")


@dataclass(frozen=True)
class Followed:
    """One cell by the joint laws fitted to the others.

    recommended: their hyperparameters; outside: those beyond the values that were run in the cell. nearest_run: the run
    nearest to them; excess: its loss over the cell's best, minus 1; by_optima, by_nearest_cell: the same where laws of
    the other cells' optima are followed, or the best run of the nearest other cell, in the logarithms of the laws'
    inputs; NaN where there is none. reach: of the cell from those fitted. reason: why there is nothing of this, or
    nothing.
    """

    cell: dict[str, float | str]
    recommended: dict[str, float]
    outside: tuple[str, ...]
    nearest_run: str
    excess: float
    by_optima: float
    by_nearest_cell: float
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

    bowls: of every cell, in order. left_out: rows of the table. joint: the laws, by the axis they give, None without
    any; law_notes: for each other axis, why it has none. followed: each cell by the laws of the others, empty unless
    every axis has a law. table_notes: as in a `Study`.
    """

    cell: tuple[str, ...]
    axes: tuple[str, ...]
    level: float
    bowls: tuple[Bowl, ...]
    left_out: tuple[LeftOut, ...]
    joint: JointBowls | None
    law_notes: dict[str, str]
    followed: tuple[Followed, ...]
    advice: Advice | None
    table_notes: tuple[str, ...]

    @property
    def excess(self) -> dict[str, np.ndarray]:
        """The excess loss (cells,) of each way that gives settings of any cell, on the cells for which all such do."""
        rows = [(one.excess, one.by_optima, one.by_nearest_cell) for one in self.followed if not one.reason]
        known = np.array(rows, np.float64).reshape(-1, len(WAYS))
        some = np.isfinite(known).any(axis=0)
        known = known[np.isfinite(known[:, some]).all(axis=1)]
        return {way: known[:, i] for i, way in enumerate(WAYS) if some[i]}


def sweep_laws(
    table: pd.DataFrame,
    *,
    cell: Sequence[str] = CELL,
    axes: Sequence[str] = AXES,
    laws: Sequence[Law] = (),
    level: float = 0.9,
    far_factor: float = 10.0,
    at: Mapping[str, float] | None = None,
) -> SweepLaws:
    """Fit the bowl of each cell, the laws of the axes through all, and follow those in cells they have not seen.

    laws: of the axes, at most one each; without any, each axis gets its power law of those of params, tokens and flops
    that are columns of the cell and vary. level: of all intervals. at: inputs at which the laws are read. Raises
    FitError for a missing column, a level outside (0, 1), an axis that nothing was swept along, a law of another output
    or two of one, or an input that `at` lacks; TableError for params, tokens or flops that are no counts, of a row or
    of `at`.
    """
    rows, left_out = sweep_rows(table, cell, axes)
    check_counts(rows, cell)
    for name in axes:
        if all(group[name].nunique() == 1 for _, group in cells_of(rows, cell)):
            raise FitError(f"axis {name}: has one value in each cell. Fix: leave it out of the axes.")
    bowls = fit_bowls(table, cell=cell, axes=axes, level=level)
    groups = [group for _, group in cells_of(rows, cell)]
    starts = complete(_starts(bowls, groups))
    chosen, notes = _laws_of(axes, laws, cell, rows)
    for axis, law in list(chosen.items()):
        try:
            check_identifiable(law, *select(law, starts))
        except FitError as error:
            notes[axis] = str(error)
            del chosen[axis]
    joint = None
    if chosen:
        try:
            joint = fit_joint(groups, bowls, starts, chosen, level=level)
        except FitError as error:
            notes |= dict.fromkeys(chosen, str(error))
    followed = () if joint is None or notes else _follow(joint, bowls, groups, starts, far_factor)
    found = {} if joint is None else joint.laws
    advice = None if at is None else _advice(found, at, level, far_factor)
    table_notes = (
        *notes_of(rows),
        *loss_notes(rows, "loss_nats"),
        *batch_notes(rows),
        *_unread(rows, cell, axes, found),
    )
    return SweepLaws(tuple(cell), tuple(axes), level, bowls, left_out, joint, notes, followed, advice, table_notes)


def _starts(bowls: Sequence[Bowl], groups: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Where the search of the joint laws begins: the optimum of each cell, its best run where it has none."""
    starts = optima_table(bowls).assign(status="done", failure_reason=None)
    for i, (bowl, group) in enumerate(zip(bowls, groups, strict=True)):
        if bowl.reason:
            best = _best_run(group)
            for axis in bowl.optimum:
                starts.loc[i, axis] = float(best[axis])
    return starts


def _best_run(group: pd.DataFrame) -> pd.Series:
    return group.iloc[int(np.argmin(group["loss_nats"].to_numpy(np.float64)))]


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
    rows: pd.DataFrame, cell: Sequence[str], axes: Sequence[str], laws: Mapping[str, AxisLaw]
) -> tuple[str, ...]:
    """What was varied within cells beside the axes, and what differs between cells and is in no law of theirs."""
    if not laws:
        return ()
    read = {name for law in laws.values() for name in law.law.inputs}
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
    joint: JointBowls, bowls: Sequence[Bowl], groups: Sequence[pd.DataFrame], starts: pd.DataFrame, far: float
) -> tuple[Followed, ...]:
    """Each cell by what the others say."""
    optima = complete(optima_table(bowls))
    names = list(dict.fromkeys(name for law in joint.laws.values() for name in law.law.inputs))
    inputs, (fitted, *_) = starts[names].to_numpy(np.float64), (law.cells for law in joint.laws.values())
    logs = np.log(inputs[:, (inputs[list(fitted)] > 0).all(axis=0)])  # a group, say, may be 0 and has no distance
    found = []
    for row, (bowl, group) in enumerate(zip(bowls, groups, strict=True)):
        here = dict(zip(names, inputs[row].tolist(), strict=True))
        wanted = _without(joint.laws, row, here)
        if wanted is None:
            reason = "the other cells do not determine the laws"
            found.append(Followed(bowl.cell, {}, (), "", np.nan, np.nan, np.nan, None, reason))
            continue
        nearest, excess = nearest_run(group, wanted)
        outside = tuple(name for name, value in wanted.items() if not group[name].min() <= value <= group[name].max())
        by_optima = _by_optima(joint.laws, optima, row, here)
        others = [i for i in fitted if i != row]
        ranges = {name: (inputs[others, i].min(), inputs[others, i].max()) for i, name in enumerate(names)}
        neighbour = groups[others[int(np.argmin(np.sum((logs[others] - logs[row]) ** 2, axis=1)))]]
        best = _best_run(neighbour)
        found.append(
            Followed(
                cell=bowl.cell,
                recommended=wanted,
                outside=outside,
                nearest_run=str(nearest["run"]),
                excess=excess,
                by_optima=np.nan if by_optima is None else nearest_run(group, by_optima)[1],
                by_nearest_cell=nearest_run(group, {axis: float(best[axis]) for axis in wanted})[1],
                reach=furthest_outside(here, ranges, far),
                reason="",
            )
        )
    return tuple(found)


def _without(laws: Mapping[str, AxisLaw], row: int, here: Mapping[str, float]) -> dict[str, float] | None:
    """What the joint laws fitted to all cells but one say of it; None where they do not follow from those."""
    wanted = {}
    for axis, law in laws.items():
        fit = 1 + law.cells.index(row) if row in law.cells else 0
        wanted[axis] = float(law.followed({name: here[name] for name in law.law.inputs})[fit])
    return wanted if np.isfinite(list(wanted.values())).all() else None


def _by_optima(
    laws: Mapping[str, AxisLaw], optima: pd.DataFrame, row: int, here: Mapping[str, float]
) -> dict[str, float] | None:
    """What laws of the optima of all cells but one say of it; None where those have no laws."""
    wanted = {}
    for axis, law in laws.items():
        points, _ = select(law.law, optima)
        try:
            fitted = fit_points(law.law, points.where(points.rows != row), (), LEAST_SQUARES)
        except FitError:
            return None
        wanted[axis] = evaluate(law.law, fitted.array(), {name: here[name] for name in law.law.inputs}).item()
    return wanted


def _advice(laws: Mapping[str, AxisLaw], at: Mapping[str, float], level: float, far: float) -> Advice:
    at = {name: float(value) for name, value in at.items()}
    if {"params", "tokens"} <= set(at) and "flops" not in at:
        at["flops"] = 6.0 * at["params"] * at["tokens"]
    needed = dict.fromkeys(name for whole in laws.values() for name in whole.law.inputs)
    for name in needed:
        if not at.get(name, 0.0) > 0 or not np.isfinite(at[name]):
            raise FitError(f"at {name} = {at.get(name)}: the laws need a positive one. Fix: give {name}=VALUE.")
    if not laws:
        raise FitError("at: no axis has a law that could be read there. Fix: leave it out, or name laws with --law.")
    ranges = {name: ends for whole in laws.values() for name, ends in whole.ranges.items()}
    used = {name: at[name] for name in needed}
    check_stated_counts(used, ranges)
    values = {axis: whole.at({name: at[name] for name in whole.law.inputs}, level) for axis, whole in laws.items()}
    return Advice(used, values, furthest_outside(used, ranges, far))

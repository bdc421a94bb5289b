"""Recipes of hyperparameters against each other: what following each costs in the cells of a sweep.

In each cell a recipe is followed to the run that was made nearest to what it recommends, and that run's loss is
compared with the cell's best. A hyperparameter of which a recipe says nothing is granted to it as the cell's best run
has it. The recommended settings are plain values here, whatever they come from.
"""

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.fit import FitError, LeftOut
from analysis.studies.edges import edges_of
from analysis.studies.hyperparameters import AXES, CELL, cells_of, failed_in, nearest_run, sweep_rows
from analysis.tables.files import notes_of
from analysis.tables.units import batch_notes, check_counts, loss_notes

COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
FLOPS_PER_PARAM = 6.0  # and token, where the cells have no column flops


@dataclass(frozen=True)
class Condition:
    """Which cells are counted: those whose column, or flops, compares so with the value."""

    name: str
    comparison: str
    value: float

    @classmethod
    def parse(cls, text: str) -> "Condition":
        """From text such as params>=5e8. Raises FitError for anything else."""
        found = re.fullmatch(r"\s*(\w+)\s*(>=|<=|>|<)\s*(\S+)\s*", text)
        try:
            return cls(found[1], found[2], float(found[3]))
        except (TypeError, ValueError):
            raise FitError(
                f"unseen = {text!r}: must be COLUMN>NUMBER, or with <, >= or <=. Fix: write it as 'params>=5e8', in "
                "quotes, since a shell takes > for itself."
            ) from None

    def holds(self, cell: Mapping[str, float | str]) -> bool:
        """Whether a cell is counted. Raises FitError for a column that it has not, or that holds names."""
        known = dict(cell)
        if {"params", "tokens"} <= known.keys():
            known.setdefault("flops", FLOPS_PER_PARAM * known["params"] * known["tokens"])
        if not isinstance(known.get(self.name), float):
            numbers = ", ".join(name for name, value in known.items() if isinstance(value, float))
            raise FitError(f"unseen {self.name}: is no number of the cells. Fix: name one of {numbers}.")
        return COMPARISONS[self.comparison](known[self.name], self.value)

    def __str__(self) -> str:
        return f"{self.name} {self.comparison} {self.value:.4g}"


@dataclass(frozen=True)
class Recommended:
    """What a recipe recommends in the cells of `swept_cells`, in their order.

    settings: its hyperparameters in a cell, without those of which it says nothing. seen: whether it comes from the
    cell's runs, among others. beyond: whether the cell lies outside of the runs that it comes from.
    """

    name: str
    settings: tuple[dict[str, float], ...]
    seen: tuple[bool, ...]
    beyond: tuple[bool, ...]


@dataclass(frozen=True)
class Outcome:
    """One cell by one recipe.

    granted: axes of which it says nothing; outside: those recommended beyond the values that were run in the cell;
    at_edge: those at an end of which the cell's best runs lie, so that the excess may be larger than it seems.
    nearest_run: the run nearest to it; excess: its loss over the cell's best, minus 1.
    """

    cell: dict[str, float | str]
    recommended: dict[str, float]
    granted: tuple[str, ...]
    outside: tuple[str, ...]
    at_edge: tuple[str, ...]
    nearest_run: str
    excess: float


@dataclass(frozen=True)
class RecipeScore:
    """One recipe over the counted cells; the last three are numbers of cells."""

    name: str
    outcomes: tuple[Outcome, ...]
    mean_excess: float
    worst_excess: float
    outside: int
    beyond: int
    seen: int


@dataclass(frozen=True)
class RecipeScores:
    """Recipes from the least mean excess up, those that have seen some of the cells last.

    cells: how many are counted, of `all_cells`. silent: recipes that say nothing of any axis in some of them. left_out,
    table_notes: as of `SweepLaws`.
    """

    cell: tuple[str, ...]
    axes: tuple[str, ...]
    unseen: tuple[Condition, ...]
    cells: int
    all_cells: int
    scores: tuple[RecipeScore, ...]
    silent: tuple[str, ...]
    left_out: tuple[LeftOut, ...]
    table_notes: tuple[str, ...]


def swept_cells(
    table: pd.DataFrame, *, cell: Sequence[str] = CELL, axes: Sequence[str] = AXES, unseen: Sequence[Condition] = ()
) -> tuple[dict[str, float | str], ...]:
    """The cells of a sweep that are counted, in the order of their values.

    Raises FitError for a missing column, an axis along which nothing was swept, or where no cell is counted; TableError
    for params or tokens that are no counts.
    """
    return tuple(at for at, _ in _counted(sweep_rows(table, cell, axes)[0], cell, axes, unseen))


def recipe_scores(
    table: pd.DataFrame,
    recommended: Sequence[Recommended],
    *,
    cell: Sequence[str] = CELL,
    axes: Sequence[str] = AXES,
    unseen: Sequence[Condition] = (),
) -> RecipeScores:
    """Follow every recipe in the cells of a sweep that `unseen` lets count.

    recommended: for the cells of `swept_cells` with the same cell, axes and unseen. Errors: as there, and FitError
    where no recipe says anything of the axes.
    """
    rows, left_out = sweep_rows(table, cell, axes)
    counted = _counted(rows, cell, axes, unseen)
    speaking = [one for one in recommended if all(set(settings) & set(axes) for settings in one.settings)]
    if not speaking:
        raise FitError(f"axes: no recipe says anything of {', '.join(axes)}. Fix: give an axis of which one does.")
    failed = failed_in(table, cell, axes)
    edges = [edges_of(group, axes, failed.get(tuple(at.values()))) for at, group in counted]
    scores = [_score(one, counted, edges, axes) for one in speaking]
    return RecipeScores(
        cell=tuple(cell),
        axes=tuple(axes),
        unseen=tuple(unseen),
        cells=len(counted),
        all_cells=sum(1 for _ in cells_of(rows, cell)),
        scores=tuple(sorted(scores, key=lambda score: (score.seen > 0, score.mean_excess))),
        silent=tuple(one.name for one in recommended if one not in speaking),
        left_out=left_out,
        table_notes=(*notes_of(rows), *loss_notes(rows, "loss_nats"), *batch_notes(rows)),
    )


def _counted(
    rows: pd.DataFrame, cell: Sequence[str], axes: Sequence[str], unseen: Sequence[Condition]
) -> list[tuple[dict[str, float | str], pd.DataFrame]]:
    check_counts(rows, cell)
    every = list(cells_of(rows, cell))
    for name in axes:
        if all(group[name].nunique() == 1 for _, group in every):
            raise FitError(f"axis {name}: has one value in each cell. Fix: leave it out of the axes.")
    counted = [(at, group) for at, group in every if all(condition.holds(at) for condition in unseen)]
    if not counted:
        asked = " and ".join(map(str, unseen))
        raise FitError(f"unseen: none of the {len(every)} cells has {asked}. Fix: ask for less.")
    return counted


def _score(
    recipe: Recommended,
    counted: Sequence[tuple[dict[str, float | str], pd.DataFrame]],
    edges: Sequence[tuple[str, ...]],
    axes: Sequence[str],
) -> RecipeScore:
    outcomes = tuple(
        _outcome(at, group, settings, at_edge, axes)
        for (at, group), settings, at_edge in zip(counted, recipe.settings, edges, strict=True)
    )
    excess = [one.excess for one in outcomes]
    return RecipeScore(
        name=recipe.name,
        outcomes=outcomes,
        mean_excess=float(np.mean(excess)),
        worst_excess=float(np.max(excess)),
        outside=sum(bool(one.outside) for one in outcomes),
        beyond=sum(recipe.beyond),
        seen=sum(recipe.seen),
    )


def _outcome(
    at: dict[str, float | str],
    group: pd.DataFrame,
    settings: Mapping[str, float],
    at_edge: tuple[str, ...],
    axes: Sequence[str],
) -> Outcome:
    wanted = {name: float(settings[name]) for name in axes if name in settings}
    best = group.loc[group["loss_nats"].idxmin()]
    granted = tuple(name for name in axes if name not in settings)
    nearest, excess = nearest_run(group, wanted | {name: float(best[name]) for name in granted})
    outside = tuple(name for name, value in wanted.items() if not group[name].min() <= value <= group[name].max())
    return Outcome(at, wanted, granted, outside, at_edge, str(nearest["run"]), excess)

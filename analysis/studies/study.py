"""A study: everything that is learnt from one runs table by fitting a law to it."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis import json_values
from analysis.compute import (
    AUTO_VALLEYS,
    FlopRule,
    IsoFlop,
    Reach,
    Surface,
    ValleySettings,
    fit_flop_rule,
    fit_isoflop,
    fit_surface,
)
from analysis.compute.frontier import given_inputs
from analysis.fit import HUBER, FitError, LeftOut, Objective, Points, fit_points, select
from analysis.intervals import (
    AT_BOUND,
    POINTS,
    Estimate,
    Predictive,
    Profile,
    Resampling,
    bootstrapped,
    by_run,
    check_resampling,
    predictive,
    profile,
)
from analysis.laws import CHINCHILLA, Law
from analysis.quantities import is_loss
from analysis.runs_table import complete, digest
from analysis.studies.caveats import RUNS, SINGLE, are_few, coverage_of_few, undetermined
from analysis.studies.residual_checks import ResidualChecks, residual_checks
from analysis.tables.files import notes_of
from analysis.tables.runs import with_runs
from analysis.tables.units import check_stated_counts, check_units, unit_notes


@dataclass(frozen=True)
class Study:
    """What `fit_table` found.

    units: how many independent points, runs or groups, which `unit` names, intervals are drawn from. law: the
    parametric law with its bootstrap (approach 3 when it is `chinchilla`). profiles: its constants' profile
    likelihoods. isoflop: approach 2, or None with the reason in isoflop_note. flop_rule: how the table counts FLOPs,
    None for a law without params and tokens. largest_flops: the largest budget (or run, where no budget is stated) that
    was fitted. ranges: smallest and largest value fitted of each of the law's inputs and output. far_factor: what lies
    further than this many times beyond the fitted runs is called an extrapolation wherever it is printed. given: values
    of the law's inputs other than params and tokens at which optima are taken; optima_note: why there are none, or
    nothing. table_digest: of every number the fit has read. table_notes: what the table may mean otherwise, and what
    was concluded from it, to be said before any result. checks: what the residuals say of single runs, of repeated ones
    and of columns that the law does not read.
    """

    level: float
    bootstraps: int
    seed: int
    units: int
    unit: str
    law: Estimate
    profiles: dict[str, Profile]
    predictive: Predictive
    isoflop: IsoFlop | None
    isoflop_note: str
    flop_rule: FlopRule | None
    largest_flops: float
    ranges: dict[str, tuple[float, float]]
    far_factor: float
    given: dict[str, float]
    optima_note: str
    table_digest: str
    table_notes: tuple[str, ...]
    checks: ResidualChecks

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """Runs that took no part in the fit of the law, with reasons."""
        return self.law.fit.left_out

    @property
    def weakly_identified(self) -> dict[str, str]:
        """For each constant that the points do not pin down, why: its interval, the conditioning, an open profile."""
        found = dict(self.law.weakly_identified)
        for name, held in self.profiles.items():
            if not held.closed and self.law.intervals[name].note != AT_BOUND:  # where it cannot close
                ways = (("below", held.closed_below), ("above", held.closed_above))
                text = f"its profile likelihood does not close {' or '.join(way for way, closed in ways if not closed)}"
                found[name] = f"{found[name]}; {text}" if name in found else text
        return found

    @property
    def caveats(self) -> tuple[str, ...]:
        """What must be said of the intervals and optima of this study, if anything.

        That they are few says nothing of intervals that are not determined.
        """
        constants, undetermined = len(self.law.fit.law.parameters), self.undetermined
        if undetermined or not are_few(self.units, self.unit, constants):
            return undetermined
        covered = coverage_of_few(self.units, self.unit, constants)
        return (f"{self.units} {self.unit} for {constants} constants are few: {covered}",)

    @property
    def undetermined(self) -> tuple[str, ...]:
        """Why exponents of the frontier and optima are not determined by the runs, if they are not."""
        return undetermined(self.law.fit, self.profiles, self.law.intervals)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return json_values.to_dict(self)

    @staticmethod
    def from_dict(data: dict[str, Any], laws: Sequence[Law] = ()) -> "Study":
        """Inverse of `to_dict`, also of a law.json, which has the rest of its report under the key `report`.

        laws: your own, where the study's is none of the package's; no code is loaded. Raises FileError naming a field
        that is missing or unknown, LawError for an unknown law or constants outside its bounds.
        """
        study = json_values.from_dict(
            Study, {name: value for name, value in data.items() if name != "report"}, laws=laws
        )
        study.law.fit.law.check(study.law.fit.values)
        return study


def fit_table(
    table: pd.DataFrame,
    *,
    law: Law = CHINCHILLA,
    objective: Objective = HUBER,
    level: float = 0.9,
    bootstraps: int = 1000,
    seed: int = 0,
    resampling: Resampling = POINTS,
    far_factor: float = 10.0,
    given: Mapping[str, float] | None = None,
    valleys: ValleySettings = AUTO_VALLEYS,
) -> Study:
    """Fit the parametric law and, where budgets are stated, approach 2, each with bootstrap intervals.

    Only the columns of the law are needed; `runs_table.complete` says how others are filled in. Several rows of one run
    (`tables.runs`) are drawn together unless `resampling` names another group, and are one run's noise in a predictive
    interval. Raises TableError or FitError for a table that does not determine the law, or whose numbers cannot be what
    its columns mean (`tables.units`); a run that cannot be used is listed in `left_out` instead. resampling: what the
    bootstrap of the law draws.
    given: for optima, a value of each of the law's inputs besides params and tokens. valleys: how approach 2 reads its
    minima.
    """
    table = with_runs(complete(table, (*law.inputs, law.output)))
    _check_one_family(table)
    if not far_factor >= 1:
        raise FitError(f"far_factor = {far_factor:g}: must be at least 1. Fix: use 10.")
    settings = {"level": level, "bootstraps": bootstraps, "seed": seed}
    check_resampling(level, bootstraps)
    points, left_out = select(law, table)
    rows = table.iloc[points.rows]
    check_units(law, rows)
    resampling, run_note = by_run(resampling, points.runs)
    given = _given(law, given or {})
    _check_budgets(law, rows["budget_flops"])
    result = fit_points(law, points, left_out, objective)
    ranges = {name: (float(np.min(x)), float(np.max(x))) for name, x in points.inputs.items()}
    check_stated_counts(given, ranges)
    ranges[law.output] = (float(points.output.min()), float(points.output.max()))
    profiles = profile(result, points, level)
    units, unit = _independent(resampling, table, points)
    estimate = bootstrapped(result, points, table, resampling=resampling, profiles=profiles, **settings)
    isoflop, note, rule, largest = None, f"law {law.name!r} has no params and tokens", None, float("nan")
    if {"params", "tokens"} <= set(law.inputs):
        flops, largest = _prices(rows)
        rule = fit_flop_rule(points.inputs["params"], points.inputs["tokens"], flops)
        surface = Surface(law, result.array(), rule, objective, estimate.draws)
        isoflop, note = _approach_2(table, surface, given, valleys, settings)
    elif "flops" in law.inputs:
        largest = ranges["flops"][1]
    return Study(
        units=units,
        unit=unit,
        law=estimate,
        profiles=profiles,
        predictive=predictive(result, points, bootstraps=bootstraps, seed=seed),
        isoflop=isoflop,
        isoflop_note=note,
        flop_rule=rule,
        largest_flops=largest,
        ranges=ranges,
        far_factor=float(far_factor),
        given=given,
        optima_note=_optima_note(law, given),
        table_digest=digest(table, (*law.inputs, law.output)),
        table_notes=(*notes_of(table), *unit_notes(law, rows), *run_note),
        checks=residual_checks(result, points, rows),
        **settings,
    )


def _independent(resampling: Resampling, table: pd.DataFrame, points: Points) -> tuple[int, str]:
    """How many independent units the bootstrap draws, and what they are: runs at most, whatever it draws."""
    drawn, runs = int(resampling.units(table, points).max()) + 1, len(set(points.runs))
    if runs < len(points.runs) and runs <= drawn:
        return runs, RUNS
    return drawn, f"groups of equal {resampling.by}" if resampling.by else SINGLE


def planning_law(study: Study) -> Law:
    """The study's law as one of params and tokens alone, its other inputs being given.

    Raises FitError for a law that no optimum can be taken of.
    """
    if study.optima_note:
        raise FitError(study.optima_note)
    return given_inputs(study.law.fit.law, study.given)


def reach(study: Study, inputs: Mapping[str, float]) -> Reach:
    """How far a run with these inputs lies from the fitted ones.

    In compute where the study has FLOPs, unless one of the law's own inputs lies further out of its fitted range.
    """
    compute = None
    if study.flop_rule is not None and {"params", "tokens"} <= set(inputs):
        compute = float(study.flop_rule.flops(inputs["params"], inputs["tokens"])) / study.largest_flops
    elif "flops" in inputs:
        compute = float(inputs["flops"]) / study.largest_flops
    outside = furthest_outside(inputs, study.ranges, study.far_factor)
    if compute is not None and outside.factor <= max(compute, 1.0):
        return Reach(compute, "compute", study.far_factor)
    return outside


def furthest_outside(
    inputs: Mapping[str, float], ranges: Mapping[str, tuple[float, float]], far_factor: float
) -> Reach:
    """Which input lies furthest out of its fitted range, and how many times beyond its nearer end; 1 inside."""
    factors = {name: _times_outside(float(value), *ranges[name]) for name, value in inputs.items()}
    furthest = max(factors, key=factors.__getitem__)
    return Reach(factors[furthest], furthest, far_factor)


def fitted_rows(table: pd.DataFrame, study: Study) -> pd.DataFrame:
    """The rows of the study's table that its law was fitted to, completed, in the order of the fit's `used`."""
    table = complete(table)
    return table.iloc[select(study.law.fit.law, table)[0].rows].reset_index(drop=True)


def _approach_2(
    table: pd.DataFrame,
    surface: Surface,
    given: Mapping[str, float],
    valleys: ValleySettings,
    settings: Mapping[str, Any],
) -> tuple[IsoFlop | None, str]:
    """Approach 2, judged by the study's law where that is one of params and tokens, else by chinchilla; or why not."""
    if not is_loss(surface.law.output):
        return None, f"{surface.law.output} is no loss to be made least"
    try:
        if _optima_note(surface.law, given):
            surface = fit_surface(table)
        else:
            surface = dataclasses.replace(surface, law=given_inputs(surface.law, given))
        return fit_isoflop(table, surface, valleys, **settings), ""
    except FitError as error:
        return None, str(error)


def _given(law: Law, given: Mapping[str, float]) -> dict[str, float]:
    for name in given:
        if name in ("params", "tokens") or name not in law.inputs:
            free = ", ".join(other for other in law.inputs if other not in ("params", "tokens")) or "none"
            raise FitError(f"given {name}: not a further input of law {law.name!r}. Fix: it has {free}.")
    check_choices(law, given)
    return {name: float(value) for name, value in given.items()}


def check_choices(law: Law, inputs: Mapping[str, float]) -> None:
    """Raise FitError for an input that is none of the values it may have."""
    for name, allowed in law.choices:
        if name in inputs and inputs[name] not in allowed:
            choices = ", ".join(f"{value:g}" for value in allowed)
            raise FitError(f"{name} = {inputs[name]:g}: must be one of {choices} in law {law.name!r}. Fix: choose one.")


def _optima_note(law: Law, given: Mapping[str, float]) -> str:
    if not is_loss(law.output):
        return f"law = {law.name!r}: its output {law.output} is no loss to be made least. Fix: fit law chinchilla."
    if not {"params", "tokens"} <= set(law.inputs):
        return f"law = {law.name!r}: has no params and tokens to choose. Fix: fit law chinchilla."
    missing = [name for name in law.inputs if name not in ("params", "tokens", *given)]
    if missing:
        return f"law = {law.name!r}: an optimum needs {missing[0]}. Fix: give it, as --given {missing[0]}=VALUE."
    return ""


def _times_outside(value: float, low: float, high: float) -> float:
    if value > high:
        return value / high if high > 0 else float("inf")
    return low / value if 0 < value < low else 1.0


def _prices(rows: pd.DataFrame) -> tuple[np.ndarray, float]:
    """FLOPs of each fitted run, and the largest budget (largest run where no budget is stated)."""
    flops, budgets = rows["flops"].to_numpy(np.float64), rows["budget_flops"].to_numpy(np.float64)
    wrong = np.flatnonzero(~(np.isfinite(flops) & (flops > 0)))
    if len(wrong):
        raise FitError(
            f"flops of run {rows['run'].iloc[wrong[0]]!r}: must be positive and finite. Fix: fill it in, or drop the "
            "column to price every run at 6 * params * tokens."
        )
    return flops, float(flops.max() if np.isnan(budgets).all() else np.nanmax(budgets))


def _check_one_family(table: pd.DataFrame) -> None:
    families = sorted(set(table["family"].dropna()))
    if len(families) > 1:
        raise FitError(
            f"family = {', '.join(map(repr, families))}: one law describes one family. Fix: fit each on "
            f"its own rows, as --where family={families[0]}."
        )


def _check_budgets(law: Law, budgets: pd.Series) -> None:
    if "params" in law.inputs and budgets.notna().all() and budgets.nunique() == 1:
        raise FitError(
            f"budget_flops = {budgets.iloc[0]:g} in every usable run: one compute budget cannot tell params "
            "from tokens at another. Fix: add runs at a second budget."
        )

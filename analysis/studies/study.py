"""A study: everything that is learnt from one runs table by fitting a law to it."""

import functools
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
    Surface,
    ValleySettings,
    fit_flop_rule,
    fit_isoflop,
    fit_surface,
)
from analysis.compute.frontier import given_inputs
from analysis.fit import HUBER, Fit, FitError, LeftOut, Objective, Points, fit_points, select
from analysis.intervals import (
    AT_BOUND,
    POINTS,
    Estimate,
    Predictive,
    Profile,
    Resampling,
    bootstrapped,
    by_run,
    check_sampling,
    predictive,
    profile,
)
from analysis.laws import CHINCHILLA, Law
from analysis.quantities import is_loss
from analysis.runs_table import complete, digest
from analysis.sampling import ONE_FIT, Sampling
from analysis.studies.caveats import RUNS, SINGLE, are_few, coverage_of_few, no_optimum, undetermined
from analysis.studies.given import given_of, optima_note
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
    was fitted. far_factor: what lies
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
    def ranges(self) -> dict[str, tuple[float, float]]:
        """Smallest and largest value fitted of each of the law's inputs and output."""
        return self.law.fit.ranges

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

        Of optima that are not determined, too, since a constant may have an interval that promises too much.
        """
        constants = len(self.law.fit.law.parameters)
        if not are_few(self.units, self.unit, constants):
            return self.undetermined
        covered = coverage_of_few(self.units, self.unit, constants)
        return (*self.undetermined, f"{self.units} {self.unit} for {constants} constants are few: {covered}")

    @property
    def undetermined(self) -> tuple[str, ...]:
        """Why exponents of the frontier and optima are not determined by the runs, if they are not."""
        return (*([self.no_optimum] if self.no_optimum else []), *self.unpredictable)

    @property
    def unpredictable(self) -> tuple[str, ...]:
        """Why a run beyond those that were made is not determined by them, if it is not: nor are optima then."""
        return undetermined(self.law.fit, self.profiles, self.law.intervals)

    @functools.cached_property
    def no_optimum(self) -> str:
        """Why the law as it was fitted has no optimum at any budget, though one of its inputs would; or nothing."""
        if self.optima_note:
            return ""
        values, intervals = self.law.fit.array(), self.law.intervals
        return no_optimum(planning_law(self), values, intervals, self.flop_rule, self.largest_flops)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form, with its format."""
        return json_values.to_file(self)

    @staticmethod
    def from_dict(data: dict[str, Any], laws: Sequence[Law] = ()) -> "Study":
        """Inverse of `to_dict`, also of a law.json, which has the rest of its report under the key `report`.

        laws: your own, where the study's is none of the package's; no code is loaded. Raises FileError naming a field
        that is missing or unknown, LawError for an unknown law or constants outside its bounds.
        """
        own = {name: value for name, value in data.items() if name != "report"} if isinstance(data, dict) else data
        study = json_values.from_file(Study, own, "fit the table again, as isoflop fit TABLE --json FILE", laws)
        study.law.fit.law.check(study.law.fit.values)
        return study


def fit_table(
    table: pd.DataFrame,
    *,
    law: Law = CHINCHILLA,
    objective: Objective = HUBER,
    sampling: Sampling = ONE_FIT,
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
    check_sampling(sampling)
    points, left_out = select(law, table)
    rows = table.iloc[points.rows]
    check_units(law, rows)
    resampling, run_note = by_run(resampling, points.runs)
    given = given_of(law, given or {})
    _check_budgets(law, rows["budget_flops"])
    result = fit_points(law, points, left_out, objective)
    check_stated_counts(given, result.ranges)
    profiles = profile(result, points, sampling.level)
    estimate = bootstrapped(result, points, table, sampling, resampling, profiles)
    rule, largest = _prices(result, points, rows)
    isoflop, note = _approach_2(table, estimate, rule, given, valleys, sampling)
    units, unit = _independent(resampling, table, points)
    return Study(
        **vars(sampling),
        units=units,
        unit=unit,
        law=estimate,
        profiles=profiles,
        predictive=predictive(result, points, sampling),
        isoflop=isoflop,
        isoflop_note=note,
        flop_rule=rule,
        largest_flops=largest,
        far_factor=float(far_factor),
        given=given,
        optima_note=optima_note(law, given),
        table_digest=digest(table, (*law.inputs, law.output)),
        table_notes=(*notes_of(table), *unit_notes(law, rows), *run_note),
        checks=residual_checks(result, points, rows),
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


def fitted_rows(table: pd.DataFrame, study: Study) -> pd.DataFrame:
    """The rows of the study's table that its law was fitted to, completed, in the order of the fit's `used`."""
    table = complete(table)
    return table.iloc[select(study.law.fit.law, table)[0].rows].reset_index(drop=True)


def _approach_2(
    table: pd.DataFrame,
    estimate: Estimate,
    rule: FlopRule | None,
    given: Mapping[str, float],
    valleys: ValleySettings,
    sampling: Sampling,
) -> tuple[IsoFlop | None, str]:
    """Approach 2, judged by the study's law where that is one of params and tokens, else by chinchilla; or why not."""
    law = estimate.fit.law
    if rule is None:
        return None, f"law {law.name!r} has no params and tokens"
    if not is_loss(law.output):
        return None, f"{law.output} is no loss to be made least"
    try:
        if optima_note(law, given):
            surface = fit_surface(table)
        else:
            values, objective = estimate.fit.array(), estimate.fit.objective
            surface = Surface(given_inputs(law, given), values, rule, objective, estimate.draws)
        return fit_isoflop(table, surface, valleys, sampling), ""
    except FitError as error:
        return None, str(error)


def _prices(result: Fit, points: Points, rows: pd.DataFrame) -> tuple[FlopRule | None, float]:
    """How FLOPs are counted, and the largest budget (largest run where none is stated); None and NaN without FLOPs."""
    if not {"params", "tokens"} <= set(points.inputs):
        return None, result.ranges["flops"][1] if "flops" in points.inputs else float("nan")
    flops, budgets = rows["flops"].to_numpy(np.float64), rows["budget_flops"].to_numpy(np.float64)
    wrong = np.flatnonzero(~(np.isfinite(flops) & (flops > 0)))
    if len(wrong):
        raise FitError(
            f"flops of run {rows['run'].iloc[wrong[0]]!r}: must be positive and finite. Fix: fill it in, or drop the "
            "column to price every run at 6 * params * tokens."
        )
    rule = fit_flop_rule(points.inputs["params"], points.inputs["tokens"], flops)
    return rule, float(flops.max() if np.isnan(budgets).all() else np.nanmax(budgets))


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

"""A study: everything that is learnt from one runs table, and what it says about runs that were not made."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from analysis import json_values
from analysis.extrapolation import FlopRule, efficient_runs, fit_flop_rule
from analysis.fitting import HUBER, FitError, LeftOut, Objective, law_of, select
from analysis.isoflop import IsoFlop, fit_isoflop
from analysis.laws import CHINCHILLA, Law
from analysis.runs_table import validate
from analysis.uncertainty import (
    Estimate,
    Interval,
    Predictive,
    estimate,
    percentile_interval,
    predictive,
    predictive_interval,
)


@dataclass(frozen=True)
class Study:
    """What `fit_table` found.

    law: the parametric law with its bootstrap (approach 3 when it is `chinchilla`). isoflop: approach 2, or None with
    the reason in isoflop_note. flop_rule: how the table counts FLOPs, None for a law without params and tokens.
    largest_flops: the largest budget (or run, where no budget is stated) that was fitted. ranges: smallest and largest
    value fitted of each of the law's inputs and output.
    """

    level: float
    bootstraps: int
    seed: int
    law: Estimate
    predictive: Predictive
    isoflop: IsoFlop | None
    isoflop_note: str
    flop_rule: FlopRule | None
    largest_flops: float
    ranges: dict[str, tuple[float, float]]

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """Runs that took no part in the fit of the law, with reasons."""
        return self.law.fit.left_out

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return json_values.to_dict(self)

    @staticmethod
    def from_dict(data: dict[str, Any]) -> "Study":
        """Inverse of `to_dict`. Raises FileError naming a field that is missing or unknown."""
        return json_values.from_dict(Study, data)


@dataclass(frozen=True)
class Optimum:
    """The compute-optimal run at a budget, each number with its `level` interval (constants' uncertainty only).

    extrapolation_factor: flops / largest fitted flops. loss_nats is None where approach 2 has no loss frontier.
    """

    flops: float
    approach: int
    level: float
    params: Interval
    tokens: Interval
    tokens_per_param: Interval
    loss_nats: Interval | None
    extrapolation_factor: float


@dataclass(frozen=True)
class Prediction:
    """Held-out loss of one new run: `level` predictive interval (constants' uncertainty and run-to-run noise)."""

    params: float
    tokens: float
    flops: float
    loss_nats: Interval
    level: float
    extrapolation_factor: float

    @property
    def value(self) -> float:
        """Predicted loss in nats per token."""
        return self.loss_nats.value

    @property
    def low(self) -> float:
        """Lower end of the predictive interval, in nats per token."""
        return self.loss_nats.low

    @property
    def high(self) -> float:
        """Upper end of the predictive interval, in nats per token."""
        return self.loss_nats.high


def fit_table(
    table: pd.DataFrame,
    *,
    law: Law = CHINCHILLA,
    objective: Objective = HUBER,
    level: float = 0.9,
    bootstraps: int = 1000,
    seed: int = 0,
) -> Study:
    """Fit the parametric law and, where budgets are stated, approach 2, each with bootstrap intervals.

    Only the columns of the law are needed; `status`, `held_out`, `budget_flops` and `flops` are used where present
    (without `flops`, runs are priced at 6 * params * tokens). Raises TableError or FitError for a table that does not
    determine the law; a run that cannot be used is listed in `left_out` instead.
    """
    table = validate(table, (*law.inputs, law.output))
    _check_one_family(table)
    resampling = {"level": level, "bootstraps": bootstraps, "seed": seed}
    points, _ = select(law, table)
    _check_budgets(law, table, points.runs)
    fitted = estimate(law, table, objective=objective, **resampling)
    spread = predictive(law, table, fitted.fit, bootstraps=bootstraps, seed=seed)
    ranges = {name: (float(np.min(x)), float(np.max(x))) for name, x in points.inputs.items()}
    ranges[law.output] = (float(points.output.min()), float(points.output.max()))
    isoflop, note, rule, largest = None, f"law {law.name!r} has no params and tokens", None, float("nan")
    if {"params", "tokens"} <= set(law.inputs):
        flops, largest = _prices(table, points.runs, points.inputs)
        rule = fit_flop_rule(points.inputs["params"], points.inputs["tokens"], flops)
        try:
            isoflop, note = fit_isoflop(table, **resampling), ""
        except FitError as error:
            note = str(error)
    elif "flops" in law.inputs:
        largest = ranges["flops"][1]
    return Study(
        law=fitted,
        predictive=spread,
        isoflop=isoflop,
        isoflop_note=note,
        flop_rule=rule,
        largest_flops=largest,
        ranges=ranges,
        **resampling,
    )


def optimum(study: Study, flops: float, *, approach: Literal[2, 3] = 3) -> Optimum:
    """Compute-optimal params, tokens and loss at a budget, under the table's own way of counting FLOPs.

    approach 3 minimises the parametric law along the budget, 2 reads the power laws of the valleys. Raises FitError
    when the study has no such approach, or for a budget that is not positive.
    """
    flops = float(flops)
    if not (flops > 0 and np.isfinite(flops)):
        raise FitError(f"flops = {flops!r}: must be positive and finite. Fix: give a budget in raw FLOPs, as 1e18.")
    factor = flops / study.largest_flops
    if approach == 2:
        if study.isoflop is None:
            raise FitError(f"approach = 2: not fitted. Reason: {study.isoflop_note}")
        at = {"flops": flops}
        params, tokens = study.isoflop.params.at(at, study.level), study.isoflop.tokens.at(at, study.level)
        ratio = percentile_interval(tokens.value / params.value, _ratio_draws(study.isoflop, flops), study.level)
        loss = study.isoflop.loss.at(at, study.level) if study.isoflop.loss else None
        return Optimum(flops, 2, study.level, params, tokens, ratio, loss, factor)
    best, draws = _efficient(study, flops)
    params, tokens, loss = (
        percentile_interval(value[0], drawn, study.level) for value, drawn in zip(best, draws, strict=True)
    )
    ratio = percentile_interval(best[1][0] / best[0][0], draws[1] / draws[0], study.level)
    return Optimum(flops, 3, study.level, params, tokens, ratio, loss, factor)


def frontier_exponents(study: Study) -> tuple[Interval, Interval]:
    """Exponents of compute-optimal params and tokens against flops that the parametric law gives, with intervals.

    Taken between half and twice the largest fitted budget; for `chinchilla` the frontier is a power law, and under
    6 * params * tokens the exponents are beta / (alpha + beta) and alpha / (alpha + beta) (Hoffmann et al. 2022,
    equation 4).
    """
    ends = [_efficient(study, factor * study.largest_flops) for factor in (0.5, 2.0)]
    (low, low_draws), (high, high_draws) = ends
    slopes = [(np.log(high[i] / low[i]) / np.log(4), np.log(high_draws[i] / low_draws[i]) / np.log(4)) for i in (0, 1)]
    params, tokens = (percentile_interval(value[0], draws, study.level) for value, draws in slopes)
    return params, tokens


def predict(study: Study, params: float, tokens: float) -> Prediction:
    """Held-out loss of one run that was not made, with its predictive interval. Raises FitError for a size <= 0."""
    for name, value in (("params", params), ("tokens", tokens)):
        if not (value > 0 and np.isfinite(value)):
            raise FitError(f"{name} = {value!r}: must be positive and finite. Fix: give a count.")
    if study.flop_rule is None:
        raise FitError(f"law = {study.law.fit.law!r}: does not take params and tokens. Fix: fit law chinchilla.")
    interval = predictive_interval(
        law_of(study.law.fit),
        study.law.fit,
        study.predictive,
        {"params": params, "tokens": tokens},
        study.level,
        study.seed,
    )
    flops = float(study.flop_rule.flops(params, tokens))
    return Prediction(float(params), float(tokens), flops, interval, study.level, flops / study.largest_flops)


def _efficient(study: Study, flops: float) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
    """params, tokens and loss of the parametric law's optimum: of the fit (1,), and of every draw (draws,)."""
    if study.flop_rule is None:
        raise FitError(f"law = {study.law.fit.law!r}: has no params and tokens to choose. Fix: fit law chinchilla.")
    law = law_of(study.law.fit)
    values = np.concatenate([study.law.fit.array()[None], study.law.draws])
    found = efficient_runs(law, values, study.flop_rule, flops)
    return tuple(array[:1] for array in found), tuple(array[1:] for array in found)


def _ratio_draws(isoflop: IsoFlop, flops: float) -> np.ndarray:
    scale = isoflop.tokens.draws[:, 0] / isoflop.params.draws[:, 0]
    return scale * flops ** (isoflop.tokens.draws[:, 1] - isoflop.params.draws[:, 1])


def _prices(table: pd.DataFrame, runs: tuple[str, ...], inputs: dict[str, np.ndarray]) -> tuple[np.ndarray, float]:
    """FLOPs of each fitted run, and the largest budget (largest run where no budget is stated)."""
    rows = _rows(table, runs)
    flops = 6.0 * inputs["params"] * inputs["tokens"]
    if "flops" in table.columns:
        stated = rows["flops"].to_numpy(np.float64)
        if not (np.isfinite(stated) & (stated > 0)).all():
            wrong = runs[int(np.flatnonzero(~(np.isfinite(stated) & (stated > 0)))[0])]
            raise FitError(
                f"flops of run {wrong!r}: must be positive and finite. Fix: fill it in, or drop the column "
                "to price every run at 6 * params * tokens."
            )
        flops = stated
    budgets = rows["budget_flops"].to_numpy(np.float64) if "budget_flops" in table.columns else np.array([np.nan])
    return flops, float(flops.max() if np.isnan(budgets).all() else np.nanmax(budgets))


def _check_one_family(table: pd.DataFrame) -> None:
    families = sorted(set(table["family"].dropna())) if "family" in table.columns else []
    if len(families) > 1:
        raise FitError(
            f"family = {', '.join(map(repr, families))}: one law describes one family. Fix: fit each on its own rows."
        )


def _check_budgets(law: Law, table: pd.DataFrame, runs: tuple[str, ...]) -> None:
    if "params" not in law.inputs or "budget_flops" not in table.columns or not runs:
        return
    budgets = _rows(table, runs)["budget_flops"]
    if budgets.notna().all() and budgets.nunique() == 1:
        raise FitError(
            f"budget_flops = {budgets.iloc[0]:g} in every usable run: one compute budget cannot tell params "
            "from tokens at another. Fix: add runs at a second budget."
        )


def _rows(table: pd.DataFrame, runs: tuple[str, ...]) -> pd.DataFrame:
    if "run" not in table.columns:
        return table.iloc[[int(run.removeprefix("row ")) for run in runs]]
    return table.set_index("run").loc[list(runs)]

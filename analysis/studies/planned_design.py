"""A design judged before it is paid for: what a plan's sizes and budgets could tell, were a prior law the truth.

The prior is a published law, or one that was fitted to another table. `analysis/compute/design.py` simulates the plan
and each of some plans that cost more, and says how wide intervals of the exponent and of the held-out loss would be.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from analysis import json_values
from analysis.compute import Design, Reach, Surface, efficient_runs, fit_flop_rule, simulate
from analysis.compute.readings import CANDIDATES, LAW
from analysis.compute.valleys import Budget, Noise
from analysis.fit import FitError
from analysis.laws import evaluate
from analysis.laws.published import PUBLISHED
from analysis.quantities import counted
from analysis.studies.reach import furthest_outside
from analysis.studies.study import Study, planning_law

SIZES = ("params", "tokens")
FAR = 10.0  # times beyond the runs of a published law, as a study has it by default
SEEDS = (2, 4)  # of every run, in the plans that cost more
FURTHER = (2.0, 4.0, 8.0, 16.0)  # times the largest budget, at which a further one is added
DENSER = (2, 4)  # times as many sizes between the smallest and the largest of each budget


@dataclass(frozen=True)
class Prior:
    """A law with its constants and the noise of a run, before anything was measured; source: where they come from.

    ranges: smallest and largest params and tokens of the runs it was fitted to, None where they are not known;
    far_factor: what lies further than this many times beyond them is an extrapolation.
    """

    surface: Surface
    noise: Noise
    source: str
    ranges: dict[str, tuple[float, float]] | None
    far_factor: float


@dataclass(frozen=True)
class Variant:
    """A plan and what it could tell. cost: its FLOPs over the plan's own; halves: the width of the exponent of optimal
    params that approach 3 gives, or of the held-out loss's interval, both no more than half of the plan's."""

    name: str
    cost: float
    design: Design
    halves: tuple[bool, bool]


@dataclass(frozen=True)
class PlannedDesign:
    """The plan as it stands, then plans that cost more; reading: of valleys, the best on the plan as it stands.

    reach: how far the plan's runs lie from those that the prior was fitted to, None where these are not known.
    """

    prior: str
    reach: Reach | None
    reading: str
    variants: tuple[Variant, ...]


def prior_of(name: str, rows: pd.DataFrame, noise_nats: float | None = None) -> Prior:
    """The prior of that name in PUBLISHED, or of a law.json that `isoflop fit` wrote.

    rows: the planned runs (params, tokens, flops), whose way of counting FLOPs is kept. noise_nats: standard deviation
    of the loss between seeds; that of the law.json's table if not given. Raises FitError for a name that is neither,
    a published law without noise_nats, or a law that is none of params and tokens.
    """
    rule = fit_flop_rule(*(rows[column].to_numpy(np.float64) for column in ("params", "tokens", "flops")))
    if noise_nats is not None and not 0 < noise_nats < np.inf:
        raise FitError(
            f"noise_nats = {noise_nats:g}: must be positive and finite, since all that a design leaves open comes from "
            "it. Fix: use 0.01."
        )
    stated = None if noise_nats is None else Noise(float(noise_nats), False, "as stated")
    if name in PUBLISHED:
        if stated is None:
            raise FitError(
                f"prior = {name!r}: its paper states no noise of a run. Fix: give the standard deviation of the loss "
                "between seeds, as --noise-nats 0.01."
            )
        law, values, source = PUBLISHED[name].law, PUBLISHED[name].values, PUBLISHED[name].source
        surface = Surface(law, np.array([values[each] for each in law.names]), rule)
        return Prior(surface, stated, source, PUBLISHED[name].ranges, FAR)
    if not Path(name).is_file():
        raise FitError(
            f"prior = {name!r}: no published law, and no file. Fix: use one of {', '.join(PUBLISHED)}, or the law.json "
            "of a fit."
        )
    study = _read(Path(name))
    own = Noise(study.law.fit.residual_scale, True, "of the residuals from the fitted law")
    if study.isoflop is not None:
        own = study.isoflop.design.noise
    surface = Surface(planning_law(study), study.law.fit.array(), rule, study.law.fit.objective)
    ranges = {column: study.ranges[column] for column in SIZES}
    return Prior(surface, stated or own, name, ranges, study.far_factor)


def _read(path: Path) -> Study:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return Study.from_dict(data)
    except json_values.FormatError as error:
        raise FitError(f"prior = {str(path)!r}: {error}") from None
    except ValueError as error:  # no UTF-8, no JSON, FileError, LawError
        raise FitError(
            f"prior = {str(path)!r}: is no law.json that can be used ({str(error).removesuffix('.')}). Fix: use the "
            "file that isoflop fit wrote by --json, as it wrote it."
        ) from None


def judge(rows: pd.DataFrame, prior: Prior, held_out_flops: float | None = None, *, seed: int = 0) -> PlannedDesign:
    """Simulate a plan, and plans with more seeds, more sizes or a further budget, from the prior.

    rows: one per planned run, with params, tokens and budget_flops; equal sizes at a budget are seeds. held_out_flops:
    of the run that is to be predicted; ten times the largest budget if not given. Raises FitError for fewer than three
    budgets, or three sizes at one.
    """
    budgets = _budgets(rows, prior)
    names = (*CANDIDATES, LAW)
    plans = {"as planned": budgets}
    plans |= {f"{count} seeds for each": [_with_seeds(budget, count) for budget in budgets] for count in SEEDS}
    plans |= {f"{times} times the sizes": [_denser(budget, times, prior) for budget in budgets] for times in DENSER}
    plans |= {
        f"a further budget, {times:g} times the largest": [*budgets, _further(budgets, times, prior)]
        for times in FURTHER
    }
    cost, found, first = _cost(budgets), [], None
    for name, plan in plans.items():
        far = held_out_flops or 10 * max(budget.flops for budget in budgets)
        design = simulate(
            plan, prior.surface, prior.noise, names if first is None else (first[0], LAW), far_flops=far, seed=seed
        )
        if first is None:
            first = design.best_reading(CANDIDATES).approach, _widths(design)
        halves = tuple(
            bool(before > 0 and width <= 0.5 * before) for width, before in zip(_widths(design), first[1], strict=True)
        )
        found.append(Variant(name, _cost(plan) / cost, design, halves))
    return PlannedDesign(prior.source, _reach(rows, prior), first[0], tuple(found))


def _reach(rows: pd.DataFrame, prior: Prior) -> Reach | None:
    """How far the furthest planned run lies from those that the prior was fitted to, where these are known."""
    if prior.ranges is None:
        return None
    ends = [{name: float(end(rows[name])) for name in SIZES} for end in (np.nanmin, np.nanmax)]
    return max(
        (furthest_outside(inputs, prior.ranges, prior.far_factor) for inputs in ends), key=lambda found: found.factor
    )


def _widths(design: Design) -> tuple[float, float]:
    law = design.support(LAW)
    return law.exponent_width, law.prediction_width


def _budgets(rows: pd.DataFrame, prior: Prior) -> list[Budget]:
    budgets = []
    for flops, group in rows.dropna(subset=["budget_flops"]).groupby("budget_flops"):
        sizes = group.groupby("params").agg(tokens=("tokens", "mean"), runs=("tokens", "size"))
        params = sizes.index.to_numpy(np.float64)
        if len(params) < 3:
            raise FitError(
                f"budget {flops:.3g} FLOP: {counted(len(params), 'size')}; a valley needs 3. Fix: plan more sizes."
            )
        budgets.append(
            _budget(float(flops), params, sizes["tokens"].to_numpy(np.float64), sizes["runs"].to_numpy(), prior)
        )
    if len(budgets) < 3:
        raise FitError(f"budgets = {len(budgets)}: a frontier needs 3. Fix: plan more budgets.")
    return budgets


def _budget(flops: float, params: np.ndarray, tokens: np.ndarray, repeats: np.ndarray, prior: Prior) -> Budget:
    loss = evaluate(prior.surface.law, prior.surface.values, {"params": params, "tokens": tokens})
    return Budget(flops, np.log(params), np.log(tokens), loss, repeats, int(repeats.sum()))


def _with_seeds(budget: Budget, count: int) -> Budget:
    return replace(budget, repeats=budget.repeats * count, runs=budget.runs * count)


def _denser(budget: Budget, times: int, prior: Prior) -> Budget:
    """The same range with `times` as many gaps between sizes."""
    places = np.arange((len(budget.log_params) - 1) * times + 1) / times
    log_params = np.interp(places, np.arange(len(budget.log_params)), budget.log_params)
    params, tokens = np.exp(log_params), np.exp(budget.log_tokens_at(log_params))
    return _budget(budget.flops, params, tokens, np.full(len(params), int(budget.repeats.min())), prior)


def _further(budgets: Sequence[Budget], times: float, prior: Prior) -> Budget:
    """One more budget with the largest one's sizes, moved with the prior's optimum."""
    last = budgets[-1]
    flops = times * last.flops
    best = [
        efficient_runs(prior.surface.law, prior.surface.values[None], prior.surface.rule, at)[0][0]
        for at in (last.flops, flops)
    ]
    params = np.exp(last.log_params) * best[1] / best[0]
    return _budget(flops, params, prior.surface.rule.tokens(flops, params), last.repeats, prior)


def _cost(budgets: Sequence[Budget]) -> float:
    return sum(budget.flops * budget.repeats.sum() for budget in budgets)

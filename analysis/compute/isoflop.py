"""Approach 2 of Hoffmann et al. 2022 (section 3.2): the minimum of each compute budget, and power laws through them.

Which reading of a valley (readings.py) is right depends on its sizes and its noise. The default is the one whose
exponent would be nearest to the truth if the fitted surface were the truth (design.py), among those that do not miss
the valleys' own points. Minima outside the sizes that were trained are no minima: such a budget is left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.compute.design import FEWEST_BUDGETS, LEAST_LOSS, Design, misfit, simulate, weights_of
from analysis.compute.frontier import efficient_runs
from analysis.compute.power_laws import PowerLaw, power_law
from analysis.compute.readings import CANDIDATES, FEWEST_SIZES, LAW, minima, reading
from analysis.compute.surface import Surface, fit_surface
from analysis.compute.valleys import Budget, Noise, Valleys, valleys
from analysis.fit import LEAST_SQUARES, FitError, LeftOut, by_reason, fit
from analysis.fit.batched import Problems, solve
from analysis.intervals import Estimate, Interval, check_sampling, percentile_interval, with_intervals
from analysis.laws import LOSS_FRONTIER, evaluate
from analysis.quantities import counted
from analysis.sampling import ONE_FIT, Sampling

AUTO = "auto"
CURVE_POINTS = 60


@dataclass(frozen=True)
class Valley:
    """One budget and its minimum.

    at_params, at_loss: the sizes trained and their losses, as `valleys` made them, (sizes,). params, tokens and
    loss_nats are those of the minimum. inside: share of the draws of the noise whose minimum lies inside the sizes.
    misfit_nats: standard deviation of the points around the curve (NaN for a curve through all of them).
    curve_params, curve_loss: the curve that was read.
    """

    budget_flops: float
    runs: int
    at_params: np.ndarray
    at_loss: np.ndarray
    params: Interval
    tokens: Interval
    loss_nats: Interval
    inside: float
    misfit_nats: float
    curve_params: np.ndarray
    curve_loss: np.ndarray


@dataclass(frozen=True)
class IsoFlop:
    """Approach 2: valleys, power laws of the minima against flops, and the budgets left out with the reason.

    reading: how the minima were read; why: what decided it. design: what this grid of sizes and budgets can tell, by
    simulation, and the noise of a run, which all intervals here come from. loss is None when there are too few valleys
    for its three constants; loss_note says so. notes: what was done to the table, and what speaks against a reading.
    """

    reading: str
    why: str
    design: Design
    valleys: tuple[Valley, ...]
    left_out: tuple[LeftOut, ...]
    params: PowerLaw
    tokens: PowerLaw
    loss: Estimate | None
    loss_note: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class ValleySettings:
    """how: auto, the name of a reading (readings.py), or law for the minima of the surface at the same budgets.
    noise_nats, budget_tolerance: as in `valleys`. Raises FitError for a name that is none, or a number below zero."""

    how: str = AUTO
    noise_nats: float | None = None
    budget_tolerance: float = 0.1

    def __post_init__(self) -> None:
        if self.how not in (AUTO, LAW):
            reading(self.how)
        for name, value in (("noise_nats", self.noise_nats), ("budget_tolerance", self.budget_tolerance)):
            if value is not None and not 0 <= value < np.inf:
                raise FitError(f"{name} = {value:g}: must be finite, and not negative. Fix: leave it out.")


AUTO_VALLEYS = ValleySettings()


@dataclass(frozen=True)
class _Minima:
    """Of each budget, the observed value and then the draws (1 + draws, budgets): NaN where there is none inside."""

    log_params: np.ndarray
    log_tokens: np.ndarray
    loss: np.ndarray
    side: np.ndarray


def fit_isoflop(
    table: pd.DataFrame,
    surface: Surface | None = None,
    settings: ValleySettings = AUTO_VALLEYS,
    sampling: Sampling = ONE_FIT,
) -> IsoFlop:
    """Fit approach 2 to the usable rows of a runs table with a `budget_flops` column.

    surface: a law fitted to the table, by which the design is judged; `chinchilla` is fitted where none is given. Its
    draws are needed where minima are the law's. Intervals are over `sampling.bootstraps` draws of the noise of a run.
    Raises FitError when fewer than three budgets give a minimum inside the sizes trained.
    """
    check_sampling(sampling)
    level, seed = sampling.level, sampling.seed
    surface, how = fit_surface(table) if surface is None else surface, settings.how
    found = valleys(
        table,
        surface,
        fewest_sizes=FEWEST_SIZES,
        noise_nats=settings.noise_nats,
        tolerance=settings.budget_tolerance,
    )
    _check_count(len(found.budgets), found.left_out, "sizes enough for a minimum")
    names = tuple(dict.fromkeys((*CANDIDATES, *(() if how in (AUTO, LAW) else (how,)), LAW)))
    design = simulate(found.budgets, surface, found.noise, names, level=level, seed=seed)
    observed = [budget.loss[None] for budget in found.budgets]
    missing = tuple(
        name
        for name in names
        if name != LAW
        and misfit(reading(name), found.budgets, found.noise, observed)[0] > design.support(name).misfit_limit
    )
    chosen, why = _choice(how, design, missing)
    generator = np.random.default_rng(seed)
    draws = sampling.bootstraps
    read = _of_law(found.budgets, surface) if chosen == LAW else _of_curves(chosen, found, draws, generator)
    weights, shares = weights_of(found.budgets, read.log_params)
    used = weights > 0
    left_out = [*found.left_out, *(_left_out(found.budgets[i], read.side[:, i]) for i in np.flatnonzero(~used))]
    _check_count(int(used.sum()), left_out, "a minimum of loss over params inside the sizes trained")
    budgets = [budget for budget, kept in zip(found.budgets, used, strict=True) if kept]
    log_flops = np.log([budget.flops for budget in budgets])
    read = _Minima(*(array[:, used] for array in (read.log_params, read.log_tokens, read.loss, read.side)))
    loss, loss_note = _loss_frontier(log_flops, read.loss, level)
    return IsoFlop(
        reading=chosen,
        why=why,
        design=design,
        valleys=tuple(
            _valley(chosen, budget, found.noise, surface, read, i, level, float(share))
            for i, (budget, share) in enumerate(zip(budgets, shares[used], strict=True))
        ),
        left_out=tuple(left_out),
        params=power_law(log_flops, read.log_params, weights[used], level),
        tokens=power_law(log_flops, read.log_tokens, weights[used], level),
        loss=loss,
        loss_note=loss_note,
        notes=(*found.notes, *_notes(chosen, budgets, design, missing)),
    )


def _check_count(count: int, left_out: Sequence[LeftOut], what: str) -> None:
    if count < FEWEST_BUDGETS:
        reasons = "; ".join(by_reason(left_out))
        have = f"{counted(count, 'budget')} {'has' if count == 1 else 'have'}"
        raise FitError(
            f"budget_flops: {have} {what}, approach 2 needs at least {FEWEST_BUDGETS}. Fix: add budgets or "
            f"sizes{f' (left out: {reasons})' if reasons else ''}."
        )


def _choice(how: str, design: Design, missing: Sequence[str]) -> tuple[str, str]:
    """The reading to use, and why."""
    if how != AUTO:
        return how, "as asked for"
    fitting = [name for name in CANDIDATES if name not in missing]
    best = design.best_reading(fitting or CANDIDATES)
    if not np.isfinite(best.exponent_error):
        return best.approach, "no reading gives a frontier in half of the sweeps simulated on the fitted surface"
    rejected = [name for name in CANDIDATES if name in missing]
    why = (
        f"of {', '.join(CANDIDATES)} its exponent comes nearest to the fitted law's own, in sweeps simulated from that "
        "law on these sizes and budgets"
    )
    misses = f"; left aside, since it misses the valleys' points by more than it would there: {', '.join(rejected)}"
    return best.approach, why + (misses if rejected else "")


def _of_curves(name: str, found: Valleys, draws: int, generator: np.random.Generator) -> _Minima:
    """What a reading finds in the losses as measured, and with further noise drawn."""
    factors, parts = found.noise.factors(draws, generator), []
    for budget in found.budgets:
        noise_DN = found.noise.drawn(budget.loss, budget.repeats, factors, generator)
        drawn = np.vstack([budget.loss, np.maximum(budget.loss + noise_DN, LEAST_LOSS * budget.loss)])
        places, loss, side = minima(reading(name), budget.log_params, drawn)
        parts.append((places, budget.log_tokens_at(places), loss, side))
    return _Minima(*(np.stack(columns, axis=1) for columns in zip(*parts, strict=True)))


def _of_law(budgets: Sequence[Budget], surface: Surface) -> _Minima:
    """The surface's own optima at the budgets, for each draw of its constants."""
    if surface.draws is None:
        raise FitError("valleys = 'law': the surface has no draws. Fix: give one that was bootstrapped.")
    values, parts = np.vstack([surface.values, surface.draws]), []
    for budget in budgets:
        params, tokens, loss = efficient_runs(surface.law, values, surface.rule, budget.flops)
        places = np.log(params)
        side = np.where(places < budget.log_params[0], -1, np.where(places > budget.log_params[-1], 1, 0))
        there = np.where(side == 0, 1.0, np.nan)
        parts.append((places * there, np.log(tokens) * there, loss * there, side))
    return _Minima(*(np.stack(columns, axis=1) for columns in zip(*parts, strict=True)))


def _left_out(budget: Budget, side: np.ndarray) -> LeftOut:
    """A budget without a minimum that can be used."""
    if side[0]:
        return LeftOut(
            budget.name, f"the loss is lowest at the {'smallest' if side[0] < 0 else 'largest'} size trained"
        )
    share = np.mean(side[1:] != 0)
    return LeftOut(budget.name, f"noise puts the minimum outside the sizes trained in {share:.0%} of the draws")


def _loss_frontier(log_flops: np.ndarray, loss_DG: np.ndarray, level: float) -> tuple[Estimate | None, str]:
    """Loss at the minima against flops, refitted to every draw; a minimum that a draw lacks weighs nothing there."""
    law = LOSS_FRONTIER
    if len(log_flops) <= len(law.parameters):
        return None, f"{counted(len(log_flops), 'budget')}; a loss frontier with an irreducible loss needs at least 4"
    inputs, names = {"flops": np.exp(log_flops)}, [f"budget {value:.3g} FLOP" for value in np.exp(log_flops)]
    result = fit(law, pd.DataFrame({"run": names, **inputs, law.output: loss_DG[0]}), LEAST_SQUARES)
    drawn = loss_DG[1:][np.sum(np.isfinite(loss_DG[1:]), axis=1) >= FEWEST_BUDGETS]
    there = np.isfinite(drawn)
    starts = np.tile(law.pack(result.array()), (len(drawn), 1))
    logs = np.log(np.where(there, drawn, 1.0))
    problems = Problems(logs, there.astype(float), starts)
    draws = law.natural(solve(law, inputs, problems, LEAST_SQUARES, near=True).theta)
    return with_intervals(result, draws, level, f"percentiles of {len(draws)} draws of the noise of a run"), ""


def _valley(
    name: str, budget: Budget, noise: Noise, surface: Surface, read: _Minima, i: int, level: float, inside: float
) -> Valley:
    def interval(values: np.ndarray) -> Interval:
        return percentile_interval(values[0], values[1:][np.isfinite(values[1:])], level)

    at = np.linspace(budget.log_params[0], budget.log_params[-1], CURVE_POINTS)
    if name == LAW:
        tokens = surface.rule.tokens(budget.flops, np.exp(at))
        curve, misfit_nats = (
            evaluate(surface.law, surface.values, {"params": np.exp(at), "tokens": tokens}),
            float("nan"),
        )
    else:
        curve = reading(name).curve(budget.log_params, budget.loss[None], at)[0]
        missed, freedom = reading(name).misses(budget.log_params, budget.loss[None])
        misfit_nats = float(np.sqrt(np.sum(missed**2) / freedom)) if freedom > 0 else float("nan")
    return Valley(
        budget_flops=budget.flops,
        runs=budget.runs,
        at_params=np.exp(budget.log_params),
        at_loss=budget.loss,
        params=interval(np.exp(read.log_params[:, i])),
        tokens=interval(np.exp(read.log_tokens[:, i])),
        loss_nats=interval(read.loss[:, i]),
        inside=inside,
        misfit_nats=misfit_nats,
        curve_params=np.exp(at),
        curve_loss=curve,
    )


def _notes(name: str, budgets: Sequence[Budget], design: Design, missing: Sequence[str]) -> list[str]:
    """What speaks against the reading that was used."""
    notes, sizes = [], max(len(budget.loss) for budget in budgets)
    if name != LAW and reading(name).lowest > sizes:
        notes.append(f"{name} is the parabola: no budget has more than {counted(sizes, 'size')}")
    if name in missing:
        notes.append(f"the curves of {name} miss the points of their valleys by more than noise and the law explain")
    if not design.supports_well(design.support(name)):
        notes.append(
            f"on sweeps simulated from the fitted law, {name} is off in the exponent by "
            f"{design.support(name).exponent_bias:+.2g} and in the far optimum by a factor of "
            f"{design.support(name).optimum_factor:.3g}, more than its noise, or often finds no frontier"
        )
    return notes

"""How to spend compute, by a study: the optimum of a budget, what leaving it costs, and the optimum over a life.

Every number has an interval from the draws of the constants. It holds the uncertainty of the constants, not the
noise of a run, and it assumes that the law goes on; `reach` says how far that assumption is stretched.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from analysis.compute import FlopRule, Reach, cheapest_runs, efficient_runs
from analysis.compute.frontier import departures, paired
from analysis.compute.serving import FORWARD_SHARE
from analysis.fit import FitError
from analysis.intervals import NOT_DETERMINED, Estimate, Interval, bca_interval, percentile_interval
from analysis.studies.reach import furthest_outside, reach
from analysis.studies.study import Study, planning_law
from analysis.tables.units import check_stated_counts

DEPARTURES = (0.1, 0.25, 0.5, 2.0, 4.0, 10.0)


@dataclass(frozen=True)
class Optimum:
    """The compute-optimal run at a budget, under `rule`.

    loss_nats is None where approach 2 has no loss frontier. hyperparameters: what each hyperparameter law says at these
    params and tokens, so that they are this approach's; by the name of its output (learning_rate, batch_tokens, ...).
    hyperparameter_reach: how far that is from what the law was fitted to.
    """

    flops: float
    rule: FlopRule
    approach: int
    level: float
    params: Interval
    tokens: Interval
    tokens_per_param: Interval
    loss_nats: Interval | None
    reach: Reach
    hyperparameters: dict[str, Interval] = field(default_factory=dict)
    hyperparameter_reach: dict[str, Reach] = field(default_factory=dict)


@dataclass(frozen=True)
class Departure:
    """A run of `factor` times the optimal params.

    loss_penalty: loss above the optimum's at the same budget, in nats per token. compute: budget that reaches the
    optimum's loss at this size, as a multiple of the optimum's; infinite where no number of tokens does.
    """

    factor: float
    tokens_per_param: float
    loss_penalty: Interval
    compute: Interval


@dataclass(frozen=True)
class Lifetime:
    """The cheapest run of a quality when `inference_tokens` are served, beside the one that is cheapest to train.

    saving: share of the total (training and serving) FLOPs that `params` saves over `training_params`.
    """

    loss_nats: float
    inference_tokens: float
    level: float
    params: Interval
    tokens: Interval
    training_flops: Interval
    total_flops: Interval
    training_params: Interval
    training_tokens: Interval
    saving: Interval
    reach: Reach


def optimum(
    study: Study,
    flops: float,
    *,
    approach: Literal[2, 3] = 3,
    rule: FlopRule | None = None,
    hyperparameters: Sequence[Estimate] = (),
) -> Optimum:
    """Compute-optimal params, tokens and loss at a budget, under the table's own way of counting FLOPs or `rule`.

    approach 3 minimises the parametric law along the budget; 2 reads the power laws of the valleys, which know the
    table's counting alone. hyperparameters: fitted laws of params, tokens or flops, read at this approach's optimum.
    Raises FitError when the study has no such approach, or for a budget that is not positive; TableError for one that
    is none.
    """
    flops = _budget(study, flops)
    if approach == 2:
        if rule is not None and rule != study.flop_rule:
            raise FitError("rule: approach 2 holds under the table's own FLOPs. Fix: ask approach 3.")
        return _by_valleys(study, flops, hyperparameters)
    law, rule, values = planning_law(study), rule or study.flop_rule, constants_of(study.law)
    params, tokens, loss = efficient_runs(law, values, rule, flops)
    drawn = slice(1 + len(study.law.draws))  # not the jackknife, which the draws of another law have no part in
    return Optimum(
        flops,
        rule,
        3,
        study.level,
        interval_at(study, params),
        interval_at(study, tokens),
        interval_at(study, tokens / params),
        interval_at(study, loss),
        _reach_of_optimum(study, flops, {**study.given, "params": params[0], "tokens": tokens[0]}),
        *_read(study, hyperparameters, _inputs(flops, params[drawn], tokens[drawn]), bool(study.undetermined)),
    )


def frontier_exponents(study: Study, rule: FlopRule | None = None) -> tuple[Interval, Interval]:
    """Exponents of compute-optimal params and tokens against flops that the parametric law gives, with intervals.

    Taken between half and twice the largest fitted budget; for `chinchilla` under a power-law rule the frontier is a
    power law, and under 6 * params * tokens the exponents are beta / (alpha + beta) and alpha / (alpha + beta)
    (Hoffmann et al. 2022, equation 4).
    """
    law, rule, values = planning_law(study), rule or study.flop_rule, constants_of(study.law)
    low, high = (efficient_runs(law, values, rule, factor * study.largest_flops) for factor in (0.5, 2.0))
    params, tokens = (interval_at(study, np.log(high[i] / low[i]) / np.log(4)) for i in (0, 1))
    return params, tokens


def cost_of_departing(
    study: Study, flops: float, factors: Sequence[float] = DEPARTURES, rule: FlopRule | None = None
) -> tuple[Departure, ...]:
    """What it costs at a budget to train larger (under-train) or smaller (over-train) than the law calls best.

    Each draw departs from its own optimum: the interval says how sure the valley's walls are, not where it lies.
    """
    flops = _budget(study, flops)
    law, rule, values = planning_law(study), rule or study.flop_rule, constants_of(study.law)
    factors = [_positive("factor", factor, "give multiples of the optimal params, as 0.5") for factor in factors]
    penalties, multiples = departures(law, values, rule, flops, np.array(factors))
    best = np.nan if study.no_optimum else efficient_runs(law, values, rule, flops)[0][0]
    return tuple(
        Departure(
            factor,
            float(rule.tokens(flops, factor * best) / (factor * best)),
            interval_at(study, penalty),
            interval_at(study, multiple),
        )
        for factor, penalty, multiple in zip(factors, penalties, multiples, strict=True)
    )


def lifetime_optimum(study: Study, loss_nats: float, inference_tokens: float, rule: FlopRule | None = None) -> Lifetime:
    """The cheapest way to train to a loss and then serve `inference_tokens` (Sardana et al. 2024, section 2).

    Raises FitError for a loss the law does not reach at any size, or one that is not positive, and where the law has no
    optimum; TableError for served tokens that are no count.
    """
    loss = _positive("loss", loss_nats, "give nats per token")
    served = _positive("inference_tokens", inference_tokens, "give the tokens served over the model's life")
    if study.no_optimum:
        raise FitError(f"target_loss = {loss:g}: {study.no_optimum}. Fix: fit runs that determine one.")
    law, rule, values = planning_law(study), rule or study.flop_rule, constants_of(study.law)
    check_stated_counts({"inference_tokens": served}, {"inference_tokens": study.ranges["tokens"]})
    params, tokens, training, total = cheapest_runs(law, values, rule, loss, served)
    if not np.isfinite(params[0]):
        raise FitError(
            f"loss = {loss:g}: the law reaches it at no size. Fix: ask for more than its irreducible loss"
            + (f", {study.law.fit.values['E']:.4g}." if "E" in study.law.fit.values else ".")
        )
    plain_params, plain_tokens, plain_training, _ = cheapest_runs(law, values, rule, loss, 0.0)
    plain_total = plain_training + FORWARD_SHARE * rule.flops(plain_params, served)
    with np.errstate(invalid="ignore"):
        saving = np.where(np.isfinite(total), 1 - total / plain_total, np.nan)
    level = study.level
    return Lifetime(
        loss,
        served,
        level,
        *(interval_at(study, array) for array in (params, tokens, training, total, plain_params, plain_tokens)),
        interval_at(study, saving),
        reach(study, {**study.given, "params": params[0], "tokens": tokens[0]}),
    )


def constants_of(estimate: Estimate) -> np.ndarray:
    """Constants (1 + bootstraps + parts, parameters): the fit's, then those of its resamples, then its jackknife."""
    values = estimate.fit.array()
    # A study that was read from its file has empty arrays without the length of their rows.
    rows = [array.reshape(-1, len(values)) for array in (estimate.draws, estimate.jackknife)]
    return np.concatenate([values[None], *rows])


def interval_at(study: Study, found: np.ndarray) -> Interval:
    """The interval of a quantity computed from each row of `constants_of(study.law)`, for what follows from optima.

    Not determined where the study says that its runs do not determine them, however narrow the resamples are: refits
    start at the optimum, and hardly move along what the runs leave open. Where the law has no optimum, there is no
    value either.
    """
    if study.no_optimum:
        return Interval(np.nan, -np.inf, np.inf, NOT_DETERMINED)
    if study.undetermined:
        return Interval(float(found[0]), -np.inf, np.inf, NOT_DETERMINED)
    draws, jackknife = np.split(found[1:], [len(study.law.draws)])
    return bca_interval(float(found[0]), draws, jackknife, study.level)


def _by_valleys(study: Study, flops: float, hyperparameters: Sequence[Estimate]) -> Optimum:
    if study.isoflop is None:
        raise FitError(f"approach = 2: not fitted. Reason: {study.isoflop_note}")
    of_loss, level = study.isoflop.loss, study.level
    params, tokens = (
        np.concatenate([[law.at(flops, level).value], law.drawn_at(flops)])
        for law in (study.isoflop.params, study.isoflop.tokens)
    )
    return Optimum(
        flops,
        study.flop_rule,
        2,
        level,
        *(percentile_interval(found[0], found[1:], level) for found in (params, tokens, tokens / params)),
        of_loss.at({"flops": flops}, level) if of_loss else None,
        Reach(flops / study.largest_flops, "compute", study.far_factor),
        *_read(study, hyperparameters, _inputs(flops, params, tokens), undetermined=False),
    )


def _reach_of_optimum(study: Study, flops: float, inputs: Mapping[str, float]) -> Reach:
    """How far an optimum lies out; its budget alone, where the law has none."""
    return Reach(flops / study.largest_flops, "compute", study.far_factor) if study.no_optimum else reach(study, inputs)


def _inputs(flops: float, params: np.ndarray, tokens: np.ndarray) -> dict[str, np.ndarray]:
    return {"params": params, "tokens": tokens, "flops": np.full(len(params), flops)}


def _read(
    study: Study, laws: Sequence[Estimate], at: Mapping[str, np.ndarray], undetermined: bool
) -> tuple[dict[str, Interval], dict[str, Reach]]:
    """What hyperparameter laws say at an optimum, and how far that is from what they were fitted to.

    at: the optimum, then its draws (1 + draws,), with which a law's own are paired: they are independent.
    """
    intervals, reaches = {}, {}
    for one in laws:
        law, draws = one.fit.law, one.draws[np.arange(len(at["flops"]) - 1) % len(one.draws)]
        unknown = set(law.inputs) - set(at)
        if unknown:
            raise FitError(
                f"law = {law.name!r}: needs {sorted(unknown)[0]!r}, which an optimum does not have. Fix: use a law of "
                "params, tokens and flops."
            )
        found = paired(law, np.concatenate([one.fit.array()[None], draws]), at)
        value = np.nan if undetermined and study.no_optimum else float(found[0])
        intervals[law.output] = (
            Interval(value, -np.inf, np.inf, NOT_DETERMINED)
            if undetermined
            else percentile_interval(found[0], found[1:], study.level)
        )
        reaches[law.output] = furthest_outside(
            {name: at[name][0] for name in law.inputs}, one.fit.ranges, study.far_factor
        )
    return intervals, reaches


def _budget(study: Study, flops: float) -> float:
    flops = _positive("flops", flops, "give a budget in raw FLOPs, as 1e18")
    check_stated_counts({"flops": flops}, {"flops": (study.largest_flops, study.largest_flops)})
    return flops


def _positive(name: str, value: float, fix: str) -> float:
    value = float(value)
    if not (value > 0 and np.isfinite(value)):
        raise FitError(f"{name} = {value!r}: must be positive and finite. Fix: {fix}.")
    return value

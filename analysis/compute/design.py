"""What a design can tell: a fitted surface is put through the design's own grid of sizes and budgets, many times.

Each simulated sweep has the surface's losses at the sizes of the grid, with the noise of a run. Every approach reads
every sweep; how far its exponent and its extrapolated optimum lie from the surface's own is its bias (without noise)
and its spread (with). Parabolas are biased by the width and the place of the sizes alone (Czech et al. 2026,
arXiv:2603.22339), and this says by how much for the sizes at hand. What it cannot tell: how far the surface itself is
from the truth.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.compute.frontier import efficient_runs
from analysis.compute.power_laws import lines
from analysis.compute.readings import LAW, Reading, minima, reading
from analysis.compute.surface import Surface
from analysis.compute.valleys import Budget, Noise
from analysis.fit.batched import Problems, solve
from analysis.laws import evaluate

LEAST_SPREAD_GAPS = 0.33  # the least standard deviation of a minimum, in gaps between sizes (Porian et al. 2024)
FEWEST_INSIDE = 0.5  # share of the draws in which a budget's minimum lies inside its sizes
FEWEST_BUDGETS = 3  # one more than the two constants of a power law
LEAST_LOSS = 0.01  # of a loss: noise beyond leaves nothing that a logarithm could be taken of
LEAST_NOISE = 1e-6  # of a loss: below it a miss is one of rounding and of the law's own fit
SURE_DEVIATIONS, SLACK = 3.5, 1.05  # of a sum of squares over simulated sweeps, beyond which the surface is not right
SMALL_BIAS, SMALL_MISS = 1e-3, 0.01  # of an exponent, and of an optimum as a share of it: not worth a word
OFTEN = 0.05  # share of the sweeps that give no frontier
FAR = 10.0  # the extrapolated optimum is that of this many times the largest budget


@dataclass(frozen=True)
class Support:
    """How well the design supports one approach: errors of what it says of simulated sweeps.

    approach: a reading of valleys, or law, which fits the surface (approach 3). exponent_bias: of the exponent of
    optimal params, without noise. exponent_spread: its standard deviation over noisy sweeps; exponent_width: of its
    central `level` interval there. optimum_factor: optimal params at `far_flops` over the surface's own, without noise;
    optimum_spread, optimum_width: standard deviation and central interval of the logarithm of that. failed: share of
    the noisy sweeps that give no frontier. NaN where there is none without noise. misfit_limit: what `misfit` of the
    curves stays below if the surface is right; NaN for curves through every point. prediction_width: of the central
    `level` interval of (measured loss / predicted loss) of a run at the far optimum, its own noise in it; NaN for
    readings, which predict no loss.
    """

    approach: str
    exponent_bias: float
    exponent_spread: float
    exponent_width: float
    optimum_factor: float
    optimum_spread: float
    optimum_width: float
    failed: float
    misfit_limit: float
    prediction_width: float

    @property
    def exponent_error(self) -> float:
        """Root of the mean square error of the exponent, infinite where the approach fails in half of the sweeps."""
        error = float(np.hypot(self.exponent_bias, self.exponent_spread))
        return error if np.isfinite(error) and self.failed < FEWEST_INSIDE else float("inf")


@dataclass(frozen=True)
class Design:
    """The simulation of one design: the surface's own exponent and far optimum, and each approach's support."""

    exponent: float
    far_flops: float
    far_params: float
    noise: Noise
    sweeps: int
    level: float
    supports: tuple[Support, ...]

    def support(self, approach: str) -> Support:
        """The support of one approach."""
        return next(found for found in self.supports if found.approach == approach)

    def supports_well(self, found: Support) -> bool:
        """Whether an approach is biased by less than its noise (or hardly at all), in the exponent and in the far
        optimum, and seldom fails."""
        bias = max(found.exponent_width / 2, SMALL_BIAS)
        miss = max(found.optimum_width / 2, SMALL_MISS)
        return abs(found.exponent_bias) <= bias and abs(np.log(found.optimum_factor)) <= miss and found.failed <= OFTEN

    def best_reading(self, names: Sequence[str]) -> Support:
        """Of `names`, the approach with the smallest error of its exponent: the first of those within a tenth."""
        readings = [self.support(name) for name in names]
        least = min(found.exponent_error for found in readings)
        return next(found for found in readings if found.exponent_error <= 1.1 * least)


def misfit(how: Reading, budgets: Sequence[Budget], noise: Noise, losses: Sequence[np.ndarray]) -> np.ndarray:
    """Sum of squares (draws,) of what a reading's curves miss their points by, in units of the noise.

    losses: (draws, sizes) of each budget. NaN for curves through every point.
    """
    total = np.zeros(len(losses[0]))
    for budget, loss_DN in zip(budgets, losses, strict=True):
        missed, _ = how.misses(budget.log_params, loss_DN)
        sigma = np.maximum(noise.nats(budget.loss) / np.sqrt(budget.repeats), LEAST_NOISE * budget.loss)
        total += np.sum((missed / sigma) ** 2, axis=1)
    return total if how.coefficients else np.full(len(total), np.nan)


def simulate(
    budgets: Sequence[Budget],
    surface: Surface,
    noise: Noise,
    approaches: Sequence[str],
    *,
    far_flops: float | None = None,
    sweeps: int = 200,
    level: float = 0.9,
    seed: int = 0,
) -> Design:
    """Simulate sweeps of the sizes and budgets of `budgets`, whose own losses say no more than how large the noise is.

    far_flops: compute of the extrapolated optimum, FAR times the largest budget if not given.
    """
    generator = np.random.default_rng([seed, 2])
    log_flops = np.log([budget.flops for budget in budgets])
    far_flops = FAR * max(budget.flops for budget in budgets) if far_flops is None else far_flops
    best = [efficient_runs(surface.law, surface.values[None], surface.rule, budget.flops)[0][0] for budget in budgets]
    truth = lines(log_flops, np.log([best]), np.ones(len(budgets)))[0]
    far_params = float(efficient_runs(surface.law, surface.values[None], surface.rule, far_flops)[0][0])
    losses = [_sweeps(budget, surface, noise, generator, sweeps) for budget in budgets]
    found = []
    for approach in approaches:
        if approach == LAW:
            values = _refitted(budgets, surface, losses)
            logs, far = _optima(budgets, surface, values, far_flops)
            predicted = _predicted(surface, values, noise, far_flops, far_params, generator)
            slopes, missed = lines(log_flops, logs, np.ones(len(budgets)))[:, 1], np.full(1 + sweeps, np.nan)
        else:
            how = reading(approach)
            read, missed = lines(log_flops, *_read(how, budgets, losses)), misfit(how, budgets, noise, losses)
            slopes, far = read[:, 1], read[:, 0] + read[:, 1] * np.log(far_flops)
            predicted = np.full(sweeps, np.nan)
        errors = slopes - truth[1], far - np.log(far_params)
        found.append(_support(approach, *errors, missed[1:], predicted, level))
    return Design(float(truth[1]), far_flops, far_params, noise, sweeps, level, tuple(found))


def weights_of(budgets: Sequence[Budget], logs_DG: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weight of each budget's minimum in the frontier, 0 where it is of no use, and the share of its draws inside.

    logs_DG: log params of the minima, NaN where there is none; the first row is without noise. As in Porian et al.
    2024: the inverse square of the spread over the draws, no less than a third of a gap between sizes, over the share.
    """
    weights, shares = np.zeros(len(budgets)), np.zeros(len(budgets))
    for i, budget in enumerate(budgets):
        drawn = logs_DG[1:, i][np.isfinite(logs_DG[1:, i])]
        shares[i] = len(drawn) / max(len(logs_DG) - 1, 1)
        if np.isfinite(logs_DG[0, i]) and shares[i] >= FEWEST_INSIDE:
            gap = np.ptp(budget.log_params) / (len(budget.log_params) - 1)
            weights[i] = (shares[i] / max(float(np.std(drawn)), LEAST_SPREAD_GAPS * gap)) ** 2
    return weights, shares


def _sweeps(budget: Budget, surface: Surface, noise: Noise, generator: np.random.Generator, sweeps: int) -> np.ndarray:
    """The surface's losses at the budget's sizes (1 + sweeps, sizes): without noise first."""
    inputs = {"params": np.exp(budget.log_params), "tokens": np.exp(budget.log_tokens)}
    loss = evaluate(surface.law, surface.values, inputs)
    noise_DN = noise.drawn(loss, budget.repeats, np.ones(sweeps), generator)
    return np.vstack([loss, np.maximum(loss + noise_DN, LEAST_LOSS * loss)])


def _read(how: Reading, budgets: Sequence[Budget], losses: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """log params of the minima (1 + sweeps, budgets) that one reading finds, and the budgets' weights."""
    logs = np.full((len(losses[0]), len(budgets)), np.nan)
    for i, (budget, drawn) in enumerate(zip(budgets, losses, strict=True)):
        logs[:, i] = minima(how, budget.log_params, drawn)[0]
    weights, _ = weights_of(budgets, logs)
    logs[:, weights == 0] = np.nan
    logs[np.sum(np.isfinite(logs), axis=1) < FEWEST_BUDGETS] = np.nan
    return logs, weights


def _refitted(budgets: Sequence[Budget], surface: Surface, losses: list[np.ndarray]) -> np.ndarray:
    """Approach 3 on every sweep: constants (1 + sweeps, parameters) of the law fitted to it."""
    law, outputs = surface.law, surface.law.target(np.concatenate(losses, axis=1))
    inputs = {
        "params": np.exp(np.concatenate([budget.log_params for budget in budgets])),
        "tokens": np.exp(np.concatenate([budget.log_tokens for budget in budgets])),
    }
    weights = np.tile(np.concatenate([budget.repeats for budget in budgets]).astype(float), (len(outputs), 1))
    starts = np.tile(law.pack(surface.values), (len(outputs), 1))
    return law.natural(solve(law, inputs, Problems(outputs, weights, starts), surface.objective, near=True).theta)


def _optima(
    budgets: Sequence[Budget], surface: Surface, values: np.ndarray, far_flops: float
) -> tuple[np.ndarray, np.ndarray]:
    """log optimal params (1 + sweeps, budgets) of laws with these constants, and at far_flops (1 + sweeps,)."""
    flops = [*(budget.flops for budget in budgets), far_flops]
    logs = np.log(np.stack([efficient_runs(surface.law, values, surface.rule, at)[0] for at in flops], axis=1))
    return logs[:, :-1], logs[:, -1]


def _predicted(
    surface: Surface,
    values: np.ndarray,
    noise: Noise,
    far_flops: float,
    far_params: float,
    generator: np.random.Generator,
) -> np.ndarray:
    """Measured over predicted loss of the far run (sweeps,): its measurement has the noise of a run."""
    run = {"params": far_params, "tokens": surface.rule.tokens(far_flops, far_params)}
    truth = evaluate(surface.law, surface.values, run)
    measured = truth + noise.drawn(truth, np.ones(1), np.ones(len(values) - 1), generator)[:, 0]
    return measured / evaluate(surface.law, values[1:], run)[:, 0]


def _support(
    approach: str,
    slope_errors: np.ndarray,
    far_errors: np.ndarray,
    missed: np.ndarray,
    predicted: np.ndarray,
    level: float,
) -> Support:
    there = np.isfinite(slope_errors[1:])
    slopes, far = slope_errors[1:][there], far_errors[1:][there]
    enough = len(slopes) > 1
    ends = [(1 - level) / 2, (1 + level) / 2]
    return Support(
        approach=approach,
        exponent_bias=float(slope_errors[0]),
        exponent_spread=float(np.std(slopes)) if enough else float("nan"),
        exponent_width=float(np.ptp(np.quantile(slopes, ends))) if enough else float("nan"),
        optimum_factor=float(np.exp(far_errors[0])),
        optimum_spread=float(np.std(far)) if enough else float("nan"),
        optimum_width=float(np.ptp(np.quantile(far, ends))) if enough else float("nan"),
        failed=float(1 - np.mean(there)),
        prediction_width=float(np.ptp(np.quantile(predicted, ends))),
        misfit_limit=float(SLACK * (np.mean(missed) + SURE_DEVIATIONS * np.std(missed))),
    )

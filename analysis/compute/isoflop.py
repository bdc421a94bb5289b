"""Approach 2 of Hoffmann et al. 2022 (section 3.2): a parabola per compute budget, then power laws of the optima.

Within a budget the held-out loss is fitted by least squares as a parabola in log(params). Its minimum is the
compute-optimal size at that budget; the tokens there follow from the budget's own runs (log tokens against log params),
so the table's way of counting FLOPs is kept.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.fit import LEAST_SQUARES, FitError, LeftOut, fit, select
from analysis.fit.batched import solve
from analysis.intervals import Estimate, Interval, check_resampling, percentile_interval, with_intervals
from analysis.intervals.resampling import bootstrap_weights
from analysis.laws import CHINCHILLA, FRONTIER, LOSS_FRONTIER, Law
from analysis.runs_table import complete

FEWEST_SIZES = 3  # a parabola has three coefficients
FEWEST_VALLEYS = 3  # one more than the two constants of a power law


@dataclass(frozen=True)
class Valley:
    """One budget: loss = c0 + c1 x + c2 x^2 with x = log(params) - centre, and the optimum it gives.

    params, tokens and loss_nats are those of the optimum. inside_range: whether the optimum lies between the smallest
    and the largest size that was trained; outside, it is an extrapolation of the parabola.
    """

    budget_flops: float
    runs: int
    centre: float
    coefficients: tuple[float, float, float]
    params: Interval
    tokens: Interval
    loss_nats: Interval
    smallest_params: float
    largest_params: float
    inside_range: bool

    def loss_at(self, params: np.ndarray) -> np.ndarray:
        """The parabola's loss, in nats per token."""
        x = np.log(params) - self.centre
        return self.coefficients[0] + x * (self.coefficients[1] + x * self.coefficients[2])


@dataclass(frozen=True)
class IsoFlop:
    """Approach 2: valleys, power laws of the optima against flops, and the budgets left out with the reason.

    loss is None when there are too few valleys for its three constants; loss_note says so. dropped_draws counts the
    resamples that left fewer than two budgets with a minimum and were not used.
    """

    valleys: tuple[Valley, ...]
    left_out: tuple[LeftOut, ...]
    params: Estimate
    tokens: Estimate
    loss: Estimate | None
    loss_note: str
    dropped_draws: int


@dataclass(frozen=True)
class _Budget:
    flops: float
    log_params: np.ndarray
    log_tokens: np.ndarray
    loss: np.ndarray

    @property
    def centre(self) -> float:
        return float(self.log_params.mean())


def fit_isoflop(table: pd.DataFrame, *, level: float = 0.9, bootstraps: int = 1000, seed: int = 0) -> IsoFlop:
    """Fit approach 2 to the usable rows of a runs table with a `budget_flops` column.

    Resamples draw runs with replacement within each budget. Raises FitError when fewer than three budgets give an
    optimum.
    """
    check_resampling(level, bootstraps)
    budgets, left_out = _usable_budgets(complete(table))
    if len(budgets) < FEWEST_VALLEYS:
        reasons = "; ".join(f"{item.run}: {item.reason}" for item in left_out)
        raise FitError(
            f"budget_flops: {len(budgets)} budgets give a minimum of loss over params, approach 2 needs at "
            f"least {FEWEST_VALLEYS}. Fix: add budgets or sizes"
            f"{f' (left out: {reasons})' if reasons else ''}."
        )
    generator = np.random.default_rng(seed)
    best, drawn = [], []
    for budget in budgets:
        members = np.arange(len(budget.loss))
        weights = bootstrap_weights(generator, members, np.zeros(len(members)), bootstraps)
        best.append(_optimum(budget, np.ones((1, len(budget.loss)))))
        drawn.append(_optimum(budget, weights))
    best_G, drawn_BG = np.concatenate(best), np.stack(drawn, axis=1)
    kept = np.sum(drawn_BG["valid"], axis=1) >= 2
    if np.sum(kept) < 20:
        raise FitError(
            f"bootstraps = {bootstraps}: only {np.sum(kept)} resamples keep two budgets with a minimum. "
            "Fix: train more sizes per budget."
        )
    drawn_BG = drawn_BG[kept]
    frontier = {
        name: _frontier(FRONTIER, budgets, best_G[name], drawn_BG[name], drawn_BG["valid"], level)
        for name in ("params", "tokens")
    }
    loss, loss_note = None, f"{len(budgets)} budgets; a loss frontier with an irreducible loss needs at least 4"
    if len(budgets) > len(LOSS_FRONTIER.parameters):
        loss, loss_note = (
            _frontier(LOSS_FRONTIER, budgets, best_G["loss_nats"], drawn_BG["loss_nats"], drawn_BG["valid"], level),
            "",
        )
    valleys = tuple(_valley(budget, best_G[i], drawn_BG[:, i], level) for i, budget in enumerate(budgets))
    return IsoFlop(
        valleys, tuple(left_out), frontier["params"], frontier["tokens"], loss, loss_note, int(np.sum(~kept))
    )


def _usable_budgets(table: pd.DataFrame) -> tuple[list[_Budget], list[LeftOut]]:
    """Budgets whose parabola has a minimum, and the others with the reason."""
    if table["budget_flops"].isna().all():
        raise FitError(
            "budget_flops: no run states its budget. Fix: fill the column, or name yours, as --column "
            "budget_flops=YOURS."
        )
    points, _ = select(CHINCHILLA, table)
    flops_N = table["budget_flops"].to_numpy(np.float64)[points.rows]
    budgets, left_out = [], []
    for run, flops in zip(points.runs, flops_N, strict=True):
        if np.isnan(flops):
            left_out.append(LeftOut(run, "budget_flops is missing"))
    for flops in np.unique(flops_N[~np.isnan(flops_N)]):
        rows = flops_N == flops
        budget = _Budget(
            float(flops),
            np.log(points.inputs["params"][rows]),
            np.log(points.inputs["tokens"][rows]),
            points.output[rows],
        )
        sizes = len(np.unique(budget.log_params))
        if sizes < FEWEST_SIZES:
            left_out.append(LeftOut(f"budget {flops:.3g} FLOP", f"{sizes} sizes; a parabola needs {FEWEST_SIZES}"))
        elif not _optimum(budget, np.ones((1, len(budget.loss))))["valid"][0]:
            left_out.append(LeftOut(f"budget {flops:.3g} FLOP", "loss over log(params) is not convex: no minimum"))
        else:
            budgets.append(budget)
    return budgets, left_out


def _parabolas(budget: _Budget, weights_BN: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weighted least-squares coefficients (B, 3) in log(params) - centre, and whether each has a minimum (B,)."""
    powers_N3 = (budget.log_params - budget.centre)[:, None] ** np.arange(3)
    gram = np.einsum("bn,ni,nj->bij", weights_BN, powers_N3, powers_N3)
    moments = np.einsum("bn,ni,n->bi", weights_BN, powers_N3, budget.loss)
    # Weights of repeated sizes add up, so a resample is solvable when three different sizes are left in it.
    _, size_of_run = np.unique(budget.log_params, return_inverse=True)
    sizes = [weights_BN[:, size_of_run == size].sum(axis=1) > 0 for size in range(max(size_of_run) + 1)]
    solvable = np.sum(sizes, axis=0) >= FEWEST_SIZES
    gram[~solvable] = np.eye(3)
    coefficients = np.linalg.solve(gram, moments[..., None])[..., 0]
    curvature_floor = 1e-9 * np.ptp(budget.loss) / np.ptp(budget.log_params) ** 2  # below rounding: a straight line
    return coefficients, solvable & (coefficients[:, 2] > curvature_floor)


def _optimum(budget: _Budget, weights_BN: np.ndarray) -> np.ndarray:
    """Structured array (B,) with valid, params, tokens and loss_nats of each resample's optimum."""
    coefficients, valid = _parabolas(budget, weights_BN)
    c0, c1, c2 = np.where(valid[:, None], coefficients, [1.0, 0.0, 1.0]).T
    # e^20 either way is far outside any table and keeps a nearly flat parabola from overflowing.
    x = np.clip(-c1 / (2 * c2), -20, 20)
    slope, offset = np.polyfit(budget.log_params - budget.centre, budget.log_tokens, 1)
    found = np.zeros(len(valid), [("valid", bool), ("params", float), ("tokens", float), ("loss_nats", float)])
    found["params"], found["tokens"] = np.exp(x + budget.centre), np.exp(offset + slope * x)
    found["loss_nats"] = c0 - c1**2 / (4 * c2)
    found["valid"] = valid & (found["loss_nats"] > 0)
    return found


def _valley(budget: _Budget, best: np.ndarray, drawn_B: np.ndarray, level: float) -> Valley:
    drawn_B = drawn_B[drawn_B["valid"]]
    intervals = {
        name: percentile_interval(best[name], drawn_B[name], level) for name in ("params", "tokens", "loss_nats")
    }
    smallest, largest = float(np.exp(budget.log_params.min())), float(np.exp(budget.log_params.max()))
    coefficients = _parabolas(budget, np.ones((1, len(budget.loss))))[0][0]
    return Valley(
        budget_flops=budget.flops,
        runs=len(budget.loss),
        centre=budget.centre,
        coefficients=tuple(map(float, coefficients)),
        **intervals,
        smallest_params=smallest,
        largest_params=largest,
        inside_range=bool(smallest <= best["params"] <= largest),
    )


def _frontier(
    law: Law, budgets: list[_Budget], best_G: np.ndarray, drawn_BG: np.ndarray, valid_BG: np.ndarray, level: float
) -> Estimate:
    """A power law of the optima, refitted to every resample's optima; budgets without a minimum there weigh nothing."""
    flops = np.array([budget.flops for budget in budgets])
    names = [f"budget {value:.3g} FLOP" for value in flops]
    result = fit(law, pd.DataFrame({"run": names, "flops": flops, law.output: best_G}), LEAST_SQUARES)
    starts = np.tile(law.pack(result.array()), (len(drawn_BG), 1))
    logs = np.log(np.where(valid_BG, drawn_BG, 1.0))
    found = solve(law, {"flops": flops}, logs, valid_BG.astype(float), starts, LEAST_SQUARES, near=True)
    method = f"percentiles of {len(logs)} resamples of the runs within each budget"
    return with_intervals(result, law.natural(found.theta), level, method)

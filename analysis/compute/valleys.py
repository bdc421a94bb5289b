"""The isoFLOP valleys of a runs table: its budgets, the sizes trained at each, and the noise of one run.

What a reading (readings.py) then takes the minimum of is one loss per size. Runs of one size at one budget that differ
in their seed alone are averaged; where they differ in anything else, or no seed is stated, the lowest loss counts, as
in Porian et al. 2024 (arXiv:2406.19146). Budgets that were measured rather than planned scatter: neighbours within a
tolerance are one budget, and their losses are moved to its mean along the fitted surface.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.special

from analysis.compute.surface import Surface
from analysis.fit import FitError, LeftOut, Points, missing_reason, outliers, select
from analysis.laws import evaluate
from analysis.quantities import counted
from analysis.runs_table import complete
from analysis.tables.files import words_of

WIDEST_BUDGET = 1.5  # factor that the runs of one budget may span
SETTINGS = ("learning_rate", "batch_tokens", "weight_decay")  # repeats that differ in one are no repeats
SURE = 0.99  # that the law misses more than neighbouring sizes scatter
WENT_WRONG = 0.1  # of a loss above its neighbours: less may be noise, or what the law misses
ROUNDING = 1e-6  # of a loss: residuals below it are no scatter
FEWEST_DIFFERENCES = 6  # between neighbouring sizes, for a noise to be read off them


@dataclass(frozen=True)
class Noise:
    """Standard deviation of one run's loss between seeds: in nats per token, or as a share of the loss.

    source: where it comes from, in words. freedom: degrees of freedom it was estimated with, 0 where it is known.
    """

    value: float
    is_share: bool
    source: str
    freedom: int = 0

    def drawn(self, loss: np.ndarray, repeats: np.ndarray, factors: np.ndarray, generator: np.random.Generator):
        """Draws (draws, sizes) of the noise of mean losses of `repeats` runs, scaled by a factor for each draw."""
        return (
            factors[:, None] * self.nats(loss) / np.sqrt(repeats) * generator.standard_normal((len(factors), len(loss)))
        )

    def factors(self, draws: int, generator: np.random.Generator) -> np.ndarray:
        """What the noise may really be, over its value (draws,): as uncertain as its degrees of freedom leave it."""
        return np.sqrt(self.freedom / generator.chisquare(self.freedom, draws)) if self.freedom else np.ones(draws)

    def nats(self, loss: np.ndarray) -> np.ndarray:
        """The noise of runs with these losses."""
        return self.value * loss if self.is_share else np.full_like(loss, self.value)


@dataclass(frozen=True)
class Budget:
    """The sizes trained at one budget, in ascending order, each array (sizes,); repeats: runs averaged in each loss."""

    flops: float
    log_params: np.ndarray
    log_tokens: np.ndarray
    loss: np.ndarray
    repeats: np.ndarray
    runs: int

    @property
    def name(self) -> str:
        return f"budget {self.flops:.3g} FLOP"

    def log_tokens_at(self, log_params: np.ndarray) -> np.ndarray:
        """log tokens of other sizes at this budget, on the line through its own runs: the table's way of counting."""
        slope, offset = np.polyfit(self.log_params - self.log_params.mean(), self.log_tokens, 1)
        return offset + slope * (log_params - self.log_params.mean())


@dataclass(frozen=True)
class Valleys:
    """What `valleys` found: budgets with enough sizes, rows and budgets left out, the noise, and what was done to the
    table, in sentences."""

    budgets: tuple[Budget, ...]
    left_out: tuple[LeftOut, ...]
    noise: Noise
    notes: tuple[str, ...]


def valleys(
    table: pd.DataFrame, surface: Surface, *, fewest_sizes: int, noise_nats: float | None = None, tolerance: float = 0.1
) -> Valleys:
    """The valleys of a table in which `surface`'s law of params and tokens was fitted.

    noise_nats: standard deviation of the loss between seeds; without it, that of repeated seeds, or else of the
    residuals from the surface or of neighbouring sizes, whichever scatter less. tolerance: neighbouring budgets within
    this share of one another are one. Runs that lie apart as outliers are left out. Raises FitError where no run states
    its budget.
    """
    table = complete(table)
    if table["budget_flops"].isna().all():
        raise FitError(
            "budget_flops: no run states its budget. Fix: fill the column, or name yours, as --column "
            "budget_flops=YOURS."
        )
    points, _ = select(surface.law, table)
    if not np.all(points.output > 0):
        raise FitError(f"{surface.law.output}: must be positive for a valley. Fix: leave approach 2 out.")
    rows = table.iloc[points.rows].reset_index(drop=True)
    flops = rows["budget_flops"].to_numpy(np.float64)
    words, labels = words_of(table), table.index[points.rows]
    left_out = [
        LeftOut(points.runs[i], missing_reason("budget_flops", words, labels[i]))
        for i in np.flatnonzero(np.isnan(flops))
    ]
    points, rows, flops = _kept(~np.isnan(flops), points, rows, flops)
    groups, notes = _grouped(flops, tolerance)
    apart, outlying = _apart(surface, points, groups)
    left_out += outlying
    points, rows, flops = _kept(~apart, points, rows, flops)
    groups = pd.factorize(groups[~apart], sort=True)[0]
    loss = points.output.copy()
    if notes:
        flops = rows["flops"].to_numpy(np.float64)  # a measured budget may be another number than the run's own FLOPs
    means = np.array([_mean(flops[groups == group]) for group in range(groups.max() + 1)])
    if notes:
        loss *= _moved(surface, points, means[groups] / flops)
    used = pd.DataFrame({"group": groups, **points.inputs, "loss": loss})
    are_seeds = _are_seeds(rows, used)
    budgets = []
    for group, members in used.groupby("group"):
        budget = _budget(float(means[group]), members, are_seeds)
        if len(budget.loss) < fewest_sizes:
            reason = f"{counted(len(budget.loss), 'size')}; a minimum needs {fewest_sizes}"
            left_out.append(LeftOut(budget.name, reason))
        else:
            budgets.append(budget)
    noise = _noise(surface, points, budgets, used if are_seeds else None, noise_nats)
    return Valleys(tuple(budgets), tuple(left_out), noise, tuple(notes))


def _grouped(flops: np.ndarray, tolerance: float) -> tuple[np.ndarray, list[str]]:
    """The number of each run's budget, from the smallest, and a sentence where budgets that differ are one."""
    values = np.unique(flops)
    chained = np.concatenate([[0], np.cumsum(np.diff(np.log(values)) > np.log1p(max(tolerance, 1e-9)))])
    first, last = np.searchsorted(chained, chained, "left"), np.searchsorted(chained, chained, "right") - 1
    too_wide = values[last] / values[first] > WIDEST_BUDGET  # a chain of neighbours, no budget: each for itself
    keys = np.where(too_wide, np.arange(len(values)) + len(values), chained)
    numbers = pd.factorize(keys)[0]
    notes = []
    if numbers.max() + 1 < len(values):
        notes.append(
            f"{len(values)} different budgets within {tolerance:.0%} of a neighbour are taken as {numbers.max() + 1}; "
            "each loss is moved to its budget's mean along the fitted surface"
        )
    return numbers[np.searchsorted(values, flops)], notes


def _kept(which: np.ndarray, points: Points, rows: pd.DataFrame, flops: np.ndarray) -> tuple:
    return points.where(which), rows[which].reset_index(drop=True), flops[which]


def _mean(flops: np.ndarray) -> float:
    """Geometric mean, exactly the value where all are equal."""
    return float(flops[0] if np.ptp(flops) == 0 else np.exp(np.mean(np.log(flops))))


def _apart(surface: Surface, points: Points, groups: np.ndarray) -> tuple[np.ndarray, list[LeftOut]]:
    """Which runs went wrong, as diverged ones: far above the surface, and above where their neighbours would have them.

    A surface that misses a whole side of a valley makes outliers of it that are none: there the neighbours are as far
    from the surface, and the run is not far from the line through theirs.
    """
    logs = np.log(points.output) - np.log(evaluate(surface.law, surface.values, points.inputs))
    found = outliers(logs, len(surface.law.parameters), grain=ROUNDING)
    which = np.zeros(len(logs), bool)
    for i in np.flatnonzero(found.which & (logs > WENT_WRONG)):
        which[i] = logs[i] - _expected(np.log(points.inputs["params"]), logs, i, groups == groups[i]) > WENT_WRONG
    left_out = [
        LeftOut(
            points.runs[i],
            f"an outlier: its loss is {np.exp(logs[i]):.3g} times the fitted law's, {found.factors[i]:.3g} times the "
            "scatter of the runs",
        )
        for i in np.flatnonzero(which)
    ]
    return which, left_out


def _expected(x: np.ndarray, logs: np.ndarray, i: int, valley: np.ndarray) -> float:
    """What a run's distance from the surface would be on the line through the two other sizes nearest to it."""
    sizes = np.setdiff1d(x[valley], x[i])
    near = sizes[np.argsort(np.abs(sizes - x[i]))[:2]]
    values = [np.median(logs[valley & (x == size)]) for size in near]
    if len(near) < 2:
        return float(np.sum(values))
    return float(values[0] + (values[1] - values[0]) * (x[i] - near[0]) / (near[1] - near[0]))


def _moved(surface: Surface, points: Points, factor: np.ndarray) -> np.ndarray:
    """What each loss is multiplied by when its tokens are multiplied by `factor` (points,), on the surface."""
    moved = {**points.inputs, "tokens": points.inputs["tokens"] * factor}
    here, there = (evaluate(surface.law, surface.values, inputs) for inputs in (points.inputs, moved))
    return there / here


def _are_seeds(rows: pd.DataFrame, used: pd.DataFrame) -> bool:
    """Whether all runs of one size at one budget differ in their seed and in no setting of training."""
    repeated = used.duplicated(["group", "params"], keep=False)
    if not repeated.any() or "seed" not in rows.columns:
        return False
    settings = [name for name in SETTINGS if name in rows.columns]
    cells = pd.concat([used[["group", "params"]], rows[["seed", *settings]]], axis=1)[repeated]
    by_size = cells.groupby(["group", "params"], dropna=False)
    one_setting = all((by_size[name].nunique(dropna=False) == 1).all() for name in settings)
    return bool(cells["seed"].notna().all() and (by_size["seed"].nunique() == by_size.size()).all() and one_setting)


def _budget(flops: float, members: pd.DataFrame, are_seeds: bool) -> Budget:
    by_size = members.groupby("params")
    loss = by_size["loss"].mean() if are_seeds else by_size["loss"].min()
    best = members.loc[by_size["loss"].idxmin()]
    repeats = by_size.size().to_numpy() if are_seeds else np.ones(len(loss), int)
    tokens = by_size["tokens"].mean() if are_seeds else best.set_index("params")["tokens"]
    return Budget(
        flops=flops,
        log_params=np.log(loss.index.to_numpy(np.float64)),
        log_tokens=np.log(tokens.to_numpy(np.float64)),
        loss=loss.to_numpy(np.float64),
        repeats=repeats,
        runs=len(members),
    )


def _noise(
    surface: Surface, points: Points, budgets: list[Budget], seeds: pd.DataFrame | None, noise_nats: float | None
) -> Noise:
    if noise_nats is not None:
        return Noise(float(noise_nats), False, "as stated")
    if seeds is not None:
        logs = np.log(seeds["loss"])
        cells = logs.groupby([seeds["group"], seeds["params"]])
        freedom = len(logs) - cells.ngroups
        share = float(np.sqrt(np.sum((logs - cells.transform("mean")) ** 2) / freedom))
        return Noise(share, True, "between repeated seeds", freedom)
    return _noise_without_seeds(surface, points, budgets)


def _noise_without_seeds(surface: Surface, points: Points, budgets: list[Budget]) -> Noise:
    """The scatter of residuals from the surface, or that between neighbouring sizes where the surface misses more."""
    residuals = np.log(points.output) - np.log(evaluate(surface.law, surface.values, points.inputs))
    around, freedom = _deviation(residuals, len(surface.law.parameters))
    steps = np.concatenate([_fourth_differences(budget.log_params, np.log(budget.loss)) for budget in budgets] or [[]])
    if len(steps) >= FEWEST_DIFFERENCES:
        along, steps_freedom = _deviation(steps, 0)
        # Neighbouring differences share four of five points: together they are worth about half as many.
        limit = scipy.special.fdtri(freedom, steps_freedom / 2, SURE)
        if around**2 > limit * along**2:
            return Noise(
                along, True, "between neighbouring sizes, of which the fitted law misses more", steps_freedom // 2
            )
    return Noise(around, True, "of the residuals from the fitted law", freedom)


def _deviation(values: np.ndarray, parameters: int) -> tuple[float, int]:
    """Standard deviation around zero, without outliers, and its degrees of freedom, at least one.

    The runs that state a budget may be fewer than the law's parameters, which others helped to fit.
    """
    inner = values[~outliers(values, parameters, grain=ROUNDING).which]
    freedom = max(len(inner) - parameters, 1)
    return float(np.sqrt(np.sum(inner**2) / freedom)), freedom


def _fourth_differences(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """What a cubic through four of each five neighbours misses the fifth by, scaled to the deviation of one point."""
    missed = []
    for first in range(len(x) - 4):
        near = x[first : first + 5]
        gaps = near[:, None] - near + np.eye(5)
        factors = 1 / np.prod(gaps, axis=1)
        missed.append(factors @ y[first : first + 5] / np.linalg.norm(factors))
    return np.array(missed)

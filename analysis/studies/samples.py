"""What more samples of an answer buy, from a table with one row a sample: success against samples, by way of choosing.

Every way is estimated at k = 1, 2, 4, ... from the same pool of samples a problem, as the mean over its subsets of k
(`analysis.answers`); a problem with fewer than k samples is left out at k, and counted. Intervals are a bootstrap of
problems, and where several models answered the same problems one resample serves all of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.special

from analysis.answers import Pool, best_of, coverage, drawn_vote, is_drawn, majorities, plateau, pools_of
from analysis.fit import FitError, LeftOut
from analysis.intervals import Interval, bca_interval, bootstrap_weights, check_sampling, jackknife_weights
from analysis.quantities import counted
from analysis.sampling import SEVERAL_FITS, Sampling
from analysis.studies.hyperparameters import cell_name, cells_of
from analysis.tables.files import notes_of

WAYS = {
    "coverage": "any of them is right",
    "best": "best by score",
    "majority": "majority vote",
    "weighted": "vote weighted by score",
}
CELL = ("params", "flops")
FEWEST_PROBLEMS = 3
ROUNDING = 1e-12  # of a share: two that differ by less are equal


@dataclass(frozen=True)
class Chosen:
    """Success with k samples, the mean over so many problems, those that have as many samples."""

    samples: int
    problems: int
    success: Interval


@dataclass(frozen=True)
class Curve:
    """One way of choosing: success at each number of samples.

    plateau: of votes, what ever more samples come to by the pool's own shares; None for other ways. best: the number of
    samples of the greatest success. enough: the least number that no larger one beats; None where the last still does.
    fall: success at the end above that at `best`, where all of its interval lies below 0. Both compare the same
    problems, at a level that allows for all comparisons of the curve.
    """

    way: str
    points: tuple[Chosen, ...]
    plateau: Interval | None
    best: int
    enough: int | None
    fall: Interval | None


@dataclass(frozen=True)
class Answered:
    """One model's (or one setting's) answers. samples: the fewest and the most of a problem; NaN sizes are unknown.

    tokens_per_sample: the mean over samples.
    """

    cell: dict[str, float | str]
    problems: int
    samples: tuple[int, int]
    params: float
    flops: float
    tokens_per_sample: float
    curves: tuple[Curve, ...]
    short: tuple[LeftOut, ...]

    @property
    def title(self) -> str:
        """What tells it from the others; nothing where it is alone."""
        return cell_name(self.cell).removeprefix("cell ") if self.cell else ""


@dataclass(frozen=True)
class Resampled:
    """Resamples of the problems: (bootstraps, problems) how often each counts, and (parts, problems) with parts out."""

    weights: np.ndarray
    jackknife: np.ndarray

    def means(self, values_PX: np.ndarray) -> "Means":
        """Means over problems of values (problems, ...), NaN where a problem has none."""
        is_known, known = np.isfinite(values_PX), np.nan_to_num(values_PX)

        def over(weights: np.ndarray) -> np.ndarray:
            with np.errstate(invalid="ignore"):  # a resample without any of these problems has no mean
                return np.tensordot(weights, known, 1) / np.tensordot(weights, is_known, 1)

        every = np.ones((1, len(values_PX)))
        return Means(over(every)[0], over(self.weights), over(self.jackknife))


@dataclass(frozen=True)
class Means:
    """A mean (...), its draws (bootstraps, ...) and its jackknife (parts, ...)."""

    value: np.ndarray
    draws: np.ndarray
    jackknife: np.ndarray

    def interval(self, level: float, *at: int) -> Interval:
        """The interval of one of several means."""
        own = (slice(None), *at)
        return bca_interval(float(self.value[at]), self.draws[own], self.jackknife[own], level)


@dataclass(frozen=True)
class Pooled:
    """One cell's pools as numbers, a row for each problem of the whole table, NaN where it has none.

    ks: numbers of samples (K,). values: for each way (problems, K); plateaus: for each vote (problems,). counts:
    samples, and those that are right, of each problem (problems, 2).
    """

    answered: Answered
    ks: tuple[int, ...]
    values: Mapping[str, np.ndarray]
    plateaus: Mapping[str, np.ndarray]
    counts: np.ndarray

    @property
    def shared(self) -> np.ndarray:
        """Which ks (K,) every problem of the cell has samples for: a law is fitted to those."""
        return np.sum(np.isfinite(self.values["coverage"]), axis=0) == self.answered.problems


@dataclass(frozen=True)
class SampleCurves:
    """All cells of a table with their curves, the resamples behind them, and what was left out or concluded."""

    pooled: tuple[Pooled, ...]
    resampled: Resampled
    cell: tuple[str, ...]
    sampling: Sampling
    left_out: tuple[LeftOut, ...]
    table_notes: tuple[str, ...]


def sample_curves(table: pd.DataFrame, cell: Sequence[str] = (), sampling: Sampling = SEVERAL_FITS) -> SampleCurves:
    """Success against samples for every way of choosing that the table allows.

    table: one row a sample, with problem and correct (0 or 1); answer allows votes, score the best of k and weighted
    votes; params, flops (training FLOPs) and tokens_per_sample are of whoever answered. cell: columns whose equal
    values make one such; by default those of params and flops that are there. Raises FitError as `pools_of` does, for a
    missing column, and for fewer than 3 problems.
    """
    check_sampling(sampling)
    for name in ("problem", "correct", *cell):
        if name not in table.columns:
            raise FitError(f"table: missing column {name!r}. Fix: add it, or name yours, as --column {name}=YOURS.")
    cell = tuple(cell) or tuple(name for name in CELL if name in table.columns and table[name].notna().any())
    known = table[[*cell]].notna().all(axis=1).to_numpy(bool)
    left_out = [LeftOut(f"row {i}", f"one of {', '.join(cell)} is missing") for i in table.index[~known]]
    cells, notes = [], list(notes_of(table))
    for at, rows in cells_of(table[known], cell) if cell else [({}, table)]:
        pools, gone, concluded = pools_of(rows)
        left_out += gone
        notes += [f"{cell_name(at)}: {note}" if cell else note for note in concluded]
        cells.append((at, rows, pools))
    names = dict.fromkeys(pool.problem for _, _, pools in cells for pool in pools)
    problems = {name: i for i, name in enumerate(names)}
    if len(problems) < FEWEST_PROBLEMS:
        raise FitError(
            f"problem: {counted(len(problems), 'value')}; intervals resample problems, and need at least "
            f"{FEWEST_PROBLEMS}. Fix: sample answers to more problems."
        )
    resampled = _resampled(len(problems), sampling)
    pooled = tuple(_pooled(at, rows, pools, problems, resampled, sampling) for at, rows, pools in cells)
    if any(is_drawn(pool.samples, k) for one, (_, _, pools) in zip(pooled, cells) for pool in pools for k in one.ks):
        notes.append("majorities among many samples are means over drawn subsets, not all of them")
    return SampleCurves(pooled, resampled, cell, sampling, tuple(left_out), tuple(notes))


def success_table(curves: SampleCurves) -> pd.DataFrame:
    """One row per cell, way of choosing and number of samples: a table for `isoflop fit` and the laws of samples.

    gain: success above that of one sample, of the same problems; coverage: of any of the samples, for that way alone.
    """
    rows = []
    for one in curves.pooled:
        for curve in one.answered.curves:
            for i, point in enumerate(curve.points):
                gain = curves.resampled.means(one.values[curve.way][:, i] - one.values[curve.way][:, 0])
                row = {
                    "run": f"{one.answered.title} {curve.way} of {point.samples}".strip(),
                    **one.answered.cell,
                    "way": curve.way,
                    "samples": point.samples,
                    "problems": point.problems,
                    "success": point.success.value,
                    "gain": float(gain.value),
                }
                rows.append({**row, "coverage": point.success.value if curve.way == "coverage" else np.nan})
    return pd.DataFrame(rows)


def _resampled(problems: int, sampling: Sampling) -> Resampled:
    alone, generator = np.arange(problems), np.random.default_rng(sampling.seed)
    weights = bootstrap_weights(generator, alone, np.zeros(problems, int), sampling.bootstraps)
    return Resampled(weights, jackknife_weights(alone))


def _pooled(
    at: dict[str, float | str],
    rows: pd.DataFrame,
    pools: tuple[Pool, ...],
    problems: Mapping[str, int],
    resampled: Resampled,
    sampling: Sampling,
) -> Pooled:
    most = max(pool.samples for pool in pools)
    ks = tuple(2**i for i in range(most.bit_length()))
    scored, voting = ([getattr(pool, name) is not None for pool in pools] for name in ("scores", "answers"))
    ways = {"coverage": True, "best": any(scored), "majority": any(voting), "weighted": any(scored) and any(voting)}
    values = {way: np.full((len(problems), len(ks)), np.nan) for way, is_there in ways.items() if is_there}
    plateaus = {way: np.full(len(problems), np.nan) for way in ("majority", "weighted") if way in values}
    counts = np.zeros((len(problems), 2), int)
    for pool in pools:
        row = problems[pool.problem]
        reached = [k for k in ks if k <= pool.samples]
        counts[row] = pool.samples, int(pool.correct.sum())
        for way, found in _chances(pool, reached, [sampling.seed, row]).items():
            values[way][row, : len(reached)] = found
        if pool.answers is not None:
            plateaus["majority"][row] = plateau(pool.ballot().counts, pool.right())
            if pool.scores is not None:
                plateaus["weighted"][row] = plateau(pool.totals(), pool.right())
    means = {way: resampled.means(value) for way, value in values.items()}
    limits = {way: resampled.means(value).interval(sampling.level) for way, value in plateaus.items()}
    curves = tuple(
        _curve(way, ks, values[way], means[way], limits.get(way), resampled, sampling.level) for way in values
    )
    params, flops, tokens = (_size(rows, name) for name in ("params", "flops", "tokens_per_sample"))
    unscored = f"a sample has no score: left out of {WAYS['best']} and {WAYS['weighted']}"
    short = tuple(
        LeftOut(pool.problem, unscored) for pool, is_scored in zip(pools, scored) if any(scored) and not is_scored
    )
    samples = (min(pool.samples for pool in pools), most)
    answered = Answered(at, len(pools), samples, params, flops, tokens, curves, short)
    return Pooled(answered, ks, values, plateaus, counts)


def _chances(pool: Pool, ks: Sequence[int], seed: Sequence[int]) -> dict[str, np.ndarray]:
    """The chance of success at each of `ks` for each way that this pool allows."""
    successes = int(pool.correct.sum())
    found = {"coverage": np.array([coverage(pool.samples, successes, k) for k in ks])}
    if pool.scores is not None:
        found["best"] = best_of(pool.correct, pool.scores, ks)
    if pool.answers is not None:
        found["majority"] = majorities(pool.ballot(), ks, seed)
        if pool.scores is not None:
            found["weighted"] = drawn_vote(pool.answers, pool.weights(), pool.right(), ks, seed)
    return found


def _size(rows: pd.DataFrame, name: str) -> float:
    if name not in rows.columns:
        return float("nan")
    values = pd.to_numeric(rows[name].astype(object), errors="coerce").to_numpy(np.float64, na_value=np.nan)
    positive = values[np.isfinite(values) & (values > 0)]
    return float(positive.mean()) if len(positive) else float("nan")


def _curve(
    way: str,
    ks: Sequence[int],
    values_PK: np.ndarray,
    means: Means,
    limit: Interval | None,
    resampled: Resampled,
    level: float,
) -> Curve:
    problems = np.sum(np.isfinite(values_PK), axis=0)
    used = [i for i in range(len(ks)) if problems[i]]
    points = tuple(Chosen(ks[i], int(problems[i]), means.interval(level, i)) for i in used)
    best = max(used, key=lambda i: (round(float(means.value[i]), 12), -i))
    width = scipy.special.ndtri(1 - (1 - level) / 2 / max(len(used) - 1, 1))

    def gain(later: int, earlier: int) -> Interval:
        found = resampled.means(values_PK[:, later] - values_PK[:, earlier])
        reach = width * float(np.nanstd(found.draws))
        return Interval(float(found.value), float(found.value) - reach, float(found.value) + reach)

    beaten = {i: any(gain(j, i).low > ROUNDING for j in used if j > i) for i in used}
    enough = next((ks[i] for i in used if not any(beaten[j] for j in used if j >= i)), None)
    last = used[-1]
    fall = gain(last, best) if best != last else None
    is_fall = fall is not None and fall.high < -ROUNDING
    return Curve(way, points, limit, ks[best], enough if enough != ks[last] else None, fall if is_fall else None)

"""Several laws on one table, ranked by what their extrapolations were worth in the past, not by how close they fit.

Each law is back-tested on the same runs with the same cuts (`backtesting`). A difference between two laws is read
beside its own noise: runs are drawn again with replacement, each with all its errors under both laws.

Families of runs side by side, under one law each, are `comparison`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.fit import HUBER, FitError, LeftOut, Objective, fit, select, those_left_out
from analysis.intervals import NOT_DETERMINED, Interval, percentile_interval
from analysis.laws import Law
from analysis.runs_table import complete
from analysis.sampling import SEVERAL_FITS, Sampling
from analysis.studies.backtesting import Backtest, Cut, backtest

SIDES = 2  # the best law is only known to be the best once it is seen, so either of two laws may be
DRAWS = 2000  # of the runs, for the noise of a difference: a mean each, which costs nothing


@dataclass(frozen=True)
class RankedLaw:
    """One law's back-test, and how much worse than the best law it is.

    constants: how many were fitted; residual_scale: of the fit to all runs. mean_absolute_error, mean_relative_error,
    hit_rate: over the scored pairs of a cut and a run that all laws share. worse: mean absolute error minus that of the
    best law, with its interval, which fewer than `fewest_runs` do not determine; None for the best.
    """

    law: Law
    constants: int
    residual_scale: float
    backtest: Backtest
    mean_absolute_error: float
    mean_relative_error: float
    hit_rate: float
    worse: Interval | None

    @property
    def apart(self) -> bool:
        """Whether the best law is better than this one beyond the noise of the runs."""
        return self.worse is not None and self.worse.low > 0


@dataclass(frozen=True)
class Ranking:
    """Laws from the least back-test error to the largest.

    unranked: each other law's name and why it has no place. cuts: those below which every ranked law has a fit;
    scored: pairs of such a cut and a row above it, of `runs` different runs. left_out: rows that not every law can use,
    and that no law saw, with the reason of the first that cannot; without: how many of them some law can use.
    table_notes: as in a `Study`.
    """

    output: str
    by: str
    level: float
    objective: Objective
    ranked: tuple[RankedLaw, ...]
    unranked: tuple[tuple[str, str], ...]
    cuts: tuple[float, ...]
    scored: int
    runs: int
    without: int
    left_out: tuple[LeftOut, ...]
    table_notes: tuple[str, ...]

    def by_cut(self, one: RankedLaw) -> np.ndarray:
        """Mean absolute error of a law above each of `cuts`: (cuts,)."""
        return np.array([cut.mean_absolute_error for cut in one.backtest.cuts if cut.below in self.cuts])

    @property
    def lowest_half(self) -> int:
        """How many of the lowest cuts have half of the scored pairs; low cuts have more rows above them."""
        pairs = [len(cut.runs) for cut in self.ranked[0].backtest.cuts if cut.below in self.cuts]
        return int(np.argmax(2 * np.cumsum(pairs) >= self.scored)) + 1


def fewest_runs(level: float) -> int:
    """How many different runs must be predicted for a difference between two laws to be told from noise at a level.

    Of two laws that are equally good, one is nearer in every one of n runs with probability 2 * 0.5^n; whatever the
    errors are, no interval of fewer runs than make that 1 - level can leave zero out with that confidence.
    """
    return int(np.ceil(np.log2(SIDES / (1 - level)) - 1e-9))


def rank_laws(
    laws: Sequence[Law],
    table: pd.DataFrame,
    *,
    by: str = "flops",
    cuts: Sequence[float] = (),
    objective: Objective = HUBER,
    sampling: Sampling = SEVERAL_FITS,
) -> Ranking:
    """Back-test each law on the runs that all of them can use, and rank them by mean absolute error.

    by, cuts: as in `backtest`. A law of another output than the first, or one that cannot be fitted to the table or
    below any cut, is listed with the reason. Raises FitError for fewer than two laws, two of one name, or where none or
    no cut is left.
    """
    names = [law.name for law in laws]
    if len(names) < 2 or len(set(names)) < len(names):
        raise FitError(f"laws = {', '.join(names) or 'none'}: must be two or more different ones. Fix: name others.")
    table = complete(table)
    usable, reasons, unranked = _usable(laws, table)
    common = np.array(sorted(set.intersection(*(set(rows) for rows in usable.values())))) if usable else np.array([])
    if not len(common):
        raise FitError("laws: no run can be used by all of them. Fix: leave some out: " + _counts(unranked, usable))
    not_shared = tuple(reasons[row] for row in sorted(reasons.keys() - set(common.tolist())))
    settings = {"by": by, "cuts": cuts, "objective": objective, "sampling": sampling}
    tests, scales, failed = _tested([law for law in laws if law.name in usable], table.iloc[common], **settings)
    unranked += failed
    if not tests:
        those = those_left_out(not_shared, len(common))
        raise FitError(f"laws: none can be back-tested. The first, {unranked[0][0]}: {unranked[0][1]}{those}")
    kept = [i for i in range(len(next(iter(tests.values())).cuts)) if not any(t.cuts[i].reason for t in tests.values())]
    if not kept:
        raise FitError("cuts: below none of them all laws have a fit. Fix: cut higher, or leave out the longest law.")
    ranked = _ranked([law for law in laws if law.name in tests], tests, scales, kept, sampling)
    best = ranked[0].backtest
    scored = [best.cuts[i] for i in kept]
    everything = set().union(*(set(rows) for rows in usable.values()))
    return Ranking(
        output=best.output,
        by=by,
        level=sampling.level,
        objective=objective,
        ranked=ranked,
        unranked=tuple(unranked),
        cuts=tuple(cut.below for cut in scored),
        scored=sum(len(cut.runs) for cut in scored),
        runs=len({run for cut in scored for run in cut.runs}),
        without=len(everything) - len(common),
        left_out=not_shared,
        table_notes=best.table_notes,
    )


def _usable(
    laws: Sequence[Law], table: pd.DataFrame
) -> tuple[dict[str, np.ndarray], dict[int, LeftOut], list[tuple[str, str]]]:
    """The rows that each law can use, those that some cannot, and the laws that can use none or give something else."""
    usable: dict[str, np.ndarray] = {}
    reasons: dict[int, LeftOut] = {}
    unranked = []
    for law in laws:
        if law.output != laws[0].output:
            unranked.append((law.name, f"gives {law.output}, and {laws[0].name} {laws[0].output}"))
            continue
        try:
            points, left_out = select(law, table)
        except FitError as error:
            unranked.append((law.name, str(error)))
            continue
        if len(points.runs):
            usable[law.name] = points.rows
            others = np.setdiff1d(np.arange(len(table)), points.rows)
            reasons = {**dict(zip(others.tolist(), left_out, strict=True)), **reasons}
        else:
            unranked.append((law.name, f"no run can be used; the first: {left_out[0].reason}"))
    return usable, reasons, unranked


def _tested(
    laws: Sequence[Law], table: pd.DataFrame, *, objective: Objective, **settings: Any
) -> tuple[dict[str, Backtest], dict[str, float], list[tuple[str, str]]]:
    """The back-test of each law and the residual scale of its fit to all rows, and why the others have none."""
    tests, scales, failed = {}, {}, []
    for law in laws:
        try:
            scales[law.name] = fit(law, table, objective).residual_scale
            tests[law.name] = backtest(law, table, objective=objective, **settings)
        except FitError as error:
            failed.append((law.name, str(error)))
    return tests, scales, failed


def _counts(unranked: Sequence[tuple[str, str]], usable: dict[str, np.ndarray]) -> str:
    counts = [f"{name} can use {len(rows)} rows" for name, rows in usable.items()]
    return "; ".join([*counts, *(f"{name}: {reason}" for name, reason in unranked)]) + "."


def _ranked(
    laws: Sequence[Law],
    tests: dict[str, Backtest],
    scales: dict[str, float],
    kept: Sequence[int],
    sampling: Sampling,
) -> tuple[RankedLaw, ...]:
    """The laws by mean absolute error over the cuts `kept`, each beside the best."""
    cuts = {name: [test.cuts[i] for i in kept] for name, test in tests.items()}
    errors = {name: _pairs(found, lambda cut: np.abs(cut.predicted - cut.measured)) for name, found in cuts.items()}
    runs = pd.factorize(np.concatenate([cut.runs for cut in next(iter(cuts.values()))]))[0]
    best = min(errors, key=lambda name: errors[name].mean())
    found = []
    for law in laws:
        mine = cuts[law.name]
        difference = errors[law.name] - errors[best]
        found.append(
            RankedLaw(
                law=law,
                constants=len(law.parameters),
                residual_scale=scales[law.name],
                backtest=tests[law.name],
                mean_absolute_error=float(errors[law.name].mean()),
                mean_relative_error=float((errors[law.name] / np.abs(_pairs(mine, lambda cut: cut.measured))).mean()),
                hit_rate=float(_pairs(mine, lambda c: (c.low <= c.measured) & (c.measured <= c.high)).mean()),
                worse=None if law.name == best else _mean_over_runs(difference, runs, sampling),
            )
        )
    return tuple(sorted(found, key=lambda one: one.mean_absolute_error))


def _pairs(cuts: Sequence[Cut], number) -> np.ndarray:
    return np.concatenate([number(cut) for cut in cuts])


def _mean_over_runs(values: np.ndarray, runs: np.ndarray, sampling: Sampling) -> Interval:
    """The mean of values (pairs,), with the interval of means over runs drawn again; runs: (pairs,) whose each is."""
    sums, counts = np.bincount(runs, values), np.bincount(runs)
    if len(sums) < fewest_runs(sampling.level):
        return Interval(float(values.mean()), -np.inf, np.inf, NOT_DETERMINED)
    drawn = np.random.default_rng(sampling.seed).multinomial(len(sums), np.full(len(sums), 1 / len(sums)), DRAWS)
    return percentile_interval(float(values.mean()), (drawn @ sums) / (drawn @ counts), sampling.level)

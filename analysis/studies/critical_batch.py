"""The critical batch from a sweep of batches: what a loss takes in tokens and in steps, against the batch.

McCandlish et al. 2018, arXiv:1812.06162, section 2.3: a loss that takes E tokens and S steps in batches of E / S tokens
follows (S / S_min - 1) (E / E_min - 1) = 1, so that tokens grow linearly with the batch and have doubled at the
critical batch E_min / S_min. Zhang et al. 2024, arXiv:2410.21676, call critical the batch that takes a fifth more than
in proportion, which under this law is a fifth of the one here.

Each batch's curve of loss against tokens comes from a table's rows: runs that were each trained to their own end (best,
since a run stopped halfway has not lowered its learning rate), or a run's checkpoints. At each number of tokens the
best learning rate counts, seeds averaged, so a sweep that stops short of it for large batches makes the critical batch
look small.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.fit import LEAST_SQUARES, FitError, LeftOut, fit_points, select
from analysis.intervals import NOT_DETERMINED, Interval, Profile, check_level, profile
from analysis.intervals.interval import OPEN_ABOVE, OPEN_BELOW
from analysis.laws import Law, Parameter, find
from analysis.runs_table import complete
from analysis.studies.hyperparameters import cell_name, cells_of, sweep_rows
from analysis.tables.files import notes_of

CELL = ("params",)
SETTINGS = ("learning_rate", "weight_decay")  # what may be swept beside the batch; the best one counts
FEWEST_BATCHES = 3  # one more than the law has constants
DEFAULT_LOSSES = 3

# The law of `analysis/laws/critical_batch.py` with the fewest steps in place of the critical batch, for their interval.
BY_STEPS = Law(
    name="critical_batch_by_steps",
    formula="tokens = tokens_min + steps_min batch_tokens",
    citation="McCandlish et al. 2018, arXiv:1812.06162, section 2.3",
    inputs=("batch_tokens",),
    output="tokens",
    parameters=(
        Parameter("tokens_min", "tokens", "tokens that the loss takes in the smallest batches"),
        Parameter("steps_min", "steps", "steps that the loss takes in the largest batches"),
    ),
    predict=lambda p, x: p["tokens_min"] + p["steps_min"] * x["batch_tokens"],
)


@dataclass(frozen=True)
class Reached:
    """One batch at one loss: tokens between the two measured losses around it, by straight lines in logarithms.

    noise_scale_tokens: the runs' own, read in the same place; NaN where they have none. at_edge: the best learning rate
    of a run beside it is the largest or the smallest one tried.
    """

    batch_tokens: float
    tokens: float
    noise_scale_tokens: float
    at_edge: bool

    @property
    def steps(self) -> float:
        """Optimizer steps to the loss."""
        return self.tokens / self.batch_tokens


@dataclass(frozen=True)
class CriticalBatch:
    """One loss in one cell: the law through what each batch took to reach it.

    critical_batch and tokens_min in tokens, steps_min the latter over the former; None where `reason` says why. missed:
    batches that never reach the loss, or have done so when they are first measured.
    """

    cell: dict[str, float | str]
    loss_nats: float
    reached: tuple[Reached, ...]
    missed: tuple[LeftOut, ...]
    critical_batch: Interval | None
    tokens_min: Interval | None
    steps_min: Interval | None
    reason: str

    @property
    def noise_scale_tokens(self) -> float:
        """The median over batches that have one, NaN where none has."""
        known = [one.noise_scale_tokens for one in self.reached if np.isfinite(one.noise_scale_tokens)]
        return float(np.median(known)) if known else float("nan")


@dataclass(frozen=True)
class CriticalBatches:
    """What a sweep says of critical batches; level: of the intervals, which hold the scatter around the law alone."""

    found: tuple[CriticalBatch, ...]
    cell: tuple[str, ...]
    level: float
    left_out: tuple[LeftOut, ...]
    table_notes: tuple[str, ...]


def critical_batches(
    table: pd.DataFrame,
    losses: Sequence[float] = (),
    *,
    cell: Sequence[str] = CELL,
    level: float = 0.9,
) -> CriticalBatches:
    """The critical batch of each cell at each of `losses`, nats per token.

    table: batch_tokens, tokens, loss_nats, the columns of `cell`, and where there are any learning_rate, weight_decay
    and noise_scale_tokens. losses: by default three of each cell, evenly spread in logarithm inside of what all batches
    cross. Raises FitError for a missing column, a loss that is not positive, a level outside (0, 1), or a cell in which
    no loss is crossed by all batches where none is given.
    """
    check_level(level)
    if any(not loss > 0 for loss in losses):
        raise FitError(f"losses = {', '.join(f'{x:g}' for x in losses)}: must be positive. Fix: give nats per token.")
    rows, left_out = sweep_rows(table, cell, ("batch_tokens", "tokens"))
    found = []
    for at, group in cells_of(rows, cell):
        curves = {batch: _curve(own) for batch, own in group.groupby("batch_tokens", sort=True)}
        found += [_at_loss(at, curves, loss, level) for loss in losses or _crossed_by_all(at, curves)]
    return CriticalBatches(tuple(found), tuple(cell), level, left_out, tuple(notes_of(rows)))


def points_table(found: CriticalBatches) -> pd.DataFrame:
    """One row per batch and loss: a table that `isoflop fit --law critical_batch --where loss_nats=...` reads."""
    rows = [
        {
            "run": f"batch {point.batch_tokens:g} to {one.loss_nats:.6g}",
            **one.cell,
            "loss_nats": one.loss_nats,
            "batch_tokens": point.batch_tokens,
            "tokens": point.tokens,
            "steps": round(point.steps),
            "noise_scale_tokens": point.noise_scale_tokens,
        }
        for one in found.found
        for point in one.reached
    ]
    return pd.DataFrame(rows)


def _curve(rows: pd.DataFrame) -> pd.DataFrame:
    """Of one batch, by tokens: the loss at the best settings, the noise scale there, whether they are at an edge."""
    measured = rows["noise_scale_tokens"] if "noise_scale_tokens" in rows.columns else pd.Series(np.nan, rows.index)
    scales = pd.to_numeric(measured, errors="coerce").astype("float64")
    rows = rows.assign(noise_scale_tokens=scales.where(scales > 0))
    settings = [name for name in SETTINGS if name in rows.columns and rows[name].notna().all()]
    by = ["tokens", *settings]
    means = rows.groupby(by, as_index=False)[["loss_nats", "noise_scale_tokens"]].mean()
    best = means.loc[means.groupby("tokens")["loss_nats"].idxmin()].set_index("tokens", drop=False)
    edge = pd.Series(False, best.index)
    if "learning_rate" in settings:
        rates = means.groupby("tokens")["learning_rate"].agg(["min", "max"])
        at_end = best["learning_rate"].eq(rates["min"]) | best["learning_rate"].eq(rates["max"])
        edge = at_end & rates["min"].lt(rates["max"])
    return best.assign(at_edge=edge).sort_index().reset_index(drop=True)


def _crossed_by_all(at: dict[str, float | str], curves: dict[float, pd.DataFrame]) -> list[float]:
    first = min(float(curve["loss_nats"].iloc[0]) for curve in curves.values())
    last = max(float(curve["loss_nats"].min()) for curve in curves.values())
    if not last < first:
        raise FitError(
            f"losses: none is crossed by all {len(curves)} batches of {cell_name(at)}: one is first measured at "
            f"{first:.4g}, another ends at {last:.4g}. Fix: give losses that some cross, or train more lengths."
        )
    return np.geomspace(first, last, DEFAULT_LOSSES + 2)[1:-1].tolist()


def _at_loss(at: dict[str, float | str], curves: dict[float, pd.DataFrame], loss: float, level: float) -> CriticalBatch:
    reached, missed = [], []
    for batch, curve in curves.items():
        point = _crossing(float(batch), curve, loss)
        if isinstance(point, str):
            missed.append(LeftOut(f"batch of {batch:g} tokens at {loss:.4g} nats", point))
        else:
            reached.append(point)
    critical = tokens_min = steps_min = None
    reason = ""
    if len(reached) < FEWEST_BATCHES:
        reason = f"of {len(curves)} batches {len(reached)} cross this loss, and the law needs {FEWEST_BATCHES}"
    else:
        critical, tokens_min, steps_min = _fitted(reached, level)
    return CriticalBatch(at, float(loss), tuple(reached), tuple(missed), critical, tokens_min, steps_min, reason)


def _crossing(batch: float, curve: pd.DataFrame, loss: float) -> Reached | str:
    """Where the curve first comes down to the loss, or why it does not."""
    losses = curve["loss_nats"].to_numpy(np.float64)
    below = np.flatnonzero(losses <= loss)
    if len(below) == 0:
        return f"ends at {losses.min():.4g}"
    if below[0] == 0:
        return f"is at {losses[0]:.4g} when it is first measured"
    ends = curve.iloc[[below[0] - 1, below[0]]]
    start, stop = np.log(ends["loss_nats"].to_numpy(np.float64))
    share = (start - np.log(loss)) / (start - stop)

    def between(name: str) -> float:
        low, high = np.log(ends[name].to_numpy(np.float64))
        return float(np.exp(low + share * (high - low)))

    return Reached(batch, between("tokens"), between("noise_scale_tokens"), bool(ends["at_edge"].any()))


def _fitted(reached: Sequence[Reached], level: float) -> tuple[Interval, Interval, Interval]:
    """critical_batch, tokens_min and steps_min; intervals by profile likelihood, for resamples of so few say little."""
    laws = {"critical_batch": find("critical_batch"), "tokens_min": find("critical_batch"), "steps_min": BY_STEPS}
    table = complete(
        pd.DataFrame({name: [getattr(one, name) for one in reached] for name in ("batch_tokens", "tokens")})
    )
    found = {}
    for law in dict.fromkeys(laws.values()):
        points, left_out = select(law, table)
        result = fit_points(law, points, left_out, LEAST_SQUARES)
        profiles = profile(result, points, level)
        found[law] = {name: _interval(result.values[name], profiles[name]) for name in law.names}
    return tuple(found[law][name] for name, law in laws.items())


def _interval(value: float, held: Profile) -> Interval:
    notes = {(True, True): "", (True, False): OPEN_ABOVE, (False, True): OPEN_BELOW, (False, False): NOT_DETERMINED}
    low, high = held.low if held.closed_below else 0.0, held.high if held.closed_above else np.inf
    return Interval(value, low, high, notes[held.closed_below, held.closed_above])

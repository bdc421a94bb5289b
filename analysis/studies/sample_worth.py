"""How much larger a model the samples of a smaller one are worth, where several sizes answered.

By the measured sizes: the size whose one sample succeeds as often, read between them by straight lines of the logit of
success in the logarithm of size, and beyond them along the line through all of them, which is flagged. And by a law of
training FLOPs and samples (`samples_worth`), which says what a smaller model needs to match a larger one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.special

from analysis.compute.serving import FORWARD_SHARE
from analysis.fit import LeftOut
from analysis.intervals import Estimate, Interval, bca_interval
from analysis.laws import find
from analysis.quantities import counted
from analysis.studies.sample_laws import CurveLaws, curve_laws, fitted
from analysis.studies.samples import Answered, Means, Pooled, SampleCurves

FEWEST_SIZES = 2


@dataclass(frozen=True)
class SizeFactor:
    """Choosing among `samples` of one size succeeds as often as one sample of a model `factor` times as large.

    extrapolated: no measured size succeeds as often with one sample.
    """

    title: str
    way: str
    samples: int
    factor: Interval
    extrapolated: bool


@dataclass(frozen=True)
class Match:
    """What a smaller size needs to match one sample of the largest, by the law. FLOPs are NaN where sizes are unknown.

    samples: the number needed; extrapolated: more than were drawn. flops_per_problem: of sampling, by the smaller size
    and by the largest. problems: answered problems beyond which training the larger is the cheaper way; infinite
    where sampling stays cheaper.
    """

    title: str
    way: str
    samples: Interval
    extrapolated: bool
    flops_per_problem: tuple[float, float]
    problems: float


@dataclass(frozen=True)
class Worth:
    """What samples are worth in size. size: params or flops, the column that factors are of; note: why there are none.

    laws: by way of choosing, None where law_notes says why.
    """

    size: str
    factors: tuple[SizeFactor, ...]
    note: str
    laws: dict[str, Estimate | None]
    law_notes: dict[str, str]
    matches: tuple[Match, ...]


@dataclass(frozen=True)
class SampleStudy:
    """All that `isoflop samples` says of a table; laws belong to `answered` one by one, `level` to every interval."""

    answered: tuple[Answered, ...]
    laws: tuple[CurveLaws, ...]
    worth: Worth | None
    cell: tuple[str, ...]
    level: float
    left_out: tuple[LeftOut, ...]
    table_notes: tuple[str, ...]


def sample_study(curves: SampleCurves) -> SampleStudy:
    """The laws of each cell's curves and, where there are several cells, what samples are worth in size."""
    sampling = curves.sampling
    laws = tuple(curve_laws(one, curves.resampled, sampling) for one in curves.pooled)
    worth = _worth(curves) if len(curves.pooled) > 1 else None
    answered = tuple(one.answered for one in curves.pooled)
    return SampleStudy(answered, laws, worth, curves.cell, sampling.level, curves.left_out, curves.table_notes)


def _worth(curves: SampleCurves) -> Worth:
    size = next((name for name in ("params", "flops") if len(_sized(curves.pooled, name)) >= FEWEST_SIZES), "")
    sized = _sized(curves.pooled, size) if size else []
    sizes = [getattr(one.answered, size) for one in sized]
    note = ""
    if not sized:
        note = "fewer than two cells have params or flops, and a factor of size needs two"
    elif len(set(sizes)) < len(sizes):
        note = f"several cells have the same {size}: name one setting of each size by --where"
    factors = () if note else tuple(_factors(sized, np.log(sizes), curves))
    laws, law_notes = _laws(_sized(curves.pooled, "flops"), curves)
    matches = tuple(
        match for way, law in laws.items() if law for match in _matches(way, law, curves.pooled, curves.sampling.level)
    )
    return Worth(size, factors, note, laws, law_notes, matches)


def _sized(pooled: Sequence[Pooled], size: str) -> list[Pooled]:
    """The cells whose size is known, from the smallest to the largest."""
    known = [one for one in pooled if np.isfinite(getattr(one.answered, size))]
    return sorted(known, key=lambda one: getattr(one.answered, size))


def _factors(sized: Sequence[Pooled], log_size_S: np.ndarray, curves: SampleCurves) -> list[SizeFactor]:
    one_S = curves.resampled.means(np.stack([one.values["coverage"][:, 0] for one in sized], axis=1))
    found = []
    for i, one in enumerate(sized):
        for way, values in one.values.items():
            means = curves.resampled.means(values)
            parts = zip(_parts(one_S), _parts(means), strict=True)
            value, draws, jackknife = (
                np.exp(np.array([_size_of(*pair, log_size_S) for pair in zip(*part, strict=True)]) - log_size_S[i])
                for part in parts
            )
            for j, k in enumerate(one.ks):
                if k > 1 and np.isfinite(means.value[j]):
                    interval = bca_interval(value[0, j], draws[:, j], jackknife[:, j], curves.sampling.level)
                    beyond = bool(means.value[j] > one_S.value.max())
                    found.append(SizeFactor(one.answered.title, way, k, interval, beyond))
    return found


def _parts(means: Means) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A mean, its draws and its jackknife, each with a first axis."""
    return means.value[None], means.draws, means.jackknife


def _size_of(one_S: np.ndarray, success_K: np.ndarray, log_size_S: np.ndarray) -> np.ndarray:
    """The logarithm (K,) of the size whose one sample has each success; NaN where success does not grow with size."""
    logit_S, wanted_K = scipy.special.logit(one_S), scipy.special.logit(success_K)
    known = np.isfinite(logit_S)
    if known.sum() < FEWEST_SIZES:
        return np.full(len(success_K), np.nan)
    x, y = log_size_S[known], logit_S[known]
    slope = np.polyfit(x, y, 1)[0]
    rising = np.maximum.accumulate(y)
    found = np.interp(wanted_K, rising, x)
    steep = slope if slope > 0 else np.nan
    found = np.where(wanted_K > rising[-1], x[-1] + (wanted_K - rising[-1]) / steep, found)
    return np.where(wanted_K < rising[0], x[0] + (wanted_K - rising[0]) / steep, found)


def _laws(sized: Sequence[Pooled], curves: SampleCurves) -> tuple[dict[str, Estimate | None], dict[str, str]]:
    laws: dict[str, Estimate | None] = {}
    notes: dict[str, str] = {}
    for way in dict.fromkeys(way for one in curves.pooled for way in one.values):
        having = [one for one in sized if way in one.values]
        flops = {one.answered.flops for one in having}
        if len(flops) < FEWEST_SIZES or len(flops) < len(having):
            cells = f"{counted(len(having), 'cell')} with {len(flops)} known flops"
            laws[way], notes[way] = None, f"{cells}, and the law needs two that differ, and one cell of each"
            continue
        rows = [(one, i) for one in having for i in np.flatnonzero(one.shared)]
        inputs = {
            "flops": np.array([one.answered.flops for one, _ in rows]),
            "samples": np.array([one.ks[i] for one, i in rows], np.float64),
        }
        success = curves.resampled.means(np.stack([one.values[way][:, i] for one, i in rows], axis=1))
        laws[way], notes[way] = fitted(find("samples_worth"), inputs, success, curves.sampling)
    return laws, notes


def _matches(way: str, law: Estimate, pooled: Sequence[Pooled], level: float) -> list[Match]:
    """Each smaller size against one sample of the largest."""
    *smaller, largest = _sized([one for one in pooled if way in one.values], "flops")
    exponent = law.fit.law.names.index("worth")
    found = []
    for one in smaller:
        ratio = np.log(largest.answered.flops / one.answered.flops)

        def needed(constants: np.ndarray, ratio: float = ratio) -> np.ndarray:
            worth = constants[:, exponent]
            with np.errstate(divide="ignore", over="ignore"):
                return np.where(worth > 0, np.exp(ratio / np.maximum(worth, 0.0)), np.inf)

        samples = law.interval_of(needed, level)
        flops = (samples.value * _sampling_flops(one.answered), _sampling_flops(largest.answered))
        dearer, training = flops[0] - flops[1], largest.answered.flops - one.answered.flops
        problems = float("inf") if dearer <= 0 else training / dearer
        beyond = bool(samples.value > one.ks[-1])
        found.append(Match(one.answered.title, way, samples, beyond, flops, problems))
    return found


def _sampling_flops(answered: Answered) -> float:
    """FLOPs of one sample: the forward passes alone, without those of the prompt."""
    return 6.0 * FORWARD_SHARE * answered.params * answered.tokens_per_sample

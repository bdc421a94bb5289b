"""A table of samples, one row each, as pools: the samples of one problem, with answers and scores where it has them."""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.answers.votes import Ballot
from analysis.fit import FitError, LeftOut
from analysis.quantities import counted
from analysis.tables.values import cell_by_cell, truth_of

NO_ANSWER = -1
PROBLEM, ANSWER, CORRECT, SCORE = "problem", "answer", "correct", "score"


@dataclass(frozen=True)
class Pool:
    """The samples of one problem, (samples,) each: correct 0 or 1; answers numbered from 0, NO_ANSWER for none; scores.

    answers is None where the table has no such column, scores also where they lack for one of these samples.
    logarithmic: whether scores are logarithms of what a vote counts.
    """

    problem: str
    correct: np.ndarray
    answers: np.ndarray | None
    scores: np.ndarray | None
    logarithmic: bool

    @property
    def samples(self) -> int:
        """How many there are."""
        return len(self.correct)

    def right(self) -> np.ndarray:
        """How often each answer was right (answers,): 0 or 1 unless right and wrong samples share an answer."""
        given = self.answers >= 0
        return np.bincount(self.answers[given], self.correct[given]) / np.bincount(self.answers[given])

    def ballot(self) -> Ballot:
        """How often each answer was given."""
        given = self.answers >= 0
        return Ballot(np.bincount(self.answers[given]), self.right(), int((~given).sum()))

    def totals(self) -> np.ndarray:
        """The summed weight of each answer (answers,)."""
        given = self.answers >= 0
        return np.bincount(self.answers[given], self.weights()[given])

    def weights(self) -> np.ndarray:
        """What each sample's vote counts, (samples,): its score, or exp(score) where scores are below 0."""
        return np.exp(self.scores - self.scores.max()) if self.logarithmic else self.scores


def pools_of(rows: pd.DataFrame) -> tuple[tuple[Pool, ...], tuple[LeftOut, ...], tuple[str, ...]]:
    """The pools of a table's rows in the order of the problems, the rows left out, and what was concluded.

    rows: columns problem and correct, and where there are any answer and score. A row without a problem, or without
    correct, is left out; one without an answer is a sample that does not vote. Scores below 0 anywhere are taken for
    logarithms where votes are weighed. Raises FitError for a `correct` that is neither 0 nor 1, a score that is no
    number, and where no row is left.
    """
    correct = cell_by_cell(rows[CORRECT].astype(object), _truth)
    missing = {name: rows[name].isna().to_numpy(bool) for name in (PROBLEM, CORRECT)}
    left_out = tuple(
        LeftOut(f"row {label}", f"{name} is missing")
        for name, gone in missing.items()
        for label in rows.index[gone & ~(missing[PROBLEM] & (name == CORRECT))]
    )
    used = ~np.any(list(missing.values()), axis=0)
    if not used.any():
        raise FitError(
            f"problem and correct: are both there in none of {counted(len(rows), 'row')}. Fix: fill them in."
        )
    kept = rows.assign(**{CORRECT: correct})[used]
    kept[CORRECT] = kept[CORRECT].astype("float64")
    scores = _scores(kept)
    logarithmic = scores is not None and bool((scores < 0).any())
    groups = kept.groupby(PROBLEM, sort=False).indices
    pools = tuple(_pool(str(name), kept.iloc[at], scores, at, logarithmic) for name, at in groups.items())
    return pools, left_out, tuple(_notes(pools, logarithmic))


def _truth(value: object) -> object:
    truth = truth_of(value)
    if not pd.isna(value) and not isinstance(truth, (bool, np.bool_)):
        raise FitError(f"correct = {value!r}: must be 0 or 1 (or false or true). Fix: judge each sample, not a mean.")
    return np.nan if pd.isna(value) else float(truth)


def _scores(rows: pd.DataFrame) -> np.ndarray | None:
    if SCORE not in rows.columns:
        return None
    scores = pd.to_numeric(rows[SCORE].astype(object), errors="coerce").to_numpy(np.float64, na_value=np.nan)
    words = rows[SCORE].notna().to_numpy(bool) & ~np.isfinite(scores)
    if words.any():
        value = rows[SCORE].astype(object)[words].iloc[0]
        raise FitError(f"score = {value!r}: must be a finite number. Fix: write one, or leave it empty where unknown.")
    return scores


def _pool(name: str, rows: pd.DataFrame, scores: np.ndarray | None, at: np.ndarray, logarithmic: bool) -> Pool:
    answers = pd.factorize(rows[ANSWER].map(_written))[0] if ANSWER in rows.columns else None
    own = scores[at] if scores is not None and np.isfinite(scores[at]).all() else None
    return Pool(name, rows[CORRECT].to_numpy(np.float64), answers, own, logarithmic)


def _written(answer: Hashable) -> Hashable:
    """An answer without the blanks around it; an empty one is none."""
    return (answer.strip() or np.nan) if isinstance(answer, str) else answer


def _notes(pools: Iterable[Pool], logarithmic: bool) -> Iterable[str]:
    if logarithmic:
        yield "score is below 0 in some samples: weighted votes take it for a logarithm, and count exp(score)"
    voting = [pool for pool in pools if pool.answers is not None]
    mixed = sum(bool(((pool.right() > 0) & (pool.right() < 1)).any()) for pool in voting)
    if mixed:
        yield (
            f"{counted(mixed, 'problem')} of {len(voting)} {'has' if mixed == 1 else 'have'} an answer that is right "
            "in some samples and wrong in others: a vote for it counts as often as it is right"
        )
    silent = sum(int((pool.answers < 0).sum()) for pool in voting)
    if silent:
        yield f"{counted(silent, 'sample')} without an answer: drawn, but not votes"

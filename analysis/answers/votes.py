"""Votes among k samples: the most frequent answer, or the one of the greatest summed weight.

The majority's chance is exact: a vote is decided at some count t that no other answer exceeds, so that the subsets in
which an answer wins are counted by products of polynomials, one for each answer, whose powers are its votes. Answers
that tie share the vote, 1 / (r + 1) each for r others, which is the integral of y^r from 0 to 1; Gauss and Legendre's
rule takes it without error. Every term is positive, and nothing cancels.
"""

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.stats

MOST_SUBSETS = 2000  # of a pool: all are enumerated where there are no more
DRAWN = 1000  # subsets, where there are: the error of a problem's chance is at most 0.016
MOST_WORK = 2e6  # samples * k^2 of a vote that is counted exactly: some hundredths of a second
NEGLIGIBLE = 1e-17  # chance that no answer has more than some count
ROUNDING = 1e-12  # of summed weights: answers that differ by less are tied


@dataclass(frozen=True)
class Ballot:
    """How often each answer to one problem was given, (answers,), and the share of those samples that were right.

    silent: samples without an answer, which are drawn but do not vote.
    """

    counts: np.ndarray
    right: np.ndarray
    silent: int = 0

    @property
    def samples(self) -> int:
        """All samples of the problem."""
        return int(self.counts.sum()) + self.silent


def plateau(totals: np.ndarray, right: np.ndarray) -> float:
    """What a vote of ever more samples comes to: the rightness of the answer of the greatest total, ties shared.

    totals: (answers,) votes, or summed weights. 0 where there is no answer.
    """
    return float(right[totals >= totals.max() * (1 - ROUNDING)].mean()) if len(totals) else 0.0


def majorities(ballot: Ballot, ks: Sequence[int], seed: Sequence[int] = (0,)) -> np.ndarray:
    """The chance that the most frequent answer of k samples is right, for each k no more than there are: (len(ks),).

    Exact (`majority`) unless the pool is large, and from subsets drawn from `seed` then (`is_drawn`).
    """
    exact = [k for k in ks if not is_drawn(ballot.samples, k)]
    found = dict(zip(exact, (majority(ballot, k) for k in exact), strict=True))
    if len(exact) < len(ks):
        answers = np.repeat(np.arange(-1, len(ballot.counts)), [ballot.silent, *ballot.counts])
        far = [k for k in ks if k not in found]
        found |= dict(zip(far, drawn_vote(answers, np.ones(len(answers)), ballot.right, far, seed), strict=True))
    return np.array([found[k] for k in ks])


def is_drawn(samples: int, k: int) -> bool:
    """Whether a majority among k of so many samples is taken from drawn subsets instead of counted."""
    return k < samples and samples * k**2 > MOST_WORK


def majority(ballot: Ballot, k: int, *, replace: bool = False) -> float:
    """The chance that the most frequent answer of k samples is right, exactly; ties are shared.

    Without replacement it is the mean over all subsets of k of the pool's samples, and so without bias. With
    replacement the pool's own shares are taken for the truth (a multinomial vote), and k may exceed the pool.
    """
    if k == ballot.samples and not replace:
        given = ballot.counts > 0
        return plateau(ballot.counts[given], ballot.right[given])
    votes = np.arange(k + 1)
    if replace:  # independent Poisson counts, given their sum, are multinomial
        mean_A = k * ballot.counts / ballot.samples
        chance_AK = scipy.stats.poisson.pmf(votes, mean_A[:, None])
        silent_K = scipy.stats.poisson.pmf(votes, k * ballot.silent / ballot.samples)
        whole = scipy.stats.poisson.pmf(k, k)
    else:  # independent binomial ones are those of a subset
        share = k / ballot.samples
        chance_AK = scipy.stats.binom.pmf(votes, ballot.counts[:, None], share)
        silent_K = scipy.stats.binom.pmf(votes, ballot.silent, share)
        whole = scipy.stats.binom.pmf(k, ballot.samples, share)
    most_A = np.full(len(ballot.counts), k) if replace else np.minimum(ballot.counts, k)
    return float(_won(chance_AK, ballot.right, most_A, silent_K, NEGLIGIBLE * whole) / whole)


def _won(
    chance_AK: np.ndarray, right_A: np.ndarray, most_A: np.ndarray, rest_K: np.ndarray, negligible: float
) -> float:
    """The chance that all votes sum to k and a right answer has most, for independent counts of each answer.

    most_A: votes that each can have at most. rest_K: of what votes for none, first, and then of the answers that can no
    longer reach the count that wins.
    """
    k, total = len(rest_K) - 1, 0.0
    within_K = np.prod(np.cumsum(chance_AK, axis=1), axis=0)  # chance that no answer has more votes
    gap = np.arange(k + 1) - np.arange(k + 1)[:, None]  # votes that lead from a row's sum to a column's
    steps = {a: np.where(gap >= 0, chance_AK[a][np.maximum(gap, 0)], 0.0) for a in np.flatnonzero(most_A > 0)}
    for t in range(1, int(most_A.max(initial=0)) + 1):
        for a in [a for a in steps if most_A[a] < t]:
            rest_K = rest_K @ steps.pop(a)
        if within_K[t] < negligible:
            continue
        y_R, weight_R = _rule(min(len(steps), k // t) // 2 + 1)
        none_RK, won_RK = np.tile(rest_K, (len(y_R), 1)), np.zeros((len(y_R), k + 1))
        for a, step in steps.items():
            fewer = np.where(gap < t, step, 0.0)
            more_won, more_none = won_RK @ fewer, none_RK @ fewer
            tied, tied_won = none_RK[:, : k + 1 - t], won_RK[:, : k + 1 - t]
            more_won[:, t:] += chance_AK[a, t] * (y_R[:, None] * tied_won + right_A[a] * tied)
            more_none[:, t:] += chance_AK[a, t] * y_R[:, None] * tied
            won_RK, none_RK = more_won, more_none
        total += weight_R @ won_RK[:, k]
    return total


@functools.cache
def _rule(nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights on [0, 1] that integrate polynomials of degree 2 nodes - 1 exactly."""
    at, weight = np.polynomial.legendre.leggauss(nodes)
    return (at + 1) / 2, weight / 2


def drawn_vote(
    answers: np.ndarray, weights: np.ndarray, right: np.ndarray, ks: Sequence[int], seed: Sequence[int] = (0,)
) -> np.ndarray:
    """The chance that the answer of the greatest summed weight among k samples is right: (len(ks),).

    answers: (n,) the number of each sample's answer, -1 for none; weights: (n,), not negative; right: (answers,) how
    often each is right. Over all subsets of the pool where there are few, else over some drawn from `seed`, a larger k
    adding to those of a smaller one. Ties are shared; a subset without an answer is wrong.
    """
    samples, order, found = len(answers), None, []
    for k in ks:
        if math.comb(samples, k) <= MOST_SUBSETS:
            subsets = np.array(list(itertools.combinations(range(samples), k)))
        else:
            if order is None:
                every = np.tile(np.arange(samples), (DRAWN, 1))
                order = np.random.default_rng([*seed]).permuted(every, axis=1)
            subsets = order[:, :k]
        found.append(_vote(answers[subsets], weights[subsets], right))
    return np.array(found)


def _vote(answers_SK: np.ndarray, weights_SK: np.ndarray, right_A: np.ndarray) -> float:
    subsets, answers = len(answers_SK), len(right_A) + 1  # the first stands for none
    cell = np.arange(subsets)[:, None] * answers + answers_SK + 1
    total = np.bincount(cell.ravel(), weights_SK.ravel(), subsets * answers).reshape(subsets, answers)[:, 1:]
    given = np.bincount(cell.ravel(), minlength=subsets * answers).reshape(subsets, answers)[:, 1:] > 0
    most = np.max(np.where(given, total, 0.0), axis=1, initial=0.0, keepdims=True)
    tied = given & (total >= most * (1 - ROUNDING))
    return float(np.mean((tied @ right_A) / np.maximum(tied.sum(axis=1), 1)))

"""Estimators from one pool of samples: equal to brute force over all subsets, and to closed forms."""

import itertools

import numpy as np
import pandas as pd
import pytest
import scipy.optimize
import scipy.stats

from analysis.answers import (
    Ballot,
    best_of,
    coverage,
    drawn_vote,
    fit_difficulty,
    is_drawn,
    majorities,
    majority,
    plateau,
    pools_of,
)
from analysis.fit import FitError

RIGHT = np.array([0.0, 1.0, 0.5, 0.0])  # how often each of four answers is right


def voted(answers, weights=None):
    """How right the answer of the greatest weight is, ties shared; -1 does not vote."""
    totals = {}
    for answer, weight in zip(answers, weights or [1.0] * len(answers), strict=True):
        if answer >= 0:
            totals[answer] = totals.get(answer, 0.0) + weight
    return np.mean([RIGHT[a] for a, total in totals.items() if total == max(totals.values())]) if totals else 0.0


def ballot_of(answers):
    return Ballot(np.bincount(answers[answers >= 0], minlength=4), RIGHT, int(np.sum(answers < 0)))


@pytest.mark.parametrize("seed", range(12))
def test_every_way_of_choosing_is_the_mean_over_all_subsets(seed):
    generator = np.random.default_rng(seed)
    n = int(generator.integers(3, 9))
    answers, scores = generator.integers(-1, 4, n), generator.integers(0, 4, n).astype(float)  # with ties
    correct = generator.integers(0, 2, n).astype(float)
    for k in range(1, n + 1):
        subsets = [list(subset) for subset in itertools.combinations(range(n), k)]
        assert coverage(n, int(correct.sum()), k) == pytest.approx(np.mean([correct[s].max() for s in subsets]))
        top = [correct[s][scores[s] == scores[s].max()].mean() for s in subsets]
        assert best_of(correct, scores, [k])[0] == pytest.approx(np.mean(top), abs=1e-14)
        assert majority(ballot_of(answers), k) == pytest.approx(
            np.mean([voted(answers[s]) for s in subsets]), abs=1e-14
        )
        weighed = np.mean([voted(answers[s], scores[s].tolist()) for s in subsets])
        assert drawn_vote(answers, scores, RIGHT, [k])[0] == pytest.approx(weighed, abs=1e-14)


@pytest.mark.parametrize("seed", range(6))
def test_a_vote_with_replacement_is_the_mean_over_all_sequences_and_ends_at_the_plateau(seed):
    generator = np.random.default_rng(seed)
    answers = generator.integers(-1, 4, 6)
    ballot = ballot_of(answers)
    for k in range(1, 6):
        sequences = [voted(sequence) for sequence in itertools.product(answers, repeat=k)]
        assert majority(ballot, k, replace=True) == pytest.approx(np.mean(sequences), abs=1e-14)
    clear = Ballot(np.array([2, 5, 1]), np.array([0.0, 1.0, 0.0]), 1)
    chances = [majority(clear, k, replace=True) for k in (1, 9, 81, 243)]
    assert chances == sorted(chances) and chances[-1] == pytest.approx(plateau(clear.counts, clear.right), abs=1e-6)


def test_the_plateau_shares_ties_and_is_nothing_without_answers():
    assert plateau(np.array([3, 3, 1]), np.array([1.0, 0.0, 1.0])) == 0.5
    assert plateau(np.array([0.1 + 0.2, 0.3]), np.array([1.0, 0.0])) == 0.5  # but for rounding
    assert plateau(np.zeros(0), np.zeros(0)) == 0.0 and majority(Ballot(np.zeros(0, int), np.zeros(0), 4), 2) == 0.0
    assert [majority(ballot_of(np.full(3, -1)), k) for k in (1, 2, 3)] == [0.0] * 3


def test_rare_successes_lose_no_digits():
    for k in (1, 10, 5000, 10_000):
        assert coverage(10_000, 1, k) == pytest.approx(k / 10_000, rel=1e-12)

    assert coverage(1_000_000, 2, 1) == pytest.approx(2e-6, rel=1e-12)
    assert coverage(8, 0, 4) == 0.0 and coverage(8, 6, 4) == 1.0


def test_coverage_is_the_best_by_a_score_that_knows():
    correct = np.array([0, 1, 0, 0, 1, 0, 0, 0, 0, 0.0])
    ks = [1, 2, 4, 8]
    assert best_of(correct, correct, ks) == pytest.approx([coverage(10, 2, k) for k in ks], rel=1e-13)
    assert best_of(correct, np.zeros(10), ks) == pytest.approx([0.2] * 4)


def test_two_answers_are_a_hypergeometric_tail_in_large_pools():
    ballot, k = Ballot(np.array([90, 110]), np.array([1.0, 0.0])), 51
    assert majority(ballot, k) == pytest.approx(scipy.stats.hypergeom.sf(k // 2, 200, 90, k), rel=1e-11)


def test_neither_names_nor_order_nor_the_scale_of_scores_matter():
    generator = np.random.default_rng(0)
    answers, scores = generator.integers(0, 4, 12), generator.random(12)
    correct, order, names = RIGHT[answers], generator.permutation(12), generator.permutation(4)
    renamed = Ballot(ballot_of(answers).counts[names], RIGHT[names])
    assert majority(renamed, 5) == pytest.approx(majority(ballot_of(answers), 5), rel=1e-13)
    ks = [1, 3, 9]
    assert best_of(correct[order], np.exp(scores[order]), ks) == pytest.approx(best_of(correct, scores, ks), rel=1e-13)
    assert drawn_vote(answers[order], 7 * scores[order], RIGHT, ks) == pytest.approx(
        drawn_vote(answers, scores, RIGHT, ks), rel=1e-13
    )


def test_where_subsets_are_drawn_they_say_what_all_would():
    """A thousand subsets: the standard error of a chance is at most 0.016, and five of them are 0.08."""
    answers = np.repeat([-1, 0, 1, 2, 3], [5, 20, 22, 9, 4])
    ballot = ballot_of(answers)
    ks = [4, 16, 32]
    drawn = drawn_vote(answers, np.ones(60), RIGHT, ks)
    assert not any(is_drawn(60, k) for k in ks) and is_drawn(1000, 100) and not is_drawn(1000, 1000)
    assert drawn == pytest.approx(majorities(ballot, ks), abs=0.08)
    large = Ballot(10 * ballot.counts, RIGHT, 50)
    assert majorities(large, [256], (1,))[0] == pytest.approx(majority(large, 256), abs=0.08)


@pytest.mark.parametrize(("alpha", "beta"), [(0.35, 2.5), (0.05, 1.0), (5.0, 5.0), (0.3, 0.3)])
def test_difficulties_are_the_likeliest_that_scipy_finds(alpha, beta):
    generator = np.random.default_rng(0)
    samples = np.where(np.arange(120) % 7 == 0, 25, 50)
    successes = generator.binomial(samples, generator.beta(alpha, beta, 120))

    def worse(theta):
        return -scipy.stats.betabinom.logpmf(successes, samples, *np.exp(theta)).sum()

    found = fit_difficulty(successes, samples, np.ones((1, 120)))
    best = scipy.optimize.minimize(worse, np.log([alpha, beta]), method="Nelder-Mead", options={"fatol": 1e-10})
    assert not found.at_bound[0] and found.constants[0] == pytest.approx(np.exp(best.x), rel=1e-4)
    assert worse(np.log(found.constants[0])) <= best.fun + 1e-9


def test_a_problem_that_counts_twice_is_two_problems():
    successes, samples = np.array([0, 3, 7, 10, 1]), np.full(5, 10)
    weights = np.array([[2.0, 1, 1, 0, 1], [1.0, 1, 1, 1, 1]])
    found = fit_difficulty(successes, samples, weights)
    twice = fit_difficulty(np.array([0, 0, 3, 7, 1]), samples, np.ones((1, 5)))
    assert found.constants[0] == pytest.approx(twice.constants[0], rel=1e-5)


@pytest.mark.parametrize("successes", [[0, 0, 0], [10, 10, 10], [5, 5, 5], [0, 10, 0]])
def test_likelihoods_that_rise_without_end_are_said_to(successes):
    assert fit_difficulty(np.array(successes), np.full(3, 10), np.ones((1, 3))).at_bound[0]


def rows(**columns):
    return pd.DataFrame({"problem": ["p", "p", "q", "q"], "correct": [1, 0, 0, 1], **columns})


def test_a_table_becomes_pools():
    table = rows(answer=["7", " 7 ", "x", ""], score=["0.5", 0.25, None, 1.0], correct=["yes", 0.0, False, "1"])
    pools, left_out, notes = pools_of(table)
    assert [pool.problem for pool in pools] == ["p", "q"] and not left_out
    assert pools[0].answers.tolist() == [0, 0] and pools[1].answers.tolist() == [0, -1]
    assert pools[0].right().tolist() == [0.5] and pools[0].scores.tolist() == [0.5, 0.25] and pools[1].scores is None
    assert pools[0].totals() == pytest.approx([0.75])
    assert notes == (
        "1 problem of 2 has an answer that is right in some samples and wrong in others: a vote for it counts as often "
        "as it is right",
        "1 sample without an answer: drawn, but not votes",
    )


def test_scores_below_zero_are_logarithms():
    pools, _, notes = pools_of(rows(score=[-1000.0, -1001.0, -3.0, -3.0], answer=[1, 2, 1, 1]))
    assert pools[0].weights() == pytest.approx([1.0, np.exp(-1.0)]) and pools[1].totals() == pytest.approx([2.0])
    assert "below 0" in notes[0]


def test_rows_without_a_problem_or_a_judgement_are_left_out_and_named():
    pools, left_out, _ = pools_of(rows(problem=["p", None, "q", "q"], correct=[1, None, None, 0]))
    assert [(one.run, one.reason) for one in left_out] == [
        ("row 1", "problem is missing"),
        ("row 2", "correct is missing"),
    ]
    assert [pool.samples for pool in pools] == [1, 1] and pools[0].answers is None


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"correct": [1, 0, 0.5, 1]}, r"correct = 0.5: must be 0 or 1 .*Fix: judge each sample"),
        ({"correct": [1.0, 0.0, 2.0, 1.0]}, "correct = 2.0: must be 0 or 1"),
        ({"correct": ["right", "wrong", "right", "right"]}, "correct = 'right': must be 0 or 1"),
        ({"correct": [None] * 4}, "are both there in none of 4 rows. Fix: fill them in"),
        ({"score": [1.0, "high", 2.0, 3.0]}, "score = 'high': must be a finite number. Fix"),
        ({"score": [1.0, float("inf"), 2.0, 3.0]}, "score = inf: must be a finite number. Fix"),
    ],
)
def test_tables_that_cannot_be_read_are_refused_in_words(columns, message):
    with pytest.raises(FitError, match=message):
        pools_of(rows(**columns))

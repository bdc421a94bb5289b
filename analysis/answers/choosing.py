"""Coverage and the best of k by a score, without bias, from more samples than k: means over all subsets of the pool."""

from collections.abc import Sequence

import numpy as np


def log_share_below(samples: int, k: int) -> np.ndarray:
    """log(C(m, k) / C(samples, k)) for m = 0 ... samples: the share of subsets of k that lie among m of the samples.

    As the sum of log(1 - k / i) over i = m + 1 ... samples, no term of which cancels another. Returns (samples + 1,),
    -inf for m < k.
    """
    found = np.full(samples + 1, -np.inf)
    found[samples] = 0.0
    found[k:samples] = np.cumsum(np.log1p(-k / np.arange(samples, k, -1.0)))[::-1]
    return found


def coverage(samples: int, successes: int, k: int) -> float:
    """The chance that some of k samples is right: 1 - C(n - c, k) / C(n, k) (Chen et al. 2021, arXiv:2107.03374).

    The mean over all subsets of k of the n `samples`, of which c are `successes`; 1 <= k <= n.
    """
    return float(-np.expm1(log_share_below(samples, k)[samples - successes]))


def best_of(correct: np.ndarray, scores: np.ndarray, ks: Sequence[int]) -> np.ndarray:
    """The chance that the best-scored of k samples is right, each k no more than there are: (len(ks),).

    correct: (n,) 0 or 1; scores: (n,). The mean over all subsets of k samples; among samples of equal best score one
    is taken at random, so that such a group is right as often as its members.
    """
    values, group = np.unique(scores, return_inverse=True)
    sizes = np.bincount(group, minlength=len(values))
    right = np.bincount(group, weights=correct, minlength=len(values)) / sizes
    upper = np.cumsum(sizes)
    lower = upper - sizes
    found = []
    for k in ks:
        log_share = log_share_below(len(correct), k)
        reached = upper >= k
        above, below = log_share[upper[reached]], log_share[lower[reached]]
        found.append(np.sum(right[reached] * np.exp(above) * -np.expm1(below - above)))
    return np.array(found)

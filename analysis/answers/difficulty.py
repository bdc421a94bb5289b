"""How success rates differ between problems: Beta(alpha, beta), by the likelihood of each problem's successes.

Of n samples of a problem c are right with the beta-binomial probability, whose logarithm is, up to a constant, the sum
of log(alpha + i) for i < c, of log(beta + i) for i < n - c, and of -log(alpha + beta + i) for i < n. So problems count
by how many have more than i successes, failures and samples, and many resamples of them are solved at once.
"""

from dataclasses import dataclass

import numpy as np

LARGEST = 14.0  # of |log alpha| and |log beta|: beyond it, a factor of a million, nothing more is told
STEPS = 200
LEAST_GAIN = 1e-12  # of the log-likelihood of one problem: what a step gains at the optimum
TRUST = 2.0  # the longest step of a logarithm


@dataclass(frozen=True)
class Difficulty:
    """Constants (resamples, 2), alpha and beta; at_bound: (resamples,) whether the likelihood rises without end.

    It does where no sample or every one is right, and where problems differ no more than chance makes them, for which
    alpha and beta are infinite.
    """

    constants: np.ndarray
    at_bound: np.ndarray


def fit_difficulty(successes: np.ndarray, samples: np.ndarray, weights: np.ndarray) -> Difficulty:
    """The likeliest alpha and beta of each resample of the problems.

    successes, samples: (problems,); weights: (resamples, problems), how often each problem counts.
    """
    i = np.arange(int(samples.max()))
    more = [(weights @ (count[:, None] > i)) for count in (successes, samples - successes, samples)]
    theta = _start(successes, samples, weights)
    value, gradient, hessian = _likelihood(theta, *more)
    damping = np.full(len(weights), 1e-3)
    least = LEAST_GAIN * np.maximum(weights.sum(axis=1), 1.0)
    active = np.ones(len(weights), bool)
    for _ in range(STEPS):
        at = np.flatnonzero(active)
        if not len(at):
            break
        step = np.clip(_step(gradient[at], hessian[at], damping[at]), -TRUST, TRUST)
        tried = np.clip(theta[at] + step, -LARGEST, LARGEST)
        found = _likelihood(tried, *(part[at] for part in more))
        better = found[0] >= value[at]
        active[at[better & (found[0] - value[at] < least[at])]] = False
        damping[at] *= np.where(better, 0.2, 8.0)
        active[at[damping[at] > 1e12]] = False
        kept = at[better]
        theta[kept] = tried[better]
        value[kept], gradient[kept], hessian[kept] = (part[better] for part in found)
    return Difficulty(np.exp(theta), np.any(np.abs(theta) >= LARGEST - 1e-6, axis=1))


def _start(successes: np.ndarray, samples: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """log alpha and log beta (resamples, 2) of the mean rate, and of a spread between problems that is moderate."""
    mean = (weights @ (successes / samples) + 0.5) / (weights.sum(axis=1) + 1.0)
    return np.log(np.stack([mean, 1.0 - mean], axis=1))


def _likelihood(theta: np.ndarray, *more: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The log-likelihood (R,), its gradient (R, 2) and Hessian (R, 2, 2) by log alpha and log beta."""
    alpha, beta = np.exp(theta).T
    i = np.arange(more[0].shape[1])
    bases = [constant[:, None] + i for constant in (alpha, beta, alpha + beta)]
    value = [np.sum(count * np.log(base), axis=1) for count, base in zip(more, bases, strict=True)]
    first = [np.sum(count / base, axis=1) for count, base in zip(more, bases, strict=True)]
    second = [-np.sum(count / base**2, axis=1) for count, base in zip(more, bases, strict=True)]
    by = np.stack([first[0] - first[2], first[1] - first[2]], axis=1)
    own = np.exp(theta)
    hessian = -second[2][:, None, None] * own[:, :, None] * own[:, None, :]
    for j in range(2):
        hessian[:, j, j] += second[j] * own[:, j] ** 2 + own[:, j] * by[:, j]
    return value[0] + value[1] - value[2], own * by, hessian


def _step(gradient: np.ndarray, hessian: np.ndarray, damping: np.ndarray) -> np.ndarray:
    """Uphill steps (R, 2): Newton's, with curvatures that are not downward turned so, and damped."""
    curvature, axes = np.linalg.eigh(hessian)
    steepness = np.abs(curvature)
    steepness = np.maximum(steepness, 1e-12) + damping[:, None] * steepness.max(axis=1, keepdims=True)
    along = np.einsum("rij,ri->rj", axes, gradient) / steepness
    return np.einsum("rij,rj->ri", axes, along)

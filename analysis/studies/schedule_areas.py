"""What a learning-rate schedule has done so far: the areas that the law `annealing` reads (Tissue et al. 2024)."""

import numpy as np

FORGETTING = 0.999  # their lambda


def schedule_areas(learning_rates: np.ndarray, forgetting: float = FORGETTING) -> tuple[np.ndarray, np.ndarray]:
    """`schedule_area` and `annealing_area` after each step of a run, each (steps,); arXiv:2408.11029.

    learning_rates: (steps,) that were used, in order. With e_i the learning rate of step i, the first is S1 = sum of
    e_i, and the second S2 = sum over i of m_i with m_i = forgetting * m_(i-1) + e_(i-1) - e_i: how much learning rate
    has been given up, with forgetting, summed over the steps since. Leave warm-up out where it should not count: a
    rising learning rate makes S2 negative, which the law does not take. Raises ValueError for an empty or negative
    schedule, or forgetting outside [0, 1).
    """
    rates = np.asarray(learning_rates, np.float64)
    if rates.ndim != 1 or rates.size == 0 or not np.isfinite(rates).all() or (rates < 0).any():
        raise ValueError("learning_rates: must be a list of finite numbers, none negative. Fix: give one per step.")
    if not 0 <= forgetting < 1:
        raise ValueError(f"forgetting = {forgetting:g}: must lie in [0, 1). Fix: use {FORGETTING:g}.")
    from scipy.signal import lfilter  # a second that a fit does not need

    given_up = -np.diff(rates, prepend=rates[0])
    momentum = lfilter([1.0], [1.0, -forgetting], given_up)
    return np.cumsum(rates), np.cumsum(momentum)

"""How far a fit's constants may be off: bootstraps of points or groups, profile likelihoods, predictive intervals.

Everything here starts from a `Fit` and fits again; what is drawn together is said by a `Resampling`.
"""

from analysis.intervals.bootstrap import (
    WEAK_CONDITION,
    Estimate,
    Predictive,
    bootstrapped,
    check_level,
    check_sampling,
    estimate,
    estimate_rows,
    predictive,
    predictive_interval,
    predictive_intervals,
    refit_to,
    wide_constants,
    with_intervals,
)
from analysis.intervals.interval import AT_BOUND, NOT_DETERMINED, Interval, bca_interval, percentile_interval
from analysis.intervals.profile_likelihood import Profile, profile
from analysis.intervals.resampling import POINTS, Resampling, bootstrap_weights, by_run, jackknife_weights
from analysis.intervals.run_noise import RunNoise

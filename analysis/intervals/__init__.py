"""How far a fit's constants may be off: bootstraps of points or groups, profile likelihoods, predictive intervals.

Everything here starts from a `Fit` and fits again; what is drawn together is said by a `Resampling`.
"""

from analysis.intervals.bootstrap import (
    Estimate,
    Interval,
    Predictive,
    bca_interval,
    bootstrapped,
    check_resampling,
    estimate,
    percentile_interval,
    predictive,
    predictive_interval,
    predictive_intervals,
    with_intervals,
)
from analysis.intervals.profile_likelihood import Profile, profile
from analysis.intervals.resampling import POINTS, Resampling, by_run

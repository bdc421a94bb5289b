"""How resamples are drawn, as one value that whatever fits with intervals hands down unchanged.

Read by the command line too, which shows these texts, so nothing heavy is imported here.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Sampling:
    """The resamples behind intervals, and what share of the distribution an interval holds."""

    bootstraps: int = 1000
    """Number of resamples behind each interval."""
    level: float = 0.9
    """Share of the distribution inside each interval."""
    seed: int = 0
    """Seed of the resamples."""


ONE_FIT = Sampling()
SEVERAL_FITS = Sampling(bootstraps=200)  # where a law is fitted many times, or many laws are

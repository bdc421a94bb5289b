"""How checkpoints are averaged, as one value that the command line reads and hands down unchanged.

Its texts are shown by the command line, so nothing heavy is imported here.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Smoothing:
    """Which checkpoints are one run, and over how many of them measures are averaged."""

    by: str = "run"
    """Column that names the run a checkpoint belongs to."""
    order: str = "tokens"
    """Column that says how far a checkpoint had come in its run."""
    window: int = 5
    """Checkpoints over which task loss and accuracy are averaged, up to each."""
    skip: float = 0.1
    """First share of each run that is left away."""


AS_PUBLISHED = Smoothing()

"""Constants of laws as their papers print them, for designs that are judged before anything is trained."""

from dataclasses import dataclass

from analysis.laws.definition import Law
from analysis.laws.loss import CHINCHILLA


@dataclass(frozen=True)
class PublishedLaw:
    """A law with the constants of a paper.

    ranges: smallest and largest params and tokens of the paper's runs, where they are known.
    """

    law: Law
    values: dict[str, float]
    source: str
    ranges: dict[str, tuple[float, float]] | None = None


PUBLISHED = {
    "hoffmann2022": PublishedLaw(
        CHINCHILLA,
        {"E": 1.69, "A": 406.4, "B": 410.7, "alpha": 0.34, "beta": 0.28},
        "Hoffmann et al. 2022, arXiv:2203.15556, equation 10",
        {"params": (7e7, 1.6e10), "tokens": (5e9, 5e11)},  # its abstract
    ),
    "besiroglu2024": PublishedLaw(
        CHINCHILLA,
        {"E": 1.8172, "A": 482.01, "B": 2085.43, "alpha": 0.3478, "beta": 0.3658},
        "Besiroglu et al. 2024, arXiv:2404.10102, section 3",
        {"params": (5.73e7, 1.62e10), "tokens": (8.19e8, 3.18e11)},  # of the 240 points they read off a figure
    ),
}

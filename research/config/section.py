"""What every section of ModelConfig answers; a mixer's section overrides what it has something to say about."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Self

from research.config.validation import check

HIDDEN_MULTIPLE = 8  # scaled hidden widths are multiples of it: the CPUs' vectors, and what tensor axes divide


@dataclass(frozen=True)
class Section:
    """The settings of one kind of mixer."""

    def check_fits(self, model: Any) -> None:
        """Raise ConfigError unless the section fits the rest of the model; asked only if the pattern reads it."""

    def check_length(self, length: int, field: str) -> None:
        """Raise ConfigError unless sequences of `length` tokens, set by `field`, can be read."""

    def scaled(self, ratio: Fraction) -> Self:
        """The section in a model `ratio` times as wide, in the same proportions; itself at a ratio of 1.

        Raises ConfigError where the proportions cannot be kept.
        """
        return self


def check_chunk(section: str, chunk: int, length: int, field: str) -> None:
    """Raise ConfigError if a chunk is longer than the sequence."""
    check(chunk <= length, f"{section}.chunk", chunk, f"must not exceed {field} = {length}", f"use at most {length}")


def scaled_heads(field: str, heads: int, ratio: Fraction) -> int:
    """heads * ratio. Raises ConfigError unless that is whole: another number would be another family of models."""
    grown = heads * ratio
    check(
        grown.denominator == 1 and grown >= 1,
        field,
        heads,
        f"times {ratio}, the widths' ratio, must be a whole number, since heads grow with the width",
        "choose another width",
    )
    return int(grown)


def scaled_hidden(hidden: int, ratio: Fraction) -> int:
    """hidden * ratio to the nearest multiple of HIDDEN_MULTIPLE, which is at least 1 of them; exact at a ratio of 1."""
    return hidden if ratio == 1 else max(1, round(hidden * ratio / HIDDEN_MULTIPLE)) * HIDDEN_MULTIPLE


def scaled_rank(rank: int | None, ratio: Fraction) -> int | None:
    """rank * ratio to the nearest whole number, at least 1; None stays None."""
    return None if rank is None else max(1, round(rank * ratio))

"""Examples of prompt and completion in place of documents: their section of RunConfig."""

import string
from dataclasses import dataclass
from typing import Literal

from research.config.identity import not_identity
from research.config.validation import check, check_choices


@dataclass(frozen=True)
class ExamplesConfig:
    """A JSON Lines file of objects with `prompt`, `completion` and, where the objective reads it, `label` (an integer
    from 0, or true and false), one example a row of the batch (research/data/example_rows.py).

    What the file holds is said by its digest, which names the run; where it lies does not. They are tokenized by the
    tokenizer of `data`.
    """

    sha256: str  # of the file, 64 hex digits; research.data.example_file.examples_of takes it from one
    path: str = not_identity()
    split_by: str = "prompt"  # the field whose hash says on which side an example is: prompt, or another of the file
    held_out_fraction: float = 0.1  # of the values of that field
    too_long: Literal["refuse", "leave_out"] = "refuse"  # what to do with examples longer than a sequence

    def __post_init__(self):
        check_choices(self, "examples")
        check(
            len(self.sha256) == 64 and set(self.sha256) <= set(string.hexdigits.lower()),
            "examples.sha256",
            self.sha256,
            "must be the 64 lower-case hex digits of the file's sha256",
            "take what `sha256sum` prints, or make the section by examples_of(path)",
        )
        check(
            0 < self.held_out_fraction < 1,
            "examples.held_out_fraction",
            self.held_out_fraction,
            "must lie between 0 and 1",
            "use 0.1",
        )

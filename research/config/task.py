"""A synthetic task in place of text: its section of RunConfig."""

from dataclasses import dataclass
from typing import Literal

from research.config.validation import check, check_choices, check_range

TASK_CONTROL_IDS = 3  # padding, begin and end of a synthetic task's target; its symbols come after them


@dataclass(frozen=True)
class TaskConfig:
    """A synthetic task in place of text (data/synthetic.py). `lengths` are those of its source, or pairs to recall."""

    name: Literal["copy", "reverse", "recall"]
    lengths: tuple[int, int] = (5, 60)  # shortest and longest in training, drawn evenly
    evaluated: tuple[int, ...] = (5, 10, 20, 30, 40, 50, 60)  # each is a held-out domain of its own
    symbols: int = 32  # to draw from; recall: half of them keys, half values
    recall_length: int = 64  # recall: tokens of a sequence, pairs and queries

    def __post_init__(self):
        check_choices(self, "task")
        low, high = self.lengths
        check(1 <= low <= high, "task.lengths", self.lengths, "must be 1 <= shortest <= longest", "order them")
        check(
            len(self.evaluated) > 0 and all(1 <= length <= high for length in self.evaluated),
            "task.evaluated",
            self.evaluated,
            f"must be lengths from 1 to the longest, {high}",
            "drop the others, or train longer ones",
        )
        check_range(self, "task", "symbols", 2)
        if self.name == "recall":
            fewest = max(high, *self.evaluated)
            check(
                self.symbols >= 2 * fewest,
                "task.symbols",
                self.symbols,
                f"must be at least 2 * {fewest}: each pair has a key of its own, and half of the symbols are keys",
                "raise it",
            )
            check(
                self.recall_length >= 4 * fewest,
                "task.recall_length",
                self.recall_length,
                f"must be at least 4 * {fewest}: a pair takes two tokens and its query two more",
                "raise it",
            )

    @property
    def vocab_size(self) -> int:
        """Ids in use."""
        return TASK_CONTROL_IDS + self.symbols

    def sequence_length(self, encoder_decoder: bool) -> int:
        """Tokens of an example's inputs, padding included."""
        if self.name == "recall":
            return self.recall_length
        return self.lengths[1] + 1 if encoder_decoder else 2 * self.lengths[1] + 1

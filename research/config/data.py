"""What a run learns from: a mixture of text sources, or a synthetic task in place of text."""

from dataclasses import dataclass
from typing import Literal

from research.config.validation import check, check_positive, check_range


@dataclass(frozen=True)
class SourceConfig:
    """One domain of text: a TFDS data set and its share of the training mixture."""

    name: str  # the domain's name in metrics and tables
    tfds: str  # "embedded_corpus/prose", or any TFDS name such as "c4/en:3.1.0"
    rate: float = 1.0  # share of training tokens, relative to the other sources'
    text_feature: str = "text"

    def __post_init__(self):
        check(self.name.isidentifier(), "data.sources.name", self.name, "must be a plain identifier", "use a_z0_9")
        check_positive(self, "data.sources", "rate")


@dataclass(frozen=True)
class DataConfig:
    """Which text, how it is split and tokenised, and how much of it is packed into the token file."""

    sources: tuple[SourceConfig, ...] = (
        SourceConfig("prose", "embedded_corpus/prose", 0.7),
        SourceConfig("code", "embedded_corpus/code", 0.3),
    )
    tokenizer: Literal["bytes", "sentencepiece"] = "bytes"
    vocab_size: int = 259  # bytes: 3 control ids + 256 bytes, ids above 259 stay unused; sentencepiece: trained size
    validation_fraction: float = 0.02  # of documents, chosen by a hash of their text
    train_tokens: int = 16_000_000  # packed into the token file; the corpus must hold as many at these rates
    validation_tokens: int = 262_144  # packed per domain at most
    seed: int = 0

    def __post_init__(self):
        check(len(self.sources) > 0, "data.sources", self.sources, "must name at least one source", "add one")
        names = [source.name for source in self.sources]
        check(len(set(names)) == len(names), "data.sources", names, "names must differ", "rename one")
        smallest = 259 if self.tokenizer == "bytes" else 300
        check(
            smallest <= self.vocab_size <= 65_536,
            "data.vocab_size",
            self.vocab_size,
            f"must be from {smallest} to 65536 with tokenizer {self.tokenizer!r}",
            f"use at least {smallest}",
        )
        check(
            0 < self.validation_fraction < 1,
            "data.validation_fraction",
            self.validation_fraction,
            "must lie between 0 and 1",
            "use 0.02",
        )
        check_range(self, "data", "train_tokens validation_tokens", 1)


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

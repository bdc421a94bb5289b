"""What text a run learns from: a mixture of sources, each split, tokenised and packed on its own."""

import math
from dataclasses import dataclass, replace
from typing import Literal

from research.config.validation import check, check_choices, check_positive, check_range

CONTROL_IDS = 3  # below every tokenizer's own
PAD_ID, EOS_ID, UNKNOWN_ID = range(CONTROL_IDS)  # padding, the end of a document, what no piece stands for
BYTE_IDS = CONTROL_IDS + 256  # of the tokenizer "bytes"
SMALLEST_SENTENCEPIECE = 300  # the control ids, the bytes it falls back on, and some pieces
LARGEST_VOCABULARY = 2**31  # a batch holds ids as int32


@dataclass(frozen=True)
class SourceConfig:
    """One domain of text: a TFDS data set and its share of the training mixture.

    A share is the source's rate over the sum of all rates. Where any source has a `final_rate`, the shares at the end
    of training are those of the final rates, and `data.shift_fraction` says from when on they move.
    """

    name: str  # the domain's name in metrics and tables
    tfds: str  # "embedded_corpus/prose", or any TFDS name such as "c4/en:3.1.0"
    rate: float = 1.0  # share of training tokens, relative to the other sources'
    text_feature: str = "text"
    final_rate: float | None = None  # at the end of training; none: `rate` throughout

    def __post_init__(self):
        check(self.name.isidentifier(), "data.sources.name", self.name, "must be a plain identifier", "use a_z0_9")
        check_range(self, "data.sources", "rate final_rate", 0)
        check(
            self.rate > 0 or bool(self.final_rate),
            "data.sources.rate",
            self.rate,
            "must be positive unless final_rate is",
            "raise it, or leave the source out",
        )


@dataclass(frozen=True)
class DataConfig:
    """Which text, how it is split and tokenised, and how much of it is used.

    Each source has a token file of its own, which every mixture that holds the source shares; the mixture is drawn from
    them batch by batch (research/data/mixture.py).
    """

    sources: tuple[SourceConfig, ...] = (
        SourceConfig("prose", "embedded_corpus/prose", 0.7),
        SourceConfig("code", "embedded_corpus/code", 0.3),
    )
    tokenizer: Literal["bytes", "sentencepiece"] = "bytes"
    vocab_size: int = BYTE_IDS  # bytes: ids from 259 on stay unused; sentencepiece: trained size
    validation_fraction: float = 0.02  # of distinct documents, chosen by a hash of their text
    train_tokens: int = 16_000_000  # one epoch of the mixture, shared out over the sources as training draws from them
    validation_tokens: int = 262_144  # held out per domain, at most
    shift_fraction: float = 1.0  # the last share of training, over which shares go linearly to the final rates
    tokenizer_sources: tuple[SourceConfig, ...] = ()  # what SentencePiece learns from; empty: `sources` in equal parts

    def __post_init__(self):
        check_choices(self, "data")
        check(len(self.sources) > 0, "data.sources", self.sources, "must name at least one source", "add one")
        names = [source.name for source in self.sources]
        check(len(set(names)) == len(names), "data.sources", names, "names must differ", "rename one")
        for moment, rates in (("first", self.first_rates), ("final", self.final_rates)):
            check(sum(rates) > 0, "data.sources", names, f"must have a positive {moment} rate among them", "raise one")
        smallest = BYTE_IDS if self.tokenizer == "bytes" else SMALLEST_SENTENCEPIECE
        check(
            smallest <= self.vocab_size <= LARGEST_VOCABULARY,
            "data.vocab_size",
            self.vocab_size,
            f"must be from {smallest} to {LARGEST_VOCABULARY} with tokenizer {self.tokenizer!r}",
            f"use at least {smallest}",
        )
        check(
            not self.tokenizer_sources or self.tokenizer == "sentencepiece",
            "data.tokenizer_sources",
            self.tokenizer_sources,
            f"has nothing to teach the tokenizer {self.tokenizer!r}",
            "leave it empty, or use data.tokenizer=sentencepiece",
        )
        check(
            all(source.rate > 0 and source.final_rate is None for source in self.tokenizer_sources),
            "data.tokenizer_sources",
            self.tokenizer_sources,
            "must have positive rates and no final rates: a tokenizer is trained once",
            "leave final_rate out",
        )
        check(
            0 < self.validation_fraction < 1,
            "data.validation_fraction",
            self.validation_fraction,
            "must lie between 0 and 1",
            "use 0.02",
        )
        check_range(self, "data", "train_tokens validation_tokens", 1)
        check_positive(self, "data", "shift_fraction")
        check_range(self, "data", "shift_fraction", 0, 1)

    @property
    def first_rates(self) -> tuple[float, ...]:
        """Rates at the start of training, by source."""
        return tuple(source.rate for source in self.sources)

    @property
    def final_rates(self) -> tuple[float, ...]:
        """Rates at the end of training, by source."""
        return tuple(source.rate if source.final_rate is None else source.final_rate for source in self.sources)

    @property
    def mean_shares(self) -> dict[str, float]:
        """Source name -> its share of the tokens of a whole training run."""
        first, final = normalized(self.first_rates), normalized(self.final_rates)
        late = self.shift_fraction / 2  # a linear shift spends half of its time's weight on either end
        return {
            source.name: (1 - late) * before + late * after
            for source, before, after in zip(self.sources, first, final, strict=True)
        }

    def source_tokens(self, name: str) -> int:
        """Tokens of a source in one epoch of the mixture."""
        return math.ceil(self.mean_shares[name] * self.train_tokens)

    @property
    def tokenizer_mix(self) -> tuple[SourceConfig, ...]:
        """What a SentencePiece model is trained on; it does not depend on the mixture's rates unless it is told to."""
        return self.tokenizer_sources or tuple(replace(source, rate=1.0, final_rate=None) for source in self.sources)


def normalized(rates: tuple[float, ...]) -> tuple[float, ...]:
    """The same proportions with sum 1."""
    return tuple(rate / sum(rates) for rate in rates)

"""What a decoding is asked for, and what it gives: values without a program."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np

from research.config import LogProbs, SamplingConfig, check
from research.generation.stopping import Stop


@dataclass(frozen=True)
class Decoding:
    """What is asked of a decoding. Each value of it, for a model and shapes, is a compiled program of its own."""

    tokens: int  # that each row writes at most
    sampling: SamplingConfig = SamplingConfig()
    end_ids: tuple[int, ...] = ()  # a row that writes one of them has ended; none: all rows write all tokens
    logprobs: LogProbs | None = None

    def __post_init__(self):
        check(self.tokens >= 1, "tokens", self.tokens, "must be at least 1", "ask for a token")


class Record(NamedTuple):
    """What was written, of every row and step; what comes after a row's end is 0."""

    tokens_BT: jax.Array
    lengths_B: jax.Array  # tokens written, an end token among them
    removed_bits_BT: jax.Array | None
    logprobs_BT: jax.Array | None
    best_BTN: jax.Array | None
    best_logprobs_BTN: jax.Array | None


@dataclass(frozen=True)
class Written:
    """What was written: B = prompts * samples rows, the samples of a prompt one after another, and T tokens at most."""

    tokens_BT: np.ndarray  # int32, 0 after a row's end
    lengths_B: np.ndarray  # tokens of each row, the one that ended it among them
    ends: tuple[str, ...]  # "end": an end token; "stop": a stop string; "length": as many tokens as asked; "": none yet
    stops: tuple[Stop | None, ...]  # where a stop string was found
    removed_bits_BT: np.ndarray  # -log2 of the probability that a constraint left, before temperature and cuts; else 0
    logprobs_BT: np.ndarray | None = None
    best_BTN: np.ndarray | None = None  # the N likeliest tokens at each place, likeliest first
    best_logprobs_BTN: np.ndarray | None = None

    def row(self, b: int) -> np.ndarray:
        """The tokens of one row."""
        return self.tokens_BT[b, : self.lengths_B[b]]

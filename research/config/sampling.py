"""How the next token is chosen from a model's logits: greedily, or drawn from a distribution that is cut and bent."""

from dataclasses import dataclass
from typing import Literal

from research.config.validation import check, check_choices, check_positive, check_range

CUTS = ("top_k", "top_p", "min_p", "typical_p", "epsilon")  # of what is drawn from; each is None where it is off


@dataclass(frozen=True)
class SamplingConfig:
    """What is done to the logits before a token is chosen, in this order, which is that of Hugging Face's `generate`.

    The transforms (bias, repetition penalty, bans, minimum length, then whatever constrains the output from outside)
    also bind the greedy choice; temperature and the cuts after them only a drawn one. Tokens are ids of the vocabulary.
    """

    bias: tuple[tuple[int, float], ...] = ()  # (token, added to its logit)
    # Of tokens in the prompt or written since: a positive logit is divided by it, another multiplied (Keskar 2019)
    repetition_penalty: float = 1.0
    banned: tuple[int, ...] = ()  # never written
    min_new_tokens: int = 0  # until as many are written, no end token is
    temperature: float = 1.0  # the logits are divided by it; 0 takes the likeliest token (greedy)
    top_k: int | None = None  # the k likeliest tokens, with those that tie with the last (Fan 2018)
    top_p: float | None = None  # the likeliest tokens that together have this probability (nucleus: Holtzman 2020)
    min_p: float | None = None  # tokens at least this share as likely as the likeliest (Nguyen 2024)
    # The tokens whose information is nearest to the entropy, that together have this probability (Meister 2023)
    typical_p: float | None = None
    epsilon: float | None = None  # tokens at least this likely, and the likeliest (Hewitt 2022)

    def __post_init__(self):
        check_range(self, "sampling", "temperature min_new_tokens", 0)
        check_range(self, "sampling", "top_k", 1)
        check_positive(self, "sampling", "repetition_penalty")
        for name in ("top_p", "typical_p"):
            value = getattr(self, name)
            rule = "must be above 0 and at most 1, a probability that what is kept must reach"
            check(value is None or 0 < value <= 1, f"sampling.{name}", value, rule, "use 0.9, or leave it out for all")
        for name in ("min_p", "epsilon"):
            value = getattr(self, name)
            rule = "must be at least 0 and below 1, a probability below which tokens are dropped"
            check(value is None or 0 <= value < 1, f"sampling.{name}", value, rule, "lower it, or leave it out")
        cuts = [name for name in CUTS if getattr(self, name) is not None]
        check(
            self.temperature > 0 or not cuts,
            "sampling.temperature",
            self.temperature,
            f"takes the likeliest token, so that {' and '.join(cuts)} would cut nothing",
            f"raise the temperature, or leave {' and '.join(cuts)} out",
        )
        biased = [token for token, _ in self.bias]
        check(
            len(set(biased)) == len(biased), "sampling.bias", self.bias, "must name a token once", "add its biases up"
        )

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is taken, so that nothing is drawn."""
        return self.temperature == 0

    def check_vocabulary(self, vocab_size: int) -> None:
        """Raise ConfigError unless every token that is named is one of a vocabulary's `vocab_size` ids."""
        for name, tokens in (("bias", [token for token, _ in self.bias]), ("banned", self.banned)):
            for token in tokens:
                rule = f"must be ids of the vocabulary, from 0 to {vocab_size - 1}"
                check(0 <= token < vocab_size, f"sampling.{name}", token, rule, "name another token")
        check(
            len(set(self.banned)) < vocab_size,
            "sampling.banned",
            f"{len(set(self.banned))} tokens",
            f"must leave one of the {vocab_size} ids of the vocabulary",
            "ban fewer",
        )


@dataclass(frozen=True)
class LogProbs:
    """Natural logarithms of probabilities to report: of each token written, and of the `best` likeliest at its place.

    of: "model", softmax of the logits as the model gives them, or "sampled", of the logits that the token was drawn by,
    after all of the sampling config and a constraint (at temperature 0 without temperature and cuts).
    """

    of: Literal["model", "sampled"] = "model"
    best: int = 0

    def __post_init__(self):
        check_choices(self, "logprobs")
        check_range(self, "logprobs", "best", 0)


GREEDY = SamplingConfig(temperature=0.0)

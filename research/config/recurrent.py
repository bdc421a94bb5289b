"""The sections of ModelConfig that recurrent networks read: LSTM and GRU, RWKV-4 and RWKV-7."""

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from research.config.identity import not_identity
from research.config.section import Section, check_chunk, scaled_rank
from research.config.validation import check, check_choices, check_range


@dataclass(frozen=True)
class RecurrentConfig(Section):
    """Mixers `lstm` and `gru`, as wide as the model."""

    forget_bias: float = 1.0  # of the LSTM's forget gate at the start (Jozefowicz 2015)


@dataclass(frozen=True)
class Rwkv4Config(Section):
    """Mixers `rwkv4_time` and `rwkv4_channel` (Peng 2023), as wide as the model.

    The published models have norm = layer and embedding_norm = true.
    """

    expand: int = 4  # hidden channels of the channel mix over width
    algorithm: Literal["auto", "sequential", "associative", "pallas"] = not_identity("auto")  # one function

    def __post_init__(self):
        check_choices(self, "model.rwkv4")
        check_range(self, "model.rwkv4", "expand", 1)

    def check_fits(self, model: Any) -> None:
        """Raise ConfigError if the kernel that was asked for cannot compute this."""
        rule = self.kernel_refusal(model) if self.algorithm == "pallas" else None
        check(rule is None, "model.rwkv4.algorithm", self.algorithm, rule or "", "set it to auto or associative")

    def kernel_refusal(self, model: Any) -> str | None:
        """Why the recurrence's kernels cannot compute this; None if they can."""
        return None if model.compute_dtype != "float64" else "computes in float32, and model.compute_dtype is float64"

    def hidden(self, width: int) -> int:
        """Hidden channels of the channel mix."""
        return self.expand * width


Number = TypeVar("Number", int, float)


class Ranks(NamedTuple, Generic[Number]):
    """Of RWKV-7's low-rank maps, or one number for each."""

    decay: Number
    rate: Number
    value: Number
    gate: Number


@dataclass(frozen=True)
class Rwkv7Config(Section):
    """Mixers `rwkv7_first`, `rwkv7_time` and `rwkv7_channel` (Peng 2025), as wide as the model, heads of `head_dim`.

    The published models have norm = layer and embedding_norm = true. Ranks that are none follow from the width as in
    the published models: 1.8 sqrt(width) for decay and rate, 1.3 sqrt(width) for the value, 0.6 width^0.8 for the gate,
    each rounded to a multiple of 32, at least 32.
    """

    head_dim: int = 64
    expand: int = 4  # hidden channels of the channel mix over width
    decay_rank: int | None = None
    rate_rank: int | None = None  # of the in-context learning rate
    value_rank: int | None = None  # of the share of the first layer's value
    gate_rank: int | None = None
    algorithm: Literal["auto", "sequential", "chunked"] = not_identity("auto")  # one function
    chunk: int = not_identity(16)  # tokens whose interactions chunked computes as matrix products

    def __post_init__(self):
        check_choices(self, "model.rwkv7")
        check_range(self, "model.rwkv7", "head_dim expand decay_rank rate_rank value_rank gate_rank", 1)
        # Decays go down to exp(-exp(-1/2)) a token: float32 holds 64 of them, and their inverse, with ease.
        check_range(self, "model.rwkv7", "chunk", 1, 64)

    def check_fits(self, model: Any) -> None:
        """Raise ConfigError if heads do not divide, or no layer gives the values that later layers mix in."""
        check(
            model.width % self.head_dim == 0,
            "model.rwkv7.head_dim",
            self.head_dim,
            f"must divide model.width = {model.width}",
            "choose a divisor",
        )
        mixers = [name for layer in model.layers for name in layer if name in ("rwkv7_first", "rwkv7_time")]
        once = [name for layer in model.prefix for name in layer] if model.scan_layers else mixers
        check(
            "rwkv7_time" not in mixers or (mixers.count("rwkv7_first") == 1 and mixers[0] == "rwkv7_first" in once),
            "model.pattern",
            model.pattern,
            "must have one rwkv7_first below each rwkv7_time, which mixes in its values, and before the |",
            "write rwkv7_first:rwkv7_channel | rwkv7_time:rwkv7_channel",
        )

    def check_length(self, length: int, field: str) -> None:
        """Raise ConfigError if a sequence is shorter than one chunk that was asked for."""
        if self.algorithm == "chunked":
            check_chunk("model.rwkv7", self.chunk, length, field)

    def scaled(self, ratio: Fraction) -> "Rwkv7Config":
        """Head sizes stay; ranks that were given grow with the width, the others follow from it."""
        ranks = ("decay_rank", "rate_rank", "value_rank", "gate_rank")
        return replace(self, **{name: scaled_rank(getattr(self, name), ratio) for name in ranks})

    def hidden(self, width: int) -> int:
        """Hidden channels of the channel mix."""
        return self.expand * width

    def ranks(self, width: int) -> Ranks[int]:
        """Of the low-rank maps at this width."""
        decay = self.decay_rank or _rank(1.8 * width**0.5)
        rate = self.rate_rank or _rank(1.8 * width**0.5)
        value = self.value_rank or _rank(1.3 * width**0.5)
        return Ranks(decay, rate, value, self.gate_rank or _rank(0.6 * width**0.8))

    def rank_ratios(self, width: int, base_width: int) -> Ranks[float]:
        """How many times the ranks at `base_width` those at `width` are: 1 where both are rounded up to the same."""
        base = self.scaled(Fraction(base_width, width)).ranks(base_width)
        return Ranks(*(rank / of_base for rank, of_base in zip(self.ranks(width), base)))


def _rank(size: float) -> int:
    return max(32, 32 * round(size / 32))

"""The sections of ModelConfig that Mamba and Mamba-2 read."""

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Literal

from research.config.identity import not_identity
from research.config.section import Section, check_chunk, scaled_rank
from research.config.validation import check, check_choices, check_positive, check_range

KERNEL_STATES = 64  # beyond, a GPU has no registers for a warp's; a TPU would have memory for twice as many


@dataclass(frozen=True)
class MambaConfig(Section):
    """Selective state space (Gu & Dao 2023); inner channels and the step's rank follow from the model's width."""

    state_size: int = 16
    expand: int = 2  # inner channels over width
    conv_width: int = 4
    dt_rank: int | None = None  # of the step's projection; none: width / 16, rounded up
    # Norms of the step, B and C: without gains in FalconMamba, with them in Jamba.
    inner_norms: Literal["none", "fixed", "learned"] = "none"
    inner_norm_epsilon: float = 1e-6
    # One function; chunked keeps the least memory by far (research/models/algorithms.py: how fast each is).
    algorithm: Literal["auto", "sequential", "chunked", "associative", "pallas"] = not_identity("auto")
    chunk: int = not_identity(32)  # tokens between the states that chunked keeps for the gradient

    def __post_init__(self):
        check_choices(self, "model.mamba")
        check_range(self, "model.mamba", "state_size expand conv_width dt_rank chunk", 1)
        check_positive(self, "model.mamba", "inner_norm_epsilon")

    def check_fits(self, model: Any) -> None:
        """Raise ConfigError if the kernel that was asked for cannot compute this."""
        rule = self.kernel_refusal(model) if self.algorithm == "pallas" else None
        check(rule is None, "model.mamba.algorithm", self.algorithm, rule or "", "set it to auto or chunked")

    def kernel_refusal(self, model: Any) -> str | None:
        """Why the scan's kernels cannot compute this; None if they can."""
        if self.state_size > KERNEL_STATES:
            return f"holds up to {KERNEL_STATES} states of a channel, and model.mamba.state_size is {self.state_size}"
        if model.compute_dtype == "float64":
            return "computes in float32, and model.compute_dtype is float64"
        return None

    def inner(self, width: int) -> int:
        """Channels of the recurrence."""
        return self.expand * width

    def rank(self, width: int) -> int:
        """Rank of the step's projection."""
        return self.dt_rank or math.ceil(width / 16)

    def rank_ratio(self, width: int, base_width: int) -> float:
        """How many times the rank at `base_width` that at `width` is."""
        return self.rank(width) / self.scaled(Fraction(base_width, width)).rank(base_width)

    def check_length(self, length: int, field: str) -> None:
        """Raise ConfigError if a sequence is shorter than one chunk that was asked for."""
        if self.algorithm == "chunked":
            check_chunk("model.mamba", self.chunk, length, field)

    def scaled(self, ratio: Fraction) -> "MambaConfig":
        """Inner channels follow the width; a rank that was given grows with it."""
        return replace(self, dt_rank=scaled_rank(self.dt_rank, ratio))


@dataclass(frozen=True)
class Mamba2Config(Section):
    """State space duality (Dao & Gu 2024): one decay per head, heads of `head_dim` channels, B and C per group."""

    state_size: int = 128
    expand: int = 2  # inner channels over width
    head_dim: int = 64
    groups: int = 1
    conv_width: int = 4
    # One function; chunked is matrix products.
    algorithm: Literal["auto", "chunked", "recurrent"] = not_identity("auto")
    chunk: int = not_identity(64)  # tokens per chunk

    def __post_init__(self):
        check_choices(self, "model.mamba2")
        check_range(self, "model.mamba2", "state_size expand head_dim groups conv_width chunk", 1)

    def inner(self, width: int) -> int:
        """Channels of the recurrence."""
        return self.expand * width

    def heads(self, width: int) -> int:
        """Heads of the recurrence."""
        return self.inner(width) // self.head_dim

    def check_fits(self, model: Any) -> None:
        """Raise ConfigError unless the inner channels are whole heads and the heads whole groups."""
        inner, heads = self.inner(model.width), self.heads(model.width)
        check(
            inner % self.head_dim == 0,
            "model.mamba2.head_dim",
            self.head_dim,
            f"must divide the expand * width = {inner} inner channels",
            "choose a divisor",
        )
        check(
            heads % self.groups == 0,
            "model.mamba2.groups",
            self.groups,
            f"must divide the {heads} heads",
            "choose a divisor",
        )

    def check_length(self, length: int, field: str) -> None:
        """Raise ConfigError if a sequence is shorter than one chunk that was asked for."""
        if self.algorithm == "chunked":
            check_chunk("model.mamba2", self.chunk, length, field)

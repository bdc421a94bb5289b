"""Attention: its sections of ModelConfig."""

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Literal

from research.config.identity import not_identity
from research.config.section import Section, scaled_heads, scaled_rank
from research.config.validation import check, check_choices, check_positive, check_range

# One function (research/models/kernels/attention.py).
Algorithm = Literal["auto", "dense", "chunked", "cudnn", "splash"]


@dataclass(frozen=True)
class RopeScaling:
    """Rotary frequencies of Llama 3.1, stretched for a longer context than the model was first trained on."""

    factor: float = 8.0
    low_factor: float = 1.0
    high_factor: float = 4.0
    original_length: int = 8192

    def __post_init__(self):
        check_positive(self, "model.attention.rope_scaling", "factor low_factor original_length")
        check(
            self.high_factor > self.low_factor,
            "model.attention.rope_scaling.high_factor",
            self.high_factor,
            f"must be above low_factor = {self.low_factor}, since frequencies between the two are blended",
            "raise it",
        )


@dataclass(frozen=True)
class AttentionConfig(Section):
    """Causal self-attention (Vaswani 2017) with grouped queries (Ainslie 2023)."""

    heads: int = 4
    kv_heads: int = 4
    head_dim: int = 64
    # rotary: Su 2021; relative: distances with a projection of their own (Transformer-XL, Dai 2019; Gopher,
    # Chinchilla); buckets: a learned score of each distance's bucket, one table for all layers (T5, Raffel 2020)
    positions: Literal["rotary", "relative", "buckets", "none"] = "rotary"
    buckets: int = 32
    longest_distance: int = 128  # from here on all distances share the last bucket
    rope_theta: float = 10_000.0
    rope_pairs: Literal["half", "interleaved"] = "half"  # half: Hugging Face; interleaved: Meta's Llama and RoFormer
    rope_fraction: float = 1.0  # of head_dim with rotary embedding (partial RoPE; 0.25 in GPT-NeoX)
    rope_scaling: RopeScaling | None = None
    qk_norm: Literal["none", "head", "full"] = "none"  # RMSNorm of each head (Qwen3) or of all together (OLMo 2)
    biases: Literal["none", "qkv", "all"] = "none"  # all: of the output projection too
    window: int | None = None  # tokens a query sees, itself included; none sees all of the past
    causal: bool = True  # an encoder's attention is not: ModelConfig.encoder says so
    algorithm: Algorithm = not_identity("auto")

    def __post_init__(self):
        check_choices(self, "model.attention")
        check_range(self, "model.attention", "heads kv_heads head_dim window", 1)
        check_range(self, "model.attention", "rope_fraction", 0, 1)
        check(
            self.buckets >= 4 and self.buckets % 4 == 0 and self.longest_distance > self.buckets,
            "model.attention.buckets",
            self.buckets,
            f"must be a multiple of 4 (half of them may look ahead) below longest_distance = {self.longest_distance}",
            "use 32",
        )
        check_positive(self, "model.attention", "rope_theta")
        check(
            self.heads % self.kv_heads == 0,
            "model.attention.kv_heads",
            self.kv_heads,
            f"must divide heads = {self.heads}",
            "choose a divisor",
        )
        check(
            self.positions != "rotary" or (self.rotary_channels >= 2 and self.rotary_channels % 2 == 0),
            "model.attention.head_dim",
            self.head_dim,
            f"times rope_fraction = {self.rope_fraction:g} must be even, since rotary positions turn pairs of channels",
            "round it up to an even number",
        )
        check(
            self.causal or self.positions != "relative",
            "model.attention.positions",
            self.positions,
            "looks back alone, and an encoder looks both ways",
            "use rotary positions",
        )

    @property
    def rotary_channels(self) -> int:
        """Channels of a head with rotary embedding."""
        return int(self.head_dim * self.rope_fraction)

    def check_fits(self, model: Any) -> None:
        """Raise ConfigError for a width that relative positions cannot have."""
        check(
            self.positions != "relative" or model.width % 2 == 0,
            "model.width",
            model.width,
            "must be even, since a distance is given to relative positions as pairs of sine and cosine",
            "round it up to an even number",
        )

    def scaled(self, ratio: Fraction) -> "AttentionConfig":
        """Head sizes stay; heads grow with the width, and heads / kv_heads stays, or the one head of multi-query."""
        heads = scaled_heads("model.attention.heads", self.heads, ratio)
        if self.kv_heads == 1 < self.heads:
            return replace(self, heads=heads)
        return replace(self, heads=heads, kv_heads=scaled_heads("model.attention.kv_heads", self.kv_heads, ratio))


@dataclass(frozen=True)
class LatentAttentionConfig(Section):
    """Multi-head latent attention (DeepSeek-V2, section 2.1): all keys and values come from one short vector per token.

    A head's queries and keys have `head_dim` channels without a position and `rope_dim` with one, whose key all heads
    share.
    """

    heads: int = 4
    head_dim: int = 64
    rope_dim: int = 32
    value_dim: int = 64
    kv_rank: int = 128  # channels of the vector that is kept for each token
    query_rank: int | None = None  # queries come through so few channels too; none: straight from the width
    rope_theta: float = 10_000.0
    rope_pairs: Literal["half", "interleaved"] = "interleaved"
    algorithm: Algorithm = not_identity("auto")

    def __post_init__(self):
        check_choices(self, "model.latent_attention")
        check_range(self, "model.latent_attention", "heads head_dim value_dim kv_rank query_rank", 1)
        check_positive(self, "model.latent_attention", "rope_theta")
        check(
            self.rope_dim >= 2 and self.rope_dim % 2 == 0,
            "model.latent_attention.rope_dim",
            self.rope_dim,
            "must be even, since rotary positions turn pairs of channels",
            "round it up to an even number",
        )

    def scaled(self, ratio: Fraction) -> "LatentAttentionConfig":
        """Head sizes stay; heads and ranks grow with the width."""
        return replace(
            self,
            heads=scaled_heads("model.latent_attention.heads", self.heads, ratio),
            kv_rank=scaled_rank(self.kv_rank, ratio),
            query_rank=scaled_rank(self.query_rank, ratio),
        )

"""What a model is: frozen dataclasses, validated when made; one section for each mixer that a pattern may name.

Widths follow from `width` wherever the literature writes them so (heads of `head_dim` channels, `expand` times the
width): a ladder of sizes then differs in `width` and `depth` alone.
"""

import re
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from functools import cache, cached_property
from typing import Any, Literal

from research.config.attention import AttentionConfig, LatentAttentionConfig
from research.config.data import BYTE_IDS
from research.config.experts import MoeConfig
from research.config.heads import HeadsConfig
from research.config.identity import not_identity
from research.config.mamba import Mamba2Config, MambaConfig
from research.config.parametrisation import ParametrisationConfig
from research.config.recurrent import RecurrentConfig, Rwkv4Config, Rwkv7Config
from research.config.section import Section, scaled_hidden
from research.config.state_spaces import H3Config, S4Config
from research.config.validation import check, check_choices, check_positive, check_range

Layer = tuple[str, ...]  # (sequence mixer, channel mixer), or one mixer alone


GATED_ACTIVATIONS = ("swiglu", "geglu")


@dataclass(frozen=True)
class MlpConfig(Section):
    """Channel mixer: gated activations (Shazeer 2020) have three matrices, the others two."""

    hidden: int = 688
    # gelu and geglu by tanh (GPT-2), gelu_exact by erf (GPT-NeoX); relu_squared: So 2021
    activation: Literal["swiglu", "geglu", "gelu", "gelu_exact", "relu", "relu_squared"] = "swiglu"
    biases: bool = False

    def __post_init__(self):
        check_choices(self, "model.mlp")
        check_range(self, "model.mlp", "hidden", 1)

    @property
    def gated(self) -> bool:
        return self.activation in GATED_ACTIVATIONS

    def scaled(self, ratio: Fraction) -> "MlpConfig":
        """Grows with the width."""
        return replace(self, hidden=scaled_hidden(self.hidden, ratio))


def _read_by(section: type[Section], *mixers: str) -> Any:
    """A section of ModelConfig and the mixers that read it; nothing else says which they are."""
    return field(default_factory=section, metadata={"mixers": mixers})


@dataclass(frozen=True)
class ModelConfig:
    """A language model: embedding, `depth` residual layers following `pattern`, final norm, head.

    `pattern` is comma-separated layers, each `sequence_mixer:channel_mixer` or one mixer alone; `3 * layer` writes a
    layer three times. The pattern repeats to fill `depth`; layers before a `|` stand once, at the bottom of the stack
    (`3 * attention:mlp | attention:moe`). `encoder -> decoder` is an encoder-decoder: two such patterns, `depth` of the
    decoder, and mixers on the right that read what the left one wrote.
    """

    vocab_size: int = BYTE_IDS
    width: int = 256
    depth: int = 4
    pattern: str = "attention:mlp"
    attention: AttentionConfig = _read_by(AttentionConfig, "attention", "cross_attention")
    latent_attention: LatentAttentionConfig = _read_by(LatentAttentionConfig, "latent_attention")
    mlp: MlpConfig = _read_by(MlpConfig, "mlp")
    moe: MoeConfig = _read_by(MoeConfig, "moe")
    mamba: MambaConfig = _read_by(MambaConfig, "mamba")
    mamba2: Mamba2Config = _read_by(Mamba2Config, "mamba2")
    recurrent: RecurrentConfig = _read_by(RecurrentConfig, "lstm", "gru")
    s4: S4Config = _read_by(S4Config, "s4")
    h3: H3Config = _read_by(H3Config, "h3")
    rwkv4: Rwkv4Config = _read_by(Rwkv4Config, "rwkv4_time", "rwkv4_channel")
    rwkv7: Rwkv7Config = _read_by(Rwkv7Config, "rwkv7_first", "rwkv7_time", "rwkv7_channel")
    # RMSNorm (Zhang 2019), LayerNorm (Ba 2016), or LayerNorm without its bias (PaLM)
    norm: Literal["rms", "layer", "layer_unbiased"] = "rms"
    norm_epsilon: float = 1e-5
    norm_placement: Literal["pre", "post"] = "pre"  # of each mixer's input, or of its output (OLMo 2, section 3.2)
    parallel_mixers: bool = False  # x + sequence mixer + channel mixer, both reading x (GPT-NeoX, PaLM)
    shared_norm: bool = False  # parallel mixers read one norm of x (PaLM, Falcon), not each its own (GPT-NeoX)
    embedding_norm: bool = False  # a norm right after the embedding, which then starts small, as in RWKV
    max_positions: int | None = None  # rows of a learned position table added to the embedding (GPT-2); none: no table
    encoder_depth: int | None = None  # layers of an encoder-decoder's encoder; none: as many as `depth`
    source_length: int | None = None  # tokens of the longest source that an encoder-decoder reads
    tied_embeddings: bool = False
    heads: HeadsConfig = field(default_factory=HeadsConfig)  # beside the language model's, which is always there
    parametrisation: ParametrisationConfig = field(default_factory=ParametrisationConfig)
    # One compiled period: compile time flat in depth, 5 to 15 % slower steps on CPU. The layers start from other draws.
    scan_layers: bool = False
    remat: Literal["none", "dots", "attention", "full"] = not_identity("none")  # research/models/remat.py
    compute_dtype: Literal["float32", "bfloat16", "float64"] = "float32"  # float64: for proofs, with jax_enable_x64

    def __post_init__(self):
        check_choices(self, "model")
        check_range(self, "model", "vocab_size width depth max_positions encoder_depth source_length", 1)
        check(
            (self.encoder is None) == (self.source_length is None),
            "model.source_length",
            self.source_length,
            f"must be set for an encoder-decoder, and none otherwise; the pattern is {self.pattern!r}",
            "write encoder -> decoder for one, or change source_length",
        )
        for layer in (*self.prefix, *self.period):
            check(
                len(layer) in (1, 2) and all(layer),
                "model.pattern",
                self.pattern,
                "every layer must be mixer:channel_mixer, or one mixer alone",
                "write for example attention:mlp",
            )
        check(
            len(self.period) > 0,
            "model.pattern",
            self.pattern,
            "must repeat at least one layer",
            "write for example attention:mlp, or 2 * mamba | attention:mlp",
        )
        check(
            len(self.prefix) <= self.depth and (self.depth - len(self.prefix)) % len(self.period) == 0,
            "model.depth",
            self.depth,
            f"must be {f'{len(self.prefix)} plus ' if self.prefix else ''}a multiple of the {len(self.period)} layers "
            f"in pattern {self.pattern!r}",
            "round it up",
        )
        check_positive(self, "model", "norm_epsilon")
        check(
            not self.shared_norm or (self.parallel_mixers and self.norm_placement == "pre"),
            "model.shared_norm",
            self.shared_norm,
            "needs parallel_mixers and norm_placement 'pre', where both mixers read the same",
            "set those, or shared_norm to false",
        )
        for name in self.sections:
            getattr(self, name).check_fits(self)

    @cached_property
    def sections(self) -> tuple[str, ...]:
        """Names of the sections that the mixers of this stack read; an encoder says itself which it reads."""
        mixers = {mixer for layer in self.layers for mixer in layer}
        return tuple(name for name, readers in SECTION_MIXERS.items() if mixers & readers)

    @cached_property
    def unused(self) -> frozenset[str]:
        """Names of the sections that no mixer reads, of the encoder's neither: they are no part of the model."""
        read = {*self.sections, *(() if self.encoder is None else self.encoder.sections)}
        return frozenset(SECTION_MIXERS.keys() - read)

    @property
    def prefix(self) -> tuple[Layer, ...]:
        """The layers that stand once, before the repeated ones."""
        before, bar, _ = self._decoder_pattern.rpartition("|")
        return _parse(before) if bar else ()

    @property
    def period(self) -> tuple[Layer, ...]:
        """One repetition of the pattern."""
        return _parse(self._decoder_pattern.rpartition("|")[2])

    @property
    def repeats(self) -> int:
        """How often the period stands in the stack."""
        return (self.depth - len(self.prefix)) // len(self.period)

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """Every layer of the stack, bottom first; the names are those of models/mixers.py."""
        return (*self.prefix, *(self.period * self.repeats))

    @property
    def encoder(self) -> "ModelConfig | None":
        """The encoder of an encoder-decoder as a model of its own, whose attention sees both ways; else None."""
        pattern, arrow, _ = self.pattern.rpartition("->")
        if not arrow:
            return None
        depth, parametrisation = self.encoder_depth or self.depth, self.parametrisation
        if parametrisation.base_depth is not None:  # the base is as deep as its decoder, its encoder in proportion
            base = max(1, round(Fraction(parametrisation.base_depth * depth, self.depth)))
            parametrisation = replace(parametrisation, base_depth=base)
        return replace(
            self,
            pattern=pattern.strip(),
            depth=depth,
            parametrisation=parametrisation,
            encoder_depth=None,
            source_length=None,
            heads=HeadsConfig(),
            attention=replace(self.attention, causal=False),
        )

    @property
    def _decoder_pattern(self) -> str:
        return self.pattern.rpartition("->")[2]


# Section of ModelConfig -> the mixers that read it; mixers of models/mixers.py that are in none have no settings.
SECTION_MIXERS = {f.name: frozenset(f.metadata["mixers"]) for f in fields(ModelConfig) if "mixers" in f.metadata}


@cache
def _parse(pattern: str) -> tuple[Layer, ...]:
    layers = []
    for part in pattern.split(","):
        times = re.match(r"\s*(\d+)\s*\*", part)
        layer = tuple(name.strip() for name in part[times.end() if times else 0 :].split(":"))
        layers += [layer] * (int(times[1]) if times else 1)
    return tuple(layers)

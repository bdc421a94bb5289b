"""Model configs drawn at random over everything a config can say, for tests that must hold for all of them."""

from typing import Any

import jax
import numpy as np

from research.config import (
    AttentionConfig,
    H3Config,
    LatentAttentionConfig,
    Mamba2Config,
    MambaConfig,
    MlpConfig,
    ModelConfig,
    MoeConfig,
    RopeScaling,
    Rwkv4Config,
    Rwkv7Config,
    S4Config,
)
from research.models import initialisers, language_model, layers
from research.models.mlp import ACTIVATIONS

ATTENTION = "attention:mlp"
# What a test must hold for beside it: one pattern a line, without a prefix where the prefix is not part of the model.
OTHER_PATTERNS = (
    "latent_attention:mlp",
    "lstm:mlp, gru",
    "mamba, mamba2:mlp",
    "s4, h3:mlp",
    "rwkv4_time:rwkv4_channel",
    "attention:moe",
    "rwkv7_first:rwkv7_channel | rwkv7_time:rwkv7_channel",
)


def cases(seeds: int, seeds_of_others: int) -> list[tuple[int, str]]:
    """(seed, pattern) for `random_model`: attention with more seeds than each of the other patterns."""
    return [(seed, ATTENTION) for seed in range(seeds)] + [
        (seed, pattern) for pattern in OTHER_PATTERNS for seed in range(seeds_of_others)
    ]


def random_model(seed: int, pattern: str = ATTENTION) -> ModelConfig:
    """The pattern with everything else drawn, with a prefix of 0 to 2 of its own layers unless it has one."""
    rng = np.random.default_rng(seed)
    kv_heads, group = int(rng.integers(1, 4)), int(rng.integers(1, 4))
    heads = kv_heads * group
    head_dim = 2 * int(rng.integers(1, 9))
    prefix, shared_norm = int(rng.integers(3)), bool(rng.integers(4) == 0)
    before, bar, period = pattern.rpartition("|")
    if not bar and prefix:
        first = period.split(",")[0]
        before, bar = ", ".join([first] * prefix), "|"
    layers = len(period.split(","))
    vocab_size, width = int(rng.integers(11, 300)), int(rng.integers(3, 60))
    return ModelConfig(
        vocab_size=vocab_size,
        width=width,
        depth=(len(before.split(",")) if bar else 0) + layers * int(rng.integers(1, max(2, 5 // layers))),
        pattern=f"{before} {bar} {period}",
        attention=AttentionConfig(
            heads,
            kv_heads,
            head_dim,
            positions=str(rng.choice(["rotary", "rotary", "none"])),
            rope_pairs=str(rng.choice(["half", "interleaved"])),
            rope_fraction=float(rng.choice([1.0, 2 / head_dim])),
            rope_scaling=None if rng.integers(2) else RopeScaling(original_length=16),
            qk_norm=str(rng.choice(["none", "head", "full"])),
            biases=str(rng.choice(["none", "qkv", "all"])),
            window=None if rng.integers(2) else int(rng.integers(1, 9)),
        ),
        latent_attention=_latent_attention(seed),
        mlp=MlpConfig(int(rng.integers(1, 90)), str(rng.choice(list(ACTIVATIONS))), bool(rng.integers(2))),
        mamba=_mamba(seed),
        mamba2=_mamba2(seed, width),
        s4=_s4(seed),
        h3=_h3(seed, width),
        rwkv4=_rwkv4(seed),
        rwkv7=_rwkv7(seed, width),
        moe=_moe(seed),
        norm=str(rng.choice(["rms", "layer", "layer_unbiased"])),
        norm_placement="pre" if shared_norm else str(rng.choice(["pre", "post"])),
        parallel_mixers=shared_norm or bool(rng.integers(2)),
        shared_norm=shared_norm,
        embedding_norm=bool(rng.integers(2)),
        max_positions=16 if rng.integers(2) else None,
        tied_embeddings=bool(rng.integers(2)),
        scan_layers=bool(rng.integers(2)),
    )


def _moe(seed: int) -> MoeConfig:
    """Anything but expert choice; a capacity factor, where there is one, is large enough that nothing is dropped."""
    rng = np.random.default_rng(seed)
    groups = int(rng.integers(1, 4))
    experts = groups * int(rng.integers(2, 5))
    active_groups = int(rng.integers(1, groups + 1))
    active = int(rng.integers(1, min(4, active_groups * experts // groups) + 1))
    return MoeConfig(
        experts,
        active,
        hidden=int(rng.integers(1, 40)),
        shared_experts=int(rng.integers(3)),
        scores=str(rng.choice(["softmax", "sigmoid"])),
        renormalize=active > 1 and bool(rng.integers(2)),
        gate_scale=float(rng.uniform(0.5, 3.0)),
        groups=groups,
        active_groups=active_groups,
        capacity_factor=None if rng.integers(2) else experts / active,
        algorithm=str(rng.choice(["auto", "dense", "capacity", "ragged"])),
        balance_over="sequence",
        bias_rate=None if rng.integers(2) else 1e-3,
    )


def _latent_attention(seed: int) -> LatentAttentionConfig:
    rng = np.random.default_rng((seed, 0))
    heads, head_dim, value_dim, kv_rank = (int(rng.integers(1, 9)) for _ in range(4))
    query_rank = None if rng.integers(2) else int(rng.integers(1, 9))
    return LatentAttentionConfig(heads, head_dim, 2 * int(rng.integers(1, 4)), value_dim, kv_rank, query_rank)


def _mamba(seed: int) -> MambaConfig:
    rng = np.random.default_rng((seed, 1))
    return MambaConfig(
        state_size=int(rng.integers(1, 9)),
        expand=int(rng.integers(1, 4)),
        conv_width=int(rng.integers(1, 6)),
        dt_rank=None if rng.integers(2) else int(rng.integers(1, 9)),
        inner_norms=str(rng.choice(["none", "fixed", "learned"])),
        algorithm=str(rng.choice(["auto", "sequential", "chunked", "associative"])),
        chunk=int(rng.integers(1, 13)),
    )


def _mamba2(seed: int, width: int) -> Mamba2Config:
    rng = np.random.default_rng((seed, 2))
    expand = int(rng.integers(1, 4))
    head_dim = int(rng.choice([size for size in range(1, 9) if expand * width % size == 0]))
    heads = expand * width // head_dim
    return Mamba2Config(
        state_size=int(rng.integers(1, 9)),
        expand=expand,
        head_dim=head_dim,
        groups=int(rng.choice([groups for groups in range(1, 5) if heads % groups == 0])),
        conv_width=int(rng.integers(1, 6)),
        algorithm=str(rng.choice(["auto", "chunked", "recurrent"])),
        chunk=int(rng.integers(1, 13)),
    )


def _rwkv4(seed: int) -> Rwkv4Config:
    rng = np.random.default_rng((seed, 3))
    return Rwkv4Config(int(rng.integers(1, 5)), algorithm=str(rng.choice(["auto", "sequential", "associative"])))


def _rwkv7(seed: int, width: int) -> Rwkv7Config:
    rng = np.random.default_rng((seed, 4))
    ranks = [None if rng.integers(4) == 0 else int(rng.integers(1, 9)) for _ in range(4)]
    return Rwkv7Config(
        int(rng.choice([size for size in range(1, 9) if width % size == 0])),
        int(rng.integers(1, 5)),
        *ranks,
        algorithm=str(rng.choice(["auto", "chunked", "sequential"])),
        chunk=int(rng.integers(1, 13)),
    )


def drawn_by_numpy(model: ModelConfig, seed: int = 0) -> Any:
    """Parameters distributed as `language_model.init` draws them, for tests of what is computed from them.

    They are numpy arrays: the real draw compiles a program for each initialiser and shape, and so does any arithmetic
    of jax's on them, seconds for a model whose test takes milliseconds.
    """
    rng = np.random.default_rng(seed)

    def drawn(box: layers.Parameter) -> Any:
        shape = box.value.shape
        if isinstance(box.init, initialisers.Normal):
            return rng.normal(0.0, box.init.std, shape).astype(np.float32)
        if isinstance(box.init, initialisers.Uniform):
            return rng.uniform(-box.init.bound, box.init.bound, shape).astype(np.float32)
        if box.init in (initialisers.zeros, initialisers.ones):
            return np.full(shape, float(box.init is initialisers.ones), np.float32)
        return layers.draw(box, jax.random.key(int(rng.integers(2**31))))

    boxed = language_model.abstract(model)
    return jax.tree.map(lambda box: np.asarray(drawn(box)), boxed, is_leaf=layers.is_boxed)


def perturbed(model: ModelConfig, scale: float = 0.1, seed: int = 0) -> Any:
    """Initial parameters, each moved by `scale` * N(0, 1), so that no one or zero hides a swapped or missing factor."""
    params = drawn_by_numpy(model, seed)
    rng = np.random.default_rng(seed + 1)
    return jax.tree.map(lambda leaf: leaf + scale * rng.standard_normal(leaf.shape, np.float32), params)


def _s4(seed: int) -> S4Config:
    rng = np.random.default_rng((seed, 3))
    kernel = str(rng.choice(["dplr", "diagonal"]))
    diagonal = kernel == "diagonal"
    return S4Config(
        kernel,
        state_size=2 * int(rng.integers(1, 9)),
        initialisation=str(rng.choice(["legs", "lin", "inv", "real"])) if diagonal else "legs",
        discretisation=str(rng.choice(["bilinear", "zoh"])) if diagonal else "bilinear",
        # Steps as long as published ones are for a kernel of a thousand: C follows from C (1 - A^length), and at short
        # lengths with small steps that is a division by nearly nothing.
        dt_min=float(rng.uniform(0.05, 0.1)),
        dt_max=float(rng.uniform(0.1, 0.5)),
        kernel_length=int(rng.integers(16, 41)),
    )


def _h3(seed: int, width: int) -> H3Config:
    rng = np.random.default_rng((seed, 4))
    return H3Config(
        head_dim=int(rng.choice([size for size in range(1, 9) if width % size == 0])),
        state_size=2 * int(rng.integers(1, 9)),
        initialisation=str(rng.choice(["legs", "lin", "inv", "real"])),
        discretisation=str(rng.choice(["bilinear", "zoh"])),
    )

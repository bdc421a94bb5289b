"""Attention's programs, all one function of queries, keys, values, mask and added scores, and which of them runs.

    dense    two matrix products around all scores at once      any backend; memory grows with the length squared
    chunked  the same for a block of queries at a time          any backend; computes scores again for a gradient
    cudnn    the fused kernels of cuDNN                         NVIDIA GPUs from Ampere on, half precision
    splash   the Pallas kernel kept with JAX                    TPUs

`model.attention.algorithm = "auto"` is the backend's kernel from 128 tokens on, where it can compute what is asked,
else `dense` up to 1024 x 1024 scores and `chunked` beyond: no backend keeps more of them for a gradient. Decoding is
what "auto" says of it whatever the name, since no kernel reads a cache, and the scores of one token are few.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import jax
import numpy as np
from jax.ad_checkpoint import checkpoint_name

from research.config import ModelConfig, check
from research.models.kernels.attention_mask import AddedScores, Mask
from research.models.kernels.cudnn_attention import cudnn, padded_channels
from research.models.kernels.plain_attention import chunked, dense, spans
from research.models.kernels.splash_attention import splash
from research.models.remat import ATTENTION_RESULT
from research.per_device import on_each_device
from research.sharding import platform, ways

DENSE_SCORES = 1024 * 1024  # of one head: beyond it "auto" keeps none
KERNEL_LENGTH = 128  # tokens below which "auto" takes no kernel: one tile holds all scores
PREFERRED = {"cpu": (), "gpu": ("cudnn",), "tpu": ("splash",)}  # kernels of each backend
AMPERE, HOPPER = (8, 0), (9, 0)  # compute capabilities


@dataclass(frozen=True)
class Call:
    """What of a call to `attend` decides which program can compute it; shapes are of the whole arrays."""

    queries: int
    sources: int
    channels: int  # of a head's keys or values, whichever are more
    dtype: str
    causal: bool = True
    window: int | None = None
    padding: Literal["none", "after", "anywhere"] = "none"
    segments: bool = False
    added: bool = False
    decoding: bool = False
    divided: str | None = None  # what devices cannot have whole parts of


def choose(
    section: str, asked: str, call: Call, backend: str, capability: tuple[int, int] | None = HOPPER
) -> Literal["dense", "chunked", "cudnn", "splash"]:
    """The program for a call of the section's attention on `backend`, of which `asked` is the config's `algorithm`.

    capability: of the GPU; None if it is not NVIDIA's. Raises ConfigError if `asked` names one that cannot compute it.
    """
    if asked != "auto" and call.queries > 1 and not call.decoding:
        broken = refusal(asked, call, backend, capability)
        check(broken is None, f"model.{section}.algorithm", asked, broken or "", "set it to auto or chunked")
        return asked
    if call.queries >= KERNEL_LENGTH:
        for kernel in PREFERRED.get(backend, ()):
            if refusal(kernel, call, backend, capability) is None:
                return kernel
    return "dense" if call.queries * call.sources <= DENSE_SCORES else "chunked"


def refusal(algorithm: str, call: Call, backend: str, capability: tuple[int, int] | None = HOPPER) -> str | None:
    """The rule by which an algorithm cannot compute a call; None if it can."""
    if algorithm in ("dense", "chunked"):
        return None
    rules = {"cudnn": _cudnn_rules, "splash": _splash_rules}[algorithm](call, backend, capability)
    rules += [
        (call.added, "adds no scores to those of queries and keys, as relative and bucketed positions need"),
        (call.decoding, "reads no cache"),
        (
            (call.causal or call.window is not None) and call.queries != call.sources,
            f"masks by position need as many queries as sources, not {call.queries} and {call.sources}",
        ),
        (call.divided is not None, f"needs whole sequences and heads on each device, and {call.divided}"),
    ]
    return next((rule for broken, rule in rules if broken), None)


def _cudnn_rules(call: Call, backend: str, capability: tuple[int, int] | None) -> list[tuple[bool, str]]:
    channels, most = padded_channels(call.channels), 256 if (capability or AMPERE) >= HOPPER else 128
    return [
        (backend != "gpu", f"runs on GPUs alone, and this is a {backend}"),
        (capability is None or capability < AMPERE, "needs an NVIDIA GPU, Ampere or newer"),
        (call.dtype not in ("bfloat16", "float16"), f"computes in bfloat16, and model.compute_dtype is {call.dtype}"),
        (channels > most, f"has heads of at most {most} channels on this GPU, not {channels}"),
        (call.padding == "anywhere", "knows padding after a sequence alone, and here it may stand before"),
        (call.segments, "is not told of packed sequences"),
        (call.window is not None and not call.causal, "has windows into the past alone"),
    ]


def _splash_rules(call: Call, backend: str, capability: tuple[int, int] | None) -> list[tuple[bool, str]]:
    return [
        (backend != "tpu", f"runs on TPUs alone, and this is a {backend}"),
        (call.dtype == "float64", "computes in at most float32, and model.compute_dtype is float64"),
    ]


def attend(
    config: ModelConfig,
    section: str,
    q_BLHK: jax.Array,
    k_BSGK: jax.Array,
    v_BSGV: jax.Array,
    mask: Mask,
    added: AddedScores | None = None,
    scale: float | None = None,
) -> jax.Array:
    """Scaled dot-product attention, (B, L, H, V), by the algorithm of the config's `section`.

    Head h reads key-value head h // (H / G). `scale` is 1 / sqrt(K) if None. Softmax in float32. A query that sees no
    source gets something finite. Raises ConfigError where the section names an algorithm that cannot compute this.
    """
    scale = q_BLHK.shape[-1] ** -0.5 if scale is None else scale
    call = _call(q_BLHK, k_BSGK, v_BSGV, mask, added)
    backend = platform()
    name = choose(section, getattr(config, section).algorithm, call, backend, _capability(backend))
    if name in ("dense", "chunked"):
        mixed_BLHV = {"dense": dense, "chunked": chunked}[name](q_BLHK, k_BSGK, v_BSGV, mask, added, scale)
        return checkpoint_name(mixed_BLHV, ATTENTION_RESULT)
    return on_devices({"cudnn": cudnn, "splash": splash}[name], q_BLHK, k_BSGK, v_BSGV, mask, scale)


def on_devices(
    kernel: Callable, q_BLHK: jax.Array, k_BSGK: jax.Array, v_BSGV: jax.Array, mask: Mask, scale: float
) -> jax.Array:
    """A kernel's result, which each device computes of its own sequences and heads.

    Where devices split the length, they exchange it for heads (Jacobs 2023, DeepSpeed-Ulysses, arXiv 2309.14509).
    """

    def local(q_BLHK, k_BSGK, v_BSGV, real_BS, segments_BS):
        own = replace(mask, real_BS=real_BS, segments_BS=segments_BS)
        return kernel(q_BLHK, k_BSGK, v_BSGV, own, scale)

    heads, of_sources = "batch steps spread", "batch steps"
    # Pallas' kernels do not say which devices their results differ between, so that jax cannot check it.
    split = on_each_device(local, (heads, heads, heads, of_sources, of_sources), heads, check_vma=False)
    return split(q_BLHK, k_BSGK, v_BSGV, mask.real_BS, mask.segments_BS)


def scores(algorithm: str, length: int, causal: bool, window: int | None) -> int:
    """Scores that an algorithm computes of one head of one sequence with itself, forward and on one device.

    Of a kernel those that are seen: it computes tiles, which at the mask's edge hold some more.
    """
    if algorithm == "dense":
        return length * length
    if algorithm == "chunked":
        read = spans(length, length, Mask(causal, window))
        return sum(span.blocks * span.rows * (span.end - span.first) for span in read)
    position = np.arange(length)
    behind = position if window is None else np.minimum(position, window - 1)
    return int(np.sum(1 + behind + (0 if causal else behind[::-1])))


def _call(q_BLHK: jax.Array, k_BSGK: jax.Array, v_BSGV: jax.Array, mask: Mask, added: AddedScores | None) -> Call:
    """What `choose` is asked about these arrays."""
    return Call(
        queries=q_BLHK.shape[1],
        sources=k_BSGK.shape[1],
        channels=max(q_BLHK.shape[-1], v_BSGV.shape[-1]),
        dtype=str(q_BLHK.dtype),
        causal=mask.causal,
        window=mask.window,
        padding="none" if mask.real_BS is None else "after" if mask.ends_early else "anywhere",
        segments=mask.segments_BS is not None,
        added=added is not None,
        decoding=mask.decoding,
        divided=_divided({"batch": q_BLHK.shape[0], "length": q_BLHK.shape[1], "spread": k_BSGK.shape[2]}),
    )


def _divided(sizes: Mapping[str, int]) -> str | None:
    """The first of these that devices cannot have equal parts of; heads are counted as those of keys and values."""
    names = {"spread": "kv_heads"}
    uneven = (axis for axis, size in sizes.items() if size % ways(axis))
    return next((f"{names.get(axis, axis)} = {sizes[axis]} is split over {ways(axis)}" for axis in uneven), None)


def _capability(backend: str) -> tuple[int, int] | None:
    """The GPU's compute capability; None of one that is not NVIDIA's, and where programs are compiled for none here."""
    if backend != "gpu":
        return None
    major, _, minor = str(getattr(jax.local_devices()[0], "compute_capability", "")).partition(".")
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else None

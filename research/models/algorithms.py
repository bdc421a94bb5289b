"""What `algorithm = "auto"` stands for: which of a mixer's equal programs runs where.

A section that offers several algorithms has a line here; attention's depends on more than the backend, of which
kernels/attention.py decides. They are one function, so the choice decides no number of a run beyond rounding: no
fingerprint holds it, and the FLOPs that budgets count do not depend on it.

tests/benchmarks/algorithms.py times them in turn. On an H200 with jax 0.11.2 and the arguments --width 1024 --length
1024 --batch 8 --dtype bfloat16 it printed, in milliseconds for the gradients of one layer: 8 experts of which 2 are
active (attention included) dense 9.4, capacity 9.4, at a factor of 1.25 6.1, ragged 15.5, which XLA decomposes to a
masked product per expert; RWKV-4 associative 4.0, sequential 28; RWKV-7 chunked 9.1, sequential 38; Mamba-2 chunked
4.0, recurrent 55; Mamba associative 32, sequential 34, chunked 55, which needs 0.7 GiB where they need 3.8 and 1.7 (the
kernels of Mamba and RWKV-4 have not been measured, and until they are no GPU takes them). No TPU has been measured:
there it is the kernel where there is one, else what has the fewest steps in a row and multiplies no row twice.
"""

from collections.abc import Mapping
from dataclasses import replace

from research.config import ConfigError, ModelConfig, MoeConfig, check
from research.models.attention import attention, latent_attention
from research.models.kernels.attention import choose
from research.sharding import platform

AUTO: Mapping[str, Mapping[str, str]] = {  # section -> backend -> algorithm
    "moe": {"cpu": "ragged", "gpu": "dense", "tpu": "ragged"},
    "mamba": {"cpu": "chunked", "gpu": "chunked", "tpu": "pallas"},
    "mamba2": {"cpu": "chunked", "gpu": "chunked", "tpu": "chunked"},
    "rwkv4": {"cpu": "sequential", "gpu": "associative", "tpu": "pallas"},
    "rwkv7": {"cpu": "chunked", "gpu": "chunked", "tpu": "chunked"},
}
KERNELS: Mapping[str, tuple[str, ...]] = {"pallas": ("gpu", "tpu")}  # algorithm -> the backends that run it
INSTEAD: Mapping[str, str] = {"mamba": "chunked", "rwkv4": "associative"}  # of a section's kernel that refuses a model


def algorithm(model: ModelConfig, section: str, backend: str | None = None) -> str:
    """The algorithm of the section's mixers on `backend` ("cpu", "gpu" or "tpu"; None: where jax computes now).

    Raises ConfigError for "auto" on any other backend, and for a kernel that does not run there.
    """
    asked, backend = getattr(model, section).algorithm, backend or platform()
    check(
        backend in KERNELS.get(asked, (backend,)),
        f"model.{section}.algorithm",
        asked,
        f"runs on a {' or '.join(KERNELS.get(asked, ()))} alone, and this is a {backend}",
        "set it to auto",
    )
    if asked != "auto":
        return asked
    if backend not in AUTO[section]:
        raise ConfigError(
            f"model.{section}.algorithm = 'auto': stands for nothing on backend {backend!r}. Fix: name an algorithm."
        )
    if section == "moe":
        return _of_experts(model.moe, backend)
    chosen = AUTO[section][backend]
    return INSTEAD[section] if chosen in KERNELS and getattr(model, section).kernel_refusal(model) else chosen


def _of_experts(moe: MoeConfig, backend: str) -> str:
    if moe.routing == "expert_choice":
        return "capacity"  # filled slots are what expert choice is
    return "capacity" if backend == "gpu" and moe.capacity_factor is not None else AUTO["moe"][backend]


def resolved(model: ModelConfig, backend: str, length: int) -> ModelConfig:
    """`model` with every "auto" replaced by what it stands for on `backend`, for training on sequences of `length`.

    Of a GPU the compute capability is taken to be Hopper's, and of a mesh that its axis sequence is 1.
    """
    chosen = {name: algorithm(model, name, backend) for name in AUTO if name in model.sections}
    for name, mixer in (("attention", attention), ("latent_attention", latent_attention)):
        asked = getattr(model, name).algorithm
        chosen[name] = choose(name, asked, mixer.whole_sequence(model, length), backend) if asked == "auto" else asked
    return replace(model, **{name: replace(getattr(model, name), algorithm=chosen[name]) for name in chosen})


def names(model: ModelConfig, backend: str, length: int) -> str:
    """What runs, as "attention dense, moe ragged": of each section that offers algorithms and that the model reads."""
    chosen = resolved(model, backend, length)
    offering = (name for name in model.sections if hasattr(getattr(chosen, name), "algorithm"))
    return ", ".join(f"{name} {getattr(chosen, name).algorithm}" for name in offering)

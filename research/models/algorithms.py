"""What `algorithm = "auto"` stands for: which of a mixer's equal programs runs where.

A section that offers several algorithms has a line here. They are one function, so the choice decides no number of a
run beyond rounding: no fingerprint holds it, and the FLOPs that budgets count do not depend on it.

On CPU as measured by tests/benchmarks/. On an H200 with jax 0.11.2 (width 1,024, batch 8 x 1,024 in bfloat16, forward
and gradients, milliseconds): 8 experts of which 2 are active dense 3.0, capacity 3.1, at a factor of 1.25 1.6, ragged
6.6 (XLA decomposes it to a masked product per expert); RWKV-4 associative 2.1, sequential 24; RWKV-7 chunked 5 to 7,
sequential 32; Mamba-2 chunked 3, recurrent 54; Mamba associative 31, sequential 33, chunked 44, which needs a fraction
of their memory. No TPU has been measured: there it is what has the fewest steps in a row and multiplies no row twice.
"""

from collections.abc import Mapping
from dataclasses import replace

import jax

from research.config import ConfigError, ModelConfig, MoeConfig

AUTO: Mapping[str, Mapping[str, str]] = {  # section -> backend -> algorithm
    "moe": {"cpu": "ragged", "gpu": "dense", "tpu": "ragged"},
    "mamba": {"cpu": "chunked", "gpu": "chunked", "tpu": "chunked"},
    "mamba2": {"cpu": "chunked", "gpu": "chunked", "tpu": "chunked"},
    "rwkv4": {"cpu": "sequential", "gpu": "associative", "tpu": "associative"},
    "rwkv7": {"cpu": "chunked", "gpu": "chunked", "tpu": "chunked"},
}


def algorithm(model: ModelConfig, section: str, backend: str | None = None) -> str:
    """The algorithm of the section's mixers on `backend` ("cpu", "gpu" or "tpu"; None: where jax computes now).

    Raises ConfigError for "auto" on any other backend.
    """
    asked = getattr(model, section).algorithm
    if asked != "auto":
        return asked
    backend = backend or jax.default_backend()
    if backend not in AUTO[section]:
        raise ConfigError(
            f"model.{section}.algorithm = 'auto': stands for nothing on backend {backend!r}. Fix: name an algorithm."
        )
    return _of_experts(model.moe, backend) if section == "moe" else AUTO[section][backend]


def _of_experts(moe: MoeConfig, backend: str) -> str:
    if moe.routing == "expert_choice":
        return "capacity"  # filled slots are what expert choice is
    return "capacity" if backend == "gpu" and moe.capacity_factor is not None else AUTO["moe"][backend]


def resolved(model: ModelConfig, backend: str) -> ModelConfig:
    """`model` with every "auto" replaced by what it stands for on `backend`."""
    chosen = {name: algorithm(model, name, backend) for name in AUTO}
    return replace(model, **{name: replace(getattr(model, name), algorithm=chosen[name]) for name in AUTO})

"""What a step's collectives carry on a mesh, and the least that they could, in closed form."""

import math
from collections.abc import Mapping

import jax
from flax.core import meta

from research.config import ModelConfig, RunConfig
from research.models import language_model
from research.models.mixers import Mixer, mixers_of
from research.sharding import mesh_axes

FORWARD_AND_BACK = 2  # what crosses forward has a gradient that crosses back
SUM = 2  # scattered and gathered, in a ring: twice the traffic of either
WIDTHS = ("width", "expert_width")  # names of dimensions whose parts are gathered before they are multiplied with


def traffic_bytes(collective_bytes: Mapping[str, int]) -> int:
    """Of the bytes by kind of research/training/hlo_cost.py, which counts each array once."""
    return sum((SUM if kind == "all-reduce" else 1) * count for kind, count in collective_bytes.items())


def least_bytes(config: RunConfig, mesh: Mapping[str, int], value_bytes: int = 4) -> float:
    """Bytes of one device and step that the mesh's strategies cannot do without, in the architecture's own algorithms.

    value_bytes: of a number that crosses, 4 for float32.

    - Gradients are summed once, over all devices with different tokens; under fsdp, and on an expert axis but for the
      experts themselves, a weight is gathered once (twice where layers are computed again) and its gradient scattered,
      and of the embedding the rows that are read.
    - tensor: what each mixer, the embedding and the head make (B, L, D) is summed, forward or back. Mamba sums what it
      selects by, and RWKV-7 and latent attention gather and scatter what low ranks carry, too.
    - expert: each choice travels to its expert and back (`dense`: tokens are gathered, what became of them scattered).
    - sequence: attention gathers keys and values, experts in slots their sequence; convolutions, gated recurrences and
      RWKV-4 exchange length for channels or rows; other recurrences hand on a state, RWKV-7 also the matrix that its
      part of the sequence multiplies one with.
    """
    ways = {axis: mesh.get(axis, 1) for axis in ("data", "fsdp", "tensor", "expert", "sequence")}
    stacks = [(config.model, config.training.sequence_length)]
    if config.model.encoder is not None:
        stacks.append((config.model.encoder, config.model.source_length))
    sequences = config.training.batch_size / (ways["data"] * ways["fsdp"] * ways["expert"])
    lengths = [length / ways["sequence"] for _, length in stacks]
    values = _weights(config.model, sequences * sum(lengths), ways)
    for (model, _), length in zip(stacks, lengths):
        values += sequences * _activations(model, length, ways)
    return value_bytes * values


def _weights(model: ModelConfig, tokens: float, ways: dict[str, int]) -> float:
    """For a device that has so many tokens."""
    values = 0.0
    boxed = language_model.abstract(model)
    for path, box in jax.tree.leaves_with_path(boxed, is_leaf=lambda leaf: isinstance(leaf, meta.AxisMetadata)):
        split = set(mesh_axes(" ".join(filter(None, box.axes))))
        gathered = set(mesh_axes(" ".join(name for name in box.axes if name in WIDTHS)))
        own = math.prod(box.value.shape) / math.prod(ways[axis] for axis in split - gathered)
        summed = math.prod(ways[axis] for axis in ("data", "fsdp", "expert", "sequence") if axis not in split)
        parts = math.prod(ways[axis] for axis in gathered)
        if parts > 1:
            gathers = 1 if model.remat == "none" else 2
            of_weight = (gathers + 1) * own
            rows = FORWARD_AND_BACK * tokens * model.width if path[-1].key == "embedding" else of_weight
            values += min(of_weight, rows)
            own /= parts
        values += SUM * own if summed > 1 else 0
    return values


def _activations(model: ModelConfig, tokens: float, ways: dict[str, int]) -> float:
    """Values of one sequence, of which a device holds so many tokens."""
    named = [pair for layer in model.layers for pair in zip(layer, mixers_of(layer, model))]
    along_length = FORWARD_AND_BACK + (model.remat != "none")  # what a mixer read is read again
    values = 0.0
    if ways["tensor"] > 1:
        values += FORWARD_AND_BACK * SUM * tokens * model.width
    for name, mixer in named:
        if ways["tensor"] > 1:
            values += FORWARD_AND_BACK * tokens * _of_channels(model, name)
        if ways["expert"] > 1 and name == "moe":
            values += FORWARD_AND_BACK * _of_experts(model, tokens, ways)
        if ways["sequence"] > 1:
            values += along_length * _along_length(model, name, mixer, tokens, ways)
    return values


def _of_channels(model: ModelConfig, name: str) -> float:
    """Values a token."""
    if name == "mamba":
        return SUM * (model.width + model.mamba.rank(model.width) + 2 * model.mamba.state_size)
    if name == "latent_attention":
        cfg = model.latent_attention
        return SUM * model.width + cfg.kv_rank + cfg.rope_dim + (cfg.query_rank or 0)
    if name in ("rwkv7_first", "rwkv7_time"):
        ranks = model.rwkv7.ranks(model.width)
        return SUM * model.width + ranks.decay + ranks.rate + ranks.gate + (ranks.value if name == "rwkv7_time" else 0)
    return SUM * model.width


def _of_experts(model: ModelConfig, tokens: float, ways: dict[str, int]) -> float:
    cfg = model.moe
    travelling = ways["expert"] if cfg.algorithm == "dense" else cfg.active * (cfg.capacity_factor or 1)
    return 2 * travelling * tokens * model.width


def _along_length(model: ModelConfig, name: str, mixer: Mixer, tokens: float, ways: dict[str, int]) -> float:
    whole, own = tokens * ways["sequence"], tokens * model.width
    if name == "attention":
        return whole * 2 * model.attention.kv_heads * model.attention.head_dim / ways["tensor"]
    if name == "latent_attention":  # the latents are fewer, but each device would make all keys and values of them
        cfg = model.latent_attention
        return whole * cfg.heads * (cfg.head_dim + cfg.rope_dim + cfg.value_dim) / ways["tensor"]
    if name == "moe":
        return 2 * whole * model.width if model.moe.algorithm == "capacity" else 0.0
    exchanged = {"s4": 2 * own, "h3": 2 * own, "rwkv4_time": 3 * own}
    if name in exchanged:
        return exchanged[name] / ways["tensor"]
    if name in ("lstm", "gru"):
        return 2 * own
    matrices = 2 if name in ("rwkv7_first", "rwkv7_time") else 1
    return matrices * mixer.state_bytes(model, 0, 1) / ways["tensor"]

"""Mesh, logical axes and the shardings that follow from them.

Every parameter and activation names its dimensions; one table says which mesh axes each name is split over. The mesh
is always five axes (data, fsdp, tensor, expert, sequence), of size one where unused, so one code path serves a laptop
and a pod.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from flax.core.meta import AxisMetadata
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from research.config import ConfigError, MeshConfig, check

MESH_AXES = ("data", "fsdp", "tensor", "expert", "sequence")

RULES: Mapping[str, tuple[str, ...]] = {
    # activations
    "batch": ("data", "fsdp"),
    "length": ("sequence",),
    "steps": (),  # the length, where a device reads whole sequences
    "activation": (),
    # parameters; head and hidden axes serve activations too, which is what makes tensor parallelism Megatron's
    "width": ("fsdp",),
    "table_width": (),  # a table split over vocab and width makes XLA gather it whole (Involuntary full remat)
    "positions": (),
    "buckets": (),
    "vocab": ("tensor",),
    "heads": ("tensor",),
    "kv_heads": ("tensor",),
    "head_dim": (),
    "hidden": ("tensor",),
    "gates": (),
    "inner": ("tensor",),  # channels of a recurrence or convolution
    "taps": (),
    "state": (),
    "rank": (),
    "experts": ("expert",),
    "routes": (),  # the router's experts: every device scores all of them
    "layers": (),
}


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh of all `devices` (default: every device of the job) in the configured shape.

    Raises ConfigError if the sizes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else list(devices)
    sizes = [getattr(config, axis) for axis in MESH_AXES]
    fixed = math.prod(size for size in sizes if size != -1)
    if -1 in sizes and len(devices) % fixed == 0:
        sizes[sizes.index(-1)] = len(devices) // fixed
    check(
        math.prod(sizes) == len(devices),
        "mesh",
        dict(zip(MESH_AXES, sizes, strict=True)),
        f"sizes must multiply to the {len(devices)} devices of this job",
        "use -1 on one axis to take the rest",
    )
    return jax.make_mesh(tuple(sizes), MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES), devices=devices)


def partition_spec(axes: Sequence[str | None], rules: Mapping[str, tuple[str, ...]] = RULES) -> PartitionSpec:
    """The PartitionSpec of an array whose dimensions have these logical names.

    Raises ConfigError for a name without a rule, or when two dimensions claim the same mesh axis.
    """
    claimed: dict[str, str | None] = {}
    entries = []
    for axis in axes:
        if axis is not None and axis not in rules:
            raise ConfigError(f"logical axis {axis!r} has no rule. Fix: add it to sharding.RULES.")
        mesh_axes = rules[axis] if axis is not None else ()
        for mesh_axis in mesh_axes:
            if mesh_axis in claimed:
                raise ConfigError(
                    f"axes {tuple(axes)}: {claimed[mesh_axis]!r} and {axis!r} are both split over mesh axis "
                    f"{mesh_axis!r}; one array can use a mesh axis once. Fix: give one another rule in sharding.RULES."
                )
            claimed[mesh_axis] = axis
        entries.append(mesh_axes if len(mesh_axes) > 1 else (mesh_axes[0] if mesh_axes else None))
    return PartitionSpec(*entries)


def constrain(x: jax.Array, axes: str) -> jax.Array:
    """Pin an activation to the sharding its axes' names imply; where there is nothing to split, x itself."""
    return jax.lax.with_sharding_constraint(x, partition_spec(axes.split())) if _splits() else x


def on_each_device(function: Callable, in_axes: Sequence[str], out_axes: Any, check_vma: bool = True) -> Callable:
    """`function` with each device calling it on its own part of the arrays, which these axes' names imply.

    in_axes has a string for each argument (an array, a tree of arrays of one kind, or None), out_axes is a tree like
    the results. Where there is nothing to split, `function` itself. check_vma: jax follows which values differ between
    devices, to which end every primitive inside must say so of its results.
    """
    if not _splits():
        return function
    specs = tuple(partition_spec(axes.split()) for axes in in_axes)
    out_specs = jax.tree.map(lambda axes: partition_spec(axes.split()), out_axes)
    return jax.shard_map(function, in_specs=specs, out_specs=out_specs, check_vma=check_vma)


def platform() -> str:
    """What programs are compiled for here: "cpu", "gpu" or "tpu"; of the current mesh's devices, else jax's default."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else device.platform


def _splits() -> bool:
    """Whether XLA splits arrays over several devices here: on a mesh, and outside of `on_each_device`."""
    mesh = jax.sharding.get_abstract_mesh()
    return not mesh.empty and mesh.size > 1 and not mesh.manual_axes


def devices_over(axis: str) -> int:
    """Over how many devices the current mesh splits the logical axis."""
    mesh = jax.sharding.get_abstract_mesh()
    return math.prod(mesh.shape[mesh_axis] for mesh_axis in RULES[axis]) if _splits() else 1


def is_split(axis: str) -> bool:
    """Whether the current mesh splits the logical axis over more than one device."""
    return devices_over(axis) > 1


def parameter_shardings(boxed: Any, mesh: Mesh) -> Any:
    """NamedSharding for each boxed parameter, as a tree shaped like the unboxed parameters.

    Raises ConfigError if a dimension does not divide over its mesh axes.
    """

    def one(path: Any, box: Any) -> NamedSharding:
        spec = partition_spec(box.axes)
        for size, axis, entry in zip(box.value.shape, box.axes, spec, strict=True):
            ways = math.prod(mesh.shape[a] for a in RULES.get(axis, ()))
            check(
                size % ways == 0,
                jax.tree_util.keystr(path),
                box.value.shape,
                f"dimension {axis!r} of {size} must divide over the {ways} devices of mesh axis {entry!r}",
                "change the model's size or the mesh",
            )
        return NamedSharding(mesh, spec)

    return jax.tree_util.tree_map_with_path(one, boxed, is_leaf=lambda leaf: isinstance(leaf, AxisMetadata))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Of token arrays (B, L)."""
    return NamedSharding(mesh, partition_spec(("batch", "length")))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())

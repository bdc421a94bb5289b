"""Mesh, logical axes and the shardings that follow from them.

Every parameter and activation names its dimensions; one table says which mesh axes each name is split over. The mesh
is always five axes (data, fsdp, tensor, expert, sequence), of size one where unused, so one code path serves a laptop
and a pod.

Matrix products, norms and whatever is done to each element are left to XLA's partitioner, led by `constrain`. What it
splits badly or not at all (scans, FFTs, sorts, lookups, kernels) runs on local arrays: per_device.py.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from flax.core.meta import AxisMetadata
from jax.experimental.mesh_utils import create_device_mesh
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from research.config import ConfigError, MeshConfig, RunConfig, check

MESH_AXES = ("data", "fsdp", "tensor", "expert", "sequence")

RULES: Mapping[str, tuple[str, ...]] = {
    # activations
    "batch": ("data", "fsdp", "expert"),
    "length": ("sequence",),
    # where a device reads whole sequences, the axis that splits them splits heads or channels, or else the batch
    "steps": (),
    "spread": ("tensor", "sequence"),
    "rows": ("data", "fsdp", "expert", "tensor", "sequence"),
    "rows_of_length": ("data", "fsdp", "expert", "tensor"),
    "activation": (),
    # parameters; head and hidden axes serve activations too, which is what makes tensor parallelism Megatron's
    "width": ("fsdp", "expert"),  # gathered before it is multiplied with
    "expert_width": ("fsdp",),  # of an expert's own weights, whose experts that axis splits already
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
    "narrow": ("tensor",),  # channels that do not grow with the width
    "rank": (),
    "selected": (),  # Mamba's: a rank and two states
    "experts": ("expert",),
    "routes": (),  # the router's experts: every device scores all of them
    "classes": (),  # of a classifier head
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
    # jax.make_mesh would refuse axes that split a physical one on most chips: 8 x 8 on a cube of 4 x 4 x 4, for one.
    placed = create_device_mesh(tuple(sizes), devices, allow_split_physical_axes=True)
    return Mesh(placed, MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


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
    return jax.lax.with_sharding_constraint(x, partition_spec(axes.split())) if splits() else x


def mesh_axes(axes: str) -> tuple[str, ...]:
    return tuple(mesh_axis for name in axes.split() for mesh_axis in RULES[name])


def splits() -> bool:
    """Whether XLA splits arrays over several devices here: on a mesh, and outside of `per_device.on_each_device`."""
    mesh = jax.sharding.get_abstract_mesh()
    return not mesh.empty and mesh.size > 1 and not mesh.manual_axes


def platform() -> str:
    """What programs are compiled for here: "cpu", "gpu" or "tpu"; of the current mesh's devices, else jax's default."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else device.platform


def ways(axis: str) -> int:
    """Over how many devices XLA splits the logical axis here."""
    return _ways(jax.sharding.get_abstract_mesh(), axis) if splits() else 1


def _ways(mesh: Any, axis: str | None) -> int:
    """Over how many devices of the mesh a logical axis is split."""
    return math.prod(mesh.shape[mesh_axis] for mesh_axis in RULES.get(axis, ()))


def check_divides(field: str, shape: tuple[int, ...], axes: Sequence[str | None], mesh: Any = None) -> None:
    mesh = jax.sharding.get_abstract_mesh() if mesh is None else mesh
    for size, axis in zip(shape, axes):
        devices = _ways(mesh, axis)
        check(
            size % devices == 0,
            field,
            shape,
            f"dimension {axis!r} of {size} must divide over the {devices} devices of mesh axes {RULES.get(axis)}",
            "change the size or the mesh",
        )


def parameter_shardings(boxed: Any, mesh: Mesh) -> Any:
    """NamedSharding for each boxed parameter, as a tree shaped like the unboxed parameters.

    Raises ConfigError if a dimension does not divide over its mesh axes.
    """

    def one(path: Any, box: Any) -> NamedSharding:
        check_divides(jax.tree_util.keystr(path), box.value.shape, box.axes, mesh)
        return NamedSharding(mesh, partition_spec(box.axes))

    return jax.tree_util.tree_map_with_path(one, boxed, is_leaf=lambda leaf: isinstance(leaf, AxisMetadata))


def moment_shardings(moments: Any, params: Any, shardings: Any, mesh: Mesh) -> Any:
    """NamedSharding for each leaf of an optimizer's state, of abstract arrays like `params` and their `shardings`.

    What an optimizer keeps of a parameter lies in its state under the parameter's path. Of the parameter's shape it is
    split like it; of another (factored moments, preconditioners), each dimension is split like the first of the
    parameter's that has its size and splits no other; the rest, counters for one, is whole on every device.
    """
    of = {
        path: (param.shape, sharding.spec)
        for (path, param), sharding in zip(
            jax.tree_util.tree_leaves_with_path(params), jax.tree.leaves(shardings), strict=True
        )
    }

    def one(path: Any, moment: Any) -> NamedSharding:
        found = [of[path[first:]] for first in range(len(path)) if path[first:] in of]
        return NamedSharding(mesh, _like(moment.shape, *found[0]) if found else PartitionSpec())

    return jax.tree_util.tree_map_with_path(one, moments)


def _like(shape: tuple[int, ...], of: tuple[int, ...], spec: PartitionSpec) -> PartitionSpec:
    if shape == of:
        return spec
    left = list(zip(of, spec, strict=True))
    entries = []
    for size in shape:
        match = next((pair for pair in left if pair[0] == size), None)
        entries.append(match[1] if match else None)
        if match:
            left.remove(match)
    return PartitionSpec(*entries)


def check_batches(config: RunConfig, mesh: Mesh) -> None:
    """Raise ConfigError unless every batch of the run divides over the mesh, in rows and in length."""
    training, encoder = config.training, config.model.encoder
    rows = {
        "training.batch_size / microbatches": training.batch_size // training.microbatches,
        "evaluation.batch_size": config.evaluation.batch_size,
    }
    lengths = {"training.sequence_length": training.sequence_length}
    if encoder is not None:
        lengths["model.source_length"] = config.model.source_length
    for axis, sizes in (("batch", rows), ("length", lengths)):
        devices = _ways(mesh, axis)
        for name, size in sizes.items():
            check(
                size % devices == 0,
                name,
                size,
                f"must divide over the {devices} devices that the mesh axes {', '.join(RULES[axis])} have together",
                f"use a multiple of {devices}, or another mesh",
            )


def batch_sharding(mesh: Mesh, dimensions: int = 2) -> NamedSharding:
    """Of arrays of tokens (B, L), or of rows (B,)."""
    return NamedSharding(mesh, partition_spec(("batch", "length")[:dimensions]))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())

"""Functions that run on each device's own part of the arrays, and how they speak with the other devices.

XLA's partitioner splits matrix products and element-wise work well. It gathers what an FFT, a sort or a lookup reads,
repeats loops on every device, and sums gradients at every step of one. Written for the part that a device holds, they
are split as the function says, with the collectives that it names. Off a mesh it is the same function of whole arrays,
with no collectives.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from research.sharding import MESH_AXES, check_divides, mesh_axes, partition_spec, splits

OUTSIDE = {"steps": "length", "spread": "inner", "rows": "rows_of_length"}  # of `on_each_device`: how arrays come


def on_each_device(function: Callable, in_axes: Sequence[str], out_axes: Any, check_vma: bool = True) -> Callable:
    """`function` with each device calling it on its own part of the arrays, as these axes' names imply.

    in_axes has a string for each argument (an array, a tree of arrays, or None), out_axes one for each result. Names
    left out at the end are of dimensions that are not split, so that "" is an array that every device has whole. Where
    there is nothing to split, it is `function` itself. Inside, `sum_over` and its like speak with the other devices.
    check_vma: jax follows which values differ between devices, for which every primitive inside must say so.

    Raises ConfigError if a dimension does not divide over its devices.
    """
    if not splits():
        return function
    everywhere = _axes_of_all(jax.tree.leaves(out_axes)) if check_vma else ()

    def of_device(*arguments: Any) -> Any:
        own = (_as_own(axes, argument, everywhere) for axes, argument in zip(in_axes, arguments))
        results = function(*(_exchange(axes, argument) for axes, argument in zip(in_axes, own)))
        return jax.tree.map(lambda axes, result: _exchange(axes, result, back=True), out_axes, results)

    def checked(*arguments: Any) -> Any:
        for axes, argument in zip(in_axes, arguments, strict=True):
            for array in jax.tree.leaves(argument):
                for names in (_outside(axes), axes.split()):
                    check_divides(f"activation ({axes})", array.shape, names)
        return mapped(*arguments)

    mapped = jax.shard_map(
        of_device,
        in_specs=tuple(map(_outside_spec, in_axes)),
        out_specs=jax.tree.map(_outside_spec, out_axes),
        check_vma=check_vma,
    )
    return checked


def _axes_of_all(of_results: Sequence[str]) -> tuple[str, ...]:
    """The mesh axes that every result is split over."""
    return tuple(axis for axis in MESH_AXES if all(axis in mesh_axes(axes) for axes in of_results))


def _as_own(axes: str, arrays: Any, every: tuple[str, ...]) -> Any:
    """The same numbers, each device's of its own along these mesh axes, too.

    The gradient of an array that devices have in common is summed over them where it becomes their own: here, once,
    and not where it is used, at every step of a loop perhaps.
    """
    common = tuple(axis for axis in every if axis not in mesh_axes(axes))
    return jax.tree.map(lambda array: jax.lax.pcast(array, common, to="varying"), arrays) if common else arrays


def _outside(axes: str) -> list[str]:
    """Names of the dimensions as they are split outside."""
    names = axes.split()
    return [OUTSIDE.get(name, name) for name in names] if _is_exchanged(names) else names


def _outside_spec(axes: str) -> PartitionSpec:
    return partition_spec(_outside(axes))


def _is_exchanged(names: list[str]) -> bool:
    """Whether an array comes split over its length, and is to be split over heads, channels or rows instead."""
    return "steps" in names and ("spread" in names or "rows" in names)


def _exchange(axes: str, arrays: Any, back: bool = False) -> Any:
    """Between both splits by one all-to-all of the sequence axis; left to itself, XLA gathers the whole array first."""
    names = axes.split()
    if not _is_exchanged(names):
        return arrays
    steps, other = names.index("steps"), names.index("spread" if "spread" in names else "rows")
    cut, joined = (steps, other) if back else (other, steps)
    return jax.tree.map(lambda array: exchanged(array, "length", cut, joined), arrays)


def _inside(axes: str) -> tuple[str, ...]:
    """The mesh axes that these logical axes are split over, inside of `on_each_device`; elsewhere none."""
    manual = jax.sharding.get_abstract_mesh().manual_axes
    return tuple(axis for axis in mesh_axes(axes) if axis in manual)


def _apart(axes: str) -> tuple[str, ...]:
    """Those of them that have more than one device."""
    return tuple(axis for axis in _inside(axes) if jax.lax.axis_size(axis) > 1)


def sum_over(x: jax.Array, axes: str) -> jax.Array:
    """The sum of x over the devices that split these logical axes."""
    return jax.lax.psum(x, _inside(axes)) if _inside(axes) else x


def max_over(x: jax.Array, axes: str) -> jax.Array:
    """The largest x of the devices that split these logical axes."""
    return jax.lax.pmax(x, _inside(axes)) if _inside(axes) else x


def gathered(x: jax.Array, axes: str, dimension: int = 0) -> jax.Array:
    """The parts of all devices that split these logical axes, one after the other along `dimension`."""
    names = _apart(axes)
    return jax.lax.all_gather(x, names, axis=dimension, tiled=True) if names else x


def whole(x: jax.Array, axes: str) -> jax.Array:
    """The array of which x is this device's part, `axes` naming its dimensions: one all-gather of all that are split.

    One after the other would send the earlier ones' parts again. The gradient is summed and scattered, in one step too.
    """
    split = [_apart(name) for name in axes.split()]
    if not any(split):
        return x
    parts = jax.lax.all_gather(x, tuple(name for names in split for name in names))
    devices = [math.prod(map(jax.lax.axis_size, names)) for names in split]
    order = [axis for pair in zip(range(x.ndim), range(x.ndim, 2 * x.ndim)) for axis in pair]
    return parts.reshape(*devices, *x.shape).transpose(order).reshape([n * m for n, m in zip(devices, x.shape)])


def summed_part(x: jax.Array, axes: str, part: str, dimension: int = 0) -> jax.Array:
    """The sum of x over the devices that split `axes`: of it this device's part, `part` being split on `dimension`."""
    kept = tuple(name for name in _apart(part) if name in _inside(axes))
    others = tuple(name for name in _inside(axes) if name not in kept)
    x = jax.lax.psum(x, others) if others else x
    return jax.lax.psum_scatter(x, kept, scatter_dimension=dimension, tiled=True) if kept else x


def exchanged(x: jax.Array, axes: str, cut: int, joined: int) -> jax.Array:
    """An all-to-all of the devices that split these logical axes: x cut along one dimension, joined along another."""
    names = _apart(axes)
    return jax.lax.all_to_all(x, names, split_axis=cut, concat_axis=joined, tiled=True) if names else x


def from_device_before(x: jax.Array, axis: str, first: jax.Array) -> jax.Array:
    """The x of the device that has the part before this one's along the logical axis; the first device's is `first`."""
    names = _apart(axis)
    if not names:
        return first
    came = jax.lax.ppermute(x, names, [(i, i + 1) for i in range(devices_of(axis) - 1)])
    return jnp.where(jax.lax.axis_index(names) == 0, first, came)


def devices_of(axis: str) -> int:
    """How many devices split the logical axis."""
    return math.prod(map(jax.lax.axis_size, _inside(axis)))


def own_over(x: jax.Array, axes: str) -> jax.Array:
    """x, which the devices that split these logical axes have in common: its gradient is summed over them here."""
    return jax.lax.pcast(x, _inside(axes), to="varying") if _inside(axes) else x


def start_of(axis: str, size: int) -> jax.Array | int:
    """Where this device's `size` entries of the logical axis start in the whole array."""
    return jax.lax.axis_index(_inside(axis)) * size if _inside(axis) else 0

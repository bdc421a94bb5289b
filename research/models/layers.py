"""Parameters and norms: what every mixer is made of.

`parameter` is the only place where a parameter is made: one line states its shape, logical axes, initialiser and role.
Its numbers at every size follow from these (research/optim/parametrisation.py). The dimension letters used everywhere
in `models/`:

    B batch     L length     S source length   D width          H query heads   G key-value heads
    K head channels          F hidden          V vocabulary     E experts       A active experts   X capacity
    P inner channels         N state size      R rank           Q chunk         W conv width
"""

import functools
import math
import zlib
from collections.abc import Callable, Sequence
from typing import Any, get_args

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from flax.core import meta

from research.config import ModelConfig, check_choice
from research.config.optimizers import Axes
from research.models.initialisers import FanIn, Initializer, Normal, Orthogonal, ones, resolved, zeros
from research.optim.parametrisation import ROLES, Role, Scaling, check_fans, scaling
from research.per_device import exchanged, gathered, on_each_device, start_of, sum_over
from research.sharding import RULES, constrain, ways

STACKED_AXIS = "layers"  # the leading axis of parameters in a scanned stack
BRANCH = "layer"  # starts the names of modules in residual branches, and of no other


class Shared(flax.struct.PyTreeNode):
    """What all layers of one pass share, beside the residual stream.

    mask_BL: true at real tokens, false at padding, which must change nothing at real ones; None without padding.
    distance_tables_nNH: scores of T5's N buckets of distance for each head, one table for the stack, and a copy of it
    for each part of the batch that a device has (models/attention/attention.py).
    first_value_BLD: the first layer's values, which later layers of RWKV-7 mix in (value residual).
    source_BSD, source_mask_BS: what the encoder wrote, and true at its real tokens; None in a decoder-only model, and
    after the first step of decoding, when the mixers' states hold what they need of it.
    """

    mask_BL: jax.Array | None = None
    distance_tables_nNH: jax.Array | None = None
    first_value_BLD: jax.Array | None = None
    source_BSD: jax.Array | None = None
    source_mask_BS: jax.Array | None = None


class Parameter(flax.struct.PyTreeNode, meta.AxisMetadata):
    """A parameter with what the rest of the code must know of it: how it starts, its logical axes and its role.

    `role` is one of research/optim/parametrisation.py, and `scaling` what follows from it; `init` is scaled by it
    already. A balance parameter is in no count of parameters (optim/expert_bias.py moves it). `layer` is the one that
    owns it, counted from the bottom; of a stacked parameter the lowest one, with the others `layer_step` apart. Boxes
    exist only in abstract trees; arrays are made by `draw`.
    """

    value: Any
    axes: tuple[str | None, ...] = flax.struct.field(pytree_node=False)
    role: Role = flax.struct.field(pytree_node=False)
    init: Initializer = flax.struct.field(pytree_node=False)
    layer: int = flax.struct.field(pytree_node=False, default=0)
    layer_step: int = flax.struct.field(pytree_node=False, default=0)
    contracted: int = flax.struct.field(pytree_node=False, default=0)
    scaling: Scaling = flax.struct.field(pytree_node=False, default=Scaling())

    @property
    def matrix(self) -> Axes:
        """Its dimensions as those of matrices, if its fan-in and its fan-out both grow with the width."""
        dimensions, facts = tuple(range(len(self.axes))), ROLES[self.role]
        first = sum(axis in (STACKED_AXIS, "experts") for axis in self.axes)
        after = first + self.contracted
        is_matrix = facts.contracted and facts.widens
        return (
            Axes(dimensions[:first], dimensions[first:after], dimensions[after:])
            if is_matrix
            else Axes(dimensions, (), ())
        )

    def unbox(self) -> Any:
        return self.value

    def replace_boxed(self, val: Any) -> "Parameter":
        return self.replace(value=val)

    def add_axis(self, index: int, params: dict[Any, Any]) -> "Parameter":
        """Called by nn.scan when it stacks layers: the new axis is named `params[nn.PARTITION_NAME]`."""
        axes = (*self.axes[:index], params[nn.PARTITION_NAME], *self.axes[index:])
        return self.replace(axes=axes, layer_step=params["layer_step"])

    def remove_axis(self, index: int, params: dict[Any, Any]) -> "Parameter":
        return self.replace(axes=(*self.axes[:index], *self.axes[index + 1 :]))


def parameter(
    module: nn.Module,
    name: str,
    shape: tuple[int, ...],
    axes: str,
    init: Initializer | FanIn,
    role: Role,
    contracted: int = 1,
    rank_ratio: float | None = None,
) -> jax.Array:
    """Declare (or read) a float32 parameter of `shape`; `axes` names its dimensions, separated by spaces.

    contracted: how many dimensions are summed over where it is used, as in `project`: its fan-in, if its role has one.
    They are the first ones, but for that of the experts. rank_ratio: of a rank among the dimensions to the base
    model's, where it need not grow as the width. A module with an attribute `layer` says by it which layer of the stack
    it is, for initialisers that depend on it.
    """
    names, layer = tuple(axes.split()), getattr(module, "layer", 0)
    if len(names) != len(shape):
        raise ValueError(f"parameter {name}: {len(shape)} dimensions {shape} but {len(names)} axes {axes!r}")
    check_choice(f"role of parameter {name}", role, get_args(Role))
    for axis in names:
        check_choice(f"axis of parameter {name}", axis, list(RULES))
    first = int(names[0] == "experts")
    into = names[first : first + contracted] if ROLES[role].contracted else ()
    check_fans(name, role, into, names[first + len(into) :])
    model, in_branch = _model(module), any(part.startswith(BRANCH) for part in module.path)
    scale = Scaling() if model is None else scaling(model, role, into, in_branch, rank_ratio)
    fan = math.prod(shape[first : first + contracted]) if into else shape[-1]  # an embedding's: the row's length
    if not isinstance(init, FanIn | Orthogonal):
        scale = scale._replace(init=1.0)  # a fixed start is no size that could change with the model's
    start = resolved(init, fan, model, scale.init)
    zero = jnp.zeros(shape, jnp.float32)
    weight = module.param(
        name, lambda key: Parameter(zero, names, role, start, layer, contracted=len(into), scaling=scale)
    )
    return weight if scale.multiplier == 1 else weight * scale.multiplier


def _model(module: nn.Module | None) -> ModelConfig | None:
    """The config of the model that the module is part of, which norms and convolutions do not hold themselves."""
    while isinstance(module, nn.Module):
        if hasattr(module, "config"):
            return module.config
        module = module.parent
    return None  # a part by itself has no size to be relative to


def draw(boxed: Any, key: jax.Array, shardings: Any = None) -> Any:
    """Arrays for an abstract tree of `Parameter`s, each made by its initialiser, placed by `shardings` where given.

    A parameter's numbers depend on `key`, its path and its shape alone: not on the mesh, nor on other parameters.
    Each distinct (initialiser, shape) compiles once, since one program of them all takes XLA seconds per model.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(boxed, is_leaf=is_boxed)
    placements = [None] * len(leaves) if shardings is None else structure.flatten_up_to(shardings)
    drawn = []
    for (path, box), placement in zip(leaves, placements, strict=True):
        own_key = jax.random.fold_in(key, zlib.crc32(jax.tree_util.keystr(path).encode()))
        stacked = box.axes[0] == STACKED_AXIS
        # A vector is made whole and then split: in a program compiled for a mesh, its formula may round another way.
        whole = box.role in ("vector", "score")
        made = _drawer(box.init, box.value.shape, stacked, None if whole else placement)
        array = made(own_key, box.layer, box.layer_step)
        drawn.append(_split(np.asarray(array), placement) if whole and placement is not None else array)
    return structure.unflatten(drawn)


def _split(whole: np.ndarray, placement: Any) -> jax.Array:
    """An array that every process holds, placed by each on its own devices."""
    return jax.make_array_from_callback(whole.shape, placement, lambda index: whole[index])


@functools.cache
def _drawer(init: Initializer, shape: tuple[int, ...], stacked: bool, placement: Any) -> Any:
    """A compiled initialiser; of a parameter stacked over layers it draws each layer by itself."""
    start, finish = (init.start, init.finish) if isinstance(init, Normal) else (init, lambda array: array)
    if placement is not None and isinstance(init, Normal):  # each device finishes its own part
        finish = jax.shard_map(finish, mesh=placement.mesh, in_specs=placement.spec, out_specs=placement.spec)

    def one(key: jax.Array, layer: int, layer_step: int) -> jax.Array:
        if not stacked:
            return finish(start(key, shape, layer))

        def of_slot(slot: jax.Array) -> jax.Array:
            return start(jax.random.fold_in(key, slot), shape[1:], layer + slot * layer_step)

        return finish(jax.vmap(of_slot)(jnp.arange(shape[0])))

    return jax.jit(one, out_shardings=placement)


def is_boxed(leaf: Any) -> bool:
    return isinstance(leaf, Parameter)


def project(x_BLD: jax.Array, weight: jax.Array, contracted: int = 1) -> jax.Array:
    """x times `weight`, over x's last `contracted` dimensions and as many leading ones of the weight, in x's dtype.

    Computed as one matrix product of (batch * length) rows: the three-dimensional form's gradients make XLA's CPU
    compiler write transposed copies of every activation, which a small model's step pays for dearly. Where devices
    split the length or channels, merging these with other dimensions would undo that, and the plain form is kept.
    """
    outer, inner = x_BLD.shape[:-contracted], weight.shape[contracted:]
    weight = weight.astype(x_BLD.dtype)
    if ways("length") > 1 or ways("inner") > 1:
        return jnp.tensordot(x_BLD, weight, contracted)
    rows = x_BLD.reshape(math.prod(outer), -1)
    return (rows @ weight.reshape(rows.shape[1], -1)).reshape(*outer, *inner)


def project_each(x_BLD: jax.Array, *weights: tuple[jax.Array, str]) -> tuple[jax.Array, ...]:
    """x times each of several weights, in x's dtype; beside a weight, the names of its dimensions, x's width first."""

    def products(x_BLD: jax.Array, *weights: jax.Array) -> tuple[jax.Array, ...]:
        return tuple(project(x_BLD, weight) for weight in weights)

    return products_of(products, ((x_BLD, "batch length"),), weights)


def products_of(
    function: Callable, inputs: Sequence[tuple[Any, str]], weights: Sequence[tuple[jax.Array, str]]
) -> tuple[jax.Array, ...]:
    """function(*inputs, *weights), which makes of each weight (D, ...) a product (B, L, ...).

    inputs: arrays, or trees of them, and the names of their dimensions. Where devices split the weights' channels, an
    input's gradient is the sum over these devices of what all products send back: taken once here, where XLA would for
    each product.
    """
    arrays = [array for array, _ in inputs] + [weight.astype(inputs[0][0].dtype) for weight, _ in weights]
    if ways("hidden") == 1:
        return function(*arrays)
    channels = [axes.split(maxsplit=1)[1] for _, axes in weights]
    in_axes = [axes for _, axes in inputs] + [f"activation {axes}" for axes in channels]
    return on_each_device(function, in_axes, tuple(f"batch length {axes}" for axes in channels))(*arrays)


def look_up(table_VD: jax.Array, rows_BL: jax.Array, rows_axis: str = "vocab") -> jax.Array:
    """Rows (B, L) of a float32 table (V, D) whose rows are named `rows_axis` and whose columns "width": (B, L, D).

    Each device looks up, in its columns, the rows of all devices that split the width, and sends every one of these its
    own: moved are the rows read and not the table, nor the table's gradient.
    """

    def own_part(table_VD: jax.Array, rows_BL: jax.Array) -> jax.Array:
        of_all_BL = gathered(rows_BL, "width")
        local_BL = of_all_BL - start_of(rows_axis, len(table_VD))
        inside_BL = jnp.where(local_BL < 0, len(table_VD), local_BL)  # a negative row would be one from the end
        x_BLD = jnp.take(table_VD, inside_BL, axis=0, mode="fill", fill_value=0)
        return sum_over(exchanged(x_BLD, "width", 0, 2), rows_axis)

    axes = (f"{rows_axis} width", "batch length")
    return on_each_device(own_part, axes, "batch length activation")(table_VD, rows_BL)


def at_least_float32(x: jax.Array) -> jax.Array:
    """x in float32, or as it is in float64: where norms, softmax, recurrences and losses are computed."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


class RMSNorm(nn.Module):
    """x / rms(x) * gain over the last axis (Zhang & Sennrich 2019): statistics in float32, gain after the cast back."""

    epsilon: float
    axis: str = "width"
    learned: bool = True  # has a gain

    @nn.compact
    def __call__(self, x_BLD: jax.Array) -> jax.Array:
        x32_BLD = at_least_float32(x_BLD)
        scale_BL1 = jax.lax.rsqrt(jnp.mean(x32_BLD * x32_BLD, axis=-1, keepdims=True) + self.epsilon)
        normed_BLD = (x32_BLD * scale_BL1).astype(x_BLD.dtype)
        if not self.learned:
            return normed_BLD
        return along_last(jnp.multiply, normed_BLD, _gain(self, x_BLD.shape[-1]))


class LayerNorm(nn.Module):
    """(x - mean) / std * gain + bias over the last axis (Ba 2016): statistics in float32. PaLM's has no bias."""

    epsilon: float
    axis: str = "width"
    biased: bool = True

    @nn.compact
    def __call__(self, x_BLD: jax.Array) -> jax.Array:
        gain_D = _gain(self, x_BLD.shape[-1])
        x32_BLD = at_least_float32(x_BLD)
        centred_BLD = x32_BLD - x32_BLD.mean(axis=-1, keepdims=True)
        scale_BL1 = jax.lax.rsqrt(jnp.mean(centred_BLD * centred_BLD, axis=-1, keepdims=True) + self.epsilon)
        y_BLD = along_last(jnp.multiply, (centred_BLD * scale_BL1).astype(x_BLD.dtype), gain_D)
        if not self.biased:
            return y_BLD
        return along_last(jnp.add, y_BLD, parameter(self, "bias", x_BLD.shape[-1:], self.axis, zeros, "vector"))


def _gain(module: RMSNorm | LayerNorm, channels: int) -> jax.Array:
    """The norm's gain, of whose channels a device has those of its activations: gathered once, and not for the gradient
    again."""
    gain_D = parameter(module, "gain", (channels,), module.axis, ones, "vector")
    return constrain(gain_D, "activation" if module.axis == "width" else module.axis)


def norm(config: ModelConfig, name: str | None = None) -> nn.Module:
    """The model's norm over the width."""
    if config.norm == "rms":
        return RMSNorm(config.norm_epsilon, name=name)
    return LayerNorm(config.norm_epsilon, biased=config.norm == "layer", name=name)


def norm_params(config: ModelConfig) -> int:
    """Parameters of one `norm`."""
    return config.width * (2 if config.norm == "layer" else 1)


def along_last(operation: Callable, x: jax.Array, vector: jax.Array) -> jax.Array:
    """operation(x, vector) in x's dtype, the vector laid along x's last axis: ranks are never promoted silently."""
    return operation(x, vector.astype(x.dtype).reshape((1,) * (x.ndim - 1) + vector.shape))

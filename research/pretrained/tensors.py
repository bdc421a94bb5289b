"""How a checkpoint's tensors are made of our parameters and back.

A family of checkpoints is a table of `Tensor`s, which states both directions at once. Our parameters are named by their
path in the written-out layout (`period0/layer0_mixer/query`), also when the model itself is scanned, and a parameter
stacked over experts by each of them (`period0/layer0_channel/up/3`), since files hold experts one by one.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from flax import traverse_util

from research.config import ModelConfig
from research.models import language_model
from research.models.layers import Parameter

SCANNED = "periods/"  # the stacked parameters of a scanned model


class Tensor(NamedTuple):
    """One tensor of a checkpoint: its name, the paths of our parameters it holds, and the way there and back."""

    name: str
    paths: tuple[str, ...]
    join: Callable[[Sequence[np.ndarray]], np.ndarray]  # our arrays, in the order of `paths`, to theirs
    split: Callable[[np.ndarray, Sequence[tuple[int, ...]]], Sequence[np.ndarray]]  # theirs, by our shapes, to ours


def same(name: str, path: str) -> Tensor:
    """A tensor that is our parameter as it is."""
    return Tensor(name, (path,), lambda ours: ours[0], lambda theirs, shapes: [theirs.reshape(shapes[0])])


def linear(name: str, path: str, inputs: int = 1) -> Tensor:
    """A torch.nn.Linear weight (out, in) of our matrix, whose first `inputs` dimensions are contracted."""
    return Tensor(
        name,
        (path,),
        lambda ours: ours[0].reshape(math.prod(ours[0].shape[:inputs]), -1).T,
        lambda theirs, shapes: [theirs.T.reshape(shapes[0])],
    )


def bias(name: str, path: str) -> Tensor:
    """A flat vector of our bias, which may be split into heads."""
    return Tensor(name, (path,), lambda ours: ours[0].reshape(-1), lambda theirs, shapes: [theirs.reshape(shapes[0])])


def layer_paths(config: ModelConfig) -> list[str]:
    """What the paths of each layer's parameters begin with, bottom first: append `_mixer/query` and the like."""
    prefix = [f"prefix/layer{i}" for i in range(len(config.prefix))]
    return prefix + [f"period{j}/layer{i}" for j in range(config.repeats) for i in range(len(config.period))]


def expert(path: str, number: int) -> str:
    """The path of one expert's share of a parameter."""
    return f"{path}/{number}"


def flatten(config: ModelConfig, params: Any) -> dict[str, np.ndarray]:
    """Our parameters (or their gradients) by path, written out layer by layer and expert by expert."""
    flat, experts = {}, _expert_counts(config)
    for path, leaf in traverse_util.flatten_dict(params, sep="/").items():
        array = np.asarray(leaf)
        if path.startswith(SCANNED):
            flat |= {f"period{i}/{path.removeprefix(SCANNED)}": part for i, part in enumerate(array)}
        else:
            flat[path] = array
    for path in flat.keys() & experts.keys():
        flat |= {expert(path, i): part for i, part in enumerate(flat.pop(path))}
    return flat


def unflatten(config: ModelConfig, flat: Mapping[str, np.ndarray]) -> Any:
    """Inverse of `flatten`: experts stacked again, and periods if the model is scanned."""
    params = dict(flat)
    for path, count in _expert_counts(config).items():
        params[path] = np.stack([params.pop(expert(path, i)) for i in range(count)])
    if config.scan_layers:
        for rest in [path.removeprefix("period0/") for path in params if path.startswith("period0/")]:
            params[SCANNED + rest] = np.stack([params.pop(f"period{i}/{rest}") for i in range(config.repeats)])
    return traverse_util.unflatten_dict(params, sep="/")


def shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The shape of every parameter by path, written out; nothing is allocated."""
    flat = {path: box.value.shape[-len(axes) :] for path, (box, axes) in _boxes(config).items()}
    for path, count in _expert_counts(config).items():
        shape = flat.pop(path)[1:]
        flat |= {expert(path, i): shape for i in range(count)}
    return flat


def _expert_counts(config: ModelConfig) -> dict[str, int]:
    """How many experts each parameter that is stacked over them has, by its path in the written-out layout."""
    return {path: box.value.shape[-len(axes)] for path, (box, axes) in _boxes(config).items() if axes[0] == "experts"}


@functools.cache
def _boxes(config: ModelConfig) -> dict[str, tuple[Parameter, tuple[str | None, ...]]]:
    """(abstract parameter, its logical axes but the layers') by path, written out; one period is traced."""
    flat, scanned = {}, language_model.abstract(replace(config, scan_layers=True))
    for path, box in traverse_util.flatten_dict(scanned, sep="/").items():
        if path.startswith(SCANNED):
            rest = path.removeprefix(SCANNED)
            flat |= {f"period{i}/{rest}": (box, box.axes[1:]) for i in range(config.repeats)}
        else:
            flat[path] = (box, box.axes)
    return flat


def layer_norm(name: str, path: str) -> list[Tensor]:
    """Gain and bias of a torch.nn.LayerNorm."""
    return [same(name + ".weight", path + "/gain"), same(name + ".bias", path + "/bias")]


def transposed(tensor: Tensor) -> Tensor:
    """The same tensor stored the other way round: (in, out), as GPT-2 does."""
    return tensor._replace(
        join=lambda ours: tensor.join(ours).T, split=lambda theirs, shapes: tensor.split(theirs.T, shapes)
    )


def joined_rows(name: str, parts: Sequence[Tensor]) -> Tensor:
    """Several tensors, each of one of our parameters, stored as one: their rows one after the other."""
    paths = tuple(path for part in parts for path in part.paths)

    def join(ours: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate([part.join([array]) for part, array in zip(parts, ours, strict=True)])

    def split(theirs: np.ndarray, shapes: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
        rows = [part.join([np.empty(shape, np.bool_)]).shape[0] for part, shape in zip(parts, shapes, strict=True)]
        pieces = np.split(theirs, np.cumsum(rows)[:-1])
        return [part.split(piece, [shape])[0] for part, piece, shape in zip(parts, pieces, shapes, strict=True)]

    return Tensor(name, paths, join, split)

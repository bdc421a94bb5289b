"""Checkpoints of other projects: a folder with config.json and *.safetensors, read into our parameters and back.

A family is one file here, named as its `model_type`, with

    to_settings(model) -> dict      the config.json of one of our models
    from_settings(dict) -> model    and back; both state the same defaults as the family's own config class
    tensors(model) -> [Tensor]      every tensor of a checkpoint, each with both directions (tensors.py)
    IGNORED                         names (a regular expression, searched) that a file may hold beside those
    PREFIX                          if there is one: of most names, and left out of some files

and one line in `FAMILIES`. Adding it gives reading, writing and the live proof (tests/oracle_tools.py) at once.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from research.config import LOSS_TERMS, ModelConfig, differences, identity
from research.pretrained import (
    deepseek_v3,
    falcon,
    falcon_mamba,
    gpt2,
    gpt_neox,
    jamba,
    llama,
    mamba,
    mamba2,
    mistral,
    mixtral,
    olmo2,
    olmoe,
    qwen2,
    qwen3,
    qwen3_moe,
    rwkv4,
    rwkv7,
)
from research.pretrained.tensors import flatten, shapes, unflatten

FAMILIES: Mapping[str, ModuleType] = {
    family.MODEL_TYPE: family
    for family in (
        deepseek_v3,
        falcon,
        falcon_mamba,
        gpt2,
        gpt_neox,
        jamba,
        llama,
        mamba,
        mamba2,
        mistral,
        mixtral,
        olmo2,
        olmoe,
        qwen2,
        qwen3,
        qwen3_moe,
        rwkv4,
        rwkv7,
    )
}

ACTIVATIONS = ("hidden_act", "activation_function", "activation")  # names that config.json gives to it


class CheckpointError(ValueError):
    """A checkpoint and a model do not fit; the message names the tensor or field, what was found, and the rule."""


def read_checkpoint(folder: Path) -> tuple[ModelConfig, Any]:
    """(model, float32 parameters) of a folder in Hugging Face's layout, of one file or of several shards.

    Raises CheckpointError for a family that is not in `FAMILIES`, another activation than the family is read with, a
    missing or unknown tensor, or a wrong shape.
    """
    settings = json.loads((folder / "config.json").read_text())
    family = _family(settings.get("model_type"))
    model = family.from_settings(settings)
    _check_activation(settings, family.to_settings(model))
    found: dict[str, np.ndarray] = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= read_safetensors(file)
    return model, from_hugging_face(model, found, settings["model_type"])


def _check_activation(settings: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """Tensors do not show their activation: one that is not ours would be read without a word, and compute nonsense."""
    for key in ACTIVATIONS:
        if key in ours and settings.get(key, ours[key]) != ours[key]:
            raise CheckpointError(
                f"config.json: {key} = {settings[key]!r}: checkpoints of {settings['model_type']} are read with "
                f"{ours[key]!r}. Fix: use one that has it."
            )


def write_checkpoint(folder: Path, family: str, model: ModelConfig, params: Any) -> None:
    """Write config.json and model.safetensors, which `transformers` reads.

    Raises CheckpointError if the family has no way to say what `model` is.
    """
    settings = settings_of(family, model)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(settings, indent=2) + "\n")
    write_safetensors(folder / "model.safetensors", to_hugging_face(model, params, family))


def settings_of(family: str, model: ModelConfig) -> dict[str, Any]:
    """The config.json of `model`; CheckpointError if reading it back would give another model."""
    settings = _family(family).to_settings(model)
    lost = differences(_substance(model), _substance(_family(family).from_settings(settings)))
    if lost:
        field, ours, theirs = lost[0]
        raise CheckpointError(f"model.{field} = {ours!r}: a {family} checkpoint can only say {theirs!r}.")
    return settings


def to_hugging_face(model: ModelConfig, params: Any, family: str) -> dict[str, np.ndarray]:
    """Our parameters, or a tree of gradients shaped like them, under the checkpoint's names."""
    ours = flatten(model, params)
    table = _family(family).tensors(model)
    _check_same("parameters", {path for tensor in table for path in tensor.paths}, ours.keys())
    return {tensor.name: tensor.join([ours[path] for path in tensor.paths]) for tensor in table}


def from_hugging_face(model: ModelConfig, found: Mapping[str, np.ndarray], family: str) -> Any:
    """A checkpoint's tensors as our parameters, in float32 (exact for float16 and bfloat16) or float64 as they are."""
    table, ignored = _family(family).tensors(model), re.compile(_family(family).IGNORED or r"(?!)")
    prefix = getattr(_family(family), "PREFIX", "")
    if not any(name.startswith(prefix) for name in found):
        found = {prefix + name: value for name, value in found.items()}
    wanted = {tensor.name for tensor in table}
    _check_same("tensors", wanted, {name for name in found if name in wanted or not ignored.search(name)})
    our_shapes, flat = shapes(model), {}
    for tensor in table:
        theirs = np.asarray(found[tensor.name])
        theirs = theirs.astype(np.promote_types(theirs.dtype, np.float32))
        expected = tensor.join([np.empty(our_shapes[path], np.bool_) for path in tensor.paths]).shape
        if theirs.shape != expected:
            raise CheckpointError(f"{tensor.name} = {theirs.shape}: the model asks for {expected}.")
        parts = tensor.split(theirs, [our_shapes[path] for path in tensor.paths])
        flat |= dict(zip(tensor.paths, parts, strict=True))
    return unflatten(model, flat)


def read_safetensors(file: Path) -> dict[str, np.ndarray]:
    """The tensors of one file by name, in the types it holds; jax has taught numpy bfloat16, which most files have."""
    return load_file(file)


def write_safetensors(file: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """One file, its tensors contiguous, marked as torch's layout (which `transformers` asks for)."""
    save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, file, {"format": "pt"})


def _family(name: Any) -> ModuleType:
    if name not in FAMILIES:
        raise CheckpointError(f"model_type = {name!r}: no such family. Known: {', '.join(FAMILIES)}.")
    return FAMILIES[name]


def _check_same(what: str, wanted: set[str], found: Any) -> None:
    if missing := sorted(wanted - set(found)):
        raise CheckpointError(f"{what}: {len(missing)} missing, the first {missing[0]!r}.")
    if unknown := sorted(set(found) - wanted):
        raise CheckpointError(f"{what}: {len(unknown)} of no known meaning, the first {unknown[0]!r}.")


def _substance(model: ModelConfig) -> dict[str, Any]:
    """What of a model decides its function: its identity without the terms of a training loss and the compute dtype."""
    plain = identity(replace(model, scan_layers=False, compute_dtype="float32"))
    plain["moe"] = {name: value for name, value in plain.get("moe", {}).items() if name not in LOSS_TERMS}
    return {**plain, "pattern": model.layers}

"""Checkpoints of other projects: a folder with config.json and *.safetensors, read into our parameters and back.

A family is one file here, named as its `model_type`, with

    KEYS                            what every key of its config.json means to us, and its defaults (settings.py)
    to_settings(model) -> dict      the config.json of one of our models
    from_settings(dict) -> model    and back, of complete settings
    tensors(model) -> [Tensor]      every tensor of a checkpoint, each with both directions (tensors.py)
    IGNORED                         names (a regular expression, searched) that a file may hold beside those
    PREFIX                          if there is one: of most names, and left out of some files
    beside(settings) -> str         if there is one: what else these settings say that the file holds, as IGNORED

and one name in `FAMILIES`. Adding it gives reading, writing and the live proof (tests/oracle_tools.py) at once.
Which files are the model is said in files.py, rotary positions in rotary.py.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from research.config import LOSS_TERMS, ConfigError, ModelConfig, differences, identity
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
from research.pretrained.files import (
    CONFIG,
    SINGLE,
    listed,
    read_json,
    read_safetensors,
    read_tensors,
    write_safetensors,
)
from research.pretrained.rotary import check_forms_agree
from research.pretrained.settings import CheckpointError, complete
from research.pretrained.tensors import Tensor, flatten, shapes, unflatten

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

UNBOUNDED = 2**20  # tokens, written for a model without a table of positions if no length is given
SHOWN = 2**28  # numbers in a tensor that does not fit, up to which its shape is made to be shown
HEAD, EMBEDDING = ("head",), ("embedding",)  # paths of our parameters


@dataclass(frozen=True)
class Usage:
    """What config.json tells the programs that use a model, beside its function.

    longest: tokens of the longest sequence it is meant for, such as those of its training; none: no bound of its own.
    The ids are the tokenizer's; none is written as null, since readers would put their family's own in its place.
    """

    longest: int | None = None
    bos_id: int | None = None
    eos_id: int | None = None
    pad_id: int | None = None


def read_checkpoint(folder: Path | str) -> tuple[ModelConfig, Any]:
    """(model, float32 parameters) of a folder in Hugging Face's layout, of one file or of several shards.

    A file whose head differs from the embedding has a head of its own, also if its config.json says that it is tied,
    as `transformers` reads it.

    Raises CheckpointError for a family that is not in `FAMILIES`, a key of config.json that says another function than
    ours, files that are missing or damaged, a missing or unknown tensor, a wrong shape, or weights that are not finite.
    """
    folder = Path(folder)
    said = read_json(folder / CONFIG)
    model, family = model_of(said), _family(said.get("model_type"))
    found, places = read_tensors(folder)
    beside = family.beside(complete(said, family.KEYS)) if hasattr(family, "beside") else r"(?!)"
    found = {name: value for name, value in found.items() if not re.search(beside, name)}
    found, places = _named_in_full(family, found), _named_in_full(family, places)
    if model.tied_embeddings and not _head_is_embedding(family, model, found):
        model = replace(model, tied_embeddings=False)
    return model, from_hugging_face(model, found, said["model_type"], places)


def model_of(settings: Mapping[str, Any]) -> ModelConfig:
    """The model that a config.json describes; what it leaves out has the default of the family's own config class.

    Raises CheckpointError for a key that is unknown, or that says what no model of this project does.
    """
    family = _family(settings.get("model_type"))
    full = complete(settings, family.KEYS)
    check_forms_agree(settings)
    try:
        return family.from_settings(full)
    except ConfigError as error:
        raise CheckpointError(f"config.json describes no model of this project: {error}") from error


def write_checkpoint(folder: Path | str, family: str, model: ModelConfig, params: Any, usage: Usage = Usage()) -> None:
    """Write config.json and model.safetensors, which `transformers` reads.

    Raises CheckpointError if the family has no way to say what `model` is.
    """
    settings, folder = settings_of(family, model, usage), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(json.dumps(settings, indent=2) + "\n")
    write_safetensors(folder / SINGLE, to_hugging_face(model, params, family))


def settings_of(family: str, model: ModelConfig, usage: Usage = Usage()) -> dict[str, Any]:
    """The config.json of `model`; CheckpointError if reading it back would give another model."""
    settings = _family(family).to_settings(model)
    settings |= {f"{name}_token_id": getattr(usage, f"{name}_id") for name in ("bos", "eos", "pad")}
    if longest := _family(family).KEYS.longest:
        settings[longest] = usage.longest or UNBOUNDED
    lost = differences(_substance(model), _substance(model_of(settings)))
    if lost:
        field, ours, theirs = lost[0]
        raise CheckpointError(f"model.{field} = {ours!r}: a {family} checkpoint can only say {theirs!r}.")
    return settings


def to_hugging_face(model: ModelConfig, params: Any, family: str) -> dict[str, np.ndarray]:
    """Our parameters, or a tree of gradients shaped like them, under the checkpoint's names."""
    ours = flatten(model, params)
    table = _family(family).tensors(model)
    _check_same("parameters", {path for tensor in table for path in tensor.paths}, ours.keys(), {})
    return {tensor.name: tensor.join([ours[path] for path in tensor.paths]) for tensor in table}


def from_hugging_face(
    model: ModelConfig, found: Mapping[str, np.ndarray], family: str, places: Mapping[str, str] | None = None
) -> Any:
    """A checkpoint's tensors as our parameters, in float32 (exact for float16 and bfloat16) or float64 as they are.

    places: the file of each tensor, for errors. Raises CheckpointError for a missing or unknown tensor, a wrong shape,
    weights that are not finite, or a head that is not the embedding where `model` says that it is.
    """
    kind = _family(family)
    table, ignored = kind.tensors(model), re.compile(kind.IGNORED or r"(?!)")
    found, wanted = _named_in_full(kind, found), {tensor.name for tensor in table}
    if model.tied_embeddings:
        head, embedding = _names(kind, model)
        if not _head_is_embedding(kind, model, found):
            raise CheckpointError(f"{head}: is not {embedding}. Fix: set model.tied_embeddings to false.")
        found = {name: value for name, value in found.items() if name != head}
    kept = {name for name in found if name in wanted or not ignored.search(name)}
    _check_same("tensors", wanted, kept, places or {})
    our_shapes, flat = shapes(model), {}
    for tensor in table:
        ours = [our_shapes[path] for path in tensor.paths]
        theirs = _checked(tensor, np.asarray(found[tensor.name]), ours, (places or {}).get(tensor.name))
        flat |= dict(zip(tensor.paths, tensor.split(theirs, ours), strict=True))
    return unflatten(model, flat)


def _checked(tensor: Tensor, theirs: np.ndarray, ours: Sequence[tuple[int, ...]], place: str | None) -> np.ndarray:
    """A tensor in float32 or above; CheckpointError unless it is of finite floats and of the model's shape."""
    name = f"{tensor.name} in {place}" if place else tensor.name
    if theirs.dtype.kind in "biu":
        rule = "weights of whole numbers are quantised, which is not undone here"
        raise CheckpointError(f"{name} = {theirs.dtype}: {rule}. Fix: use a checkpoint of floats.")
    asked = sum(math.prod(shape) for shape in ours)
    if asked > max(theirs.size, SHOWN):
        raise CheckpointError(f"{name} = {theirs.shape}: the model asks for {asked:,} numbers.")
    expected = tensor.join([np.empty(shape, np.bool_) for shape in ours]).shape
    if theirs.shape != expected:
        raise CheckpointError(f"{name} = {theirs.shape}: the model asks for {expected}.")
    theirs = theirs.astype(np.promote_types(theirs.dtype, np.float32))
    for extreme in (theirs.min(), theirs.max()):  # both are NaN if one number is
        if not np.isfinite(extreme):
            rule = "must hold finite numbers alone"
            raise CheckpointError(f"{name}: holds {extreme}, {rule}. Fix: copy it again, or use another checkpoint.")
    return theirs


def _names(family: ModuleType, model: ModelConfig) -> tuple[str, str]:
    """The checkpoint's names of the head, tied or not, and of the embedding."""
    names = {tensor.paths: tensor.name for tensor in family.tensors(replace(model, tied_embeddings=False))}
    return names[HEAD], names[EMBEDDING]


def _head_is_embedding(family: ModuleType, model: ModelConfig, found: Mapping[str, np.ndarray]) -> bool:
    """Whether the tensors hold no head, or the embedding once more."""
    head, embedding = (found.get(name) for name in _names(family, model))
    return head is None or (embedding is not None and np.array_equal(head, embedding))


def _named_in_full(family: ModuleType, found: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """The tensors under the names of the family's table, which some of its files shorten by a prefix."""
    prefix = getattr(family, "PREFIX", "")
    if any(name.startswith(prefix) for name in found):
        return found
    return {name if name == "lm_head.weight" else prefix + name: value for name, value in found.items()}


def _family(name: Any) -> ModuleType:
    if not isinstance(name, str) or name not in FAMILIES:
        raise CheckpointError(f"model_type = {name!r}: no such family. Known: {', '.join(FAMILIES)}.")
    return FAMILIES[name]


def _check_same(what: str, wanted: set[str], found: Any, places: Mapping[str, str]) -> None:
    if missing := wanted - set(found):
        files = f" in {', '.join(sorted(set(places.values())))}" if places else ""
        raise CheckpointError(f"{what}: {len(missing)} missing{files}: {listed(missing, {})}.")
    if unknown := set(found) - wanted:
        raise CheckpointError(f"{what}: {len(unknown)} of no known meaning: {listed(unknown, places)}.")


def _substance(model: ModelConfig) -> dict[str, Any]:
    """What of a model decides its function: its identity without the terms of a training loss and the compute dtype."""
    plain = identity(replace(model, scan_layers=False, compute_dtype="float32"))
    plain["moe"] = {name: value for name, value in plain.get("moe", {}).items() if name not in LOSS_TERMS}
    del plain["pattern"]  # which can say the same layers in several ways
    return {"layers": model.layers, **plain}

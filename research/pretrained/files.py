"""The files of a checkpoint's folder: which of them are the model, and what they hold.

`model.safetensors.index.json` names the file of each tensor; without it the model is `model.safetensors`. Whatever else
stands beside them (shards of an earlier save, Mistral's consolidated.safetensors) is not looked at.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from research.pretrained.settings import CheckpointError

CONFIG, SINGLE, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
CONVERT = (
    "save it again with transformers: AutoModelForCausalLM.from_pretrained(folder).save_pretrained(new_folder), which "
    "writes .safetensors"
)


def read_json(file: Path) -> dict[str, Any]:
    """The object that a JSON file holds; CheckpointError if it is missing, unreadable or no object."""
    try:
        value = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(f"{file}: no such file. Fix: name a folder that holds a whole checkpoint.") from None
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror}).") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file}: is no JSON ({error}). Fix: copy or download it again.") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{file}: holds {type(value).__name__}, must hold an object. Fix: copy it again.")
    return value


def read_tensors(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """(tensors by name, the file of each by the tensor's name) of the files that are the model.

    Raises CheckpointError for files that are missing or damaged, for a tensor that is not where the index says, and for
    a folder without any .safetensors.
    """
    placed = _index(folder) if (folder / INDEX).exists() else {}
    if not placed and not (folder / SINGLE).exists():
        raise _no_model(folder)
    tensors: dict[str, np.ndarray] = {}
    places: dict[str, str] = {}
    for name in sorted(set(placed.values())) or [SINGLE]:
        found = read_safetensors(folder / name)
        lacking = sorted(tensor for tensor, file in placed.items() if file == name and tensor not in found)
        if lacking:
            raise CheckpointError(
                f"{folder / name}: holds no {lacking[0]!r}, which {INDEX} says that it does ({len(lacking)} such in "
                "all). Fix: the two are of different saves: copy or download both again."
            )
        # A tensor that stands in two shards is the one of the shard that the index names.
        kept = {tensor: value for tensor, value in found.items() if placed.get(tensor, name) == name}
        tensors |= kept
        places |= dict.fromkeys(kept, name)
    return tensors, places


def read_safetensors(file: Path) -> dict[str, np.ndarray]:
    """The tensors of one file by name, in the types it holds; jax has taught numpy bfloat16, which most files have.

    Raises CheckpointError for a file that is damaged, or of types that numpy does not have.
    """
    try:
        return load_file(file)
    except FileNotFoundError:
        raise CheckpointError(f"{file}: no such file. Fix: copy or download it.") from None
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error}).") from error
    except SafetensorError as error:
        raise CheckpointError(
            f"{file}: is no whole .safetensors file ({error}). Fix: copy or download it again."
        ) from error
    except AttributeError as error:  # what numpy's reader makes of a type that it lacks
        raise CheckpointError(f"{file}: holds a type that numpy lacks ({error}). Fix: {CONVERT}.") from error


def write_safetensors(file: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """One file, its tensors contiguous, marked as torch's layout (which `transformers` asks for)."""
    save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, file, {"format": "pt"})


def listed(names: Iterable[str], places: Mapping[str, str]) -> str:
    """Tensors in words, sorted by file where that is known: at most three of each."""
    by_file: dict[str | None, list[str]] = {}
    for name in sorted(names):
        by_file.setdefault(places.get(name), []).append(name)
    parts = []
    for file, found in by_file.items():
        words = ", ".join(repr(name) for name in found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")
        parts.append(f"{file}: {words}" if file else words)
    return "; ".join(parts)


def _index(folder: Path) -> dict[str, str]:
    """The file of each tensor, every one of which is there."""
    placed = read_json(folder / INDEX).get("weight_map")
    if not isinstance(placed, dict) or not placed or not all(isinstance(file, str) for file in placed.values()):
        raise CheckpointError(f"{folder / INDEX}: weight_map must name the file of each tensor. Fix: copy it again.")
    files = set(placed.values())
    outside = sorted(file for file in files if Path(file).name != file)
    if outside:
        raise CheckpointError(f"{folder / INDEX}: {outside[0]!r} is no file of the folder itself. Fix: copy it again.")
    if SINGLE not in files and (folder / SINGLE).exists():
        raise CheckpointError(
            f"{folder}: holds both {SINGLE} and {INDEX}, which does not name it: transformers reads the former, and "
            "which of the two is the model is not said. Fix: remove what is left over of an earlier save."
        )
    missing = sorted(file for file in files if not (folder / file).exists())
    if missing:
        raise CheckpointError(
            f"{folder}: {', '.join(missing)} missing: {INDEX} names {len(files)} files. Fix: copy or download "
            f"{'it' if len(missing) == 1 else 'them'}."
        )
    return placed


def _no_model(folder: Path) -> CheckpointError:
    """What there is instead."""
    pickles = sorted(file.name for pattern in ("*.bin", "*.pt", "*.pth") for file in folder.glob(pattern))
    if pickles:
        return CheckpointError(
            f"{folder}: no .safetensors, but {pickles[0]}: a pickle, which may run any code and is not read. "
            f"Fix: convert it: {CONVERT}."
        )
    shards = sorted(file.name for file in folder.glob("*.safetensors"))
    if shards:
        return CheckpointError(
            f"{folder}: {', '.join(shards[:3])}, but neither {SINGLE} nor {INDEX}, which says what the model is. "
            "Fix: copy the index too, or rename the one file that is the model."
        )
    return CheckpointError(f"{folder}: no {SINGLE}. Fix: name a folder that holds a whole checkpoint.")

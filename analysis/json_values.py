"""Frozen dataclasses to JSON and back: what `law.json` is written and read with.

A law is written as its name, its formula and what is held, and read back by that name. A file that is read back states
its format, so that one of another version of this package is told from a damaged one.
"""

import dataclasses
import functools
import hashlib
import json
import math
import re
import types
import typing
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

from analysis.laws import Law, describe, described

T = TypeVar("T")


class FileError(ValueError):
    """A JSON file does not hold what it should; the message names the field and the fix."""


class FormatError(FileError):
    """A JSON file was written by another version of this package; the message names a field that differs."""


def to_dict(value: Any) -> Any:
    """The JSON-ready form: dataclasses become objects, arrays nested lists, NaN and infinities strings."""
    if isinstance(value, Law):
        return to_dict(describe(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_dict(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: to_dict(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_dict(item) for item in value]
    if isinstance(value, np.ndarray):
        return to_dict(value.tolist())
    if isinstance(value, np.generic):
        return to_dict(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def from_dict(kind: Any, data: Any, path: str = "", laws: Sequence[Law] = ()) -> Any:
    """Inverse of `to_dict` for a value of the declared type `kind`.

    laws: the caller's own, next to those of the package; a file that names another is refused, since reading it must
    run no code. Raises FileError naming a field that is wrong, LawError for a law that is unknown or another one.
    """
    if kind is Law:
        return described(data, laws)
    if dataclasses.is_dataclass(kind):
        if not isinstance(data, dict):
            raise FileError(f"{path or kind.__name__} = {data!r}: must be an object. Fix: write the file again.")
        hints = typing.get_type_hints(kind)
        names = {field.name for field in dataclasses.fields(kind)}
        if set(data) != names:
            wrong = sorted(set(data) ^ names)[0]
            problem = "unknown" if wrong in data else "missing"
            raise FileError(f"{path or kind.__name__}: field {wrong!r} is {problem}. Fix: write the file again.")
        return kind(**{name: from_dict(hints[name], data[name], f"{path}.{name}".lstrip("."), laws) for name in data})
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return None if data is None else from_dict(next(k for k in inner if k is not type(None)), data, path, laws)
    if origin is tuple:
        if not isinstance(data, list):
            raise FileError(f"{path} = {data!r}: must be a list. Fix: write the file again.")
        kinds = [inner[0]] * len(data) if inner[-1] is Ellipsis else inner
        return tuple(from_dict(k, item, path, laws) for k, item in zip(kinds, data, strict=True))
    if origin is dict:
        if not isinstance(data, dict):
            raise FileError(f"{path} = {data!r}: must be an object. Fix: write the file again.")
        return {key: from_dict(inner[1], item, f"{path}.{key}", laws) for key, item in data.items()}
    try:
        return np.array(data, np.float64) if kind is np.ndarray else kind(data)
    except (TypeError, ValueError):
        raise FileError(f"{path} = {data!r}: must be {kind.__name__}. Fix: write the file again.") from None


def to_file(value: Any) -> dict[str, Any]:
    """`to_dict` of a dataclass, with its `format`."""
    return {"format": format_of(type(value)), **to_dict(value)}


def from_file(kind: type[T], data: Any, again: str, laws: Sequence[Law] = ()) -> T:
    """Inverse of `to_file`; a file that states no format, as older ones, is read if its fields are those of `kind`.

    again: how such a file is made, for the fix. laws, errors: as in `from_dict`; FormatError where another version of
    this package wrote the file.
    """
    if not isinstance(data, dict):
        raise FileError(f"{kind.__name__} = {data!r:.40}: must be an object. Fix: {again}.")
    fields = {name: value for name, value in data.items() if name != "format"}
    try:
        return from_dict(kind, fields, laws=laws)
    except FileError as error:
        stated = data.get("format")
        known = {field.name for field in dataclasses.fields(kind)}
        is_such = str(stated).startswith(f"{kind.__name__}-") if stated else 2 * len(known & set(fields)) > len(known)
        if stated == format_of(kind) or not is_such:
            raise
        fault = str(error).partition(". Fix:")[0]
        raise FormatError(
            f"format = {stated or 'not stated'}: another version of this package wrote the file, and the fields of "
            f"this one's {format_of(kind)} differ ({fault}). Fix: {again}."
        ) from error


@functools.cache
def format_of(kind: type) -> str:
    """The name of a dataclass with a digest of its fields and of those inside them."""
    return f"{kind.__name__}-{hashlib.sha256(repr(_layout(kind)).encode()).hexdigest()[:8]}"


def _layout(kind: Any) -> Any:
    """The names and types of a dataclass' fields, to the last."""
    if dataclasses.is_dataclass(kind) and kind is not Law:
        hints = typing.get_type_hints(kind)
        return [(field.name, _layout(hints[field.name])) for field in dataclasses.fields(kind)]
    inner = typing.get_args(kind)
    return [_layout(k) for k in inner] if inner else getattr(kind, "__name__", repr(kind))


def dumps(value: Any) -> str:
    """Indented JSON with one trailing newline, each innermost list of numbers on a line of its own."""
    text = json.dumps(to_dict(value), indent=2, allow_nan=False)
    return re.sub(r"\[([^\[\]{}\"]*)\]", lambda found: f"[{' '.join(found[1].split())}]", text) + "\n"

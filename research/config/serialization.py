"""Configuration as values: JSON round trip, dotted overrides and differences of frozen dataclasses.

Nothing here knows what a run is; `research/config/run.py` holds the dataclasses. Everything an experiment
says is a tree of frozen dataclasses whose leaves are str, int, float, bool, None, or tuples of those.
"""

import dataclasses
import difflib
import functools
import json
import math
import types
import typing
from typing import Any, TypeVar

from research.config.validation import ConfigError, check, check_choice

T = TypeVar("T")
TAG = "name"  # the field that tells a union's dataclasses apart: each has its own default there


def to_dict(value: Any) -> Any:
    """The JSON-ready form of a config value: dataclasses become dicts, tuples become lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_dict(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [to_dict(item) for item in value]
    return value


def from_dict(cls: type[T], data: Any, path: str = "") -> T:
    """Rebuild a dataclass of type `cls` from `to_dict` output.

    Raises ConfigError for a missing or unknown key (naming the nearest) or a value of the wrong type.
    """
    if not isinstance(data, dict):
        raise ConfigError(f"{path or cls.__name__} = {data!r}: must be an object with the fields of {cls.__name__}.")
    hints = typing.get_type_hints(cls)
    for key in data:
        _require_known(key, list(hints), f"{path}.{key}".lstrip("."))
    missing = [f.name for f in dataclasses.fields(cls) if f.name not in data and _has_no_default(f)]
    if missing:
        raise ConfigError(f"{path or cls.__name__}: missing field {missing[0]!r}. Fix: add it.")
    return cls(**{key: _convert(hints[key], item, f"{path}.{key}".lstrip(".")) for key, item in data.items()})


def to_json(value: Any) -> str:
    """Canonical JSON: sorted keys, shortest float form, one trailing newline; equal values give equal text."""
    return json.dumps(to_dict(value), sort_keys=True, indent=2, allow_nan=False) + "\n"


def from_json(cls: type[T], text: str) -> T:
    """Inverse of `to_json`: `from_json(type(c), to_json(c)) == c`."""
    return from_dict(cls, json.loads(text))


def differences(left: Any, right: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    """Dotted fields in which two JSON-ready trees differ, each as (field, left value, right value)."""
    if isinstance(left, dict) and isinstance(right, dict):
        found = []
        for key in sorted(left.keys() | right.keys()):
            found += differences(left.get(key), right.get(key), f"{path}.{key}".lstrip("."))
        return found
    return [] if left == right else [(path, left, right)]


def override(config: T, assignments: typing.Sequence[str]) -> T:
    """Apply `a.b=value` strings to a dataclass, each value parsed by the field's declared type.

    Tuples are written as JSON (`budgets=[1e18,3e18]`) or with commas (`budgets=1e18,3e18`); None is `none`. All
    assignments are applied before any is validated, so two fields that must agree can change together. The name of a
    section of several classes (`optimizer.name=lion`) comes first: the others are read as that class' fields, and what
    nothing sets is its default, but for fields that both classes have and the old one had set.

    Raises ConfigError for an unknown key (naming the nearest ones) or a value that does not parse.
    """
    data = to_dict(config)
    for assignment in sorted(assignments, key=lambda one: not one.partition("=")[0].strip().endswith(f".{TAG}")):
        key, separator, text = assignment.partition("=")
        check(bool(separator), "--set", assignment, "must be key=value", "write for example model.width=128")
        _assign(type(config), data, key.strip(), key.strip().split("."), text)
    return from_dict(type(config), data)


def replaced(config: T, values: typing.Mapping[str, Any]) -> T:
    """`config` with dotted fields set to values of their own types; what holds none of them stays the same object.

    For plans of many runs, where `override`, which reads and checks text, takes too long.
    """
    changes, inner = {}, {}
    for key, value in values.items():
        head, _, rest = key.partition(".")
        if rest:
            inner.setdefault(head, {})[rest] = value
        else:
            changes[head] = value
    changes |= {head: replaced(getattr(config, head), below) for head, below in inner.items()}
    return dataclasses.replace(config, **changes)


def value_at(config: Any, key: str) -> Any:
    """The dotted field `key`; None below a section that is None."""
    return functools.reduce(lambda value, part: getattr(value, part, None), key.split("."), config)


def _assign(cls: Any, data: dict, key: str, parts: list[str], text: str) -> None:
    hints = typing.get_type_hints(cls)
    _require_known(parts[0], list(hints), key)
    hint = hints[parts[0]]
    if len(parts) == 1:
        data[parts[0]] = to_dict(_parse(hint, text, key))
        return
    kinds = _dataclasses(hint)
    check(bool(kinds), key, text, f"{parts[0]} has no fields of its own", f"set {parts[0]} as a whole")
    check(data[parts[0]] is not None, key, text, f"{parts[0]} is none here", f"set {parts[0]} as a JSON object")
    inner = _tagged(kinds, data[parts[0]], ".".join(key.split(".")[: -len(parts) + 1]))
    if len(kinds) > 1 and parts[1:] == [TAG]:
        chosen = _tagged(kinds, {TAG: text}, ".".join(key.split(".")[:-1]))
        data[parts[0]] = _as_another(inner, chosen, data[parts[0]])
    else:
        _assign(inner, data[parts[0]], key, parts[1:], text)


def _dataclasses(hint: Any) -> tuple[type, ...]:
    return tuple(kind for kind in _alternatives(hint) if dataclasses.is_dataclass(kind))


def _tagged(kinds: tuple[type, ...], data: dict, path: str) -> type:
    """Which of a union's dataclasses `data` describes: the one whose default of TAG it has; the first without a tag."""
    if len(kinds) == 1 or TAG not in data:
        return kinds[0]
    names = {getattr(kind, TAG): kind for kind in kinds}
    check_choice(f"{path}.{TAG}", data[TAG], list(names))
    return names[data[TAG]]


def _as_another(old: type, new: type, data: dict) -> dict:
    """A section as another of its union's classes: what both have stays where it was not the old one's default."""
    kept, before = to_dict(new()), to_dict(old())
    shared = (kept.keys() & data.keys()) - {TAG}
    return kept | {name: data[name] for name in shared if data[name] != before[name]}


def _parse(hint: Any, text: str, key: str) -> Any:
    kinds = _alternatives(hint)
    if text.lower() == "none" and type(None) in kinds:
        return None
    if any(kind is str or typing.get_origin(kind) is typing.Literal for kind in kinds):
        return _convert(hint, text, key)
    if bool in kinds and text.lower() in ("true", "false"):
        return text.lower() == "true"
    bracketed = any(typing.get_origin(kind) is tuple for kind in kinds) and not text.lstrip().startswith("[")
    try:
        value = json.loads(f"[{text}]" if bracketed else text)
    except json.JSONDecodeError:
        value = [_json_or_text(part) for part in text.split(",")] if bracketed else text
    return _convert(hint, value, key)


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _convert(hint: Any, value: Any, key: str) -> Any:
    """`value` as the declared type, or ConfigError; the only silent conversions are int to float and 1e6 to int."""
    if isinstance(value, dict) and (kinds := _dataclasses(hint)):
        return from_dict(_tagged(kinds, value, key), value, key)
    for kind in _alternatives(hint):
        if kind is type(None) and value is None:
            return None
        if typing.get_origin(kind) is typing.Literal and value in typing.get_args(kind):
            return value
        if typing.get_origin(kind) is tuple and isinstance(value, list):
            return _convert_tuple(kind, value, key)
        if kind is bool and isinstance(value, bool):
            return value
        if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
        if kind is int and isinstance(value, (int, float)) and not isinstance(value, bool) and value % 1 == 0:
            return int(value)
        if kind is str and isinstance(value, str):
            return value
    if typing.get_origin(hint) is typing.Literal:
        check_choice(key, value, typing.get_args(hint))
    raise ConfigError(f"{key} = {value!r}: must be {_describe(hint)}. Fix: give a value of that type.")


def _convert_tuple(kind: Any, value: list, key: str) -> tuple:
    inner = typing.get_args(kind)
    if len(inner) == 2 and inner[1] is Ellipsis:
        return tuple(_convert(inner[0], item, f"{key}[{i}]") for i, item in enumerate(value))
    if len(inner) != len(value):
        raise ConfigError(f"{key} = {value!r}: must have {len(inner)} entries. Fix: give {_describe(kind)}.")
    return tuple(_convert(h, item, f"{key}[{i}]") for i, (h, item) in enumerate(zip(inner, value, strict=True)))


def _alternatives(hint: Any) -> tuple:
    is_union = isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
    return typing.get_args(hint) if is_union else (hint,)


def _describe(hint: Any) -> str:
    names = []
    for kind in _alternatives(hint):
        if typing.get_origin(kind) is typing.Literal:
            names.append("one of " + ", ".join(repr(a) for a in typing.get_args(kind)))
        elif typing.get_origin(kind) is tuple:
            names.append("a list of " + " and ".join(_describe(a) for a in typing.get_args(kind) if a is not Ellipsis))
        else:
            names.append("none" if kind is type(None) else getattr(kind, "__name__", str(kind)))
    return " or ".join(names)


def _require_known(key: str, known: list[str], path: str) -> None:
    if key not in known:
        near = difflib.get_close_matches(key, known, n=3, cutoff=0.4) or known
        raise ConfigError(f"{path}: unknown field {key!r}. Nearest: {', '.join(near)}.")


def _has_no_default(field: dataclasses.Field) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING

"""Which fields decide a run's numbers, and the fingerprint that names a run by them.

A fingerprint hashes only where a config departs from the defaults, so that a field added later renames no earlier run.
The price: **a default is frozen once a run has been named by it**, since changing it would give the old name to other
numbers. Give a better value to a new field, or write it into the experiments that want it.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


def not_identity(default: Any = dataclasses.MISSING, factory: Any = dataclasses.MISSING) -> Any:
    """A dataclass field that decides no number of a run: where and by which of several equal programs it executes, how
    it is logged, saved and watched."""
    return dataclasses.field(default=default, default_factory=factory, metadata={"identity": False})


def identity(value: Any) -> Any:
    """The JSON-ready form of what decides a run's numbers, defaults included.

    Left out are the fields declared by `not_identity`, and those that a dataclass names in a property `unused`:
    sections that nothing reads as the others are set.
    """
    if _is_config(value):
        return {field.name: identity(getattr(value, field.name)) for field in _deciding(value)}
    return [identity(item) for item in value] if isinstance(value, tuple) else _plain(value)


def fingerprint(value: Any) -> str:
    """First 12 hex digits of the sha256 of `identity(value)` without what is equal to its default, at every depth."""
    return _kept(value, "_fingerprint", _digest)


def _digest(value: Any) -> str:
    text = json.dumps(_departures(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _kept(value: Any, name: str, compute: Callable[[Any], T]) -> T:
    """What `compute` says of a frozen dataclass, kept on it: the runs of a plan share most sections as objects."""
    if name not in vars(value):
        object.__setattr__(value, name, compute(value))
    return vars(value)[name]


def _departures(value: Any) -> Any:
    if not _is_config(value):
        return [_departures(item) for item in value] if isinstance(value, tuple) else _plain(value)
    return _kept(value, "_departures", _departures_of_config)


def _departures_of_config(value: Any) -> dict[str, Any]:
    found, unused = {}, getattr(value, "unused", frozenset())
    for name, default, default_form in _defaults(type(value)):
        own = getattr(value, name)
        if own is default or name in unused:
            continue
        form = _departures(own)
        if _is_config(own) and _is_config(default) and type(own) is not type(default):
            # A field of several classes: their fields alone would not tell them apart.
            found[name] = {"class": type(own).__name__, **form}
        elif default is dataclasses.MISSING or form != default_form:
            found[name] = form
    return found


def _deciding(value: Any) -> list[dataclasses.Field]:
    unused = getattr(value, "unused", frozenset())
    return [f for f in dataclasses.fields(value) if f.metadata.get("identity", True) and f.name not in unused]


@functools.cache
def _defaults(cls: type) -> list[tuple[str, Any, Any]]:
    """Of each field that may decide: its name, its default, and that one's departures; MISSING where there is none."""
    found = []
    for field in dataclasses.fields(cls):
        if field.metadata.get("identity", True):
            default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
            found.append((field.name, default, default if default is dataclasses.MISSING else _departures(default)))
    return found


def _plain(value: Any) -> Any:
    """A leaf; 3e18 and 3 * 10**18 are one number, which JSON would write in two ways."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _is_config(value: Any) -> bool:
    return hasattr(type(value), "__dataclass_fields__")  # as dataclasses.is_dataclass asks, of every leaf

"""Errors of a configuration: one class and one shape of message, which names field, value, rule and fix."""

import difflib
import functools
import math
from collections.abc import Sequence
from typing import Any, Literal, get_args, get_origin, get_type_hints


class ConfigError(ValueError):
    """A configuration is wrong; the message names the field, its value, the rule and the fix."""


def check(condition: bool, field: str, value: Any, rule: str, fix: str) -> None:
    """Raise ConfigError unless `condition` holds; every validation message has this one shape."""
    if not condition:
        raise ConfigError(f"{field} = {value!r}: {rule}. Fix: {fix}.")


def check_choice(field: str, value: Any, choices: Sequence[Any]) -> None:
    """Raise ConfigError unless `value` is one of `choices`, with the nearest of them as the fix."""
    if value not in choices:
        near = difflib.get_close_matches(str(value), map(str, choices), n=1)
        rule = f"must be one of {', '.join(map(repr, choices))}"
        check(False, field, value, rule, f"write {near[0]}" if near else "choose one")


def check_choices(config: Any, section: str) -> None:
    """Raise ConfigError unless each field declared as a Literal holds one of its values."""
    for name, choices in _choices(type(config)):
        check_choice(f"{section}.{name}", getattr(config, name), choices)


@functools.cache
def _choices(cls: type) -> tuple[tuple[str, tuple[Any, ...]], ...]:
    hints = get_type_hints(cls)
    return tuple((name, get_args(hint)) for name, hint in hints.items() if get_origin(hint) is Literal)


def check_range(config: Any, section: str, names: str, low: float, high: float = math.inf) -> None:
    """Raise ConfigError unless each of the space-separated fields lies in [low, high]; none passes."""
    rule = f"must be at least {low:g}" if high == math.inf else f"must lie between {low:g} and {high:g}"
    for name in names.split():
        value = getattr(config, name)
        if value is not None:
            check(low <= value <= high, f"{section}.{name}", value, rule, "choose a value in that range")


def check_positive(config: Any, section: str, names: str) -> None:
    """Raise ConfigError unless each of the space-separated fields is above zero; none passes."""
    for name in names.split():
        value = getattr(config, name)
        check(value is None or value > 0, f"{section}.{name}", value, "must be above zero", "raise it")

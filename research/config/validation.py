"""Errors of a configuration: one class and one shape of message, which names field, value, rule and fix."""

import math
from typing import Any


class ConfigError(ValueError):
    """A configuration is wrong; the message names the field, its value, the rule and the fix."""


def check(condition: bool, field: str, value: Any, rule: str, fix: str) -> None:
    """Raise ConfigError unless `condition` holds; every validation message has this one shape."""
    if not condition:
        raise ConfigError(f"{field} = {value!r}: {rule}. Fix: {fix}.")


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

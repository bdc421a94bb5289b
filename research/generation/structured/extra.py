"""The packages of the extra `structured`, imported when they are used: what decodes freely does without them."""

from types import ModuleType

from research.config import ConfigError


def llguidance() -> ModuleType:
    """Raises ConfigError where it is not installed."""
    try:
        import llguidance
    except ModuleNotFoundError as error:
        raise _missing("llguidance", "masks for a grammar") from error
    return llguidance


def json_repair() -> ModuleType:
    """Raises ConfigError where it is not installed."""
    try:
        import json_repair
    except ModuleNotFoundError as error:
        raise _missing("json_repair", "repair of JSON") from error
    return json_repair


def _missing(package: str, purpose: str) -> ConfigError:
    return ConfigError(f"{purpose}: needs {package}, which is not installed. Fix: pip install 'isoflop[structured]'.")

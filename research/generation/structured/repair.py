"""Repair after the fact: what is nearly JSON made into JSON by json_repair, which guesses what was meant.

A repaired text is JSON; whether it satisfies a schema, and whether it says what the model meant, is for an independent
check of it to say.
"""

import json

from research.generation.structured import extra


def repaired(text: str) -> str | None:
    """The text as it is where it is JSON, else as JSON without insignificant white space, or None.

    None: nothing in it could be taken for JSON, or what was found has no spelling in JSON or in UTF-8 (NaN, half a
    surrogate pair), or is nested too deep to be read. Raises ConfigError where json_repair is not installed.
    """
    if _read(text) is not None:
        return text
    repair = extra.json_repair().repair_json
    try:
        found = _read(repair(text, ensure_ascii=False))
        written = json.dumps(found[0], ensure_ascii=False, separators=(",", ":"), allow_nan=False) if found else None
        return written if written is None or written.encode() else None
    except (ValueError, RecursionError):
        return None


def _read(text: str) -> tuple[object] | None:
    """The value of a JSON text, in a tuple because it may be None."""
    try:
        return (json.loads(text, parse_constant=_no_number),)
    except (ValueError, RecursionError):
        return None


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no JSON")

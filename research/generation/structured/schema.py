"""What a JSON schema may hold before llguidance reads it: nothing that a mask would not enforce to the letter.

llguidance refuses the keywords of Draft 2020-12 that it knows and cannot enforce. What it passes over or reads
otherwise is refused here, each found by running llguidance 1.9.1: keywords of no draft (a misspelt `minlength` would be
dropped), integers that a double rounds, dates that are no dates, and strings that JSON can spell in two ways.
"""

import difflib
import json
import math
import re
from typing import Any
from urllib.parse import unquote

from research.config import ConfigError, check
from research.generation.structured.expressions import check_expression

DIALECT = "https://json-schema.org/draft/2020-12/schema"
MOST_EXACT = 2**53  # every integer up to it is a double
# Each text that they let through is valid to a parser of its own in the tests. Of the others that llguidance knows,
# date and date-time let 29 February through in every year, time second 60 in every minute, and hostname more than 253
# characters; duration has no such parser here.
FORMATS = ("email", "ipv4", "ipv6", "uri", "uuid")

_LISTS_OF_SCHEMAS = ("allOf", "anyOf", "oneOf", "prefixItems")
_MAPS_OF_SCHEMAS = ("$defs", "definitions", "patternProperties", "properties")
_SCHEMAS = ("additionalProperties", "items")
_BOUNDS = ("exclusiveMaximum", "exclusiveMinimum", "maximum", "minimum", "multipleOf")
_RULES = ("$anchor", "$ref", "const", "enum", "format", "maxItems", "maxLength", "maxProperties", "minItems",
          "minLength", "minProperties", "pattern", "required", "type")  # fmt: skip
# Say nothing about which values are valid.
_NOTES = ("$comment", "$id", "$schema", "default", "deprecated", "description", "examples", "readOnly", "title",
          "writeOnly")  # fmt: skip
KEYWORDS = frozenset((*_LISTS_OF_SCHEMAS, *_MAPS_OF_SCHEMAS, *_SCHEMAS, *_BOUNDS, *_RULES, *_NOTES))

# Only \uXXXX spells these in JSON, and the masks leave it out: by it a key could be written a second time.
_UNSPELLABLE = re.compile("[\x00-\x07\x0b\x0e-\x1f\x7f\ud800-\udfff]")


def read_schema(field: str, text: str) -> dict[str, Any]:
    """The schema of a JSON text. Raises ConfigError with the line and column, or the pointer, of what is wrong."""
    try:
        schema = json.loads(text, object_pairs_hook=_distinct, parse_constant=_no_constant, parse_float=_finite)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise ConfigError(f"{field}: is no JSON at {where}: {error.msg}. Fix: correct it there.") from error
    except ValueError as error:
        raise ConfigError(f"{field}: {error}. Fix: correct the schema.") from error
    schema = {} if schema is True else schema
    check(schema is not False, field, False, "allows no value", "write a schema that some value satisfies")
    places: dict[str, Any] = {}
    _check(field, schema, places)
    _check_references(field, places)
    return schema


def _check(at: str, schema: Any, places: dict[str, Any]) -> None:
    """Check a schema and those in it, and put each into `places` by its pointer."""
    check(isinstance(schema, (dict, bool)), at, schema, "must be an object or a boolean", "write a schema there")
    places[at] = schema
    for keyword, value in schema.items() if isinstance(schema, dict) else ():
        here = f"{at}/{_escaped(keyword)}"
        _check_keyword(here, keyword, value)
        if keyword in _SCHEMAS:
            _check(here, value, places)
        elif keyword in _LISTS_OF_SCHEMAS:
            check(isinstance(value, list), here, value, "must be a list of schemas", "write [...]")
            for index, inner in enumerate(value):
                _check(f"{here}/{index}", inner, places)
        elif keyword in _MAPS_OF_SCHEMAS:
            check(isinstance(value, dict), here, value, "must map names to schemas", "write {...}")
            for name, inner in value.items():
                _check(f"{here}/{_escaped(name)}", inner, places)


def _check_references(field: str, places: dict[str, Any]) -> None:
    """Each reference by pointer leads to a schema that was checked, from one base, and not back to itself."""
    for at, schema in places.items():
        named = isinstance(schema, dict) and "$id" in schema and at != field
        check(not named, f"{at}/$id", schema, "stands at the root alone", "leave it out")
    references = {at: schema["$ref"] for at, schema in places.items() if isinstance(schema, dict) and "$ref" in schema}
    targets = {at: field + unquote(to[1:]) for at, to in references.items() if to == "#" or to.startswith("#/")}
    for at, target in targets.items():
        check(
            target in places, f"{at}/$ref", references[at], "must point to a schema of this one", "put it under $defs"
        )
        passed = {at}
        while target in targets and target not in passed:
            passed.add(target)
            target = targets[target]
        check(target not in passed, f"{at}/$ref", references[at], "leads back to itself, so that it allows nothing",
              "point to a schema that says what it allows")  # fmt: skip


def _check_keyword(here: str, keyword: str, value: Any) -> None:
    near = difflib.get_close_matches(keyword, KEYWORDS, n=1)
    unknown = "leave it out and check what is written afterwards"
    check(keyword in KEYWORDS, here, value, "no mask can enforce this keyword, and none is dropped",
          f"write {near[0]}, or {unknown}" if near else unknown)  # fmt: skip
    if keyword == "$schema":
        check(value in (DIALECT, DIALECT + "#"), here, value, "schemas are read as Draft 2020-12",
              f"port it to that draft and write {DIALECT}, or leave it out")  # fmt: skip
    elif keyword == "$ref":
        check(isinstance(value, str) and value.startswith("#"), here, value, "must point into this schema",
              "copy what it points to into $defs")  # fmt: skip
    elif keyword == "items":
        check(not isinstance(value, list), here, value, "is one schema in Draft 2020-12", "write prefixItems")
    elif keyword == "format":
        check(value in FORMATS, here, value, f"must be one of {', '.join(FORMATS)}", "write a pattern instead")
    elif keyword == "minProperties":
        check(value in (0, 1), here, value, "may be at most 1, since a mask does not see that a key repeats",
              "name the properties under required")  # fmt: skip
    elif keyword in _BOUNDS:
        _check_literals(here, value)
    elif keyword == "pattern":
        check(isinstance(value, str), here, value, "must be a regular expression", "write a string")
        check_expression(here, value)
    elif keyword == "patternProperties" and isinstance(value, dict):
        for expression in value:
            check_expression(here, expression)
    elif keyword in ("const", "enum", "required"):
        _check_literals(here, value)
    elif keyword == "properties" and isinstance(value, dict):
        _check_literals(here, list(value))


def _check_literals(here: str, value: Any) -> None:
    """Every string in a JSON value, keys among them, is spelled without \\uXXXX, and every integer is a double."""
    if isinstance(value, str):
        check(_UNSPELLABLE.search(value) is None, here, value,
              "holds a control character or half a surrogate pair, which only \\uXXXX spells and no mask allows",
              "leave it out")  # fmt: skip
    elif isinstance(value, int):
        check(abs(value) <= MOST_EXACT, here, value, "must be at most 2**53 in magnitude, or rounding would move it",
              "write it as a string")  # fmt: skip
    elif isinstance(value, list):
        for inner in value:
            _check_literals(here, inner)
    elif isinstance(value, dict):
        _check_literals(here, [*value, *value.values()])


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"names {next(name for name in names if names.count(name) > 1)!r} twice in one object")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"holds {name}, which is no JSON")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"holds {text}, which no double reaches")
    return number


def _escaped(name: str) -> str:
    """A step of a JSON pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")

"""Texts drawn from masks are valid to parsers that know nothing of them: jsonschema, re, sqlite3."""

import ipaddress
import json
import re
import sqlite3
import uuid
from decimal import Decimal, InvalidOperation
from email.headerregistry import Address
from urllib.parse import urlsplit

import jsonschema
import pytest
from structured_draws import BYTES, drawn, sentencepiece_vocabulary
from structured_examples import PERSON, TABLES, select_grammar

from research.generation.structured.grammar import json_schema, lark, regex
from research.generation.structured.schema import FORMATS

VOCABULARIES = {"bytes": lambda: BYTES, "sentencepiece": sentencepiece_vocabulary}
URI = re.compile(  # RFC 3986: a scheme, then reserved, unreserved and percent-encoded characters
    r"[A-Za-z][A-Za-z0-9+.-]*:(?:[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2})*"
)

TREE = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "value": {"type": "integer", "exclusiveMinimum": -10, "exclusiveMaximum": 10},
                "next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/node"}]},
            },
            "required": ["value", "next"],
            "additionalProperties": False,
        }
    },
    "$ref": "#/$defs/node",
}
CALL = {
    "oneOf": [
        {"type": "object", "properties": {"tool": {"const": "search"}, "query": {"type": "string", "maxLength": 5}},
         "required": ["tool", "query"], "additionalProperties": False},
        {"type": "object", "properties": {"tool": {"const": "add"}, "terms": {"type": "array", "maxItems": 3,
         "prefixItems": [{"type": "number"}], "items": {"type": "integer", "multipleOf": 3}}},
         "required": ["tool", "terms"], "additionalProperties": False},
    ]
}  # fmt: skip
SCHEMAS = {
    "person": PERSON,
    "tree": TREE,
    "call": CALL,
    "any": {},
    "every_type": {"type": ["string", "integer", "null", "boolean", "array", "object"], "maxLength": 2, "maxItems": 1},
    "enum": {"enum": [1, -2.5, "a\nb", "\u00e9\U0001f600", None, True, [1, {"a": []}], {"k": "v"}, "\\", '"', "/"]},
    "const": {"const": {"a": [1, "x", {"b": None}]}},
    "number": {"type": "number", "minimum": -1.5, "exclusiveMaximum": 2},
    "tenths": {"type": "number", "multipleOf": 0.1, "minimum": 0, "maximum": 3},
    "integer": {"type": "integer", "minimum": -17, "maximum": 1234},
    "emoji": {"type": "string", "pattern": "^[\U0001f600-\U0001f64f]{2,3}$"},
    "unicode": {"type": "string", "minLength": 2, "maxLength": 4},
    "searched": {"type": "string", "pattern": "b[0-9]", "maxLength": 5},
    "two_patterns": {"allOf": [{"pattern": "^a"}, {"pattern": "z$"}, {"type": "string", "maxLength": 4}]},
    "bounded_array": {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 4},
    "tuple": {"type": "array", "prefixItems": [{"type": "string", "maxLength": 2}, {"type": "null"}], "items": False},
    "map": {"type": "object", "patternProperties": {"^k[0-9]$": {"type": "integer"}}, "additionalProperties": False,
            "maxProperties": 2},
    "open_object": {"type": "object", "properties": {"a": {"type": "integer"}, "\"q\n": {"type": "null"}},
                    "required": ["a"], "additionalProperties": {"type": "string", "maxLength": 2}, "minProperties": 1},
    "merged": {"allOf": [{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
                         {"properties": {"a": {"minimum": 5, "maximum": 60}, "b": {"type": "boolean"}},
                          "additionalProperties": False}]},
    **{name: {"type": "string", "format": name} for name in FORMATS},
}  # fmt: skip


def without_strings(text):
    return re.sub(r'"(?:[^"\\]|\\.)*"', '""', text)


def judged_format(name, text):
    """Whether a string has a format, by the standard library."""
    if name == "email":
        return Address(addr_spec=text).addr_spec == text
    if name == "uri":
        return URI.fullmatch(text) is not None and text.count("#") <= 1 and bool(urlsplit(text).scheme)
    return {"ipv4": ipaddress.IPv4Address, "ipv6": ipaddress.IPv6Address, "uuid": uuid.UUID}[name](text) is not None


def exact(text):
    """The value of a JSON text with its fractions as they are written; those that no Decimal reaches are infinite."""
    return json.loads(text, parse_float=_decimal)


def _decimal(number):
    try:
        return Decimal(number)
    except InvalidOperation:
        return Decimal("Infinity")


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
@pytest.mark.parametrize("name", SCHEMAS)
def test_every_finished_json_text_satisfies_its_schema(name, vocabulary):
    schema, pieces = exact(json.dumps(SCHEMAS[name])), VOCABULARIES[vocabulary]()
    jsonschema.Draft202012Validator.check_schema(SCHEMAS[name])
    validator = jsonschema.Draft202012Validator(schema)
    grammar = json_schema(json.dumps(SCHEMAS[name]))
    texts = [text for seed, closing in enumerate((0.0, 0.3, 0.7)) for text in drawn(grammar, pieces, 8, seed, closing)]
    assert len(texts) >= 16, "too few texts ended to say anything"
    for text in texts:
        value = exact(text)
        validator.validate(value)
        assert not re.search(r"\s", without_strings(text)) and "\\u" not in text
        if name in FORMATS:
            assert judged_format(name, value), text


EXPRESSIONS = (
    r"[A-Z]{2}\d{3,5}", r"(?:yes|no|maybe)", r"-?\d+(?:\.\d{1,2})?", r"[^\d\s]{3}", r"(?i)select\s\w+", r"\W\D\S",
    r".{0,4}", "[\u00e9\u00e8]\U0001f600+", r"(?s).{3}", r"[\w.+-]+@\w+\.(?:com|org)", r"a/b\\\"'",
    r"(?x) a | b  # or", r"a*b|", r"\x41\n\t",
)  # fmt: skip


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_finished_text_matches_its_expression(expression, vocabulary):
    grammar, pieces = regex(expression), VOCABULARIES[vocabulary]()
    texts = [text for seed, closing in enumerate((0.0, 0.5)) for text in drawn(grammar, pieces, 8, seed, closing)]
    assert len(texts) >= 8, "too few texts ended to say anything"
    flags = 0 if "(?i)" in expression else re.ASCII  # under (?i) case is folded as Unicode folds it
    assert [text for text in texts if not re.fullmatch(expression, text, flags)] == []


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_every_finished_query_runs_in_sqlite(vocabulary):
    database = sqlite3.connect(":memory:")
    for table, columns in TABLES.items():
        database.execute(f"CREATE TABLE {table} ({', '.join(f'{name} {kind}' for name, kind in columns.items())})")
        database.execute(f"INSERT INTO {table} VALUES ('x', 1, 2)")
    grammar, pieces = lark(select_grammar(TABLES)), VOCABULARIES[vocabulary]()
    queries = [query for seed in range(4) for query in drawn(grammar, pieces, 16, seed, closing=0.2, most=600)]
    for query in queries:
        database.execute(query).fetchall()
    assert len(queries) >= 40
    # The draws reach every clause, or the judge would have had nothing to judge.
    assert all(
        any(word in query for query in queries) for word in (" WHERE ", " ORDER BY ", " LIMIT ", " AND ", "avg(")
    )


def test_a_query_on_a_column_of_another_table_cannot_be_written():
    grammar = lark(select_grammar({"city": TABLES["city"]}))
    assert not [
        query for query in drawn(grammar, BYTES, 32, seed=0, closing=0.3) if "length" in query or "river" in query
    ]

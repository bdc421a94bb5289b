"""JSON repaired after the fact: what comes out is JSON or nothing, and what was JSON stays as it is."""

import json
import sys

import numpy as np
import pytest
from structured_draws import BYTES, END, allowed

from research.config import ConfigError
from research.generation.structured.constraint import GrammarConstraint
from research.generation.structured.grammar import json_schema
from research.generation.structured.repair import repaired

REPAIRS = [
    ('{"a": 1', '{"a":1}'),
    ("{'a': [1, 2,]}", '{"a":[1,2]}'),
    ('Sure! {"a": "\u00e9"} That is all.', '{"a":"\u00e9"}'),
    ('```json\n{"a": true}\n```', '{"a":true}'),
    ('{a: "b", // the name\n"c": None}', '{"a":"b","c":null}'),
]


@pytest.mark.parametrize(("text", "wanted"), REPAIRS)
def test_what_is_nearly_json_is_made_json(text, wanted):
    assert repaired(text) == wanted


@pytest.mark.parametrize("text", ["null", "0", ' {"b": 1,\n "a": [1e999, "\\ud800"]} ', '"\u2581"', '{"a": 1, "a": 2}'])
def test_what_is_json_stays_as_it_is(text):
    assert repaired(text) == text


@pytest.mark.parametrize("text", ["", " ", "hello", '{"a": NaN}', "[1e999", '{"a": "\\ud800"', "[" * 100_000])
def test_what_is_no_json_is_nothing(text):
    assert repaired(text) is None


def test_a_text_cut_short_anywhere_is_repaired_to_json_or_nothing():
    text = '{"name": "\u00e9\\n\\"x", "list": [1, -2.5, {"k": null}], "t": true}'
    for length in range(len(text)):
        found = repaired(text[:length])
        assert found is None or json.loads(found) is not None
    assert json.loads(repaired(text[:-1])) == json.loads(text)


def test_a_repaired_text_need_not_satisfy_the_schema():
    """So that none counts as valid unread: this one lacks a required property, which no mask would let happen."""
    schema = {"type": "object", "properties": {"a": {"const": 1}, "b": {"const": 2}}, "required": ["a", "b"]}
    cut = '{"a":1'
    constraint = GrammarConstraint(json_schema(json.dumps(schema)), 1, BYTES, END)
    for byte in cut.encode():
        constraint.advance(np.array([3 + byte]), np.array([True]))
    assert END not in allowed(constraint.masks()[0])
    assert json.loads(repaired(cut)) == {"a": 1}


def test_without_json_repair_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "json_repair", None)
    with pytest.raises(ConfigError, match=r"needs json_repair.*Fix: pip install 'isoflop\[structured\]'"):
        repaired("{")

"""What a schema, a regular expression and a Lark grammar may hold, and how each refusal names it."""

import json
import re

import numpy as np
import pytest
from structured_draws import BYTES, END, allowed

from research.config import ConfigError
from research.generation.structured.constraint import GrammarConstraint
from research.generation.structured.grammar import json_schema, lark, regex


def accepts(grammar, text):
    """Whether the masks let a text be written byte by byte and then ended."""
    constraint = GrammarConstraint(grammar, 1, BYTES, END)
    for byte in text.encode():
        if 3 + byte not in allowed(constraint.masks()[0]):
            return False
        constraint.advance(np.array([3 + byte]), np.array([True]))
    return END in allowed(constraint.masks()[0])


# Keywords of Draft 2020-12, its predecessors and OpenAPI that say which values are valid, and that no mask enforces.
UNENFORCED = {
    "uniqueItems": True, "not": {"type": "string"}, "if": {"type": "string"}, "then": {}, "else": {},
    "contains": {"type": "string"}, "minContains": 1, "maxContains": 2, "propertyNames": {"maxLength": 3},
    "dependentRequired": {"a": ["b"]}, "dependentSchemas": {"a": {}}, "dependencies": {"a": ["b"]},
    "unevaluatedProperties": False, "unevaluatedItems": False, "additionalItems": False, "$dynamicRef": "#a",
    "$recursiveRef": "#", "contentEncoding": "base64", "contentMediaType": "text/html", "contentSchema": {},
    "nullable": True, "discriminator": {}, "minlength": 3, "x-guidance": {"lenient": True}, "required_": ["a"],
}  # fmt: skip


@pytest.mark.parametrize("keyword", UNENFORCED)
@pytest.mark.parametrize(
    ("place", "pointer"),
    [
        (lambda inner: inner, ""),
        (lambda inner: {"properties": {"a/b": {"items": inner}}}, "/properties/a~1b/items"),
        (lambda inner: {"$defs": {"d": {"anyOf": [True, inner]}}, "$ref": "#/$defs/d"}, "/$defs/d/anyOf/1"),
        (lambda inner: {"additionalProperties": {"patternProperties": {"^a": inner}}},
         "/additionalProperties/patternProperties/^a"),
        (lambda inner: {"prefixItems": [{"allOf": [inner]}]}, "/prefixItems/0/allOf/0"),
        (lambda inner: {"oneOf": [inner]}, "/oneOf/0"),
    ],
)  # fmt: skip
def test_a_keyword_that_no_mask_enforces_is_refused_wherever_it_stands(keyword, place, pointer):
    value = UNENFORCED[keyword]
    message = re.escape(f"json_schema{pointer}/{keyword} = {value!r}: no mask can enforce this keyword")
    with pytest.raises(ConfigError, match=message + ".*Fix: "):
        json_schema(json.dumps(place({keyword: value})))


def test_a_field_may_be_the_name_of_a_file():
    schema = '{"$id": "http://a", "$defs": {"a/b": {"type": "integer"}}, "$ref": "#/$defs/a~1b"}'
    assert accepts(json_schema(schema, "schemas/answer.json"), "12")
    with pytest.raises(ConfigError, match="schemas/answer.json/not = {}: no mask can enforce this keyword"):
        json_schema('{"not": {}}', "schemas/answer.json")


def test_a_misspelt_keyword_is_told_apart():
    with pytest.raises(ConfigError, match="json_schema/minlength = 3: .*Fix: write minLength, or leave it out"):
        json_schema('{"type": "string", "minlength": 3}')


def test_a_name_may_be_that_of_a_keyword():
    for schema in ({"properties": {"not": {"const": 1}}}, {"const": {"not": 1}}, {"enum": [{"uniqueItems": True}]},
                   {"default": {"not": 1}, "examples": [{"if": 1}]}, {"$defs": {"contains": {}}}):  # fmt: skip
        json_schema(json.dumps(schema))


REFUSED_SCHEMAS = [
    ("{", "json_schema: is no JSON at line 1, column 2: Expecting property name"),
    ('{"type": "string",\n "maxLength" 3}', "is no JSON at line 2, column 14: Expecting ':' delimiter"),
    ('{"type": "string", "type": "number"}', "json_schema: names 'type' twice in one object"),
    ('{"minimum": NaN}', "json_schema: holds NaN, which is no JSON"),
    ("false", "json_schema = False: allows no value"),
    ("[]", r"json_schema = \[\]: must be an object or a boolean"),
    ('{"items": 3}', "json_schema/items = 3: must be an object or a boolean"),
    ('{"anyOf": {}}', "json_schema/anyOf = {}: must be a list of schemas"),
    ('{"properties": []}', r"json_schema/properties = \[\]: must map names to schemas"),
    ('{"type": "strin"}', "Invalid type: strin"),
    ('{"$schema": "http://json-schema.org/draft-07/schema#"}', r"json_schema/\$schema = .*read as Draft 2020-12"),
    ('{"items": {"$id": "http://a"}}', r"json_schema/items/\$id = .*: stands at the root alone"),
    ('{"$ref": "http://a/b"}', r"json_schema/\$ref = 'http://a/b': must point into this schema"),
    ('{"$ref": "#/$defs/a"}', r"json_schema/\$ref = '#/\$defs/a': must point to a schema of this one"),
    ('{"$ref": "#/default", "default": {"uniqueItems": true}}', r"json_schema/\$ref = '#/default': must point to"),
    ('{"$ref": "#missing"}', "missing"),
    ('{"$ref": 3}', r"json_schema/\$ref = 3: must point into this schema"),
    ('{"$ref": "#"}', r"json_schema/\$ref = '#': leads back to itself"),
    ('{"properties": {"x": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}',
     r"json_schema/properties/x/\$ref = '#/\$defs/a': leads back to itself"),
    ('{"items": [{"type": "string"}]}', "json_schema/items = .*is one schema in Draft 2020-12. Fix: write prefixItems"),
    ('{"format": "date"}', "json_schema/format = 'date': must be one of email, ipv4, ipv6, uri, uuid"),
    ('{"format": "hostname"}', "json_schema/format = 'hostname'"),
    ('{"minProperties": 2}', "json_schema/minProperties = 2: may be at most 1, since a mask does not see"),
    ('{"maximum": 9007199254740993}', r"json_schema/maximum = 9007199254740993: must be at most 2\*\*53"),
    ('{"const": 9007199254740993}', r"json_schema/const = 9007199254740993: must be at most 2\*\*53"),
    ('{"enum": [{"k": [-9007199254740993]}]}', "json_schema/enum = -9007199254740993"),
    ('{"maximum": 1e400}', "json_schema: holds 1e400, which no double reaches"),
    ('{"minimum": 3, "maximum": 1, "type": "number"}', r"Unsatisfiable schema: minimum \(3\) is greater than maximum"),
    ('{"oneOf": [{"type": "integer"}, {"type": "number"}]}', "oneOf constraints are not supported. Fix: tell its"),
    ('{"type": "object", "required": ["a"], "additionalProperties": false}', "required property 'a' is unsatisfiable"),
    ('{"pattern": "(?=a)"}', r"look-around, .* is not supported, at '\(\?='"),
    ('{"pattern": "("}', r"json_schema/pattern = '\(': is no regular expression at line 1, column 1: missing \)"),
    ('{"patternProperties": {"a**": true}}', r"json_schema/patternProperties = 'a\*\*': .*column 3: multiple repeat"),
    ('{"const": "a\\u0001"}', r"json_schema/const = 'a\\x01': holds a control character"),
    ('{"enum": [{"k": ["\\ud800"]}]}', r"json_schema/enum = '\\ud800': holds a control character or half"),
    ('{"properties": {"\\u007f": true}}', r"json_schema/properties = '\\x7f'"),
    ('{"type": "string", "pattern": "^\\\\x01$"}', "no text satisfies it"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), REFUSED_SCHEMAS)
def test_what_a_schema_may_not_hold_is_said(text, message):
    with pytest.raises(ConfigError, match=message) as refusal:
        json_schema(text)
    assert "Fix: " in str(refusal.value)


def test_json_is_written_without_white_space_and_with_each_key_in_one_way():
    schema = {"type": "object", "properties": {"a": {"type": "integer"}, "b\n": {}}, "required": ["a"],
              "additionalProperties": {"type": "string"}}  # fmt: skip
    grammar = json_schema(json.dumps(schema))
    for text in ('{"a":1}', '{"a":1,"b\\n":[1,{"c":null}]}', '{"a":-3,"b\\n":2,"c":"\U0001f600\\n\\"\\\\"}'):
        assert accepts(grammar, text), text
    for text in ('{"a": 1}', ' {"a":1}', '{"a":1} ', '{"a":1,"b\\n":[1, 2]}', '{"a":1,"a":"x"}',
                 '{"a":1,"\\u0061":"x"}', '{"a":1,"b\\u000a":"x"}', '{"a":1,"c":"\\ud83d"}', '{"a":1,"c":"\n"}',
                 '{"a":1.0}', "{}"):  # fmt: skip
        assert not accepts(grammar, text), text


def test_digits_and_word_characters_are_those_of_ascii():
    thai_three, e_acute = "\u0e53", "\u00e9"
    for make in (regex, lambda pattern: json_schema(json.dumps({"type": "string", "pattern": f"^{pattern}$"}))):
        quote = "" if make is regex else '"'
        spelled = [quote + character + quote for character in ("3", thai_three, "a", e_acute, "_")]
        assert [accepts(make(r"\d"), text) for text in spelled] == [True, False, False, False, False]
        assert [accepts(make(r"\w"), text) for text in spelled] == [True, False, True, False, True]
        assert [accepts(make(r"[^\d]"), text) for text in spelled] == [False, True, True, True, True]
        assert [accepts(make(r"\W"), text) for text in spelled] == [False, True, False, True, False]
    assert [accepts(lark(r"start: /\d/"), character) for character in ("3", thai_three, "a")] == [True, True, False]


REFUSED_EXPRESSIONS = [
    ("[a-z", "regex = '\\[a-z': is no regular expression at line 1, column 1: unterminated character set"),
    ("a\n(b", "line 2, column 1: missing \\)"),
    ("a{3,1}", "column 3: min repeat greater than max repeat"),
    ("a**", "column 3: multiple repeat"),
    (r"\p{L}", r"column 1: bad escape \\p"),
    ("[a&&b]", "possible set intersection at position 2, which re and Rust read differently"),
    ("[[a]]", "possible nested set"),
    ("a{99999999999999999999}", "the repetition number is too large"),
    ("a*+a", r"has a possessive quantifier at character 2, which Rust lacks. Fix: write \*"),
    ("(?=a)b", r"look-around, .*, at '\(\?='"),
    (r"(a)\1", r"backreferences are not supported, at '\\\\1'"),
    (r"\bword", "lookarounds not supported yet"),
    ("a$b", "lookarounds not supported yet"),
    ("a{,2}", "repetition quantifier expects a valid decimal, at ','"),
    (r"\Z", r"unrecognized escape sequence, at '\\\\Z'"),
    (r"[^\x00-\U0010FFFF]", "no text satisfies it"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), REFUSED_EXPRESSIONS)
def test_an_expression_that_re_and_rust_do_not_share_is_refused(text, message):
    with pytest.raises(ConfigError, match=message) as refusal:
        regex(text)
    assert "Fix: " in str(refusal.value)


def test_an_expression_that_re_has_read_before_is_still_refused():
    with pytest.warns(FutureWarning):
        re.compile("[c||d]")
    with pytest.raises(ConfigError, match="possible set union"):
        regex("[c||d]")


def test_what_only_looks_possessive_is_read():
    for expression, text in ((r"[*+]+", "*+*"), (r"a\++", "a++"), (r"[]*+]", "*"), (r"a+b*", "aab"), (r"\\+", "\\\\")):
        assert re.fullmatch(expression, text) and accepts(regex(expression), text)


REFUSED_GRAMMARS = [
    ("", "grammar = '': no start rule found"),
    ('strt: "a"', "no start rule found"),
    ('start: "a" x\nx: bar', 'line 2, column 4: unknown name: "bar"\\. Fix'),
    ('start: "a" | (', "line 1, column 15: Expected token '\\)'"),
    ('start: A\nA: A "x"', 'line 2, column 4: circular reference in token "A"'),
    ('start: "a"\nstart: "b"', 'line 2, column 8: duplicate rule: "start"'),
    ("start: /[a-z/", "line 1, column 8: unclosed character class, at '\\['"),
    ("start: a\na: a", "no text satisfies it"),
    ('start: "a"\nx: <s>', "grammar at line 2, column 4: '<s>' names a token of the vocabulary"),
    ("start: <[0-300]>", "line 1, column 8: '<\\[0-300\\]>' names a token"),
    ('start: %json {"type": "string"}', "line 1, column 8: '%json' holds a grammar or options that are not checked"),
    ('%llguidance {"allow_invalid_utf8": true}\nstart: "a"', "line 1, column 1: '%llguidance'"),
    ("start: @other", "line 1, column 8: '@other' refers to another grammar"),
    ('start[stop="x"]: /a+/', "line 1, column 6: .*hides text, cuts it short, or would be dropped"),
    ("start: a\na[lazy, max_tokens=3]: /a+/", "line 2, column 2"),
    ("start[temperature=0.7]: /a+/", "line 1, column 6"),
    ('start[suffix="]",\n stop = "x"]: /a+/', "line 1, column 6"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), REFUSED_GRAMMARS)
def test_what_a_lark_grammar_may_not_hold_is_said(text, message):
    with pytest.raises(ConfigError, match=message) as refusal:
        lark(text)
    assert "Fix: " in str(refusal.value)


def test_what_strings_expressions_and_comments_of_a_grammar_hold_is_text():
    grammar = lark('start: "<s>" /<[0]>|@a/ "%json" | "\\"@c" x // <s> %json\n# @b "\nx: ["[stop]"] "//"')
    for text in ("<s>@a%json", '"@c[stop]//', '"@c//'):
        assert accepts(grammar, text), text
    assert not accepts(grammar, "<s>")

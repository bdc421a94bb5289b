"""What an output must be, as a value: a JSON schema, a regular expression or a Lark grammar, checked and compiled.

Each has one meaning, whoever asks:

* JSON is written without any insignificant white space, properties in the schema's order (further ones after them), and
  strings without \\uXXXX. Schemas are Draft 2020-12; `schema.py` says what is refused.
* A regular expression matches the whole text. Its \\d, \\w and \\s are ASCII's, as under re.ASCII, which is also what a
  schema's patterns mean by \\d and \\w (ECMA 262); case is ignored under (?i) as Unicode folds it.
* A Lark grammar is one of llguidance: an Earley parser over terminals, each as long as it can be, whose regular
  expressions are those of Rust (\\d is every Unicode digit). White space is allowed where %ignore says so, and what ~
  negates may be no UTF-8 unless it meets /(?s:.*)/.
"""

import functools
import json
import re
from dataclasses import dataclass
from typing import Any

from research.config import ConfigError
from research.generation.structured import extra
from research.generation.structured.expressions import check_expression
from research.generation.structured.schema import read_schema
from research.generation.structured.token_table import token_table

# By default llguidance lets a forced stretch of text be written in the one way that a tokenizer would. Every token that
# keeps a prefix of some sentence is allowed here, so that the mask is a fact about the grammar alone.
_EVERY_TOKENIZATION = '%llguidance {"no_forcing": true}\n'
_JSON = {
    "whitespace_flexible": False,
    "lenient": False,
    "coerce_one_of": False,
    "json_allowed_escapes": 'nrbtf\\"',
    "json_allow_general_unicode_escapes": False,
}
_SHOWN = 60  # characters of a source in an error

# In a Lark grammar, outside strings, regular expressions and comments.
_REFUSED = {
    r"%json|%lark|%llguidance": ("holds a grammar or options that are not checked here", "write the rules out"),
    r"<[^>\n]*>": ("names a token of the vocabulary, where a grammar is of text alone", "write its text in quotes"),
    r"@\w+": ("refers to another grammar", "write its rules into this one"),
    r'\[(?:"(?:\\.|[^"\\\n])*"|[^"\]])*?\b(?:stop|max_tokens|temperature)\s*=': (
        "hides text, cuts it short, or would be dropped", "bound the terminal itself, as in /[a-z]{1,8}/"),
}  # fmt: skip
_LARK = re.compile(
    r'"(?:\\.|[^"\\\n])*"|/(?!/)(?:\\.|[^/\\])+/|(?://|#)[^\n]*|'
    + "|".join(f"(?P<refused{index}>{pattern})" for index, pattern in enumerate(_REFUSED)),
    re.DOTALL,
)
# llguidance's messages: where (the options above are a line of their own), the rule that the source was put into, and
# what Rust's regex crate says with the expression and carets below what is wrong in it.
_PLACED = re.compile(r"(?:at )?(?P<line>\d+)\((?P<column>\d+)\): ")
_WRAPPED = re.compile(
    r'failed to compile JSON schema: |invalid regex ".*" \(in regex\): |\. Enable .coerce_one_of. .*', re.DOTALL
)
_EXPRESSION = re.compile(
    r"regex parse error:\n    (?P<line>.*)\n    (?P<before> *)(?P<carets>\^+)\nerror: (?P<rule>.*)"
)


@dataclass(frozen=True)
class Grammar:
    """A checked language of texts: `source` as it was given, `lark` as llguidance reads it."""

    source: str
    lark: str


def json_schema(text: str, field: str = "json_schema") -> Grammar:
    """The JSON texts that satisfy a schema. `field`: what errors call it.

    Raises ConfigError for text that is no JSON (line and column), for a schema with anything that the mask could not
    enforce (its JSON pointer), and for one that nothing satisfies.
    """
    schema = read_schema(field, text) | {"x-guidance": _JSON}
    return _checked(field, Grammar(text, f"{_EVERY_TOKENIZATION}start: %json {json.dumps(schema)}"))


def regex(text: str, field: str = "regex") -> Grammar:
    """The texts that a regular expression matches as a whole, in what Python's re and Rust share of its syntax.

    Raises ConfigError for any other expression, with the line and column where re says.
    """
    check_expression(field, text)
    terminal = f"/{extra.llguidance().regex_to_lark(text, 'dws')}/" if text else '""'
    return _checked(field, Grammar(text, f"{_EVERY_TOKENIZATION}start: {terminal}"))


def lark(text: str, field: str = "grammar") -> Grammar:
    """The texts of a Lark grammar's rule `start`.

    Raises ConfigError with the line and column of a mistake, or of what would be dropped or not checked.
    """
    for match in _LARK.finditer(text):
        if match.lastgroup is not None:
            rule, fix = list(_REFUSED.values())[int(match.lastgroup.removeprefix("refused"))]
            before = text[: match.start()]
            line, column = before.count("\n") + 1, match.start() - before.rfind("\n")
            raise ConfigError(f"{field} at line {line}, column {column}: {match.group()!r} {rule}. Fix: {fix}.")
    return _checked(field, Grammar(text, _EVERY_TOKENIZATION + text), of_lark=True)


def _checked(field: str, grammar: Grammar, of_lark: bool = False) -> Grammar:
    """The grammar, if llguidance has nothing against it, warnings included, and some text can begin."""
    matcher = extra.llguidance().LLMatcher
    failed, messages = matcher.validate_grammar_with_warnings(grammar.lark, _bytes())
    if not failed and not messages:
        begun = matcher(_bytes(), grammar.lark, log_level=0)
        begun.compute_bitmask()
        if not begun.is_error():
            return grammar
        reason = begun.stop_reason()
        messages = [f"is too large ({reason})" if "TooComplex" in reason else "no text satisfies it"]
    told = _told("; ".join(messages), of_lark)
    shown = grammar.source if len(grammar.source) <= _SHOWN else grammar.source[: _SHOWN - 3] + "..."
    fix = "tell its cases apart by a required const, or write anyOf" if "oneOf" in told else "write it without that"
    raise ConfigError(f"{field} = {shown!r}: {told}. Fix: {fix}.")


def _told(message: str, of_lark: bool) -> str:
    """llguidance's message without its excerpt of the grammar, which for a Lark grammar says where in the source."""
    place = _PLACED.match(message)
    where = f"line {int(place['line']) - 1}, column {place['column']}: " if of_lark and place else ""
    if found := _EXPRESSION.search(message):
        start, end = len(found["before"]), len(found["before"] + found["carets"])
        return f"{where}{found['rule']}, at {found['line'][start:end]!r}"
    rule = re.split(r"\n +\d+ \| ", message[place.end() if place else 0 :])[0]
    return where + re.sub(r"\s+", " ", _WRAPPED.sub("", rule)).strip()


@functools.cache
def _bytes() -> Any:
    """A vocabulary in which every text can be written, to check grammars on."""
    return token_table((None, *(bytes([byte]) for byte in range(256))), 0)

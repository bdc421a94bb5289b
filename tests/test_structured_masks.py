"""Masks of a grammar against brute force on finite languages, row by row, and what a constraint is made of."""

import json
import sys

import numpy as np
import pytest
from structured_draws import BYTES, END, allowed, sentencepiece_vocabulary

from research.config import ConfigError
from research.generation.structured.constraint import GrammarConstraint
from research.generation.structured.grammar import Grammar, json_schema, lark, regex

# Beside the bytes: pieces that overlap, one twice, some that begin or end inside the characters of é and of an emoji,
# one that reads as the end, one that no text holds, and ids of the table beyond the vocabulary.
OVERLAPPING = (*BYTES, b"ab", b"abc", b"bc", b"a", b"ab", b"", b"\xc3", b"\xa9b", b"a\xf0\x9f", b"\x98\x80", b"<end>",
               b"</s>", b"\xff", None, None)  # fmt: skip
LANGUAGES = (
    ("a", "ab", "abc", "abcab"), ("abc",), ("",), ("", "a"), ("\u00e9b", "\u00e8b", "\u20ac"),
    ("a\U0001f600", "a\U0001f601b", "\U0001f600"), ("<end>", "</s>"), (" a", "  a", "a ", "\u2581a"),
)  # fmt: skip


def of_schema(language):
    return json_schema(json.dumps({"enum": list(language)}))


def of_regex(language):
    return regex("|".join("".join(f"[{c}]" if c in "|.*<>" else c for c in text) for text in language))


def of_lark(language):
    return lark("start: " + " | ".join(json.dumps(text) for text in language))


def spelled(make, language):
    """The texts of the language's grammar: a schema's are JSON strings."""
    return [(json.dumps(text, ensure_ascii=False) if make is of_schema else text).encode() for text in language]


def continuing(texts, prefix, pieces):
    """The ids that keep a prefix of some text, and the end where the prefix is one."""
    ids = [
        i for i, piece in enumerate(pieces) if i != END and piece and any(t.startswith(prefix + piece) for t in texts)
    ]
    return sorted([END, *ids] if prefix in texts else ids)


@pytest.mark.parametrize("make", [of_schema, of_regex, of_lark])
@pytest.mark.parametrize("language", LANGUAGES, ids=ascii)
def test_masks_equal_brute_force_at_every_prefix(make, language):
    for pieces in (OVERLAPPING, sentencepiece_vocabulary()):
        texts, seen, paths = spelled(make, language), set(), [[]]
        while paths:
            path = paths.pop()
            constraint = GrammarConstraint(make(language), 1, pieces, END)
            for token in path:
                constraint.advance(np.array([token]), np.array([True]))
            prefix = b"".join(pieces[token] for token in path)
            ids = allowed(constraint.masks()[0])
            assert ids == continuing(texts, prefix, pieces), (language, prefix)
            # One way to each prefix, by its longest last token, and another by its shortest.
            for token in ids:
                way = (prefix + (pieces[token] or b""), len(pieces[token] or b"") > 1)
                if token != END and way not in seen:
                    seen.add(way)
                    paths.append([*path, token])
        assert len(seen) >= max(map(len, texts))


def test_masks_have_a_bit_for_each_id_and_none_beyond():
    for ids in (256 + 3, 288, 289, 320, 4096):
        pieces = (*BYTES, *[b"ab"] * (ids - 260), None)[:ids]
        masks_BW = GrammarConstraint(regex("[ab]*"), 3, pieces, END).masks()
        assert masks_BW.shape == (3, -(-ids // 32)) and masks_BW.dtype == np.uint32
        letters = [3 + ord("a"), 3 + ord("b")]
        assert all(allowed(mask_W) == [END, *letters, *range(259, ids - 1)] for mask_W in masks_BW)


def write(constraint, rows_text, end_after=()):
    """Let each row write its text byte by byte, side by side; then it writes the end if it is in end_after, else is
    stopped from outside, at a token that its grammar does not allow.
    """
    running_B = np.ones(len(rows_text), bool)
    for step in range(1 + max(map(len, rows_text))):
        last = [END if row in end_after else 3 + ord("z") for row in range(len(rows_text))]
        tokens_B = np.array([3 + text[step] if step < len(text) else last[row] for row, text in enumerate(rows_text)])
        running_B = running_B & np.array([step < len(text) or row in end_after for row, text in enumerate(rows_text)])
        constraint.advance(tokens_B, running_B)
        running_B = running_B & (tokens_B != END)


def test_a_row_that_has_ended_may_write_the_end_alone():
    constraint = GrammarConstraint(regex("ab*"), 3, BYTES, END)
    write(constraint, [b"a", b"abb", b"ab"], end_after={0, 1})
    assert [allowed(mask_W) for mask_W in constraint.masks()] == [[END]] * 3
    constraint.advance(np.array([END, END, 3 + ord("x")]), np.array([True, False, True]))  # nothing is read any more
    assert [allowed(mask_W) for mask_W in constraint.masks()] == [[END]] * 3


def test_a_text_that_can_only_end_may_write_the_end_alone():
    constraint = GrammarConstraint(regex("ab"), 1, BYTES, END)
    constraint.advance(np.array([3 + ord("a")]), np.array([True]))
    assert allowed(constraint.masks()[0]) == [3 + ord("b")]
    constraint.advance(np.array([3 + ord("b")]), np.array([True]))
    assert allowed(constraint.masks()[0]) == [END]


def test_a_negation_lets_no_text_end_early():
    name = lark("start: NAME\nNAME: /[a-z]{2,4}/ & ~/if|for/")
    for text, whole in ((b"if", False), (b"ifs", True), (b"fo", True), (b"for", False), (b"of", True)):
        constraint = GrammarConstraint(name, 1, BYTES, END)
        for byte in text:
            constraint.advance(np.array([3 + byte]), np.array([True]))
        assert (END in allowed(constraint.masks()[0])) == whole, text
    # ~ negates among all bytes; the pieces that no text in UTF-8 holds are not allowed even so.
    ids = allowed(GrammarConstraint(lark('start: ~/a/ "b"'), 1, (*BYTES, b"\xffb", b"b\xff", b"bb"), END).masks()[0])
    assert not {END, 258, 259, 260} & set(ids) and {3 + ord("b"), 261} <= set(ids)


def test_the_mask_of_a_row_does_not_depend_on_the_others():
    grammar = json_schema('{"type": "object", "properties": {"name": {"type": "string"}, "n": {"type": "integer"}}}')
    texts = [b'{"name":"ab', b'{"n":123456', b'{"name":"\xc3\xa9', b'{"n":-10,"zz', b'{"name":"\xf0\x9f']
    together = GrammarConstraint(grammar, len(texts), BYTES, END)
    apart = [GrammarConstraint(grammar, 1, BYTES, END) for _ in texts]
    for bytes_B in zip(*texts):
        masks_BW = together.masks()
        np.testing.assert_array_equal(masks_BW, np.concatenate([alone.masks() for alone in apart]))
        together.advance(np.array(bytes_B) + 3, np.ones(len(texts), bool))
        for alone, byte in zip(apart, bytes_B):
            alone.advance(np.array([3 + byte]), np.ones(1, bool))
    assert len({mask_W.tobytes() for mask_W in together.masks()}) >= 3


def test_a_token_outside_the_mask_is_refused():
    constraint = GrammarConstraint(regex("abc"), 2, BYTES, END)
    constraint.advance(np.array([3 + ord("a")] * 2), np.ones(2, bool))
    with pytest.raises(ValueError, match=r"tokens_B\[1\] = 123: row 1 cannot go on: .*Fix: write only what masks\(\)"):
        constraint.advance(np.array([3 + ord("b"), 3 + ord("x")]), np.ones(2, bool))
    constraint = GrammarConstraint(regex("abc"), 1, BYTES, END)
    with pytest.raises(ValueError, match=r"tokens_B\[0\] = 1: row 0 .* is not whole"):
        constraint.advance(np.array([END]), np.ones(1, bool))


def test_a_vocabulary_without_what_must_follow_is_refused():
    constraint = GrammarConstraint(regex("a[bc]d"), 1, (None, None, b"a", b"b"), END)
    for token in (2, 3):
        assert allowed(constraint.masks()[0]) == [token]
        constraint.advance(np.array([token]), np.array([True]))
    with pytest.raises(ConfigError, match="row 0 cannot go on: .*Fix: give the vocabulary every byte"):
        constraint.masks()


@pytest.mark.parametrize(
    ("rows", "pieces", "end", "message"),
    [
        (0, BYTES, END, "rows = 0: must be at least 1"),
        (1, BYTES, 259, "end = 259: must be one of the 259 ids"),
        (1, BYTES, -1, "end = -1"),
        (1, (None, None, "a"), END, r"pieces\[2\] = 'a': must be bytes or None"),
    ],
)
def test_what_makes_no_constraint_is_refused(rows, pieces, end, message):
    with pytest.raises(ConfigError, match=message):
        GrammarConstraint(regex("a"), rows, pieces, end)


def test_without_llguidance_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(ConfigError, match=r"needs llguidance.*Fix: pip install 'isoflop\[structured\]'"):
        GrammarConstraint(Grammar("a", "start: /a/"), 1, BYTES, END)

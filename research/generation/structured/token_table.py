"""A vocabulary as llguidance reads it: a trie of the bytes that each id stands for."""

import functools
from typing import Any

from research.config import check
from research.generation.structured import extra


class _Vocabulary:
    """What llguidance asks of a tokenizer."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, tokens: list[bytes], end: int):
        self.tokens, self.eos_token_id, self.special_token_ids = tokens, end, [end]

    def __call__(self, text: str) -> list[int]:
        """Asked for where llguidance writes forced text itself, which the grammars here switch off."""
        raise NotImplementedError("no text is tokenized for a mask")


@functools.lru_cache(maxsize=8)
def token_table(pieces: tuple[bytes | None, ...], end: int) -> Any:
    """llguidance's trie of a vocabulary, built once for each.

    Raises ConfigError for an end outside the vocabulary, or pieces that are no bytes.
    """
    check(0 <= end < len(pieces), "end", end, f"must be one of the {len(pieces)} ids", "name the id that ends a text")
    for index, piece in enumerate(pieces):
        check(
            piece is None or isinstance(piece, bytes), f"pieces[{index}]", piece, "must be bytes or None", "encode it"
        )
    # llguidance knows control ids by a first byte 0xFF, which no text in UTF-8 holds: such a piece is never allowed.
    tokens = [piece if piece and b"\xff" not in piece else b"" for piece in pieces]
    tokens[end] = b"<end>"
    return extra.llguidance().LLTokenizer(_Vocabulary(tokens, end))

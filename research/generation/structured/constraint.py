"""The mask of the next token: which ids keep each row's text a prefix of some text of a grammar."""

from collections.abc import Sequence

import numpy as np

from research.config import ConfigError, check
from research.generation.structured import extra
from research.generation.structured.grammar import Grammar
from research.generation.structured.token_table import token_table

WORD_BITS = 32
_NOTHING_FOLLOWS = ("NoExtension", "NoExtensionBias")  # llguidance's names for it


class GrammarConstraint:
    """One parser a row, all at the beginning of the grammar.

    `pieces`: the bytes that each of the V ids of the model's table stands for, None for one that may never be written
    (control ids, ids beyond the vocabulary). `end`: the id that ends a row, allowed exactly where the row's text is a
    whole text of the grammar; its own piece counts for nothing. A piece may begin or end inside a character.

    Raises ConfigError for pieces, an end or a number of rows that cannot be.
    """

    def __init__(self, grammar: Grammar, rows: int, pieces: Sequence[bytes | None], end: int):
        check(rows >= 1, "rows", rows, "must be at least 1", "ask for a row")
        library = extra.llguidance()
        first = library.LLMatcher(token_table(tuple(pieces), end), grammar.lark, log_level=0)
        self._matchers = [first, *(first.deep_copy() for _ in range(rows - 1))]
        self._running = list(range(rows))
        self._end = end
        self._ended_BW = np.zeros((rows, -(-len(pieces) // WORD_BITS)), np.uint32)
        self._ended_BW[:, end // WORD_BITS] = 1 << end % WORD_BITS
        self._executor = library.LLExecutor() if rows > 1 else None  # threads cost more than one row does

    def masks(self) -> np.ndarray:
        """(B, ceil(V / 32)) uint32: bit v % 32 of word v // 32 is set where row b may write id v next.

        A row that has ended may write the end id alone. Raises ConfigError where a row can neither go on nor end: the
        vocabulary has no token for what must follow, or the grammar leads nowhere from here.
        """
        masks_BW = self._ended_BW.copy()
        address, row_bytes = masks_BW.ctypes.data, masks_BW.strides[0]
        if len(self._running) == 1:
            row = self._running[0]
            self._matchers[row].unsafe_compute_mask_ptr(address + row * row_bytes, row_bytes)
        elif self._running:
            pairs = [(self._matchers[row], row) for row in self._running]
            self._executor.unsafe_compute_mask_ptr(pairs, address, row_bytes, len(masks_BW))
        for row in self._running:
            matcher = self._matchers[row]
            if not matcher.is_accepting():
                # What ~ negates also matches the name of the end id in llguidance's table.
                masks_BW[row] &= ~self._ended_BW[row]
            # A parser that is stuck allows the end id, as if the text were whole.
            if matcher.is_error():
                raise ConfigError(f"{self._told(row)}. Fix: give the vocabulary every byte, or correct the grammar.")
        return masks_BW

    def advance(self, tokens_B: np.ndarray, running_B: np.ndarray) -> None:
        """Take up the token that each row wrote.

        tokens_B: integer ids, of which those of ended rows are not read. running_B: false for a row that has ended, by
        its end id before or by whatever else ends one; it stays so.

        Raises ValueError for a token that the row's mask does not allow.
        """
        tokens, running = np.asarray(tokens_B).tolist(), np.asarray(running_B).tolist()
        self._running = [row for row in self._running if running[row]]
        for row in self._running:
            token, matcher = tokens[row], self._matchers[row]
            if not (matcher.is_accepting() if token == self._end else matcher.consume_token(token)):
                raise ValueError(f"tokens_B[{row}] = {token}: {self._told(row)}. Fix: write only what masks() allows.")
        self._running = [row for row in self._running if tokens[row] != self._end]

    def _told(self, row: int) -> str:
        reason = self._matchers[row].get_error().split("\n")[0] or "the text so far is not whole"
        return f"row {row} cannot go on: {'nothing can follow its text' if reason in _NOTHING_FOLLOWS else reason}"

"""Where a text ends by what stands in it: stop strings, looked for as bytes.

A stop string may begin inside one token and end inside another, and a token may hold part of a character of UTF-8
alone: bytes are compared, so that neither hides it.
"""

from collections.abc import Sequence
from typing import NamedTuple

from research.config import check


class Stop(NamedTuple):
    """A stop string that was found."""

    tokens: int  # of the row, up to and with the one that completed it
    start: int  # bytes of the row's text before it


class StopStrings:
    """Strings that end a text before them. pieces: the bytes of each id, None for those that stand for no text.

    Raises ConfigError for an empty one, which would end every text before it began.
    """

    def __init__(self, pieces: Sequence[bytes | None], strings: Sequence[str | bytes]) -> None:
        for string in strings:
            check(len(string) > 0, "stop", string, "must not be empty: it would end every text at once", "leave it out")
        self.pieces = pieces
        self.strings = [string if isinstance(string, bytes) else string.encode() for string in strings]

    def reader(self) -> "StopReader":
        """For the text of one row."""
        return StopReader(self)


class StopReader:
    """Reads one row's tokens as they are written."""

    def __init__(self, stops: StopStrings) -> None:
        self._stops, self._text, self._tokens = stops, bytearray(), 0
        self._overlap = max(map(len, stops.strings)) - 1

    def read(self, tokens: Sequence[int]) -> Stop | None:
        """The stop string that the first of these tokens to complete one completes; of several the earliest begun."""
        for token in tokens:
            begin = max(0, len(self._text) - self._overlap)
            self._text += self._stops.pieces[token] or b""
            self._tokens += 1
            found = [at for string in self._stops.strings if (at := self._text.find(string, begin)) >= 0]
            if found:
                return Stop(self._tokens, min(found))
        return None

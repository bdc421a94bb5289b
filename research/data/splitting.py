"""Which documents are used, and on which side of the split each is. Standard library and numpy only.

A document counts once: an empty one (white space alone, Unicode's own included) and any later repeat of a text are left
out and counted. So no text that a corpus repeats, however often, can fill a side or pull its loss, and the held-out
share is one of distinct documents. The side follows from a hash of the text, which puts equal texts of different
sources on the same side.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from research.data.errors import DataError

_DIGEST_BYTES = 8  # of a text: two of 100 million texts share one with probability 3e-4, and one of them is left out
_RECENT = 1 << 18  # digests kept in a set before they are merged into the sorted array


class Document(NamedTuple):
    """A document that is used, with the counts of those left out before it."""

    text: bytes
    is_held_out: bool
    empty: int
    repeated: int


@dataclass
class Seen:
    """Digests of the texts so far: 8 bytes for each, and some 30 MB for the most recent."""

    older: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))  # sorted
    recent: set[int] = field(default_factory=set)

    def add(self, digest: int) -> bool:
        """Record the digest; return whether it was new."""
        place = np.searchsorted(self.older, np.uint64(digest))
        if digest in self.recent or (place < self.older.size and self.older[place] == digest):
            return False
        self.recent.add(digest)
        if len(self.recent) == _RECENT:
            self.older = np.union1d(self.older, np.fromiter(self.recent, np.uint64, _RECENT))
            self.recent = set()
        return True


def split(documents: Iterable[tuple[str, bytes]], fraction: float, source: str) -> Iterator[Document]:
    """The (name, text) pairs that are used, in their order; `fraction` of the distinct ones are held out.

    Raises DataError, naming the document, for one that is not UTF-8: ids of such text would stand for other bytes than
    the document has.
    """
    seen, empty, repeated = Seen(), 0, 0
    for name, text in documents:
        decoded = _decoded(name, text, source)
        digest = digest_of(text)
        if not decoded.strip():
            empty += 1
        elif not seen.add(digest):
            repeated += 1
        else:
            yield Document(text, is_held_out(digest, fraction), empty, repeated)
    yield Document(b"", False, empty, repeated)  # what was left out after the last


def digest_of(text: bytes) -> int:
    """A number that a text shares with no other."""
    return int.from_bytes(hashlib.blake2b(text, digest_size=_DIGEST_BYTES).digest(), "big")


def is_held_out(digest: int, fraction: float) -> bool:
    """The side of a text: `fraction` of all digests are held out."""
    return digest < fraction * 256**_DIGEST_BYTES


def _decoded(name: str, text: bytes, source: str) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        near = text[max(0, error.start - 10) : error.end + 10]
        raise DataError(
            f"{source}: document {name} is not UTF-8: byte {error.start:,} is 0x{text[error.start]:02x}, in {near!r}. "
            "Fix: repair the document, or leave it out of the data set."
        ) from error

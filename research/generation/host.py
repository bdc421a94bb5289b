"""What happens on the host between two calls of the compiled program: stop strings, constraints, what was written."""

from typing import NamedTuple

import jax
import numpy as np

from research.config import check
from research.generation.constraint import Constraint, DeadEndError
from research.generation.record import Decoding, Record, Written
from research.generation.stopping import Stop, StopStrings

STEPS_BETWEEN_LOOKS = 8  # of stop strings: later looks write more that is thrown away, earlier ones wait more often


class Seen(NamedTuple):
    """Copies of what the host looks at: the carry itself is given to the next call."""

    tokens_BT: jax.Array
    lengths_B: jax.Array
    running_B: jax.Array
    step: jax.Array


class Host:
    """What happens between two calls of the program."""

    def __init__(
        self, decoding: Decoding, rows: int, stop_strings: StopStrings | None, constraint: Constraint | None
    ) -> None:
        self.decoding, self.constraint, self.stop_strings = decoding, constraint, stop_strings
        self.stops: list[Stop | None] = [None] * rows
        self.texts = None if stop_strings is None else [stop_strings.reader() for _ in range(rows)]
        self.read_B = np.zeros(rows, np.int64)

    def steps(self, asked: int | None) -> int:
        """How many steps go by between two looks."""
        if self.constraint is not None:
            check(asked in (None, 1), "steps", asked, "must be 1: a constraint is asked before each", "leave it out")
            return 1
        default = self.decoding.tokens if self.stop_strings is None else STEPS_BETWEEN_LOOKS
        check(asked is None or asked >= 1, "steps", asked, "must be at least 1", "leave it out")
        return default if asked is None else asked

    def masks(self, running_B: np.ndarray) -> np.ndarray | None:
        """The constraint's, every running row of which leaves something to write."""
        if self.constraint is None:
            return None
        masks_BW = self.constraint.masks()
        if (stuck := np.flatnonzero(running_B & ~masks_BW.any(axis=1))).size:
            raise DeadEndError(f"row {stuck[0]}: the constraint leaves no token to write. Fix: let it end there.")
        return masks_BW

    def read(self, seen: Seen) -> np.ndarray:
        """(B,) bool: rows that ended by a stop string; the constraint is told of the last token."""
        rows = len(self.stops)
        if self.texts is None and self.constraint is None:
            return np.zeros(rows, bool)
        tokens_BT, lengths_B = np.asarray(seen.tokens_BT), np.asarray(seen.lengths_B)
        wrote_B = lengths_B > self.read_B
        if self.texts is not None:
            for b in np.flatnonzero(wrote_B):
                if self.stops[b] is None:
                    self.stops[b] = self.texts[b].read(tokens_BT[b, self.read_B[b] : lengths_B[b]])
        ended_B = np.array([stop is not None for stop in self.stops])
        if self.constraint is not None:
            self.constraint.advance(tokens_BT[:, int(seen.step) - 1], wrote_B)
        self.read_B = lengths_B.copy()
        return ended_B

    def written(self, record: Record) -> Written:
        """What the record holds, each row as far as its stop string."""
        arrays = {name: None if a is None else np.array(a) for name, a in record._asdict().items()}
        lengths_B = arrays.pop("lengths_B")
        ends = []
        for b, stop in enumerate(self.stops):
            if stop is not None:
                lengths_B[b] = stop.tokens
            last = arrays["tokens_BT"][b, lengths_B[b] - 1]
            at_length = lengths_B[b] == self.decoding.tokens
            ended = last in self.decoding.end_ids
            ends.append("stop" if stop is not None else "end" if ended else "length" if at_length else "")
        beyond_BT = np.arange(self.decoding.tokens)[None] >= lengths_B[:, None]
        for array in arrays.values():
            if array is not None:
                array[beyond_BT] = 0
        if arrays["removed_bits_BT"] is None:
            arrays["removed_bits_BT"] = np.zeros(beyond_BT.shape, np.float32)
        elif np.isinf(arrays["removed_bits_BT"]).any():
            b = int(np.argmax(np.isinf(arrays["removed_bits_BT"]).any(axis=1)))
            raise DeadEndError(
                f"row {b}: every token that the constraint leaves is excluded by sampling.banned or "
                "sampling.min_new_tokens. Fix: change those."
            )
        return Written(lengths_B=lengths_B, ends=tuple(ends), stops=tuple(self.stops), **arrays)

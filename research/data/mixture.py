"""Which source each row of training comes from: a schedule computed from the row's number alone, never stored.

Time runs in rows. By time t source i is due F_i(t) rows, the integral of its share, and has been given
floor(F_i(t) + u_i) of them, with a seeded offset u_i below 1: within one row of its share at every moment, where
independent draws would be off by the square root of t. Rows are numbered in the order of these events, so that the
sources of any rows, and how many rows each source gave before, follow from a few values of F.
"""

from dataclasses import dataclass

import numpy as np

from research.config import RunConfig, normalized
from research.data.permutation import epoch_key


@dataclass(frozen=True)
class Mixture:
    """Shares of a run's sources, which sum to 1: `first` until the last `shift` of `rows` rows, then to `final`."""

    first: tuple[float, ...]
    final: tuple[float, ...]
    shift: float
    rows: int
    seed: int

    def draws(self, row: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """For rows row to row + count - 1: the source each comes from, and how many rows that source gave before.

        Both (count,) int64. For each source the second array counts 0, 1, 2, ... over the whole training.
        """
        given, first_row = self._given(row, count)
        sources, rank = _events(given)
        start = row - first_row
        return sources[start : start + count], rank[start : start + count]

    def given_before(self, row: int) -> np.ndarray:
        """(sources,) int64: rows that each source gave before this row."""
        given, first_row = self._given(row, 1)
        sources, _ = _events(given)
        return given[0] + np.bincount(sources[: row - first_row], minlength=len(self.first))

    def _given(self, row: int, count: int) -> tuple[np.ndarray, int]:
        """(times, sources) of rows given by each time around these rows, and their sum at the first of the times."""
        slack = len(self.first) + 1  # the sum over sources is off by less than 1 for each
        time = np.arange(max(0, row - slack), row + count + slack + 1, dtype=np.float64)
        offset = epoch_key(self.seed, np.arange(len(self.first))) / 2.0**64
        due = np.stack([self._due(time, *share) for share in zip(self.first, self.final, strict=True)], axis=1)
        given = np.floor(due + np.minimum(offset, 1 - 2.0**-20)).astype(np.int64)
        return given, int(given[0].sum())

    def _due(self, time: np.ndarray, first: float, final: float) -> np.ndarray:
        """The integral of the share up to each time.

        Written so that no rounding can make it fall: a sum of terms that grow, and for a falling share one of them is a
        constant minus the square of the time left.
        """
        shifting = self.shift * self.rows
        begin = self.rows - shifting
        if first <= final:
            into = np.clip(time - begin, 0, shifting)
            beyond = np.maximum(time - self.rows, 0)
            return first * time + (final - first) * (into**2 / (2 * shifting) + beyond)
        left = np.clip(self.rows - time, 0, shifting)
        return final * time + (first - final) * (np.minimum(time, begin) + (shifting / 2 - left**2 / (2 * shifting)))


def mixture_of(config: RunConfig) -> Mixture:
    """The mixture of a run on text, over all of its training."""
    data, training = config.data, config.training
    return Mixture(
        first=normalized(data.first_rates),
        final=normalized(data.final_rates),
        shift=data.shift_fraction,
        rows=training.steps * training.batch_size,
        seed=training.seed,
    )


def _events(given: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Source and rank of every row between the times of `given`, in order of time and then of source."""
    gained = np.diff(given, axis=0)
    cell = np.repeat(np.arange(gained.size), gained.ravel())
    within = np.arange(cell.size) - (np.cumsum(gained) - gained.ravel())[cell]
    return cell % gained.shape[1], given[:-1].ravel()[cell] + within

"""Which rows of a batch take part at which step: dense and ragged batches alike.

The values of a sequence lie in arrays of shape (rows of all steps, size), step after step. A row
that has ended takes no place. Rows are sorted by length, longest first, so that at each step the
first `active` rows of the batch are still there.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Steps:
    """The rows of each step.

    Attributes:
        active: (T,) how many rows of the batch take part at each step, never increasing.
        batch: B, rows of the batch; rows of length 0 are counted.
    """

    active: npt.NDArray[np.int64]
    batch: int

    @classmethod
    def dense(cls, length: int, batch: int) -> "Steps":
        """All `batch` rows at each of `length` steps; the same ones for the same numbers."""
        return _dense(length, batch)

    @property
    def length(self) -> int:
        """T, the number of steps of the longest row."""
        return len(self.active)

    @cached_property
    def offset(self) -> npt.NDArray[np.int64]:
        """(T,) where the rows of each step begin."""
        return np.concatenate([[0], np.cumsum(self.active)[:-1]]).astype(np.int64)

    @cached_property
    def rows(self) -> int:
        """The rows of all steps together."""
        return int(self.active.sum())

    @cached_property
    def lengths(self) -> npt.NDArray[np.int64]:
        """(B,) the length of each row."""
        return np.asarray((self.active[:, None] > np.arange(self.batch)).sum(0), np.int64)

    def cut_rows(self, parts: int) -> npt.NDArray[np.int64]:
        """(parts + 1,) where to cut the rows of the batch into parts of about the same work."""
        if parts not in self._cuts:
            self._cuts[parts] = _cut(self.lengths, parts)
        return self._cuts[parts]

    @cached_property
    def _cuts(self) -> dict[int, npt.NDArray[np.int64]]:
        return {}


@lru_cache(maxsize=16)
def _dense(length: int, batch: int) -> Steps:
    return Steps(np.full(length, batch, np.int64), batch)


def _cut(work: npt.NDArray[np.int64], parts: int) -> npt.NDArray[np.int64]:
    """What lies on both sides of a cut goes to the side that holds the middle of it."""
    if parts == 1:
        return np.array([0, len(work)])
    ends = np.cumsum(work)
    total = ends[-1] if len(ends) else 0
    return np.searchsorted(ends - work / 2, total * np.arange(parts + 1) / parts)


@dataclass(frozen=True, eq=False)
class Ragged:
    """Pieces of the rows of a padded array (T, B, …), and where they lie when packed.

    A row that starts anew in its midst is cut there: its pieces know nothing of each other, so they
    are rows of their own of a ragged batch. A row without such resets is one piece.

    Attributes:
        steps: the pieces of each step; step 0 is the first of every piece.
        rows: (P,) the row that each piece is of, longest piece first.
        places: (rows of all steps,) the place of each packed row in the padded (T · B) ones.
        continues: (P,) whether a piece goes on from the state that its row was given.
        first, last: (B,) the pieces with the first and the last step of each row.
    """

    steps: Steps
    rows: npt.NDArray[np.int64]
    places: npt.NDArray[np.int64]
    continues: npt.NDArray[np.bool_]
    first: npt.NDArray[np.int64]
    last: npt.NDArray[np.int64]

    @classmethod
    def of(
        cls, lengths: npt.ArrayLike, length: int, resets: npt.NDArray[np.bool_] | None = None
    ) -> "Ragged":
        """The pieces of a padded array of `length` steps.

        Args:
            lengths: (B,) how many steps of each row count.
            length: T.
            resets: (T, B) the rows that start anew before each step; none if None.
        """
        counts = np.asarray(lengths, np.int64)
        batch = len(counts)
        begins = np.zeros((max(length, 1), batch), bool)
        if resets is not None:
            begins[:length] = resets & (np.arange(length)[:, None] < counts)
        anew = begins[0].copy()
        begins[0] = True
        rows, starts = np.nonzero(begins.T)  # row by row, each in order of time
        ends = np.append(starts[1:], 0)
        final = np.append(rows[1:] != rows[:-1], np.ones(min(len(rows), 1), bool))
        ends[final] = counts
        order = np.argsort(starts - ends, kind="stable")
        own = np.empty_like(order)
        own[order] = np.arange(len(order))
        starting = np.append(0, np.nonzero(final)[0][:-1] + 1)[:batch]
        extents = (ends - starts)[order]
        steps = np.arange(max(extents, default=0) if resets is not None else length)[:, None]
        taking_part = steps < extents
        return cls(
            steps=Steps(taking_part.sum(1), len(rows)),
            rows=rows[order],
            places=((steps + starts[order]) * batch + rows[order])[taking_part],
            continues=((starts == 0) & ~anew[rows])[order],
            first=own[starting],
            last=own[final],
        )

    @cached_property
    def leading(self) -> bool:
        """Whether the pieces are the rows themselves, in the same order, and fill the first places.

        So it is for a single row, for rows of one length, and where only their last step is ragged.
        """
        return (
            self.steps.batch == len(self.first)
            and bool(self.continues.all())
            and np.array_equal(self.rows, np.arange(len(self.rows)))
            and np.array_equal(self.places, np.arange(self.steps.rows))
        )

    def entering(self, reverse: bool) -> npt.NDArray[np.bool_]:
        """(P,) the pieces that begin with the state that their row was given."""
        if not reverse:
            return self.continues
        found = np.zeros(len(self.rows), bool)
        found[self.last] = True
        return found

    def leaving(self, reverse: bool) -> npt.NDArray[np.int64]:
        """(B,) the pieces that end with the last state of their row."""
        return self.first if reverse else self.last


@dataclass(frozen=True)
class Result:
    """What running a program over a sequence gives.

    Attributes:
        outputs: one array (rows of all steps, sizes of the group) for each group of outputs.
        states: one array (B, size) for each carried pair: what the last step handed on.
        totals: family → the gradient of its stacked blocks.
    """

    outputs: tuple[Array, ...]
    states: tuple[Array, ...]
    totals: dict[str, Array]

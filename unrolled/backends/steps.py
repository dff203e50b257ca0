"""Which rows of a batch take part at which step: dense and ragged batches alike.

The values of a sequence lie in arrays of shape (rows of all steps, size), step after step. A row
that has ended takes no place. Rows are sorted by length, longest first, so that at each step the
first `active` rows of the batch are still there.
"""

from dataclasses import dataclass
from functools import cached_property
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
        """All `batch` rows at each of `length` steps."""
        return cls(np.full(length, batch, np.int64), batch)

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


@dataclass(frozen=True, eq=False)
class Ragged:
    """Rows of different lengths in a padded array (T, B, …), and where they lie when packed.

    Attributes:
        steps: the rows of each step.
        order: (B,) the rows of the batch, longest first; equal lengths stay in their order.
        places: (rows of all steps,) the place of each packed row in the padded (T · B) ones.
    """

    steps: Steps
    order: npt.NDArray[np.int64]
    places: npt.NDArray[np.int64]

    @classmethod
    def of(cls, lengths: npt.ArrayLike, length: int) -> "Ragged":
        """The rows of a padded array of `length` steps, of which row b uses `lengths[b]`."""
        given = np.asarray(lengths, np.int64)
        order = np.argsort(-given, kind="stable")
        steps = np.arange(length)[:, None]
        taking_part = steps < given[order]
        places = (steps * len(given) + order)[taking_part]
        return cls(Steps(taking_part.sum(1), len(given)), order, places)


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

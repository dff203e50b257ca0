"""The rows of a batch that take part at each step, and the way to their packed form and back."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ..backends.steps import Ragged, Steps
from ..errors import InputError


@dataclass(frozen=True, eq=False)
class Rows:
    """Which rows take part at which step, and the way to their packed form and back.

    Attributes:
        steps: the rows of each step.
        shape: (T, B) of arrays that are given step by step; None where they come packed.
        order: the rows of the batch, longest first; None where they come in that order.
        places: the place of each packed row among the T · B given ones; None if all take part.
    """

    steps: Steps
    shape: tuple[int, int] | None = None
    order: Tensor | None = None
    places: Tensor | None = None

    def packed(self, given: Tensor) -> Tensor:
        """(T, B, size) as (rows of all steps, size)."""
        flat = given if self.shape is None else given.reshape(-1, given.shape[-1])
        return flat if self.places is None else flat.index_select(0, self.places.to(flat.device))

    def padded(self, rows: Tensor) -> Tensor:
        """(rows of all steps, size) as they were given; zero where a row has ended."""
        if self.places is not None and self.shape is not None:
            places = self.places.to(rows.device)
            zeros = rows.new_zeros(self.shape[0] * self.shape[1], rows.shape[1])
            rows = zeros.index_copy(0, places, rows)
        return rows if self.shape is None else rows.reshape(*self.shape, rows.shape[1])

    def sorted(self, states: Sequence[Tensor]) -> list[Tensor]:
        """States (B, size), longest row first."""
        if self.order is None:
            return list(states)
        order = self.order.to(states[0].device)
        return [state.index_select(0, order) for state in states]

    def unsorted(self, states: Sequence[Tensor]) -> list[Tensor]:
        """States (B, size) in the order of the batch."""
        if self.order is None:
            return list(states)
        back = torch.argsort(self.order).to(states[0].device)
        return [state.index_select(0, back) for state in states]


def rows_of(x: Tensor, state: Tensor, counts: Tensor | None) -> Rows:
    """The rows that take part.

    Args:
        x: (T, B, I), or (rows of all steps, I) of a packed sequence.
        state: an initial state (B, size).
        counts: of a packed sequence (T,), how many rows take part at each step; of a padded one
            (B,), how many steps of each row count. None: all.

    Raises:
        InputError: if a row would have a negative length, or more steps than there are.
    """
    if x.dim() == 2:
        assert counts is not None
        return Rows(Steps(counts.numpy(), state.shape[0]))
    length, batch = x.shape[:2]
    if counts is None:
        return _dense(length, batch)
    lengths = counts.numpy(force=True)
    if np.any(lengths < 0) or np.any(lengths > length):
        raise InputError(
            f"lengths are whole numbers from 0 to T = {length}; found {lengths.tolist()}."
        )
    if np.all(lengths == length):
        return _dense(length, batch)
    ragged = Ragged.of(lengths, length)
    return Rows(
        ragged.steps,
        (length, batch),
        torch.from_numpy(ragged.order),
        torch.from_numpy(ragged.places),
    )


@lru_cache(maxsize=32)
def _dense(length: int, batch: int) -> Rows:
    return Rows(Steps.dense(length, batch), (length, batch))

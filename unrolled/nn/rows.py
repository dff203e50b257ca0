"""The rows of a batch that take part at each step, and the way to their packed form and back."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ..backends.steps import Ragged, Steps
from ..errors import InputError
from . import fresh


@dataclass(frozen=True, eq=False)
class Pieces:
    """The pieces of ragged rows, for tensors; see `backends.steps.Ragged`.

    Attributes:
        places: (rows of all steps,) the place of each packed row among the T · B given ones.
        rows: (P,) the row that each piece is of.
        entering: (P,) whether a piece begins with the state that its row was given.
        leaving: (B,) the piece that ends with the last state of each row.
    """

    places: Tensor
    rows: Tensor
    entering: Tensor
    leaving: Tensor


@dataclass(frozen=True, eq=False)
class Rows:
    """Which rows take part at which step.

    Attributes:
        steps: the rows of each step; pieces of rows where they are ragged.
        shape: (T, B) of arrays that are given step by step; None where they come packed.
        pieces: of ragged rows; None if all rows take part at all steps, or come packed.
        leading: whether the pieces are the rows themselves, in the same order, and what takes part
            comes first in what is given; see `Ragged.leading`.
    """

    steps: Steps
    shape: tuple[int, int] | None = None
    pieces: Pieces | None = None
    leading: bool = False

    def packed(self, given: Tensor) -> Tensor:
        """(T, B, size) as (rows of all steps, size)."""
        flat = given if self.shape is None else given.reshape(-1, given.shape[-1])
        if self.leading:
            return flat[: self.steps.rows]
        return flat if self.pieces is None else flat.index_select(0, self.pieces.places)

    def padded(self, rows: Tensor) -> Tensor:
        """(rows of all steps, size) as they were given; zero where no row takes part."""
        if self.shape is None:
            return rows
        if self.pieces is not None:
            there = self.shape[0] * self.shape[1], rows.shape[1]
            if self.leading:
                padded = fresh.empty(there, rows)
                padded[: self.steps.rows] = rows
                padded[self.steps.rows :] = 0
                rows = padded
            else:
                rows = fresh.zeros(there, rows).index_copy_(0, self.pieces.places, rows)
        return rows.reshape(*self.shape, rows.shape[1])

    def entered(self, states: Sequence[Tensor], anew: Sequence[Tensor]) -> list[Tensor]:
        """What each piece begins with: a state (…, B, size) as given, or (…, 1, size) anew."""
        if self.pieces is None or self.leading:
            return list(states)
        rows, entering = self.pieces.rows, self.pieces.entering[:, None]
        starts = anew or [state.new_zeros(()) for state in states]
        return [
            torch.where(entering, state.index_select(-2, rows), start)
            for state, start in zip(states, starts, strict=True)
        ]

    def left(self, states: Sequence[Tensor]) -> list[Tensor]:
        """The last states (…, B, size) of the rows, from those of the pieces."""
        if self.pieces is None or self.leading:
            return list(states)
        return [state.index_select(-2, self.pieces.leaving) for state in states]

    def left_backward(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """The gradient of `left`."""
        if self.pieces is None or self.leading:
            return list(gradients)
        return [
            gradient.new_zeros(self.steps.batch, gradient.shape[1]).index_copy(
                0, self.pieces.leaving, gradient
            )
            for gradient in gradients
        ]

    def entered_backward(self, gradients: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """The gradient of `entered`, with respect to the states given and those anew."""
        if self.pieces is None or self.shape is None or self.leading:
            return list(gradients), [
                gradient.new_zeros(gradient.shape[1]) for gradient in gradients
            ]
        entering, rows = self.pieces.entering, self.pieces.rows
        given = [
            gradient.new_zeros(self.shape[1], gradient.shape[1]).index_copy(
                0, rows[entering], gradient[entering]
            )
            for gradient in gradients
        ]
        return given, [gradient[~entering].sum(0) for gradient in gradients]


@dataclass(frozen=True, eq=False)
class AllRows:
    """The rows that take part, of both directions of a stack of layers.

    States of all layers and directions are one tensor (layers · directions, B, size); directions
    differ in which pieces of a row begin and end with its states.

    Attributes:
        sides: the rows of each direction.
    """

    sides: Sequence[Rows]

    @property
    def steps(self) -> Steps:
        """The rows of each step."""
        return self.sides[0].steps

    @property
    def how(self) -> bool | Steps:
        """The steps of ragged rows, False if all rows take part at all steps."""
        first = self.sides[0]
        return first.steps if first.pieces is not None or first.shape is None else False

    def packed(self, given: Tensor) -> Tensor:
        """As kernels read it: of ragged rows (rows of all steps, size)."""
        return self.sides[0].packed(given) if self.how else given

    def padded(self, rows: Tensor) -> Tensor:
        """The output as the input was given."""
        return self.sides[0].padded(rows) if self.how else rows

    def all_padded(self, every: Tensor) -> Tensor:
        """The same for a state of all layers and directions."""
        return torch.stack([self.padded(rows) for rows in every]) if self.how else every

    def entered(self, states: Sequence[Tensor], anew: Sequence[Tensor]) -> list[Tensor]:
        """See `Rows.entered`."""
        return self._by_side(states, lambda rows, side, start: rows.entered(side, start), anew)

    def left(self, states: Sequence[Tensor]) -> list[Tensor]:
        """See `Rows.left`."""
        return self._by_side(states, lambda rows, side, _: rows.left(side))

    def _by_side(
        self,
        states: Sequence[Tensor],
        change: Callable[[Rows, list[Tensor], list[Tensor]], list[Tensor]],
        anew: Sequence[Tensor] = (),
    ) -> list[Tensor]:
        first, width = self.sides[0], len(self.sides)
        if first.pieces is None or first.leading:
            return list(states)
        changed = [
            change(
                rows, [part[side::width] for part in states], [part[side::width] for part in anew]
            )
            for side, rows in enumerate(self.sides)
        ]
        return [torch.stack(parts, 1).flatten(0, 1) for parts in zip(*changed, strict=True)]


def rows_of_all(
    x: Tensor, batch: int, counts: Tensor | None, resets: Tensor | None, bidirectional: bool
) -> AllRows:
    """The rows that take part, of both directions; see `rows_of`."""
    sides = range(1 + bidirectional)
    if x.dim() == 2 and counts is not None:
        return AllRows([_packed(counts.numpy().tobytes(), batch)] * len(sides))
    return AllRows([rows_of(x, batch, counts, resets, side == 1) for side in sides])


def rows_of(
    x: Tensor, batch: int, counts: Tensor | None, resets: Tensor | None, reverse: bool
) -> Rows:
    """The rows that take part.

    Args:
        x: (T, B, I), or (rows of all steps, I) of a packed sequence.
        batch: B.
        counts: of a packed sequence (T,), how many rows take part at each step; of a padded one
            (B,), how many steps of each row count. None: all.
        resets: (T, B) the rows that start anew before each step of a padded sequence, or None.
        reverse: whether the rows are read from their end.

    Raises:
        InputError: if a row would have a negative length, or more steps than there are.
    """
    if x.dim() == 2:
        assert counts is not None
        return Rows(Steps(counts.numpy(), batch))
    length = x.shape[0]
    if counts is None and resets is None:
        return _dense(length, batch)
    lengths = np.full(batch, length) if counts is None else counts.numpy(force=True)
    if np.any(lengths < 0) or np.any(lengths > length):
        raise InputError(
            f"lengths are whole numbers from 0 to T = {length}; found {lengths.tolist()}."
        )
    begins = None if resets is None else resets.numpy(force=True)
    if np.all(lengths == length) and (begins is None or not begins.any()):
        return _dense(length, batch)
    marks = None if begins is None else begins.tobytes()
    ragged = _cut(lengths.astype(np.int64).tobytes(), length, marks)
    arrays = ragged.places, ragged.rows, ragged.entering(reverse), ragged.leaving(reverse)
    pieces = Pieces(*(torch.from_numpy(array).to(x.device) for array in arrays))
    return Rows(ragged.steps, (length, batch), pieces, ragged.leading)


# All layers, both directions and both passes of a call ask for the same. Arrays are kept, not
# tensors: those of inference mode would not serve outside of it.
@lru_cache(maxsize=4)
def _cut(counts: bytes, length: int, marks: bytes | None) -> Ragged:
    lengths = np.frombuffer(counts, np.int64)
    begins = None if marks is None else np.frombuffer(marks, bool).reshape(length, len(lengths))
    return Ragged.of(lengths, length, begins)


@lru_cache(maxsize=4)
def _packed(counts: bytes, batch: int) -> Rows:
    return Rows(Steps(np.frombuffer(counts, np.int64), batch))


@lru_cache(maxsize=32)
def _dense(length: int, batch: int) -> Rows:
    return Rows(Steps.dense(length, batch), (length, batch))

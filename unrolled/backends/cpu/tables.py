"""Tables: all that a compiled function with a single argument knows, and the memory it works in.

The argument is the address of a table of 64-bit numbers: the head, by which a team of threads goes
(`team`), the addresses that change from call to call, and then what stays the same for given sizes,
steps and rows.
"""

import ctypes
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from struct import Struct
from typing import Any, Protocol

import numpy as np

from ...language.sizes import ONE
from ..steps import Array, Steps
from . import memory
from .sharing import Sharing
from .team import (
    ARRAYS,
    BEHIND,
    CUTS,
    PARTS,
    PATIENCE,
    PIPELINED,
    PROGRESS,
    REVERSE,
    SHARES,
)

Axis = str | tuple[str, ...]  # rows, or the sizes of what is side by side
LENGTH, BATCH, ALL_ROWS, ONE_ROW, THREADS = "length", "batch", "total", "1", "threads"

COUNTS = (LENGTH, BATCH, ALL_ROWS)
_write_progress = Struct(f"{PROGRESS}q").pack_into
_NOTHING_DONE = [0] * (PROGRESS - 1)
FIRST = ARRAYS  # the place of the first address that changes from call to call


@dataclass(frozen=True)
class Extent:
    """What the shapes of arrays depend on.

    Attributes:
        sizes: letter → number.
        steps: the rows of each step.
        sharing: how the pass is shared out to threads.
        dtype: float32 or float64.
    """

    sizes: Mapping[str, int]
    steps: Steps
    sharing: Sharing
    dtype: np.dtype[Any]


class TableFunction(Protocol):
    """A function that is told everything by a table.

    Attributes:
        table: the name of what each place behind the head holds.
        pointers: the arrays whose addresses change from call to call; the first places.
        scratch: the arrays that no caller knows.
        lasting: those of them in which something is kept for the next call.
    """

    table: list[str]
    pointers: list[str]
    scratch: list[str]
    lasting: set[str]

    def shape(self, name: str, extent: Extent) -> tuple[int, ...]:
        """The shape of one of its arrays."""

    def numbers(self, extent: Extent) -> dict[str, int]:
        """The numbers of its table that only it knows."""


class Table:
    """The table of a call for given sizes, steps and threads; only addresses are to be written yet.

    Args:
        function: what is called.
        extent: what the shapes of its arrays depend on.
        reverse: whether the layer reads the sequence from its end.
        room: memory that others work in, too, `room_of` bytes or more: its arrays lie there but for
            those in which something is kept for the next call. None: all lie in its own.

    Attributes:
        numbers: the table; from `FIRST` on it has places for the addresses of the function's
            `pointers`.
        address: where it lies.
        threads: how many come to the call.
        nbytes: the memory of its own that it holds.
    """

    def __init__(
        self,
        function: TableFunction,
        extent: Extent,
        reverse: bool = False,
        room: Array | None = None,
    ) -> None:
        steps, sharing = extent.steps, extent.sharing
        shapes = {name: function.shape(name, extent) for name in function.scratch}
        known = {f"{letter}_size": number for letter, number in extent.sizes.items()}
        known |= {LENGTH: steps.length, BATCH: steps.batch, ALL_ROWS: steps.rows}
        known |= function.numbers(extent)
        for name, shape in shapes.items():
            known |= {axis_of(name, axis): size for axis, size in enumerate(shape)}
        spans = {name: _span(shape, extent.dtype) for name, shape in shapes.items()}
        own = spans.keys() if room is None else function.lasting
        self.nbytes = sum(spans[name] for name in own)
        self._memory = memory.empty((self.nbytes,), np.dtype(np.uint8)), room
        own_at, room_at = (0 if part is None else part.ctypes.data for part in self._memory)
        for name, span in spans.items():
            if name in own:
                known[name], own_at = own_at, own_at + span
            else:
                known[name], room_at = room_at, room_at + span
        assert room is None or room_at <= room.ctypes.data + room.nbytes, "the room is too small"
        self._steps = {
            name: np.ascontiguousarray(array, np.int64)
            for name, array in (
                ("active", steps.active), ("offset", steps.offset), ("lengths", steps.lengths),
                ("cuts", sharing.cuts),
            )
        }  # fmt: skip
        known |= {name: array.ctypes.data for name, array in self._steps.items()}
        self.numbers = (ctypes.c_int64 * (FIRST + len(function.table)))()
        first = len(function.pointers)
        self.numbers[FIRST + first :] = [known[name] for name in function.table[first:]]
        self.numbers[PARTS], self.numbers[SHARES] = sharing.parts, sharing.threads
        self.numbers[PATIENCE] = sharing.patience
        self.numbers[REVERSE] = int(reverse)
        self.numbers[PIPELINED] = int(sharing.pipelined)
        self.numbers[CUTS], self.numbers[CUTS + 1] = known["cuts"], len(sharing.cuts)
        self.address = ctypes.addressof(self.numbers)
        self.threads = sharing.threads

    def begin(self, behind: "Table | None" = None) -> None:
        """Make the head ready for a team of threads, which goes on to another table if there is."""
        _write_progress(self.numbers, 8 * BEHIND, behind.address if behind else 0, *_NOTHING_DONE)


def room_of(function: TableFunction, extent: Extent) -> int:
    """The bytes of the arrays in which nothing is kept for the next call."""
    passing = (name for name in function.scratch if name not in function.lasting)
    return sum(_span(function.shape(name, extent), extent.dtype) for name in passing)


def _span(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """The bytes of an array, up to where a line of the cache ends."""
    return -(-prod(shape) * dtype.itemsize // memory.LINE) * memory.LINE


def axis_of(name: str, axis: int) -> str:
    """What a table calls the length of an axis of an array."""
    return f"{name} axis {axis}"


def shape_of(axes: tuple[Axis, ...], extent: Extent) -> tuple[int, ...]:
    """The shape of an array of a kernel, given the number of each size."""
    steps = extent.steps
    rows = {LENGTH: steps.length, BATCH: steps.batch, ALL_ROWS: steps.rows, ONE_ROW: 1}
    rows[THREADS] = extent.sharing.threads
    known = {**extent.sizes, ONE: 1}
    return tuple(
        rows[axis] if isinstance(axis, str) else sum(known[letter] for letter in axis)
        for axis in axes
    )


def letters_of(shapes: Iterable[tuple[Axis, ...]]) -> list[str]:
    """The sizes that the shapes of some arrays depend on."""
    found = {
        letter for axes in shapes for axis in axes if not isinstance(axis, str) for letter in axis
    }
    return sorted(found - {ONE})


def written_sum(letters: Sequence[str]) -> str:
    """The sum of some sizes, as a kernel writes it."""
    terms = []
    for letter in dict.fromkeys(letters):
        count = letters.count(letter)
        if letter == ONE:
            terms.append(str(count))
        else:
            terms.append(f"{letter}_size" if count == 1 else f"{count} * {letter}_size")
    return " + ".join(terms) or "0"


def written_shape(axes: tuple[Axis, ...]) -> str:
    """The shape of an array, as a kernel writes it."""
    return f"({', '.join(a if isinstance(a, str) else written_sum(a) for a in axes)},)"

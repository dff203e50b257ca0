"""Tables: all that a compiled function with a single argument knows, and the memory it works in.

The argument is the address of a table of 64-bit numbers: first the addresses that change from call
to call, then what stays the same for given sizes, steps and rows.
"""

import ctypes
from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import Any, Protocol

import numpy as np

from ...language.sizes import ONE

Axis = str | tuple[str, ...]  # rows, or the sizes of what is side by side
LENGTH, BATCH, ALL_ROWS, ONE_ROW = "length", "batch", "length * batch", "1"

_LINE = 64  # bytes of a line of the cache; arrays begin at one


class TableFunction(Protocol):
    """A function that is told everything by a table.

    Attributes:
        table: the name of what each place of the table holds.
        pointers: the arrays whose addresses change from call to call; the first places.
        scratch: the arrays that lie in memory of the table's own.
    """

    table: list[str]
    pointers: list[str]
    scratch: list[str]

    def shape(
        self, name: str, sizes: Mapping[str, int], length: int, batch: int, dtype: np.dtype[Any]
    ) -> tuple[int, ...]:
        """The shape of one of its arrays."""

    def numbers(self, sizes: Mapping[str, int], batch: int, dtype: np.dtype[Any]) -> dict[str, int]:
        """The numbers of its table that only it knows."""


class Table:
    """The table of a call for given sizes, steps and rows; only addresses are still to be written.

    Attributes:
        numbers: the table, beginning with places for the addresses of the function's `pointers`.
        address: where it lies.
    """

    def __init__(
        self,
        function: TableFunction,
        dtype: np.dtype[Any],
        sizes: Mapping[str, int],
        length: int,
        batch: int,
        reverse: bool = False,
    ) -> None:
        shapes = {
            name: function.shape(name, sizes, length, batch, dtype) for name in function.scratch
        }
        known = {f"{letter}_size": number for letter, number in sizes.items()}
        known |= {"length": length, "batch": batch, "before": 0, "reverse": int(reverse)}
        known |= {"zero": 0, "one": 1, **function.numbers(sizes, batch, dtype)}
        for name, shape in shapes.items():
            known |= {axis_of(name, axis): size for axis, size in enumerate(shape)}
        spans = [-(-prod(shape) * dtype.itemsize // _LINE) * _LINE for shape in shapes.values()]
        self._memory = np.empty(sum(spans) + _LINE, np.uint8)
        at = -(-self._memory.ctypes.data // _LINE) * _LINE
        for name, span in zip(shapes, spans, strict=True):
            known[name] = at
            at += span
        self._steps = {
            "active": np.full(length, batch, np.int64),
            "offset": np.arange(0, length * batch, max(batch, 1), dtype=np.int64),
            "lengths": np.full(batch, length, np.int64),
        }
        known |= {name: array.ctypes.data for name, array in self._steps.items()}
        self.numbers = (ctypes.c_int64 * len(function.table))()
        first = len(function.pointers)
        self.numbers[first:] = [known[name] for name in function.table[first:]]
        self.address = ctypes.addressof(self.numbers)


def axis_of(name: str, axis: int) -> str:
    """What a table calls the length of an axis of an array."""
    return f"{name} axis {axis}"


def shape_of(
    axes: tuple[Axis, ...], sizes: Mapping[str, int], length: int, batch: int
) -> tuple[int, ...]:
    """The shape of an array of a kernel, given the number of each size."""
    rows = {LENGTH: length, BATCH: batch, ALL_ROWS: length * batch, ONE_ROW: 1}
    known = {**sizes, ONE: 1}
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

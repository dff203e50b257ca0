"""Instructions on matrices, as products of all kinds write them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from llvmlite import ir
from numba.core import cgutils

from .emission import Matrix, Value, further, unforeseen
from .vectors import masked_load, masked_store


class Writer:
    """Writes instructions on matrices: for a builder, and with vectors of a type."""

    def __init__(self, builder: Any, vector: Any) -> None:
        self.builder, self.vector, self.lanes = builder, vector, vector.count
        self.size = 4 if isinstance(vector.element, ir.FloatType) else 8
        self.integer = ir.IntType(64)

    def whole(self, number: int) -> Any:
        """A whole number."""
        return ir.Constant(self.integer, number)

    def matrix(self, start: Any, row_step: Any, column_step: Any = None) -> Matrix:
        """A matrix, by default one whose rows are contiguous."""
        return Matrix(start, row_step, self.whole(1) if column_step is None else column_step)

    def vector_at(self, place: Any, number: int = 0) -> Any:
        """The address of a vector, `number` vectors after a place."""
        place = further(self.builder, place, self.whole(number * self.lanes))
        return self.builder.bitcast(place, self.vector.as_pointer())

    def least(self, a: Any, b: Any) -> Any:
        """The lesser of two whole numbers."""
        return self.builder.select(self.builder.icmp_signed("<", a, b), a, b)

    def most(self, a: Any, b: Any) -> Any:
        """The greater of two whole numbers."""
        return self.builder.select(self.builder.icmp_signed(">", a, b), a, b)

    def ceiling(self, a: Any, b: Any) -> Any:
        """How often b, at least, makes up a."""
        return self.builder.udiv(self.builder.sub(self.builder.add(a, b), self.whole(1)), b)

    @contextmanager
    def starts(self, stop: Any, step: Any, start: Any = None) -> Iterator[Any]:
        """Write a loop in steps, by default from 0 on."""
        start = self.whole(0) if start is None else start
        with cgutils.for_range_slice(self.builder, start, stop, step, inc=True) as (i, _):
            yield i

    @contextmanager
    def blocks(self, start: Any, stop: Any, size: int) -> Iterator[tuple[Any, Any]]:
        """Write a loop over whole blocks of a size: (first of a block, where the last ends)."""
        builder = self.builder
        count = builder.sub(stop, start)
        left = builder.urem(count, self.whole(size))
        end = builder.sub(stop, left)
        step = self.whole(size)
        with cgutils.for_range_slice(builder, start, end, step, inc=True) as (index, _):
            yield index, end

    def tiles(self, rows: Any, heights: range) -> Iterator[tuple[Any, int]]:
        """Write loops over rows in tiles about equally high: a tile's first row, and its height.

        25 rows are five times five. Low tiles wait for their sums.

        Args:
            rows: how many, at least as many as the lowest tile has.
            heights: of tiles, from the highest down.
        """
        builder, row = self.builder, self.whole(0)
        count = self.most(self.ceiling(rows, self.whole(heights[0])), self.whole(1))
        high = self.ceiling(rows, count)
        # So many have one row less.
        lower = builder.sub(builder.mul(count, high), rows)
        for height in heights:
            is_high, is_low = (
                builder.icmp_signed("==", high, self.whole(height + less)) for less in (0, 1)
            )
            tiles = builder.select(is_low, lower, self.whole(0))
            tiles = builder.select(is_high, builder.sub(count, lower), tiles)
            end = builder.add(row, builder.mul(tiles, self.whole(height)))
            with self.starts(end, self.whole(height), row) as first:
                yield first, height
            row = end

    def load(self, place: Any, mask: Any) -> Any:
        """The vector at a place, or the lanes of it that the mask has."""
        if mask is None:
            return self.builder.load(place, align=self.size)
        return masked_load(self.builder, place, self.vector, mask)

    def store(self, vector: Any, place: Any, mask: Any) -> None:
        """Write a vector to a place, or the lanes of it that the mask has."""
        if mask is None:
            self.builder.store(vector, place, align=self.size)
        else:
            masked_store(self.builder, vector, place, mask)


class Rows:
    """Rows of a matrix that a tile goes along, from unit to unit.

    Args:
        builder: writes the instructions.
        starts: where the rows begin.
    """

    def __init__(self, builder: Any, starts: list[Any]) -> None:
        self.builder, self.starts = builder, starts

    def __len__(self) -> int:
        return len(self.starts)

    def enter(self, *before: Any) -> None:
        """Begin a loop over units, to which control comes from these blocks before it."""

    def places(self, unit: Any, ahead: int = 0) -> list[Any]:
        """Where each row has the unit that the loop is at, or a number so far behind that."""
        unit = self.builder.add(unit, ir.Constant(unit.type, ahead))
        return [further(self.builder, start, unit) for start in self.starts]

    def go_on(self, step: Any) -> None:
        """Go on to a unit so many numbers away, in the midst of the loop's body or at its end."""

    def leave(self, body: Any) -> None:
        """End the loop's body, which begins anew or is left for good."""


class ManyRows(Rows):
    """More rows than a processor has registers for addresses.

    LLVM would lay these on the stack, or find one from the other anew for each unit. So there is an
    address of each third row only, which goes along, and the others are found from these.

    Args:
        builder: as rows take it.
        starts: as rows take it.
        step: how many numbers lie from one row to the next.
    """

    def __init__(self, builder: Any, starts: list[Any], step: Any) -> None:
        super().__init__(builder, starts)
        hops = (builder.mul(step, ir.Constant(step.type, rows)) for rows in (1, 2))
        self.hops = [unforeseen(builder, hop) for hop in hops]
        self.now = [unforeseen(builder, start) for start in starts[::3]]

    def enter(self, *before: Any) -> None:
        """The addresses that go along begin where they have come to."""
        self.heads = [self.builder.phi(now.type) for now in self.now]
        for head, now in zip(self.heads, self.now, strict=True):
            for block in before:
                head.add_incoming(now, block)
        self.now = self.heads

    def places(self, unit: Any, ahead: int = 0) -> list[Any]:
        """Where each row has the unit that the loop is at, found from where that is."""
        found = [
            further(self.builder, self.now[row // 3], self.hops[row % 3 - 1]) if row % 3
            else self.now[row // 3]
            for row in range(len(self))
        ]  # fmt: skip
        return [further(self.builder, place, ir.Constant(unit.type, ahead)) for place in found]

    def go_on(self, step: Any) -> None:
        """The addresses go along."""
        self.now = [unforeseen(self.builder, further(self.builder, now, step)) for now in self.now]

    def leave(self, body: Any) -> None:
        """The next turn of the loop, or what comes after it, has them as they are."""
        for head, now in zip(self.heads, self.now, strict=True):
            head.add_incoming(now, body)
        self.now = self.heads


def with_products(
    builder: Any,
    sums: Sequence[Any],
    rows: Sequence[Callable[[], Any]],
    columns: Sequence[Callable[[], Any]],
) -> list[Any]:
    """The sums of a tile, row by row, each with one more product, of its row and its column.

    What there is less of, rows or columns, is loaded first and stays in registers. The others come
    one by one, and each has served before the next one comes. So with 16 registers three rows of
    four vectors leave room for all their sums. With all vectors loaded first, some went to memory
    and back for each unit: such a tile had 25 GF/s on a Zen 3, and has 66.

    Args:
        builder: writes the instructions.
        sums: vectors, one for each row and column.
        rows: functions that load a vector each.
        columns: the same.
    """
    stays = len(rows) < len(columns)
    kept = [load() for load in (rows if stays else columns)]
    found = list(sums)
    for number, load in enumerate(columns if stays else rows):
        coming = Value(builder, load())
        for place, vector in enumerate(kept):
            row, column = (place, number) if stays else (number, place)
            at = row * len(columns) + column
            terms = Value(builder, vector), Value(builder, sums[at])
            found[at] = coming.times_plus(*terms).ir
    return found

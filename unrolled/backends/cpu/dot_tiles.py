"""Tiles of a product whose weights are read where and as they lie.

A row of the weights is one vector, and each result its dot product with a row of the operand. Some
rows of both go by at once, vector by vector of their units; the sums stay in registers, and are
added up across their lanes at the end.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from .emission import Matrix, fetch_line, filled, further, shuffled
from .vectors import REGISTERS, first_lanes
from .writing import ManyRows, Rows, Writer, with_products

# With a single row of the operand a tile has so many rows of weights at least: a sum waits some
# cycles for the one before it.
_LEAST_SUMS = 8
# With several it has so many of both at most. Their sums fill 20 registers of 32, or 12 of 16, and
# each vector that is read serves several of them.
_HIGHEST, _TOGETHER = (5, 4) if REGISTERS == 32 else (3, 4)


class DotTiles(Writer):
    """Writes the instructions of a product.

    Args:
        weights: its rows are contiguous.
        operand: the same.
        out: where the results go, a row for each of the operand.
        count: how many rows the weights have.
        rows: how many the operand has.
        units: how many numbers a row of both has.
    """

    def __init__(
        self,
        builder: Any,
        vector: Any,
        weights: Matrix,
        operand: Matrix,
        out: Matrix,
        count: Any,
        rows: Any,
        units: Any,
    ) -> None:
        super().__init__(builder, vector)
        self.weights, self.operand, self.out = weights, operand, out
        self.count, self.rows, self.units = count, rows, units
        self.whole_units = builder.and_(units, self.whole(-self.lanes))

    def write(self) -> None:
        """All tiles: for some rows of the weights, which then lie near, all rows of the operand."""
        single = self.builder.icmp_signed("==", self.rows, self.whole(1))
        few = min(_TOGETHER, self.lanes)
        with self.builder.if_else(single) as (one, several):
            with one:
                many = max(_LEAST_SUMS, self.lanes)
                with self.blocks(self.whole(0), self.count, many) as (start, left):
                    self.tile(self.far(start, many), start, [self.whole(0)])
                with self.starts(self.count, self.whole(few), left) as start:
                    self.tile(self.near(start, few), start, [self.whole(0)])
            with several, self.starts(self.count, self.whole(few)) as start:
                weights = self.near(start, few)
                for first, height in self.tiles(self.rows, range(_HIGHEST, 1, -1)):
                    rows = [self.builder.add(first, self.whole(row)) for row in range(height)]
                    self.tile(weights, start, rows, self.coming(start, few, first))

    def near(self, start: Any, count: int) -> Rows:
        """Some rows of weights; beyond the last it is read again, and not written."""
        last = self.builder.sub(self.count, self.whole(1))
        numbers = [self.builder.add(start, self.whole(number)) for number in range(count)]
        return Rows(self.builder, [self.row(self.weights, self.least(n, last)) for n in numbers])

    def coming(self, start: Any, count: int, first: Any) -> Any:
        """Where weights begin that are wanted later; another row of them for each tile.

        Each tile asks for its row while it goes along. Measured on a Zen 3: 8 rows and 4 to 8 MB of
        weights 2 to 2.5 times the rate, 25 rows 1.3 to 1.5 times, 16 rows 1.14, and the same with
        weights in the second cache.
        """
        number = self.builder.udiv(first, self.whole(_HIGHEST))
        number = self.builder.add(self.builder.add(start, self.whole(count)), number)
        last = self.builder.sub(self.count, self.whole(1))
        return self.row(self.weights, self.least(number, last))

    def far(self, start: Any, count: int) -> Rows:
        """More rows of weights, all of which there are."""
        numbers = [self.builder.add(start, self.whole(number)) for number in range(count)]
        rows = [self.row(self.weights, number) for number in numbers]
        return ManyRows(self.builder, rows, self.weights.row_step)

    def row(self, matrix: Matrix, number: Any) -> Any:
        """Where a row of a matrix begins."""
        return matrix.at(self.builder, number, self.whole(0))

    def tile(self, weights: Rows, column: Any, rows: list[Any], coming: Any = None) -> None:
        """Write the results of some rows of weights, from a column on, with rows of the operand.

        `coming` is where a row begins for which it asks meanwhile, if any.
        """
        operands = Rows(self.builder, [self.row(self.operand, row) for row in rows])
        sums, count = self.sums(weights, operands, coming), len(weights)
        left = self.builder.sub(self.count, column)
        for number, row in enumerate(rows):
            of_row = sums[number * count : (number + 1) * count]
            self.put(of_row, self.out.at(self.builder, row, column), left)

    def sums(self, weights: Rows, operands: Rows, coming: Any) -> list[Any]:
        """The sums of rows of weights with each row of the operand, in all lanes."""
        builder, step = self.builder, self.whole(self.lanes)
        before = builder.block
        head, body, after = (builder.append_basic_block(name) for name in ("head", "unit", "after"))
        builder.branch(head)
        builder.position_at_end(head)
        unit = builder.phi(self.integer)
        unit.add_incoming(self.whole(0), before)
        weights.enter(before)
        sums = [builder.phi(self.vector) for _ in range(len(operands) * len(weights))]
        for total in sums:
            total.add_incoming(filled(self.vector, 0.0), before)
        builder.cbranch(builder.icmp_signed("<", unit, self.whole_units), body, after)
        builder.position_at_end(body)
        read = weights.places(unit), operands.places(unit)
        for total, more in zip(sums, self.terms(*read, sums, None), strict=True):
            total.add_incoming(more, body)
        if coming is not None:
            fetch_line(builder, further(builder, coming, unit))
        unit.add_incoming(builder.add(unit, step), body)
        weights.go_on(step)
        weights.leave(body)
        builder.branch(head)
        builder.position_at_end(after)
        last = self.whole_units
        return self.rest(weights.places(last), operands.places(last), sums)

    def rest(self, weights: list[Any], operands: list[Any], sums: list[Any]) -> list[Any]:
        """The sums with the units that fill no vector."""
        builder = self.builder
        before = builder.block
        body, after = builder.append_basic_block("rest"), builder.append_basic_block("sums")
        left = builder.sub(self.units, self.whole_units)
        builder.cbranch(builder.icmp_signed(">", left, self.whole(0)), body, after)
        builder.position_at_end(body)
        more = self.terms(weights, operands, sums, first_lanes(builder, self.vector, left))
        builder.branch(after)
        builder.position_at_end(after)
        found = []
        for total, increased in zip(sums, more, strict=True):
            phi = builder.phi(self.vector)
            phi.add_incoming(total, before)
            phi.add_incoming(increased, body)
            found.append(phi)
        return found

    def terms(
        self, weights: list[Any], operands: list[Any], sums: list[Any], mask: Any
    ) -> list[Any]:
        """The sums with one more vector of units, or the lanes of it that the mask has."""
        rows, columns = (
            [partial(self.load, self.vector_at(place), mask) for place in places]
            for places in (operands, weights)
        )
        return with_products(self.builder, sums, rows, columns)

    def across(self, sums: list[Any]) -> Any:
        """What each sum has in all its lanes together, in its order; a vector that begins with it.

        Two vectors become one by adding one half of both to the other half: first within 16 bytes,
        where processors move numbers most quickly, then whole pieces of 16 bytes.
        """
        side, lanes = min(self.lanes, 16 // self.size), range(2 * self.lanes)
        wide = 1
        while wide < side:
            halves = [
                [
                    start + half + at + step
                    for start in range(0, self.lanes, side)
                    for at in range(0, side // 2, wide)
                    for step in (*range(wide), *range(self.lanes, self.lanes + wide))
                ]
                for half in (0, side // 2)
            ]
            sums, wide = self.paired(sums, *halves), 2 * wide
        for _ in range((self.lanes // side).bit_length() - 1):
            parities = ([lane for lane in lanes if lane // side % 2 == odd] for odd in (0, 1))
            sums = self.paired(sums, *parities)
        return sums[0]

    def paired(self, sums: list[Any], one: list[int], two: list[int]) -> list[Any]:
        """Of each two vectors, or twice the only one, some of their lanes plus the others."""
        pairs = zip(sums[::2], sums[1::2] or sums, strict=True)
        halves = ([shuffled(self.builder, pair, half) for half in (one, two)] for pair in pairs)
        return [self.builder.fadd(*both) for both in halves]

    def put(self, sums: list[Any], out: Any, left: Any) -> None:
        """Write the results of a row; of the last rows of weights only as many as there are."""
        for start in range(0, len(sums), self.lanes):
            some = sums[start : start + self.lanes]
            count = self.least(self.builder.sub(left, self.whole(start)), self.whole(len(some)))
            mask = first_lanes(self.builder, self.vector, count)
            place = self.vector_at(further(self.builder, out, self.whole(start)))
            self.store(self.across(some), place, mask)

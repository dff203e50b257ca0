"""Products outside of the time loop: of all steps, or of a chunk of them, at once.

`out = a @ b` strip by strip: some columns of `b` are laid side by side where they are near, and all
rows of `a` go by, in tiles whose sums stay in registers. Numbers of `a` are taken one by one, so it
may lie in any way; where its columns are contiguous, as in gradients of weights, a block of it is
laid near too. Each sum is added up in the order of its terms, whatever is cut, so the bits of a
result depend on nothing but the operands.

How such a product is cut for registers and caches: K. Goto, R. van de Geijn, "Anatomy of
high-performance matrix multiplication" (2008).
"""

from __future__ import annotations

from functools import partial
from typing import Any

from llvmlite import ir
from numba.core import cgutils, errors, types
from numba.core.typing import signature
from numba.extending import intrinsic

from .emission import Matrix, fetch_line, filled, further, spread
from .inner import inner
from .packing import turned
from .shared import Written, matrices_of
from .vectors import (
    REGISTERS,
    compiled,
    first_lanes,
    lanes,
    only_compiled,
    vector_of,
)
from .writing import ManyRows, Rows, Writer, with_products

STRIP = 4  # vectors of columns in a strip
# Units of the operands at once, about: equal parts, as results are read and written once more for
# each part. A strip of them is 128 KB with AVX-512, 64 with AVX2, and stays in the second cache. On
# a Zen 3 650 units in one part run at 1.04 to 1.06 times the rate of 512 and 138, and 128 to 320 at
# once at 0.55 to 0.95 of that of 512.
UNITS = 512
MOST_UNITS = UNITS + UNITS // 2  # of a part: 768 are one, 769 two
# Rows at once, about: equal parts, too. Each strip reads all rows of `a` and writes all of `out`.
# Those of a chunk of steps are near, but ragged batches have no chunks: on a Zen 3 16 thousand rows
# of 128 to 512 units run at 1.6 to 2.6 times the rate. Parts of 512 to 2048 rows are alike.
ROWS = 2048
# Where blocks of `a` are laid, rows of a block, and about how many units of the operands at once:
# 384 KB in the second cache, beside which a strip takes 32 KB, and stays in the first. Processors
# with 16 registers mostly have smaller caches: on a Zen 3 (512 KB) 180 KB are 1.0 to 1.25 times as
# quick.
BLOCK_ROWS, BLOCK_UNITS = (768, 128) if REGISTERS == 32 else (240, 192)
MOST_BLOCK_UNITS = BLOCK_UNITS + BLOCK_UNITS // 2
# Blocks that so many strips read are laid row by row, so that a tile goes along some lines, in
# place of taking a few numbers of one line after the other: on a Zen 3 1.05 to 1.25 times the rate.
# To turn them takes longer than to copy them, and for one strip it would be 0.8 to 1.08 times.
MANY_STRIPS = 3
# So many rows before a row is copied, it is fetched.
_AHEAD = 4
# What is not read often enough stays where it is: strips for fewer rows, and blocks for fewer units
# or for so few rows.
# Measured on a Xeon: 1.05 to 1.25 times the rate of gradients of 64 to 128 units' weights, and 1.1
# to 1.25 of a product of 32 to 63 rows, in place of 32 rows for strips and none for blocks. On a
# Zen 3 blocks of 40 to 192 rows, and strips of 96 and more beside them, run at 1.0 to 1.38 times
# the rate (40 rows of 64 columns at 0.93); other products of 64 to 140 rows are alike either way.
FEW_ROWS, FEW_BLOCK_ROWS = (150, 192) if REGISTERS == 32 else (96, 32)
_FEW_UNITS = 65
# Two things are laid for less. Units that lie so many numbers apart share a few lines of the first
# cache: from 8 of them on their rows are laid (on a Zen 3, 25 to 60 units of 1024 or 2048 numbers
# run at 1.9 to 2.3 times the rate). And of a large `b` few rows of `a` read strips that are four
# times as wide, of fewer units at once: in narrow ones each row of it was a page of its own (there,
# 12 to 140 rows and 3 to 7 MB: 1.3 to 1.7 times).
_FAR, _FAR_UNITS = 512, 8
LARGE, WIDE_ROWS, WIDE_UNITS, _WIDER = 1 << 21, 150, 128, 4

# Rows of a tile at most, by how many vectors wide it is: sums fill 24 registers of 32, or 12 of 16.
_HIGHEST = {1: 8, 2: 8, 3: 8, 4: 6} if REGISTERS == 32 else {1: 8, 2: 6}
_WIDEST = max(_HIGHEST)
# Units that a tile of whole vectors takes in a turn of its loop. What counts while somebody shares
# the core are instructions, and turns were a fifth of them. Measured on a Zen 3, loud: 1.04 to 1.19
# times the rate of one in a turn; quiet the same.
_AT_ONCE = 4


def room_for_strip(units: int, dtype: Any) -> int:
    """How many numbers a strip takes, of so many units of the operands: whole squares."""
    side = lanes(dtype)
    return -(-min(units, MOST_UNITS) // side) * side * STRIP * side


def room_for_block(units: int, dtype: Any) -> int:
    """How many numbers a block takes, of so many units of the operands: whole squares."""
    side = lanes(dtype)
    return -(-min(units, MOST_BLOCK_UNITS) // side) * side * BLOCK_ROWS


def product(a: Any, b: Any, out: Any, adds: Any, room: Any) -> None:
    """`out = a @ b`, or `out += a @ b` if it adds. For compiled code only.

    Args:
        a: (rows, units), in any order in memory.
        b: (units, columns); its rows or its columns are contiguous.
        out: (rows, columns); its rows are contiguous.
        adds: whether it adds.
        room: memory to work in, (1, numbers), as much as a strip takes, and a block behind it if
            the rows of `a` are not contiguous.
    """
    raise only_compiled("product")


class _Product(Writer):
    """Writes a product.

    Its arguments are the addresses of `a` and `b` with both their steps, of `out` with the step of
    its rows, and of the room; then how many rows, columns and units of the operands there are, and
    whether it adds (1) or writes (0). Its attributes are what is left of them within a part.
    """

    def __init__(self, builder: Any, vector: Any, *arguments: Any) -> None:
        super().__init__(builder, vector)
        self.a, self.b, self.out = (self.matrix(*arguments[part]) for part in _MATRICES)
        self.room, self.rows, self.columns, self.units, adds = arguments[-5:]
        self.adds = builder.icmp_signed("!=", adds, self.whole(0))
        self.narrow = self.whole(STRIP * self.lanes)  # columns of a strip, if it is not a wide one

    def write(self) -> None:
        """Rows by rows, unless blocks of them are laid: some after the other."""
        builder, zero = self.builder, self.whole(0)
        a, out, rows = self.a, self.out, self.rows
        apart = builder.icmp_signed("!=", a.column_step, self.whole(1))
        many = builder.icmp_signed(">=", self.units, self.whole(_FEW_UNITS))
        high = builder.icmp_signed(">", rows, self.whole(FEW_BLOCK_ROWS))
        some = builder.icmp_signed(">=", self.units, self.whole(_FAR_UNITS))
        far = builder.icmp_signed(">=", a.column_step, self.whole(_FAR))
        often = builder.or_(builder.and_(many, high), builder.and_(some, far))
        lays = builder.and_(apart, often)
        self.wide = builder.and_(self.few_rows_read_much(), builder.not_(lays))
        wide = self.whole(_WIDER * STRIP * self.lanes)
        self.width = builder.select(self.wide, wide, self.narrow)
        most = builder.select(lays, self.most(rows, self.whole(1)), self.even(rows, ROWS))
        with self.starts(rows, most) as row:
            self.a = self.within(a, row, zero)
            self.out = self.within(out, row, zero)
            self.rows = self.least(builder.sub(rows, row), most)
            self.parts_of_units(lays)

    def parts_of_units(self, lays: Any) -> None:
        """Units by units of the operands, and of each all rows and columns."""
        builder, zero = self.builder, self.whole(0)
        a, b, units, adds = self.a, self.b, self.units, self.adds
        most = builder.select(self.wide, self.whole(WIDE_UNITS), self.even(units, UNITS))
        most = builder.select(lays, self.even(units, BLOCK_UNITS), most)
        with self.starts(self.most(units, self.whole(1)), most) as unit:
            self.a = self.within(a, zero, unit)
            self.b = self.within(b, unit, zero)
            self.units = self.least(builder.sub(units, unit), most)
            self.adds = builder.or_(adds, builder.icmp_signed(">", unit, zero))
            self.blocks_of_rows(lays)

    def few_rows_read_much(self) -> Any:
        """Whether strips should be wide."""
        builder, b = self.builder, self.b
        few = builder.icmp_signed("<", self.rows, self.whole(WIDE_ROWS))
        lies = builder.icmp_signed("==", b.column_step, self.whole(1))
        # With fewer units there may be too little room for a wide strip.
        deep = builder.icmp_signed(">=", self.units, self.whole(_WIDER * WIDE_UNITS))
        numbers = builder.mul(self.units, self.columns)
        large = builder.icmp_signed(">=", numbers, self.whole(LARGE // self.size))
        return builder.and_(builder.and_(few, lies), builder.and_(deep, large))

    def even(self, number: Any, about: int) -> Any:
        """How many each of equal parts has, of which there are as many as of about so many."""
        one, half = self.whole(1), self.whole(about // 2 - 1)
        parts = self.builder.udiv(self.builder.add(number, half), self.whole(about))
        return self.most(self.ceiling(number, self.most(parts, one)), one)

    def blocks_of_rows(self, lays: Any) -> None:
        """All rows, or one block after the other if they are laid."""
        builder, zero = self.builder, self.whole(0)
        a, out, rows = self.a, self.out, self.rows
        high = builder.select(lays, self.whole(BLOCK_ROWS), self.most(rows, self.whole(1)))
        with self.starts(rows, high) as row:
            here = self.within(a, row, zero)
            self.rows = self.least(builder.sub(rows, row), high)
            self.a = self.either(lays, self.block(lays, here), here)
            self.out = self.within(out, row, zero)
            self.strips()

    def block(self, lays: Any, given: Matrix) -> Matrix:
        """Lay a block, if it is to be laid, behind a strip: row by row if many strips read it."""
        builder = self.builder
        squares = self.ceiling(self.units, self.whole(self.lanes))  # from top to bottom of a strip
        units = builder.mul(squares, self.whole(self.lanes))
        behind = further(builder, self.room, builder.mul(units, self.narrow))
        turned, copied = (self.matrix(behind, step) for step in (units, self.whole(BLOCK_ROWS)))
        most = self.whole((MANY_STRIPS - 1) * STRIP * self.lanes)  # columns of few strips
        turns = builder.icmp_signed(">", self.columns, most)
        with builder.if_then(lays), builder.if_else(turns) as (many, few):
            with many:
                self.turn(given.transposed, self.units, self.rows, turned)
            with few:
                self.copy(given.transposed, self.units, self.rows, copied)
        return self.either(turns, turned, copied.transposed)

    def strips(self) -> None:
        """All columns, strip by strip, which is laid if enough rows read it."""
        builder, zero = self.builder, self.whole(0)
        b, out, columns = self.b, self.out, self.columns
        turns = builder.icmp_signed("!=", b.column_step, self.whole(1))
        many = builder.icmp_signed(">=", self.rows, self.whole(FEW_ROWS))
        copies = builder.and_(builder.or_(many, self.wide), builder.not_(turns))
        narrow, strip = (self.matrix(self.room, width) for width in (self.narrow, self.width))
        with self.starts(columns, self.width) as column:
            here = self.within(b, zero, column)
            self.columns = self.least(builder.sub(columns, column), self.width)
            with builder.if_then(turns):  # to narrow strips only, whose addresses LLVM knows
                self.turn(here.transposed, self.columns, self.units, narrow)
            with builder.if_then(copies):
                self.copy(here, self.units, self.columns, strip)
            self.b = self.either(builder.or_(turns, copies), strip, here)
            self.out = self.within(out, zero, column)
            self.strip()

    def either(self, holds: Any, yes: Matrix, no: Matrix) -> Matrix:
        select = self.builder.select
        return Matrix(
            select(holds, yes.start, no.start),
            select(holds, yes.row_step, no.row_step),
            select(holds, yes.column_step, no.column_step),
        )

    def copy(self, given: Matrix, rows: Any, columns: Any, laid: Matrix) -> None:
        """Copy rows, which are contiguous."""
        builder = self.builder
        with self.starts(rows, self.whole(1)) as row:
            here, there = (self.within(matrix, row, self.whole(0)) for matrix in (given, laid))
            last = builder.sub(rows, self.whole(1))
            ahead = self.least(builder.add(row, self.whole(_AHEAD)), last)
            later = self.within(given, ahead, self.whole(0))
            column = self.whole(0)
            with self.blocks(column, columns, STRIP * self.lanes) as (first, column):
                for number in range(STRIP):
                    at = builder.add(first, self.whole(number * self.lanes))
                    fetch_line(builder, later.at(builder, self.whole(0), at))
                    self.move(here, there, at, None)
            with self.starts(columns, self.whole(self.lanes), column) as at:
                lanes = first_lanes(builder, self.vector, builder.sub(columns, at))
                self.move(here, there, at, lanes)

    def move(self, given: Matrix, laid: Matrix, column: Any, mask: Any) -> None:
        """Copy a vector of the first row."""
        source, target = (
            self.vector_at(matrix.at(self.builder, self.whole(0), column))
            for matrix in (given, laid)
        )
        self.store(self.load(source, mask), target, mask)

    def turn(self, given: Matrix, rows: Any, columns: Any, laid: Matrix) -> None:
        """Copy rows, which are contiguous, to columns, square by square."""
        builder, side = self.builder, self.whole(self.lanes)
        last = builder.sub(rows, self.whole(1))
        with self.starts(rows, side) as row, self.starts(columns, side) as column:
            for number in range(self.lanes):
                later = builder.add(row, self.whole(self.lanes + number))
                fetch_line(builder, given.at(builder, self.least(later, last), column))
            left = builder.sub(rows, row), builder.sub(columns, column)
            self.square(self.within(given, row, column), self.within(laid, column, row), *left)

    def within(self, matrix: Matrix, row: Any, column: Any) -> Matrix:
        """What of a matrix begins with an entry."""
        return Matrix(matrix.at(self.builder, row, column), matrix.row_step, matrix.column_step)

    def square(self, given: Matrix, laid: Matrix, rows: Any, columns: Any) -> None:
        """Copy one square; beyond what is given of it, whatever there is."""
        builder, zero = self.builder, self.whole(0)
        numbers = [self.whole(number) for number in range(self.lanes)]
        places = [self.vector_at(laid.at(builder, number, zero)) for number in numbers]
        has_all = builder.icmp_signed(">=", self.least(rows, columns), self.whole(self.lanes))
        with builder.if_else(has_all) as (whole, part):
            with whole:
                starts = [given.at(builder, number, zero) for number in numbers]
                self.lay(starts, places, None)
            with part:
                last = builder.sub(rows, self.whole(1))
                starts = [given.at(builder, self.least(number, last), zero) for number in numbers]
                self.lay(starts, places, first_lanes(builder, self.vector, columns))

    def lay(self, starts: list[Any], places: list[Any], mask: Any) -> None:
        """Copy vectors, of each the lanes of the mask, as columns to where rows are laid."""
        vectors = [self.load(self.vector_at(start), mask) for start in starts]
        for vector, place in zip(turned(self.builder, vectors), places, strict=True):
            self.store(vector, place, None)

    def strip(self) -> None:
        """All rows of a strip: tiles as wide as can be, and one for what is left of the columns."""
        builder, column = self.builder, self.whole(0)
        with self.blocks(column, self.columns, _WIDEST * self.lanes) as (first, column):
            self.columns_of(first, _WIDEST, None)
        left = builder.sub(self.columns, column)
        for width in _HIGHEST:
            last = builder.sub(left, self.whole((width - 1) * self.lanes))  # lanes of a last vector
            some = builder.icmp_signed(">", last, self.whole(0))
            fits = builder.icmp_signed("<=", last, self.whole(self.lanes))
            with builder.if_then(builder.and_(some, fits)):
                self.columns_of(column, width, first_lanes(builder, self.vector, last))

    def columns_of(self, column: Any, width: int, mask: Any) -> None:
        """All rows of some columns; of their last vector the lanes of the mask, if there is one."""
        for first, size in self.tiles(self.rows, range(_HIGHEST[width], 0, -1)):
            self.tile(first, size, column, width, mask)

    def tile(self, row: Any, rows: int, column: Any, width: int, mask: Any) -> None:
        """One tile; of its last vector the lanes of the mask, if there is one."""
        builder, a, b = self.builder, self.a, self.b
        numbers = [builder.add(row, self.whole(number)) for number in range(rows)]
        starts = [a.at(builder, number, self.whole(0)) for number in numbers]
        a_rows = ManyRows(builder, starts, a.row_step)
        outs = [self.out.at(builder, number, column) for number in numbers]
        b_rows = ManyRows(builder, [b.at(builder, self.whole(0), column)], b.row_step)
        masks = [None] * (width - 1) + [mask]  # of a row's vectors
        sums = self.begun(outs, masks)
        done = self.whole(0)
        if mask is None:
            many = builder.and_(self.units, self.whole(-_AT_ONCE))
            sums, done = self.loop(a_rows, b_rows, masks, sums, (done, many), _AT_ONCE), many
        sums = self.loop(a_rows, b_rows, masks, sums, (done, self.units), 1)
        places = [self.vector_at(out, v) for out in outs for v in range(width)]
        for place, total, part in zip(places, sums, masks * rows, strict=True):
            self.store(total, place, part)

    def begun(self, outs: list[Any], masks: list[Any]) -> list[Any]:
        """The sums of a tile before its first unit: zeros, or what stands where they will be.

        Then those of as many rows below it are asked for, which are mostly those of the next tile.
        """
        builder = self.builder
        before, after = builder.block, builder.append_basic_block("begun")
        loaded = builder.append_basic_block("loaded")
        builder.cbranch(self.adds, loaded, after)
        builder.position_at_end(loaded)
        found = [self.load(self.vector_at(out, v), m) for out in outs for v, m in enumerate(masks)]
        rows = builder.mul(self.out.row_step, self.whole(len(outs)))
        for later in (further(builder, out, rows) for out in outs):
            for v in range(len(masks)):
                fetch_line(builder, self.vector_at(later, v))
        builder.branch(after)
        builder.position_at_end(after)
        sums = [builder.phi(self.vector) for _ in found]
        for total, number in zip(sums, found, strict=True):
            total.add_incoming(filled(self.vector, 0.0), before)
            total.add_incoming(number, loaded)
        return sums

    def loop(
        self, a_rows: Rows, b_rows: Rows, masks: list[Any], sums: list[Any],
        units: tuple[Any, Any], at_once: int,
    ) -> list[Any]:  # fmt: skip
        """Add the products of some units to the sums, so many units in a turn."""
        builder, before = self.builder, self.builder.block
        head, body = builder.append_basic_block("head"), builder.append_basic_block("unit")
        after = builder.append_basic_block("after")
        builder.branch(head)
        builder.position_at_end(head)
        unit = builder.phi(self.integer)
        unit.add_incoming(units[0], before)
        a_rows.enter(before)
        b_rows.enter(before)
        phis = [builder.phi(self.vector) for _ in sums]
        for phi, total in zip(phis, sums, strict=True):
            phi.add_incoming(total, before)
        builder.cbranch(builder.icmp_signed("<", unit, units[1]), body, after)
        builder.position_at_end(body)
        found = phis
        for _ in range(at_once):
            (b_row,) = b_rows.places(unit)
            columns = [partial(self.load, self.vector_at(b_row, v), m) for v, m in enumerate(masks)]
            factors = [partial(self.factor, place) for place in a_rows.places(unit)]
            found = with_products(builder, found, factors, columns)
            a_rows.go_on(self.a.column_step)
            b_rows.go_on(self.b.row_step)
        for phi, more in zip(phis, found, strict=True):
            phi.add_incoming(more, body)
        unit.add_incoming(builder.add(unit, self.whole(at_once)), body)
        a_rows.leave(body)
        b_rows.leave(body)
        builder.branch(head)
        builder.position_at_end(after)
        return phis

    def factor(self, place: Any) -> Any:
        """The number at a place, in all lanes."""
        return spread(self.builder, self.builder.load(place), self.vector)


_MATRICES = slice(0, 3), slice(3, 6), slice(6, 8)
_PRODUCT = Written("product", "awwawwawawwww", lambda *given: _Product(*given).write())


def _result(a: Any, b: Any, out: Any, adds: Any, room: Any) -> Any:
    matrices = a, b, out, room
    if (
        any(not isinstance(matrix, types.Array) or matrix.ndim != 2 for matrix in matrices)
        or len({matrix.dtype for matrix in matrices}) > 1
    ):
        raise errors.TypingError(
            f"products take matrices of one dtype; found {', '.join(map(str, matrices))}"
        )
    return signature(types.none, a, b, out, types.boolean, room)


def _call(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
    (a, (_, units)), (b, _), (out, shape), (room, _) = matrices_of(context, builder, sig, arguments)
    adds = builder.zext(context.is_true(builder, sig.args[3], arguments[3]), ir.IntType(64))
    steps = (
        part for matrix in (a, b) for part in (matrix.start, matrix.row_step, matrix.column_step)
    )
    _PRODUCT.call(
        builder, vector_of(context, sig.args[0]),
        (*steps, out.start, out.row_step, room.start, *shape, units, adds),
    )  # fmt: skip
    return context.get_dummy_value()


compiled(product, _result, _call)


# An assignment of slices compiles for seconds, because it can fail in words; these cannot.


@intrinsic  # type: ignore[untyped-decorator]
def copy_row(typing: Any, given: Any, out: Any, row: Any, begin: Any, end: Any) -> Any:
    """`out[row, begin:end] = given[row, begin:end]`, of matrices whose rows are contiguous."""

    def write(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        (given, _), (out, _) = matrices_of(context, builder, sig, arguments)
        *_, row, begin, end = arguments
        itemsize = sig.args[0].dtype.bitwidth // 8
        places = (matrix.at(builder, row, begin) for matrix in (out, given))
        cgutils.raw_memcpy(builder, *places, builder.sub(end, begin), itemsize)
        return context.get_dummy_value()

    return types.none(given, out, *(types.intp,) * 3), write


@inner
def copy(given, out):  # type: ignore[no-untyped-def]
    """`out = given`, matrices of one shape whose rows are contiguous."""
    for row in range(out.shape[0]):
        copy_row(given, out, row, 0, out.shape[1])


@inner
def set_all(out, number):  # type: ignore[no-untyped-def]
    """Every entry of a matrix becomes the number."""
    for row in range(out.shape[0]):
        for column in range(out.shape[1]):
            out[row, column] = number

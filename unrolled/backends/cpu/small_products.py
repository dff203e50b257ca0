"""Products outside the time loop of a short sequence, which take less than a call into a BLAS.

`out = a @ b` in tiles whose sums stay in registers. Numbers of `a` are taken one by one, so it may
lie in any way, transposed too, while rows of `b` and `out` are read and written as vectors, so they
are contiguous. Each sum is added up in the order of its terms, so the bits of a result depend on
nothing but the operands.
"""

from __future__ import annotations

import itertools
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import ir
from numba import njit
from numba.core import cgutils, errors, types
from numba.core.typing import signature

from .emission import Matrix, Value, filled, further, spread
from .packing import turned
from .shared import Shared, matrices_of
from .vectors import (
    compiled,
    first_lanes,
    masked_load,
    masked_store,
    only_compiled,
    vector_of,
)

# Rows of a tile, and how many vectors of 64 bytes, or of less, are side by side: the sums fill 24
# registers where there are 32, and 12 where there are 16.
ROWS = (6, 3, 1)
WIDE, NARROW = (4, 2, 1), (2, 1)
_ROOM = 1 << 15  # numbers of `b` that are read at once, and stay near until all rows have had them
_FEWEST = 32  # units of the operands in a block of them, at least
STRIP = 4  # vectors of columns in a strip


def product(a: Any, b: Any, out: Any, adds: Any) -> None:
    """`out = a @ b`, or `out += a @ b` if it adds; rows of `b` and `out` are contiguous.

    For compiled code only.
    """
    raise only_compiled("product")


def product_turned(a: Any, b: Any, strip: Any, out: Any) -> None:
    """`out = a @ b.T`; rows of all are contiguous. For compiled code only.

    `b` is turned strip by strip: `strip` has a row for each unit of the operands, and room for
    `STRIP` vectors in each.
    """
    raise only_compiled("product_turned")


class _Writer:
    """Writes instructions on matrices: for a builder, and with vectors of a type."""

    def __init__(self, builder: Any, vector: Any) -> None:
        self.builder, self.vector, self.lanes = builder, vector, vector.count
        self.size = 4 if isinstance(vector.element, ir.FloatType) else 8
        self.integer = ir.IntType(64)

    def whole(self, number: int) -> Any:
        return ir.Constant(self.integer, number)

    def matrix(self, start: Any, row_step: Any, column_step: Any = None) -> Matrix:
        """A matrix, by default one whose rows are contiguous."""
        return Matrix(start, row_step, self.whole(1) if column_step is None else column_step)

    def vector_at(self, place: Any, number: int = 0) -> Any:
        """The address of a vector, `number` vectors after a place."""
        place = further(self.builder, place, self.whole(number * self.lanes))
        return self.builder.bitcast(place, self.vector.as_pointer())

    def least(self, a: Any, b: Any) -> Any:
        return self.builder.select(self.builder.icmp_signed("<", a, b), a, b)

    def most(self, a: Any, b: Any) -> Any:
        return self.builder.select(self.builder.icmp_signed(">", a, b), a, b)

    @contextmanager
    def starts(self, stop: Any, step: Any) -> Iterator[Any]:
        """Write a loop from 0 on in steps."""
        with cgutils.for_range_slice(self.builder, self.whole(0), stop, step, inc=True) as (i, _):
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


class _Product(_Writer):
    """Writes a product.

    Its arguments are the addresses of `a` with both its steps, and of `b` and `out` with the step
    of their rows; then how many rows, columns and units of the operands there are, and whether it
    adds (1) or writes (0).
    """

    def __init__(self, builder: Any, vector: Any, *arguments: Any) -> None:
        super().__init__(builder, vector)
        self.a, self.b, self.out = (self.matrix(*arguments[part]) for part in _MATRICES)
        self.rows, self.columns, self.units, adds = arguments[-4:]
        self.adds = builder.icmp_signed("!=", adds, self.whole(0))

    def write(self) -> None:
        """Block by block of the units."""
        builder, zero, one = self.builder, self.whole(0), self.whole(1)
        a, b, units, adds = self.a, self.b, self.units, self.adds
        room = builder.sdiv(self.whole(_ROOM), self.most(self.columns, one))
        high = self.most(room, self.whole(_FEWEST))
        with self.starts(self.most(units, one), high) as k:
            self.a = self.matrix(a.at(builder, zero, k), a.row_step, a.column_step)
            self.b = self.matrix(b.at(builder, k, zero), b.row_step)
            self.units = self.least(builder.sub(units, k), high)
            self.adds = builder.or_(adds, builder.icmp_signed(">", k, zero))
            self.strips()

    def strips(self) -> None:
        """Columns side by side, and all rows of them."""
        column = self.whole(0)
        for width in _widths(self.vector):
            with self.blocks(column, self.columns, width * self.lanes) as (first, column):
                self.strip(first, width, None)
        left = self.builder.sub(self.columns, column)
        with self.builder.if_then(self.builder.icmp_signed(">", left, self.whole(0))):
            self.strip(column, 1, first_lanes(self.builder, self.vector, left))

    def strip(self, column: Any, width: int, mask: Any) -> None:
        """All rows of some columns."""
        row = self.whole(0)
        for size in ROWS:
            with self.blocks(row, self.rows, size) as (first, row):
                self.tile(first, size, column, width, mask)

    def tile(self, row: Any, rows: int, column: Any, width: int, mask: Any) -> None:
        """One tile; of its last vector the lanes of the mask, if there is one."""
        builder, a, b = self.builder, self.a, self.b
        numbers = [builder.add(row, self.whole(number)) for number in range(rows)]
        a_rows = [a.at(builder, number, self.whole(0)) for number in numbers]
        outs = [self.out.at(builder, number, column) for number in numbers]
        first = b.at(builder, self.whole(0), column)
        places = [self.vector_at(place, v) for place in outs for v in range(width)]
        begin, loaded = builder.block, builder.append_basic_block("loaded")
        head, body = builder.append_basic_block("head"), builder.append_basic_block("unit")
        after = builder.append_basic_block("after")
        builder.cbranch(self.adds, loaded, head)
        builder.position_at_end(loaded)
        sums = [self.load(place, mask) for place in places]
        builder.branch(head)
        builder.position_at_end(head)
        unit = builder.phi(self.integer)
        phis = [builder.phi(self.vector) for _ in sums]
        for block, totals in (begin, [filled(self.vector, 0.0)] * len(sums)), (loaded, sums):
            unit.add_incoming(self.whole(0), block)
            for phi, total in zip(phis, totals, strict=True):
                phi.add_incoming(total, block)
        builder.cbranch(builder.icmp_signed("<", unit, self.units), body, after)
        builder.position_at_end(body)
        b_row = further(builder, first, builder.mul(unit, b.row_step))
        vectors = [self.load(self.vector_at(b_row, v), mask) for v in range(width)]
        offset = builder.mul(unit, a.column_step)
        factors = [
            spread(builder, builder.load(further(builder, place, offset)), self.vector)
            for place in a_rows
        ]
        pairs = itertools.product(factors, vectors)
        for phi, (factor, vector) in zip(phis, pairs, strict=True):
            terms = (Value(builder, part) for part in (factor, vector, phi))
            phi.add_incoming(self.fused(*terms), body)
        unit.add_incoming(builder.add(unit, self.whole(1)), body)
        builder.branch(head)
        builder.position_at_end(after)
        for place, total in zip(places, phis, strict=True):
            self.store(total, place, mask)

    def fused(self, a: Value, b: Value, total: Value) -> Any:
        return a.times_plus(b, total).ir

    def load(self, place: Any, mask: Any) -> Any:
        if mask is None:
            return self.builder.load(place, align=self.size)
        return masked_load(self.builder, place, self.vector, mask)

    def store(self, vector: Any, place: Any, mask: Any) -> None:
        if mask is None:
            self.builder.store(vector, place, align=self.size)
        else:
            masked_store(self.builder, vector, place, mask)


class _TurnedProduct(_Writer):
    """Writes a product whose second operand lies the other way round.

    Its arguments are the addresses of `a`, `b`, the strip and `out` with the step of their rows;
    then how many rows, columns and units of the operands there are, and columns of the strip.
    """

    def __init__(self, builder: Any, vector: Any, *arguments: Any) -> None:
        super().__init__(builder, vector)
        pairs = zip(arguments[:8:2], arguments[1:8:2], strict=True)
        self.a, self.b, self.strip, self.out = (self.matrix(*pair) for pair in pairs)
        self.rows, self.columns, self.units, self.width = arguments[8:]

    def write(self) -> None:
        builder, a, strip, zero = self.builder, self.a, self.strip, self.whole(0)
        with self.starts(self.columns, self.width) as column:
            columns = self.least(builder.sub(self.columns, column), self.width)
            self.turn(self.matrix(self.b.at(builder, column, zero), self.b.row_step), columns)
            places = a.start, a.row_step, a.column_step, strip.start, strip.row_step
            out = self.out.at(builder, zero, column), self.out.row_step
            counts = self.rows, columns, self.units, zero
            _PRODUCT.call(builder, self.vector, (*places, *out, *counts))

    def turn(self, given: Matrix, rows: Any) -> None:
        """Copy some rows to columns of the strip, square by square."""
        step = self.whole(self.lanes)
        with self.starts(rows, step) as row, self.starts(self.units, step) as column:
            self.square(given, row, rows, column)

    def square(self, given: Matrix, row: Any, rows: Any, column: Any) -> None:
        builder = self.builder
        rows_left, columns_left = builder.sub(rows, row), builder.sub(self.units, column)
        last = builder.sub(rows, self.whole(1))
        numbers = [builder.add(row, self.whole(number)) for number in range(self.lanes)]
        # Beyond the last row, the last one is read again, and not written.
        places = [given.at(builder, self.least(number, last), column) for number in numbers]
        lanes = first_lanes(builder, self.vector, columns_left)
        vectors = [
            masked_load(builder, self.vector_at(place), self.vector, lanes) for place in places
        ]
        lanes = first_lanes(builder, self.vector, rows_left)
        for number, vector in enumerate(turned(builder, vectors)):
            here = self.whole(number)
            with builder.if_then(builder.icmp_signed("<", here, columns_left)):
                place = self.strip.at(builder, builder.add(column, here), row)
                masked_store(builder, vector, self.vector_at(place), lanes)


def _widths(vector: Any) -> tuple[int, ...]:
    bits = vector.count * (32 if isinstance(vector.element, ir.FloatType) else 64)
    return WIDE if bits == 512 or platform.machine() in ("aarch64", "arm64") else NARROW


_MATRICES = slice(0, 3), slice(3, 5), slice(5, 7)
_PRODUCT = Shared.written("product", "awwawawwwww", lambda *given: _Product(*given).write())
_TURNED = Shared.written(
    "product_turned", "awawawawwwww", lambda *given: _TurnedProduct(*given).write()
)


def _product_result(a: Any, b: Any, out: Any, adds: Any) -> Any:
    return signature(types.none, *_result(a, b, out).args, types.boolean)


def _result(*matrices: Any) -> Any:
    if (
        any(not isinstance(matrix, types.Array) or matrix.ndim != 2 for matrix in matrices)
        or len({matrix.dtype for matrix in matrices}) > 1
    ):
        raise errors.TypingError(
            f"small products take matrices of one dtype; found {', '.join(map(str, matrices))}"
        )
    return signature(types.none, *matrices)


def _call_product(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
    (a, (_, units)), (b, _), (out, shape) = matrices_of(context, builder, sig, arguments)
    adds = builder.zext(context.is_true(builder, sig.args[-1], arguments[-1]), ir.IntType(64))
    places = a.start, a.row_step, a.column_step, b.start, b.row_step, out.start, out.row_step
    _PRODUCT.call(builder, vector_of(context, sig.args[0]), (*places, *shape, units, adds))
    return context.get_dummy_value()


def _call_turned(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
    found = matrices_of(context, builder, sig, arguments)
    (_, (_, units)), _, (_, (_, width)), (_, shape) = found
    places = [part for matrix, _ in found for part in (matrix.start, matrix.row_step)]
    _TURNED.call(builder, vector_of(context, sig.args[0]), (*places, *shape, units, width))
    return context.get_dummy_value()


compiled(product, _product_result, _call_product)
compiled(product_turned, _result, _call_turned)


# An assignment of slices compiles for seconds, because it can fail in words; these cannot.


@njit(nogil=True, error_model="numpy")
def copy(given, out):  # type: ignore[no-untyped-def]
    """`out = given`, matrices of one shape."""
    for row in range(out.shape[0]):
        for column in range(out.shape[1]):
            out[row, column] = given[row, column]


@njit(nogil=True, error_model="numpy")
def copy_row(given, out, row, begin, end):  # type: ignore[no-untyped-def]
    """`out[row, begin:end] = given[row, begin:end]`."""
    for column in range(begin, end):
        out[row, column] = given[row, column]


@njit(nogil=True, error_model="numpy")
def set_all(out, number):  # type: ignore[no-untyped-def]
    """Every entry of a matrix becomes the number."""
    for row in range(out.shape[0]):
        for column in range(out.shape[1]):
            out[row, column] = number

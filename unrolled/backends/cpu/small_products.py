"""Products outside the time loop of a short sequence, which take less than a call into a BLAS.

`out = a @ b` in tiles whose sums stay in registers. Numbers of `a` are taken one by one, so it may
lie in any way, transposed too, while rows of `b` and `out` are read and written as vectors, so they
are contiguous. Each sum is added up in the order of its terms, so the bits of a result depend on
nothing but the operands.
"""

from __future__ import annotations

import itertools
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit
from numba.core import cgutils, errors, types
from numba.core.typing import signature

from .emission import Value, filled, spread
from .packing import turned
from .vectors import (
    VectorType,
    compiled,
    first_lanes,
    lanes_of,
    masked_load,
    masked_store,
    only_compiled,
)

# Rows of a tile, and how many vectors of 64 bytes, or of less, are side by side: the sums fill 24
# registers where there are 32, and 12 where there are 16.
ROWS = (6, 3, 1)
WIDE, NARROW = (4, 2, 1), (2, 1)


def _widths(lanes: int, dtype: Any) -> tuple[int, ...]:
    registers_32 = lanes * dtype.bitwidth == 512 or platform.machine() in ("aarch64", "arm64")
    return WIDE if registers_32 else NARROW


class _Writer:
    """Writes instructions on matrices with any strides.

    Args:
        context, builder, sig, arguments: as Numba gives them to what emits a function's body.
    """

    def __init__(self, context: Any, builder: Any, sig: Any, arguments: Sequence[Any]) -> None:
        dtype = sig.args[0].dtype
        self.builder = builder
        self.lanes = lanes_of(dtype)
        self.widths = _widths(self.lanes, dtype)
        self.size = dtype.bitwidth // 8
        self.number = context.get_value_type(dtype)
        self.vector = context.get_value_type(VectorType(dtype, self.lanes))
        self.integer = context.get_value_type(types.intp)
        self.matrices = [
            context.make_array(kind)(context, builder, array)
            for kind, array in zip(sig.args, arguments, strict=True)
            if isinstance(kind, types.Array)
        ]

    def whole(self, number: int) -> Any:
        return ir.Constant(self.integer, number)

    def shape(self, matrix: Any) -> list[Any]:
        return [self.builder.extract_value(matrix.shape, axis) for axis in (0, 1)]

    def at(self, matrix: Any, row: Any, column: Any) -> Any:
        """The address of an entry."""
        builder = self.builder
        offset = self.whole(0)
        for axis, index in enumerate((row, column)):
            step = builder.extract_value(matrix.strides, axis)
            offset = builder.add(offset, builder.mul(index, step))
        return self.further(matrix.data, offset)

    def further(self, place: Any, offset: Any) -> Any:
        """The address so many bytes after another."""
        pointer = self.builder.bitcast(place, ir.IntType(8).as_pointer())
        pointer = self.builder.gep(pointer, [offset], source_etype=ir.IntType(8), inbounds=True)
        return self.builder.bitcast(pointer, self.number.as_pointer())

    def vector_at(self, place: Any, number: int = 0) -> Any:
        """The address of a vector, `number` vectors after a place."""
        place = self.further(place, self.whole(number * self.lanes * self.size))
        return self.builder.bitcast(place, self.vector.as_pointer())

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
    """Writes a product, which is added to what lies in `out` if the last argument says so."""

    def __init__(self, context: Any, builder: Any, sig: Any, arguments: Sequence[Any]) -> None:
        super().__init__(context, builder, sig, arguments)
        self.adds = context.is_true(builder, sig.args[-1], arguments[-1])

    def write(self) -> None:
        # What holds the tiles is large: a kernel should have it once, not at each call.
        self.builder.function.attributes.add("noinline")
        _, _, out = self.matrices
        rows, columns = self.shape(out)
        column = self.whole(0)
        for width in self.widths:
            with self.blocks(column, columns, width * self.lanes) as (first, column):
                self.strip(first, rows, width, None)
        left = self.builder.sub(columns, column)
        with self.builder.if_then(self.builder.icmp_signed(">", left, self.whole(0))):
            self.strip(column, rows, 1, first_lanes(self.builder, self.vector, left))

    def strip(self, column: Any, rows: Any, width: int, mask: Any) -> None:
        """All rows of some columns."""
        row = self.whole(0)
        for size in ROWS:
            with self.blocks(row, rows, size) as (first, row):
                self.tile(first, size, column, width, mask)

    def tile(self, row: Any, rows: int, column: Any, width: int, mask: Any) -> None:
        """One tile; of its last vector the lanes of the mask, if there is one."""
        a, b, out = self.matrices
        builder = self.builder
        numbers = [builder.add(row, self.whole(number)) for number in range(rows)]
        a_rows = [self.at(a, number, self.whole(0)) for number in numbers]
        outs = [self.at(out, number, column) for number in numbers]
        first = self.at(b, self.whole(0), column)
        a_step, b_step = (
            builder.extract_value(matrix.strides, axis) for matrix, axis in ((a, 1), (b, 0))
        )
        places = [self.vector_at(place, v) for place in outs for v in range(width)]
        units = self.shape(a)[1]
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
        builder.cbranch(builder.icmp_signed("<", unit, units), body, after)
        builder.position_at_end(body)
        b_row = self.further(first, builder.mul(unit, b_step))
        vectors = [self.load(self.vector_at(b_row, v), mask) for v in range(width)]
        offset = builder.mul(unit, a_step)
        factors = [
            spread(builder, builder.load(self.further(place, offset)), self.vector)
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


class _Turning(_Writer):
    """Writes the copying of a matrix with rows and columns exchanged, square by square."""

    def write(self) -> None:
        self.builder.function.attributes.add("noinline")
        given, out = self.matrices
        rows, columns = self.shape(given)
        with self.starts(rows) as row, self.starts(columns) as column:
            self.square(given, row, rows, column, columns, out)

    @contextmanager
    def starts(self, size: Any) -> Iterator[Any]:
        """Write a loop over a size in steps of a vector."""
        step = self.whole(self.lanes)
        with cgutils.for_range_slice(self.builder, self.whole(0), size, step, inc=True) as (i, _):
            yield i

    def square(self, given: Any, row: Any, rows: Any, column: Any, columns: Any, out: Any) -> None:
        builder = self.builder
        rows_left, columns_left = builder.sub(rows, row), builder.sub(columns, column)
        last = builder.sub(rows, self.whole(1))
        numbers = [builder.add(row, self.whole(number)) for number in range(self.lanes)]
        # Beyond the last row, the last one is read again, and not written.
        inside = [builder.select(builder.icmp_signed("<", n, last), n, last) for n in numbers]
        lanes = first_lanes(builder, self.vector, columns_left)
        vectors = [
            masked_load(builder, self.vector_at(self.at(given, n, column)), self.vector, lanes)
            for n in inside
        ]
        lanes = first_lanes(builder, self.vector, rows_left)
        for number, vector in enumerate(turned(builder, vectors)):
            here = self.whole(number)
            with builder.if_then(builder.icmp_signed("<", here, columns_left)):
                place = self.at(out, builder.add(column, here), row)
                masked_store(builder, vector, self.vector_at(place), lanes)


def _written(a: Any, b: Any, out: Any, adds: bool) -> None:
    raise only_compiled("a product")


def _turned(given: Any, out: Any) -> None:
    raise only_compiled("a transposition")


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


def _emit_product(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
    _Product(context, builder, sig, arguments).write()
    return context.get_dummy_value()


def _emit_turning(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
    _Turning(context, builder, sig, arguments).write()
    return context.get_dummy_value()


compiled(_written, _product_result, _emit_product)
compiled(_turned, _result, _emit_turning)


_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}
_ROOM = 1 << 15  # numbers of `b` that are read at once, and stay near until all rows have had them
_FEWEST = 32  # units of the operands in a block of them, at least
STRIP = 4  # vectors of columns in a strip


@njit(**_OPTIONS)
def _high(columns):  # type: ignore[no-untyped-def]
    """How many units of the operands a block has."""
    return max(_FEWEST, _ROOM // max(1, columns))


@njit(**_OPTIONS)
def _tiles(a, b, out, adds):  # type: ignore[no-untyped-def]
    """`out = a @ b`, or `out += a @ b`. All products share this one, which is slow to compile."""
    _written(a, b, out, adds)


@njit(**_OPTIONS)
def product(a, b, out, adds):  # type: ignore[no-untyped-def]
    """`out = a @ b`, or `out += a @ b` if it adds; rows of `b` and `out` are contiguous."""
    high = _high(out.shape[1])
    for k in range(0, max(1, b.shape[0]), high):
        _tiles(a[:, k : k + high], b[k : k + high], out, adds or k > 0)


@njit(**_OPTIONS)
def product_turned(a, b, strip, out):  # type: ignore[no-untyped-def]
    """`out = a @ b.T`; rows of all are contiguous.

    `b` is turned strip by strip: `strip` has a row for each unit of the operands, and room for
    `STRIP` vectors in each.
    """
    width = strip.shape[1]
    for start in range(0, out.shape[1], width):
        stop = min(start + width, out.shape[1])
        _turned(b[start:stop], strip[:, : stop - start])
        _tiles(a, strip[:, : stop - start], out[:, start:stop], np.bool_(False))


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

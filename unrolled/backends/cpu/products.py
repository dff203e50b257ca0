"""The product inside the time loop: a few rows times a matrix that stays the same for many steps.

The matrix is packed once, so that the innermost loop reads it from one end to the other. That
loop is a tile: some rows of the result, one or more panels wide, whose sums stay in registers
while it runs over the units of the operand. Few rows take more panels at once: a sum waits some
cycles for the one before it, and only many sums side by side keep the machine busy.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit
from numba.core import errors, types
from numba.core.imputils import lower_builtin
from numba.core.types.misc import VarArg, unliteral
from numba.core.typing import signature
from numba.core.typing.templates import AbstractTemplate, infer_global

from .emission import Value, filled, spread
from .vectors import (
    VectorType,
    compiled,
    first_lanes,
    lanes,
    lanes_of,
    masked_load,
    masked_store,
    only_compiled,
)

CACHED_UNITS = 16
PANEL = 2  # vectors in a panel: with six rows, 12 sums fill the 16 registers of AVX2


def packed_shape(K: int, N: int, dtype: Any) -> tuple[int, int]:
    """The shape of a matrix (K, N) when it is packed: (panels, K * width)."""
    width = PANEL * lanes(dtype)
    return -(-N // width), K * width


@njit(nogil=True, error_model="numpy")
def fill(weights, packed):  # type: ignore[no-untyped-def]
    """Write a matrix (K, N) into an array of its packed shape.

    Panel p holds the columns from `p * width` on, `width = 2 * lanes(dtype)`, one row of `width`
    numbers after the other; zeros fill the last panel. It goes along the matrix's own order in
    memory. Indices are unsigned where it counts: nobody then asks whether they are negative.
    """
    K, N = weights.shape
    width = packed.shape[1] // K
    flat = packed.reshape(packed.size)
    for panel in range(packed.shape[0]):
        first = panel * width
        count = min(width, N - first)
        base = panel * K * width
        if weights.strides[0] > weights.strides[1]:
            for k in range(K):
                row, at = weights[k], base + k * width
                for j in range(count):
                    flat[np.uint64(at + j)] = row[np.uint64(first + j)]
        else:
            # Down the columns as they lie, a few units at a time, so that what is written stays
            # in the cache until the next column comes.
            for begin in range(0, K, CACHED_UNITS):
                for j in range(count):
                    column, at = weights[:, first + j], base + j
                    for k in range(begin, min(K, begin + CACHED_UNITS)):
                        flat[np.uint64(at + k * width)] = column[np.uint64(k)]
        for k in range(K):
            for j in range(count, width):
                flat[np.uint64(base + k * width + j)] = 0


@dataclass(frozen=True)
class _Tile:
    """The shape of a tile.

    Attributes:
        rows: rows of the result.
        panels: panels side by side.
        chains: how many sums share the units of the operand; they are added up at the end.
    """

    rows: int
    panels: int = 1
    chains: int = 1

    @property
    def vectors(self) -> int:
        """Vectors of a row."""
        return self.panels * PANEL

    @property
    def sums(self) -> int:
        """Vectors of the result."""
        return self.rows * self.vectors


def _compiled_tile(tile: _Tile) -> Callable[..., None]:
    """A function of compiled code that computes one tile: all its columns from `panel` on."""

    def compute(operand: Any, row: Any, packed: Any, panel: Any, out: Any, accumulate: Any) -> None:
        raise only_compiled("a tile")

    def result(operand: Any, row: Any, packed: Any, panel: Any, out: Any, accumulate: Any) -> Any:
        index, arrays = types.intp, (operand, packed, out)
        if any(array.ndim != 2 or array.layout != "C" for array in arrays) or (
            len({array.dtype for array in arrays}) > 1
        ):
            raise errors.TypingError(
                "multiply takes C-contiguous matrices of one dtype; "
                f"found {', '.join(map(str, arrays))}"
            )
        return signature(types.none, operand, index, packed, index, out, types.boolean)

    def emit(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        # What holds the tiles is large: a kernel should have it once, not at each call.
        builder.function.attributes.add("noinline")
        _Writer(context, builder, tile, sig, arguments).write()
        return context.get_dummy_value()

    compiled(compute, result, emit)
    return compute


class _Writer:
    """Writes the instructions of one tile."""

    def __init__(
        self, context: Any, builder: Any, tile: _Tile, sig: Any, arguments: Sequence[Any]
    ) -> None:
        operand_kind, _, packed_kind, _, out_kind, _ = sig.args
        operand, row, packed, panel, out, self.accumulate = arguments
        dtype = out_kind.dtype
        self.builder, self.tile = builder, tile
        self.lanes = lanes_of(dtype)
        self.width = PANEL * self.lanes
        self.size = dtype.bitwidth // 8
        self.number = context.get_value_type(dtype)
        self.vector = context.get_value_type(VectorType(dtype, self.lanes))
        self.integer = context.get_value_type(types.intp)

        operand = context.make_array(operand_kind)(context, builder, operand)
        packed = context.make_array(packed_kind)(context, builder, packed)
        out = context.make_array(out_kind)(context, builder, out)
        span = builder.extract_value(packed.shape, 1)  # numbers of a panel
        columns = builder.extract_value(out.shape, 1)
        first = builder.mul(panel, self.whole(self.width))
        self.units = builder.udiv(span, self.whole(self.width))
        self.left = builder.sub(columns, first)  # columns from the tile's first to the end
        step = builder.extract_value(operand.shape, 1)
        self.operands = self.rows(operand.data, row, step, tile.rows)
        self.panels = self.rows(packed.data, panel, span, tile.panels)
        self.outs = self.rows(self.at(out.data, first), row, columns, tile.rows)

    def whole(self, number: int) -> Any:
        return ir.Constant(self.integer, number)

    def at(self, pointer: Any, offset: Any) -> Any:
        return self.builder.gep(pointer, [offset], source_etype=self.number, inbounds=True)

    def rows(self, pointer: Any, first: Any, step: Any, count: int) -> list[Any]:
        """Where the rows of a matrix begin."""
        numbers = (self.builder.add(first, self.whole(row)) for row in range(count))
        return [self.at(pointer, self.builder.mul(number, step)) for number in numbers]

    def place(self, pointer: Any, vector: int) -> Any:
        """The address of a row's vector."""
        pointer = self.at(pointer, self.whole(vector * self.lanes))
        return self.builder.bitcast(pointer, self.vector.as_pointer())

    def write(self) -> None:
        tile, zero = self.tile, filled(self.vector, 0.0)
        many = self.builder.and_(self.units, self.whole(-tile.chains))
        sums = self.loop(self.whole(0), many, [[zero] * tile.sums] * tile.chains)
        while len(sums) > 1:
            half = len(sums) // 2
            sums = [
                [self.builder.fadd(a, b) for a, b in zip(*pair, strict=True)]
                for pair in zip(sums[:half], sums[half:], strict=True)
            ]
        if tile.chains > 1:
            sums = self.loop(many, self.units, sums)
        self.finish(sums[0])

    def loop(self, start: Any, stop: Any, chains: list[list[Any]]) -> list[list[Any]]:
        """Add the units from start to stop to the sums, each chain taking one in turn."""
        builder = self.builder
        before = builder.block
        head, body, after = (builder.append_basic_block(name) for name in ("head", "unit", "after"))
        builder.branch(head)
        builder.position_at_end(head)
        k = self.phi((start, before))
        phis = [[self.phi((total, before)) for total in sums] for sums in chains]
        builder.cbranch(builder.icmp_signed("<", k, stop), body, after)
        builder.position_at_end(body)
        for number, sums in enumerate(phis):
            unit = builder.add(k, self.whole(number))
            for phi, total in zip(sums, self.unit(unit, sums), strict=True):
                phi.add_incoming(total, body)
        k.add_incoming(builder.add(k, self.whole(len(chains))), body)
        builder.branch(head)
        builder.position_at_end(after)
        return phis

    def phi(self, *incoming: tuple[Any, Any]) -> Any:
        phi = self.builder.phi(incoming[0][0].type)
        for value, block in incoming:
            phi.add_incoming(value, block)
        return phi

    def unit(self, k: Any, sums: list[Any]) -> list[Any]:
        """One unit of the operand times its row of weights, added to the sums of one chain."""
        builder = self.builder
        offset = builder.mul(k, self.whole(self.width))
        weights = [
            builder.load(self.place(self.at(panel, offset), vector), align=self.size)
            for panel in self.panels
            for vector in range(PANEL)
        ]
        numbers = [
            builder.load(builder.bitcast(self.at(row, k), self.number.as_pointer()))
            for row in self.operands
        ]
        factors = itertools.product(numbers, weights)
        return [
            Value(builder, weight)
            .times_plus(Value(builder, spread(builder, number, self.vector)), Value(builder, total))
            .ir
            for (number, weight), total in zip(factors, sums, strict=True)
        ]

    def finish(self, sums: list[Any]) -> None:
        """Write the sums; at the right edge of the result, only the columns that it has."""
        builder = self.builder
        fits = builder.icmp_signed(">=", self.left, self.whole(self.tile.panels * self.width))
        with builder.if_else(fits) as (inside, edge):
            with inside:
                self.put(sums, [None] * self.tile.vectors)
            with edge:
                starts = [self.whole(v * self.lanes) for v in range(self.tile.vectors)]
                left = [builder.sub(self.left, start) for start in starts]
                self.put(sums, [first_lanes(builder, self.vector, count) for count in left])

    def put(self, sums: list[Any], masks: list[Any]) -> None:
        builder, vectors = self.builder, range(self.tile.vectors)
        places = [self.place(row, vector) for row in self.outs for vector in vectors]
        masks = masks * self.tile.rows
        before = builder.block
        add, after = builder.append_basic_block("add"), builder.append_basic_block("put")
        builder.cbranch(self.accumulate, add, after)
        builder.position_at_end(add)
        old = [self.read(place, mask) for place, mask in zip(places, masks, strict=True)]
        added = [builder.fadd(total, value) for total, value in zip(sums, old, strict=True)]
        builder.branch(after)
        builder.position_at_end(after)
        both = zip(sums, added, strict=True)
        results = [self.phi((total, before), (more, add)) for total, more in both]
        for result, place, mask in zip(results, places, masks, strict=True):
            if mask is None:
                builder.store(result, place, align=self.size)
            else:
                masked_store(builder, result, place, mask)

    def read(self, place: Any, mask: Any) -> Any:
        if mask is None:
            return self.builder.load(place, align=self.size)
        return masked_load(self.builder, place, self.vector, mask)


# At least 8 sums each, where the rows allow it, and 12 at most.
_six, _five, _four = (_compiled_tile(_Tile(rows)) for rows in (6, 5, 4))
_three = _compiled_tile(_Tile(3, chains=2))
_two_wide, _two = _compiled_tile(_Tile(2, panels=2)), _compiled_tile(_Tile(2, chains=2))
_one_widest, _one_wide, _one = (
    _compiled_tile(_Tile(1, panels=panels, chains=4 // panels)) for panels in (4, 2, 1)
)


def multiply(operand: Any, first: Any, rows: Any, packed: Any, out: Any, accumulate: Any) -> None:
    """Rows `first` to `first + rows` of `out = operand @ weights`, or of `out += …`.

    For compiled code only.

    Args:
        operand: (…, K) or wider, C-contiguous.
        first: the first row, of `operand` and of `out`.
        rows: how many rows; 0 does nothing.
        packed: the weights (K, N) as `fill` writes them, of the same dtype.
        out: (…, N), C-contiguous.
        accumulate: whether to add to what `out` holds.
    """
    raise only_compiled("multiply")


@njit(nogil=True, error_model="numpy", fastmath={"contract"})
def _product(operand, first, rows, packed, out, accumulate):  # type: ignore[no-untyped-def]
    panels = packed.shape[0]
    panel = 0
    if rows == 1:
        while panel + 4 <= panels:
            _one_widest(operand, first, packed, panel, out, accumulate)
            panel += 4
        if panel + 2 <= panels:
            _one_wide(operand, first, packed, panel, out, accumulate)
            panel += 2
        if panel < panels:
            _one(operand, first, packed, panel, out, accumulate)
    elif rows == 2:
        while panel + 2 <= panels:
            _two_wide(operand, first, packed, panel, out, accumulate)
            panel += 2
        if panel < panels:
            _two(operand, first, packed, panel, out, accumulate)
    else:
        for panel in range(panels):
            row = first
            blocks = (rows + 5) // 6
            while blocks > 0:
                left = first + rows - row
                size = (left + blocks - 1) // blocks  # of equal blocks: 7 rows are 4 + 3
                if size == 6:
                    _six(operand, row, packed, panel, out, accumulate)
                elif size == 5:
                    _five(operand, row, packed, panel, out, accumulate)
                elif size == 4:
                    _four(operand, row, packed, panel, out, accumulate)
                else:
                    _three(operand, row, packed, panel, out, accumulate)
                row += size
                blocks -= 1


class _Multiply(AbstractTemplate):  # type: ignore[misc]
    """A call of `_product` whose arguments are no constants, so one serves all calls of a dtype."""

    key = multiply

    def generic(self, args: Any, kws: Any) -> Any:
        if kws:
            return None
        product = self.context.resolve_value_type(_product)
        arguments = tuple(unliteral(argument) for argument in args)
        found = self.context.resolve_function_type(product, arguments, {})
        return signature(found.return_type, *found.args)


def _call_product(context: Any, builder: Any, sig: Any, arguments: Sequence[Any]) -> Any:
    product = context.typing_context.resolve_value_type(_product)
    call = context.get_function(product, sig)
    context.add_linking_libs(call.libs)
    return call(builder, arguments)


infer_global(multiply, types.Function(_Multiply))
lower_builtin(multiply, VarArg(types.Any))(_call_product)

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

from llvmlite import ir
from numba import njit
from numba.core import errors, types
from numba.core.imputils import lower_builtin
from numba.core.types.misc import VarArg, unliteral
from numba.core.typing import signature
from numba.core.typing.templates import AbstractTemplate, infer_global

from .emission import Value, filled, spread
from .packing import PANEL
from .vectors import (
    VectorType,
    compiled,
    first_lanes,
    lanes_of,
    masked_store,
    only_compiled,
)

WIDEST = 4  # panels of the widest tile


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

    def compute(operand: Any, row: Any, packed: Any, panel: Any, out: Any) -> None:
        raise only_compiled("a tile")

    def result(operand: Any, row: Any, packed: Any, panel: Any, out: Any) -> Any:
        index, arrays = types.intp, (operand, packed, out)
        if any(array.ndim != 2 or array.layout != "C" for array in arrays) or (
            len({array.dtype for array in arrays}) > 1
        ):
            raise errors.TypingError(
                "multiply takes C-contiguous matrices of one dtype; "
                f"found {', '.join(map(str, arrays))}"
            )
        return signature(types.none, operand, index, packed, index, out)

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
        operand_kind, _, packed_kind, _, out_kind = sig.args
        operand, row, packed, panel, out = arguments
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
        places = [self.place(row, v) for row in self.outs for v in range(self.tile.vectors)]
        for total, place, mask in zip(sums, places, masks * self.tile.rows, strict=True):
            if mask is None:
                self.builder.store(total, place, align=self.size)
            else:
                masked_store(self.builder, total, place, mask)


# At least 8 sums each, where the rows allow it, and 12 at most.
_six, _five, _four = (_compiled_tile(_Tile(rows)) for rows in (6, 5, 4))
_three = _compiled_tile(_Tile(3, chains=2))
_two_wide, _two = _compiled_tile(_Tile(2, panels=2)), _compiled_tile(_Tile(2, chains=2))
_one_widest, _one_wide, _one = (
    _compiled_tile(_Tile(1, panels=panels, chains=4 // panels)) for panels in (4, 2, 1)
)


def multiply(operand: Any, first: Any, rows: Any, packed: Any, panels: Any, out: Any) -> None:
    """Rows `first` to `first + rows` of `out = operand @ weights`.

    For compiled code only.

    Args:
        operand: (…, K) or wider, C-contiguous.
        first: the first row, of `operand` and of `out`.
        rows: how many rows; 0 does nothing.
        packed: the weights (K, N) as `fill` writes them, of the same dtype.
        panels: the panels from the first of these two numbers to the second; see `panels_of`.
        out: (…, N), C-contiguous.
    """
    raise only_compiled("multiply")


@njit
def panels_of(packed, share, shares):  # type: ignore[no-untyped-def]
    """The panels of one share: whole widest tiles, so that no column changes its order of sums."""
    tiles = (packed.shape[0] + WIDEST - 1) // WIDEST
    first, last = tiles * share // shares, tiles * (share + 1) // shares
    return WIDEST * first, min(WIDEST * last, packed.shape[0])


@njit(nogil=True, error_model="numpy", fastmath={"contract"})
def _product(operand, first, rows, packed, panels, out):  # type: ignore[no-untyped-def]
    start, end = panels
    panel = start
    if rows == 1:
        while panel + 4 <= end:
            _one_widest(operand, first, packed, panel, out)
            panel += 4
        if panel + 2 <= end:
            _one_wide(operand, first, packed, panel, out)
            panel += 2
        if panel < end:
            _one(operand, first, packed, panel, out)
    elif rows == 2:
        while panel + 2 <= end:
            _two_wide(operand, first, packed, panel, out)
            panel += 2
        if panel < end:
            _two(operand, first, packed, panel, out)
    else:
        for panel in range(start, end):
            row = first
            blocks = (rows + 5) // 6
            while blocks > 0:
                left = first + rows - row
                size = (left + blocks - 1) // blocks  # of equal blocks: 7 rows are 4 + 3
                if size == 6:
                    _six(operand, row, packed, panel, out)
                elif size == 5:
                    _five(operand, row, packed, panel, out)
                elif size == 4:
                    _four(operand, row, packed, panel, out)
                else:
                    _three(operand, row, packed, panel, out)
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

"""The product inside the time loop: a few rows times a matrix that stays the same for many steps.

The matrix is packed once, so that the innermost loop reads it from one end to the other. That
loop is a tile: some rows of the result, one or two panels wide, whose sums stay in registers while
it runs over the units of the operand. Few rows take two panels at once: a sum waits some cycles for
the one before it, and only many sums side by side keep the machine busy. So do all rows where there
are registers for it.

Tiles are written as functions of LLVM that take addresses: a call of one costs some nanoseconds,
and one with Numba's arrays a hundred.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

from llvmlite import ir
from numba import njit
from numba.core import errors, types
from numba.core.typing import signature

from .emission import Value, filled, spread, suffix
from .packing import PANEL
from .shared import Shared, matrices_of
from .vectors import (
    REGISTERS,
    WIDE_ZEN,
    compiled,
    first_lanes,
    masked_store,
    only_compiled,
    vector_of,
)

# Rows of the largest tile. Where there are 32 registers, eleven rows of one panel read weights from
# the second cache half as often as six of two (measured with AVX-512: 1.07 times the rate for 64
# rows of 512 units, 1.2 times for ten of 650); with twelve, sums would leave the registers.
TILE_ROWS = 11 if REGISTERS == 32 else 6
# Of a single row, panels of so many units are read one after the other, not two side by side.
# Measured on a Zen 5 with weights in the second cache: 237 GB/s in place of 205, and 0.88 of the
# time of an LSTM of 192 or 256 units in inference; nothing is gained with fewer units or more.
_ONE_BY_ONE = range(97, 601) if WIDE_ZEN else None
# Of a single row, so many panels at once, at most: what is read of the operand serves them all.
_SINGLE_PANELS = 4 if REGISTERS == 32 else 2
_WHOLE = ir.IntType(64)


@dataclass(frozen=True)
class _Tile:
    """The shape of a tile.

    Attributes:
        rows: rows of the result.
        panels: panels side by side.
        vector: the type of its vectors.
    """

    rows: int
    panels: int
    vector: Any

    @property
    def vectors(self) -> int:
        """Vectors of a row."""
        return self.panels * PANEL

    @property
    def chains(self) -> int:
        """How many sums share the units of the operand; they are added up at the end.

        One panel has as many as two: how panels are shared out must not change the order of a sum.
        """
        return 2 if self.rows == 1 else 1

    @property
    def served(self) -> bool:
        """Whether it has registers: 12 sums at most, or 24 where there are twice as many."""
        return self.rows * self.vectors <= REGISTERS * 3 // 4

    def function(self, module: Any) -> Any:
        """The module's function that computes such a tile, written when first asked for.

        It takes the operand's first row and how far apart rows are, the first panel and the numbers
        of one, the place in the result, how far apart its rows are and what belongs to two panels,
        how many columns the result has from there on, and how many fewer from the next panel on.
        """
        name = f"tile_{self.rows}x{self.panels}_{suffix(self.vector)}"
        if name in module.globals:
            return module.globals[name]
        number = self.vector.element.as_pointer()
        kinds = [number, _WHOLE, number, _WHOLE, number, *(_WHOLE,) * 4]
        function = ir.Function(module, ir.FunctionType(ir.VoidType(), kinds), name)
        function.linkage = "internal"
        function.attributes.add("noinline")
        builder = ir.IRBuilder(function.append_basic_block("entry"))
        _Writer(self, builder, *function.args).write()
        builder.ret_void()
        return function


class _Writer:
    """Writes the instructions of one tile; see `_Tile.function` for its arguments."""

    def __init__(
        self,
        tile: _Tile,
        builder: Any,
        operand: Any,
        operand_step: Any,
        panel: Any,
        span: Any,
        out: Any,
        out_step: Any,
        hop: Any,
        left: Any,
        fewer: Any,
    ) -> None:
        self.tile, self.builder = tile, builder
        self.vector, self.number = tile.vector, tile.vector.element
        self.lanes = tile.vector.count
        self.width = PANEL * self.lanes
        self.size = 4 if isinstance(self.number, ir.FloatType) else 8
        self.units = builder.udiv(span, self.whole(self.width))
        gone = (builder.mul(self.whole(number), fewer) for number in range(tile.panels))
        self.left = [builder.sub(left, columns) for columns in gone]
        self.operands = self.rows(operand, operand_step, tile.rows)
        self.panels = self.rows(panel, span, tile.panels)
        self.outs = [
            place
            for row in self.rows(out, out_step, tile.rows)
            for place in self.rows(row, hop, tile.panels)
        ]

    def whole(self, number: int) -> Any:
        return ir.Constant(_WHOLE, number)

    def at(self, pointer: Any, offset: Any) -> Any:
        return self.builder.gep(pointer, [offset], source_etype=self.number, inbounds=True)

    def rows(self, pointer: Any, step: Any, count: int) -> list[Any]:
        """Where some rows of a matrix begin."""
        numbers = map(self.whole, range(count))
        return [self.at(pointer, self.builder.mul(number, step)) for number in numbers]

    def place(self, pointer: Any, vector: int) -> Any:
        """The address of a row's vector."""
        pointer = self.at(pointer, self.whole(vector * self.lanes))
        return self.builder.bitcast(pointer, self.vector.as_pointer())

    def write(self) -> None:
        tile, zero = self.tile, filled(self.vector, 0.0)
        many = self.builder.and_(self.units, self.whole(-tile.chains))
        start = [[zero] * (tile.rows * tile.vectors)] * tile.chains
        sums = self.loop(self.whole(0), many, start)
        if tile.chains == 2:
            added = [self.builder.fadd(a, b) for a, b in zip(*sums, strict=True)]
            sums = self.loop(many, self.units, [added])
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
        numbers = [builder.load(self.at(row, k)) for row in self.operands]
        factors = itertools.product(numbers, weights)
        return [
            Value(builder, weight)
            .times_plus(Value(builder, spread(builder, number, self.vector)), Value(builder, total))
            .ir
            for (number, weight), total in zip(factors, sums, strict=True)
        ]

    def finish(self, sums: list[Any]) -> None:
        """Write the sums; at the right edge of a block, only the columns that it has."""
        builder = self.builder
        # The last panel has the fewest columns.
        fits = builder.icmp_signed(">=", self.left[-1], self.whole(self.width))
        with builder.if_else(fits) as (inside, edge):
            with inside:
                self.put(sums, [None] * self.tile.vectors)
            with edge:
                starts = [self.whole(v * self.lanes) for v in range(PANEL)]
                left = [builder.sub(left, start) for left in self.left for start in starts]
                self.put(sums, [first_lanes(builder, self.vector, count) for count in left])

    def put(self, sums: list[Any], masks: list[Any]) -> None:
        places = [self.place(out, v) for out in self.outs for v in range(PANEL)]
        for total, place, mask in zip(sums, places, masks * self.tile.rows, strict=True):
            if mask is None:
                self.builder.store(total, place, align=self.size)
            else:
                masked_store(self.builder, total, place, mask)


class _Panels:
    """Writes the function for the rows of a tile and some panels.

    Its arguments are those of a tile, of how many columns are left only the first, and at the end
    how many rows and panels there are, and whether it goes from the last panel to the first (1) or
    onwards (0). The results of two panels lie as far apart as it says, or side by side (0).
    """

    def __init__(self, builder: Any, vector: Any, *arguments: Any) -> None:
        self.builder, self.vector = builder, vector
        *self.same, self.hop, self.left, self.rows, self.count, self.back = arguments

    def write(self) -> None:
        builder = self.builder
        operand, operand_step, panel, span, out, out_step = self.same
        before = builder.block
        head, body, after = (builder.append_basic_block(name) for name in ("head", "take", "after"))
        builder.branch(head)
        builder.position_at_end(head)
        done = builder.phi(_WHOLE)
        done.add_incoming(ir.Constant(_WHOLE, 0), before)
        builder.cbranch(builder.icmp_signed("<", done, self.count), body, after)
        builder.position_at_end(body)
        taken = self._taken(builder.sub(self.count, done))
        last = builder.sub(self.count, builder.add(done, taken))
        back = builder.icmp_signed("!=", self.back, ir.Constant(_WHOLE, 0))
        first = builder.select(back, last, done)
        width = ir.Constant(_WHOLE, PANEL * self.vector.count)
        together = builder.icmp_signed("==", self.hop, ir.Constant(_WHOLE, 0))
        hop = builder.select(together, width, self.hop)
        column = builder.mul(first, hop)
        here = builder.gep(panel, [builder.mul(first, span)], inbounds=True)
        place = builder.gep(out, [column], inbounds=True)
        left = builder.select(together, builder.sub(self.left, column), self.left)
        fewer = builder.select(together, width, ir.Constant(_WHOLE, 0))
        given = operand, operand_step, here, span, place, out_step, hop, left, fewer
        self._choose(given, taken)
        done.add_incoming(builder.add(done, taken), builder.block)
        builder.branch(head)
        builder.position_at_end(after)

    def _taken(self, left: Any) -> Any:
        """How many panels are taken at once, of so many that are left."""
        builder = self.builder
        one, two, many = (ir.Constant(_WHOLE, number) for number in (1, 2, _SINGLE_PANELS))
        single = builder.icmp_signed("==", self.rows, one)
        most = builder.select(single, many, two)
        taken = builder.select(builder.icmp_signed("<", left, most), left, most)
        if _ONE_BY_ONE:
            _, _, _, span, *_ = self.same
            apart = builder.and_(single, self._within(span, _ONE_BY_ONE))
            taken = builder.select(apart, one, taken)
        return taken

    def _within(self, span: Any, units: range) -> Any:
        """Whether panels of so many numbers have so many units."""
        builder = self.builder
        width = PANEL * self.vector.count
        least, beyond = (ir.Constant(_WHOLE, end * width) for end in (units.start, units.stop))
        some = builder.icmp_signed(">=", span, least)
        return builder.and_(some, builder.icmp_signed("<", span, beyond))

    def _choose(self, arguments: tuple[Any, ...], panels: Any) -> None:
        """Call the tile for this many rows and panels."""
        builder = self.builder
        after = builder.append_basic_block("taken")
        number = builder.add(builder.mul(self.rows, ir.Constant(_WHOLE, 8)), panels)
        choice = builder.switch(number, after)
        cases = [*itertools.product(range(1, TILE_ROWS + 1), (1, 2))]
        cases += [(1, count) for count in range(3, _SINGLE_PANELS + 1)]
        for rows, count in cases:
            block = builder.append_basic_block(f"tile_{rows}x{count}")
            choice.add_case(ir.Constant(_WHOLE, 8 * rows + count), block)
            builder.position_at_end(block)
            self._call(_Tile(rows, count, self.vector), arguments)
            builder.branch(after)
        builder.position_at_end(after)

    def _call(self, tile: _Tile, arguments: tuple[Any, ...]) -> None:
        builder = self.builder
        if tile.served:
            builder.call(tile.function(builder.module), arguments)
            return
        half = _Tile(tile.rows, 1, tile.vector)
        operand, operand_step, panel, span, out, out_step, hop, left, fewer = arguments
        builder.call(half.function(builder.module), arguments)
        panel, out = (builder.gep(a, [b], inbounds=True) for a, b in ((panel, span), (out, hop)))
        left = builder.sub(left, fewer)
        builder.call(
            half.function(builder.module),
            (operand, operand_step, panel, span, out, out_step, hop, left, fewer),
        )


_PANELS = Shared.written("panels", "awawawwwwww", lambda *given: _Panels(*given).write())


def _panels(
    operand: Any,
    row: Any,
    rows: Any,
    packed: Any,
    panel: Any,
    panels: Any,
    out: Any,
    at: Any,
    column: Any,
    hop: Any,
    left: Any,
    back: Any,
) -> None:
    """The rows of a tile, of some panels; in `out` they begin at (at, column), with `left` columns.

    The next panel has its columns behind these or, if `hop` is not 0, so far from the first of
    them, and as many of them. If `back` is 1 rather than 0, the last panels come first.
    """
    raise only_compiled("_panels")


def _panels_result(*arguments: Any) -> Any:
    operand, _, _, packed, _, _, out, *_ = arguments
    arrays = (operand, packed, out)
    if any(array.ndim != 2 or array.layout != "C" for array in arrays) or (
        len({array.dtype for array in arrays}) > 1
    ):
        raise errors.TypingError(
            "a product takes C-contiguous matrices of one dtype; "
            f"found {', '.join(map(str, arrays))}"
        )
    kinds = (kind if isinstance(kind, types.Array) else types.intp for kind in arguments)
    return signature(types.none, *kinds)


def _write_panels(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
    _, row, rows, _, panel, panels, _, at, column, hop, left, back = arguments
    matrices = [matrix for matrix, _ in matrices_of(context, builder, sig, arguments)]
    zero = ir.Constant(_WHOLE, 0)
    entries = (row, zero), (panel, zero), (at, column)
    places = [
        part
        for matrix, entry in zip(matrices, entries, strict=True)
        for part in (matrix.at(builder, *entry), matrix.row_step)
    ]
    given = *places, hop, left, rows, panels, back
    _PANELS.call(builder, vector_of(context, sig.args[0]), given)
    return context.get_dummy_value()


compiled(_panels, _panels_result, _write_panels)

_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}


@njit(**_OPTIONS)
def height(rows):  # type: ignore[no-untyped-def]
    """How many rows tiles have, so that they are about equal: 12 rows are 6 + 6."""
    if rows <= TILE_ROWS:  # to divide takes as long as the tanh of a vector
        return rows
    tiles = (rows + TILE_ROWS - 1) // TILE_ROWS
    return (rows + tiles - 1) // tiles


@njit(**_OPTIONS)
def multiply_group(operand, row, rows, packed, group, panels, out, at, step):  # type: ignore[no-untyped-def]
    """One group of a product, for the rows of a tile.

    Args:
        operand: (…, K), C-contiguous.
        row: its first row.
        rows: how many, from 1 to `TILE_ROWS`.
        packed: the weights as `fill` writes them, of the same dtype.
        group: the group's number.
        panels: how many panels a group has.
        out: (…, width of a group): the vectors of the group side by side, block by block.
        at: its first row.
        step: the number of the step; see `team.in_turn`.
    """
    left, back = out.shape[1], step & 1
    _panels(operand, row, rows, packed, group * panels, panels, out, at, 0, 0, left, back)


@njit(**_OPTIONS)
def multiply(operand, row, rows, packed, groups, width, blocks, out, at, step):  # type: ignore[no-untyped-def]
    """Some rows and groups of `out = operand @ weights`.

    Args:
        operand: (…, K), C-contiguous.
        row: its first row.
        rows: how many rows; 0 does nothing.
        packed: the weights as `fill` writes them with two vectors a group, of the same dtype.
        groups: the groups from the first of these two numbers to the second; see `groups_of`.
        width: how many units a group has: two vectors.
        blocks: of the weights.
        out: (…, blocks * size), C-contiguous.
        at: its first row.
        step: the number of the step; see `team.in_turn`.
    """
    size, high = out.shape[1] // blocks, height(rows)
    # Some panels at once: of several blocks, or of several groups if there is one block.
    wide = _SINGLE_PANELS if rows == 1 else 2
    together, hop = (wide, 0) if blocks == 1 else (1, size)
    done, count = 0, groups[1] - groups[0]
    while done < count:
        taken = min(together, count - done)
        group = groups[1] - done - taken if step % 2 else groups[0] + done
        start = group * width
        for block in range(0, blocks, wide):
            panels = taken if blocks == 1 else min(wide, blocks - block)
            above = 0
            while above < rows:
                _panels(
                    operand, row + above, min(high, rows - above), packed,
                    group * blocks + block, panels, out, at + above,
                    block * size + start, hop, size - start, 0,
                )  # fmt: skip
                above += high
        done += taken

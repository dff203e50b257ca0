"""Tiles of the product inside the time loop: some rows of the result, one panel wide or more.

Their sums stay in registers while they run over the units of the operand. Few rows take several
panels at once: a sum waits some cycles for the one before it, and only many sums side by side keep
the machine busy. So do all rows where there are registers for it.

They are written as functions of LLVM that take addresses: a call of one costs some nanoseconds, and
one with Numba's arrays a hundred. A single row, whose steps are short, has tiles of its own, which
begin with as few instructions as can be.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import partial
from typing import Any

from llvmlite import ir
from numba.core import cgutils

from .emission import fetch_line, filled, spread, suffix
from .memory import LINE
from .packing import PANEL
from .vectors import REGISTERS, WIDE_ZEN, ZEN, first_lanes, masked_store
from .writing import ManyRows, Rows, with_products

# Rows of the largest tile. Where there are 32 registers, eleven rows of one panel read weights from
# the second cache half as often as six of two (measured with AVX-512: 1.07 times the rate for 64
# rows of 512 units, 1.2 times for ten of 650); with twelve, sums would leave the registers.
TILE_ROWS = 11 if REGISTERS == 32 else 6
# Of a single row, panels of so many units are read one after the other, not side by side.
# Measured on a Zen 5 with weights in the second cache: 237 GB/s in place of 205, and 0.88 of the
# time of an LSTM of 192 or 256 units in inference; nothing is gained with fewer units or more.
_ONE_BY_ONE = range(97, 601) if WIDE_ZEN else range(0)
# So many panels at once, at most, of several rows and of a single one: what is read of the operand
# serves them all.
PANELS, SINGLE_PANELS = 2, 4 if REGISTERS == 32 else 2
# Tiles of so many rows or more ask for the weights of so many units ahead. Measured on a Xeon: with
# 4 MB of weights 1.0 to 1.25 times the rate, with 1 MB 1.02 to 1.09 times, with less the same; 8 to
# 64 units ahead are alike. With fewer rows and weights in the first cache it is down to 0.8. On a
# Zen 5 a single row lost, too, and more are at the machine's rate; a Zen 3 lost up to a tenth.
_FETCHING_ROWS, _UNITS_AHEAD = 5, 16
# Units that a tile of several rows takes in a turn of its loop. What counts while somebody shares
# the core are instructions; turns and addresses were a fifth of them. Measured on a Zen 3, loud:
# 1.02 to 1.13 times the rate of two in a turn, or one in tiles of up to four rows; quiet the same.
_AT_ONCE = 4
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
    def at_once(self) -> int:
        """How many units of the operand a turn of the loop takes."""
        return 2 if self.chains == 2 else _AT_ONCE

    @property
    def served(self) -> bool:
        """Whether it has registers: 12 sums at most, or 24 where there are twice as many."""
        return self.rows * self.vectors <= REGISTERS * 3 // 4

    @property
    def fetches(self) -> bool:
        """Whether it asks for weights before it reads them."""
        return self.rows >= _FETCHING_ROWS and not ZEN

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
        self.operands = self.going(self.rows(operand, operand_step, tile.rows), operand_step)
        self.panels = self.going(self.rows(panel, span, tile.panels), span)
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

    def going(self, starts: list[Any], step: Any) -> Rows:
        """Rows that the tile goes along; a single one begins with fewer instructions so."""
        if self.tile.rows == 1:
            return Rows(self.builder, starts)
        return ManyRows(self.builder, starts, step)

    def place(self, pointer: Any, vector: int) -> Any:
        """The address of a row's vector."""
        pointer = self.at(pointer, self.whole(vector * self.lanes))
        return self.builder.bitcast(pointer, self.vector.as_pointer())

    def write(self) -> None:
        tile, zero = self.tile, filled(self.vector, 0.0)
        many = self.builder.and_(self.units, self.whole(-tile.at_once))
        start = [[zero] * (tile.rows * tile.vectors)] * tile.chains
        sums = self.loop(self.whole(0), many, start, tile.at_once)
        if tile.chains == 2:
            sums = [[self.builder.fadd(a, b) for a, b in zip(*sums, strict=True)]]
        if tile.at_once > 1:
            sums = self.loop(many, self.units, sums, 1)
        self.finish(sums[0])

    def loop(self, start: Any, stop: Any, chains: list[list[Any]], at_once: int) -> list[list[Any]]:
        """Add the units from start to stop to the sums, some in a turn, each chain taking one."""
        builder = self.builder
        before = builder.block
        head, body, after = (builder.append_basic_block(name) for name in ("head", "unit", "after"))
        builder.branch(head)
        builder.position_at_end(head)
        k = self.phi((start, before))
        self.operands.enter(before)
        self.panels.enter(before)
        phis = [[self.phi((total, before)) for total in sums] for sums in chains]
        builder.cbranch(builder.icmp_signed("<", k, stop), body, after)
        builder.position_at_end(body)
        found = [list(sums) for sums in phis]
        for number in range(at_once):
            chain = number % len(chains)
            found[chain] = self.unit(k, number, found[chain])
        for sums, more in zip(phis, found, strict=True):
            for phi, total in zip(sums, more, strict=True):
                phi.add_incoming(total, body)
        k.add_incoming(builder.add(k, self.whole(at_once)), body)
        for rows, step in (self.operands, at_once), (self.panels, at_once * self.width):
            rows.go_on(self.whole(step))
            rows.leave(body)
        builder.branch(head)
        builder.position_at_end(after)
        return phis

    def phi(self, *incoming: tuple[Any, Any]) -> Any:
        phi = self.builder.phi(incoming[0][0].type)
        for value, block in incoming:
            phi.add_incoming(value, block)
        return phi

    def unit(self, k: Any, number: int, sums: list[Any]) -> list[Any]:
        """A unit of the operand times its row of weights, added to the sums of one chain.

        It is the one with this number in a turn of the loop, which begins at unit k.
        """
        start = self.builder.mul(k, self.whole(self.width))
        panels = self.panels.places(start, number * self.width)
        if self.tile.fetches:
            self.fetch(panels)
        rows = [partial(self.factor, place) for place in self.operands.places(k, number)]
        columns = [partial(self.weights, place, v) for place in panels for v in range(PANEL)]
        return with_products(self.builder, sums, rows, columns)

    def factor(self, place: Any) -> Any:
        """The number that a row of the operand has for a unit, in all lanes."""
        return spread(self.builder, self.builder.load(place), self.vector)

    def weights(self, place: Any, vector: int) -> Any:
        """One vector of a unit's row of weights."""
        return self.builder.load(self.place(place, vector), align=self.size)

    def fetch(self, panels: list[Any]) -> None:
        """Ask for the rows of weights of a unit to come; beyond the last, for what comes next."""
        ahead, lines = _UNITS_AHEAD * self.width, range(0, self.width, LINE // self.size)
        for panel, line in itertools.product(panels, lines):
            fetch_line(self.builder, self.at(panel, self.whole(ahead + line)))

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


def write_tile(builder: Any, vector: Any, *arguments: Any) -> None:
    """Call the tile for this many rows, two or more, and panels, which come last."""
    *given, rows, panels = arguments
    number = builder.add(builder.mul(rows, ir.Constant(_WHOLE, PANELS + 1)), panels)
    after = builder.append_basic_block("after")
    choice = builder.switch(number, after)
    for height, count in itertools.product(range(2, TILE_ROWS + 1), range(1, PANELS + 1)):
        block = builder.append_basic_block(f"tile_{height}x{count}")
        choice.add_case(ir.Constant(_WHOLE, height * (PANELS + 1) + count), block)
        builder.position_at_end(block)
        _call_tile(builder, _Tile(height, count, vector), *given)
        builder.branch(after)
    builder.position_at_end(after)


def _call_tile(
    builder: Any, tile: _Tile, operand: Any, operand_step: Any, panel: Any, span: Any, out: Any,
    out_step: Any, hop: Any, left: Any, fewer: Any,
) -> None:  # fmt: skip
    given = operand, operand_step, panel, span, out, out_step, hop, left, fewer
    if tile.served:
        builder.call(tile.function(builder.module), given)
        return
    half = _Tile(tile.rows, 1, tile.vector).function(builder.module)
    builder.call(half, given)
    panel, out = (builder.gep(a, [b], inbounds=True) for a, b in ((panel, span), (out, hop)))
    left = builder.sub(left, fewer)
    builder.call(half, (operand, operand_step, panel, span, out, out_step, hop, left, fewer))


def write_row(builder: Any, vector: Any, *arguments: Any) -> None:
    """Compute a single row of some panels: by tiles in this function, with nothing around them."""
    _Row(builder, vector, *arguments).write()


class _Row:
    """Writes the function for a single row and some panels, at most `SINGLE_PANELS`.

    Its arguments are those of a tile but for the steps of rows, and how many panels there are.
    """

    def __init__(self, builder: Any, vector: Any, *arguments: Any) -> None:
        self.builder, self.vector = builder, vector
        self.operand, self.panel, self.span, self.out, self.hop, *edge = arguments
        self.left, self.fewer, self.panels = edge

    def write(self) -> None:
        if not _ONE_BY_ONE:
            self.together()
            return
        with self.builder.if_else(self.is_apart()) as (apart, together):
            with apart:
                self.one_by_one()
            with together:
                self.together()

    def is_apart(self) -> Any:
        """Whether it has so many units that panels are read one by one."""
        builder, width = self.builder, PANEL * self.vector.count
        least, most = (ir.Constant(_WHOLE, n * width) for n in (_ONE_BY_ONE[0], _ONE_BY_ONE[-1]))
        some = builder.icmp_signed(">=", self.span, least)
        return builder.and_(some, builder.icmp_signed("<=", self.span, most))

    def one_by_one(self) -> None:
        with cgutils.for_range(self.builder, self.panels) as loop:
            self.tile(1, loop.index)

    def together(self) -> None:
        builder = self.builder
        after = builder.append_basic_block("after")
        choice = builder.switch(self.panels, after)
        for count in range(1, SINGLE_PANELS + 1):
            block = builder.append_basic_block(f"tile_1x{count}")
            choice.add_case(ir.Constant(_WHOLE, count), block)
            builder.position_at_end(block)
            self.tile(count, ir.Constant(_WHOLE, 0))
            builder.branch(after)
        builder.position_at_end(after)

    def tile(self, count: int, number: Any) -> None:
        """The tile of so many panels from one of them on; without a call."""
        builder, none = self.builder, ir.Constant(_WHOLE, 0)
        panel, out = (
            builder.gep(start, [builder.mul(number, step)], inbounds=True)
            for start, step in ((self.panel, self.span), (self.out, self.hop))
        )
        left = builder.sub(self.left, builder.mul(number, self.fewer))
        _Writer(
            _Tile(1, count, self.vector), builder, self.operand, none, panel, self.span, out, none,
            self.hop, left, self.fewer,
        ).write()  # fmt: skip

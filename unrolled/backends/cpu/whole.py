"""A whole pass over a short sequence by one function with one argument.

A long sequence pays for its products by a BLAS, for threads and for arrays of its own; of a short
one they would be most of the time. Here one compiled function does all that `plan.py` does in many
calls: the products before the loop, the work unit by unit, the loop, what comes after it, and the
gradients of parameters. The functions of the kernel are the same ones; products outside of the loop
are those of `small_products`. What is neither given nor wanted lies in memory of the table, which
is the same from call to call.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ...program import Total
from ...schedule import Outer, Product
from ..blocks import lying_together
from .layout import AFTER, BEFORE, LOOP, Layout
from .packing import packed_shape
from .products import TILE_ROWS
from .tables import (
    ALL_ROWS,
    BATCH,
    LENGTH,
    ONE_ROW,
    Axis,
    axis_of,
    letters_of,
    shape_of,
    written_shape,
    written_sum,
)
from .text import FunctionText, loop_products
from .units import parameters_of, width_of
from .vectors import lanes

COUNTS = ("length", "batch", "reverse", "zero", "one")
STEPS = ("active", "offset", "lengths")


class WholeText:
    """The text of the function.

    Args:
        layout: which array each value lies in.
        functions: name → the text of each of the kernel's other functions.

    Attributes:
        pointers: the arrays whose addresses change from call to call: inputs, outputs, the states
            given, the states handed on, families of parameters and, of an adjoint program, their
            gradients. States given may be missing (address 0), which are then zero; so may
            gradients that are not wanted, and outputs of an adjoint program if not `needs_after`.
        scratch: the other arrays.
        axes: of each array its axes.
        table: the name of what each place of the table holds.
        needs_after: whether gradients of parameters need what is computed after the loop, and so
            an output of an adjoint program must have a place even where it is not wanted.
    """

    function = "whole"

    def __init__(self, layout: Layout, functions: Mapping[str, FunctionText]) -> None:
        self.layout = layout
        self.program = layout.schedule.program
        self.functions = functions
        self.needs_after = layout.schedule.stages_of_totals > 0
        states = [*layout.states.values()]
        self.given = {state: f"{state.removesuffix('_rows')}_given" for state in states}
        self.families = {
            family: parameters_of(family) for family, blocks in self.program.families.items()
            if blocks
        }  # fmt: skip
        self.totals = (
            {family: f"d{family}_totals" for family in self.families}
            if self.program.adjoint
            else {}
        )
        self.axes: dict[str, tuple[Axis, ...]] = dict(self._axes())
        self.tiles = {name: slab for name, slab in layout.slabs.items() if slab.tile}
        self.packed = {
            f"packed_{number}": product for number, product in enumerate(loop_products(layout))
        }
        self.pointers = [
            *layout.inputs, *layout.outputs, *self.given.values(), *states,
            *self.families.values(), *self.totals.values(),
        ]  # fmt: skip
        self.body = list(self._body())
        self.scratch = [name for name in self.axes if name not in self.pointers]
        self.scratch += [*self.packed, *self.tiles]
        used = (letter for text in functions.values() for letter in text.letters)
        known = (f"{letter}_size" for letter in letters_of(self.axes.values()))
        self.letters = [*dict.fromkeys((*known, *used))]
        shapes = (axis_of(name, axis) for name in (*self.packed, *self.tiles) for axis in (0, 1))
        self.table = [
            *self.pointers, *COUNTS, *STEPS, *self.letters, *self.scratch, *shapes,
        ]  # fmt: skip

    def shape(
        self, name: str, sizes: Mapping[str, int], length: int, batch: int, dtype: np.dtype[Any]
    ) -> tuple[int, ...]:
        """The shape of one of its arrays."""
        if name in self.packed:
            product = self.packed[name]
            letter = self.program.sizes[product.results[0]]
            (K,) = shape_of(self._matrix(product)[:1], sizes, 0, 0)
            vectors = self.layout.vectors_of_group(letter, sizes[letter], dtype, batch)
            return packed_shape(K, len(product.results), sizes[letter], vectors, dtype)
        if name in self.tiles:
            values = self.tiles[name].values
            width = self.numbers(sizes, batch, dtype)[width_of(self.program.sizes[values[0]])]
            return TILE_ROWS, len(values) * width
        return shape_of(self.axes[name], sizes, length, batch)

    def numbers(self, sizes: Mapping[str, int], batch: int, dtype: np.dtype[Any]) -> dict[str, int]:
        """The numbers of its table that only it knows: how many units groups have."""
        return {
            width_of(letter): lanes(dtype)
            * self.layout.vectors_of_group(letter, sizes[letter], dtype, batch)
            for letter in self.layout.vectors
        }

    def lines(self) -> Iterator[str]:
        """The function's definition."""
        place = {name: number for number, name in enumerate(self.table)}
        yield f"def {self.function}(address):"
        yield f"    table = table_at(address, {len(self.table)})"
        for name in (*COUNTS, *self.letters):
            test = " != 0" if name == "reverse" else ""
            yield f"    {name} = table[{place[name]}]{test}"
        for name in STEPS:
            shape = written_shape((BATCH if name == "lengths" else LENGTH,))
            yield f"    {name} = array_at(table[{place[name]}], {shape}, np.int64)"
        for name, axes in self.axes.items():
            yield f"    {name} = array_at(table[{place[name]}], {written_shape(axes)}, real)"
        for name in (*self.packed, *self.tiles):
            sizes = ", ".join(f"table[{place[axis_of(name, axis)]}]" for axis in (0, 1))
            yield f"    {name} = array_at(table[{place[name]}], ({sizes}), real)"
        yield "    mode = flush_denormals()"
        yield from (f"    {line}" for line in self.body)
        yield "    restore_mode(mode)"

    def _body(self) -> Iterator[str]:
        for state, given in self.given.items():
            yield f"if {self._there(given)}:"
            yield f"    copy({given}, {state})"
            yield "else:"
            yield f"    set_all({state}, 0.0)"
        for sums in self.layout.row_sums.values():
            yield f"set_all({sums}, 0.0)"
        yield from self._section(BEFORE)
        for packed, product in self.packed.items():
            yield from self._packing(packed, product)
        yield from self._call("loop")
        if self.program.adjoint and not self.needs_after:
            after = list(self._section(AFTER))
            yield from self._if_any(self.layout.outputs, after) if after else ()
        else:
            yield from self._section(AFTER)
        yield from self._gradients() if self.program.adjoint else ()

    def _section(self, section: int) -> Iterator[str]:
        word = "before" if section == BEFORE else "after"
        for number, stage in enumerate(self.layout.sections[section]):
            for product in stage.products:
                yield f"# {product}"
                yield from self._product(product)
            if f"{word}_{number}" in self.functions:
                yield from self._call(f"{word}_{number}")

    def _call(self, name: str) -> Iterator[str]:
        """Call one of the kernel's functions for all rows and steps."""
        text = self.functions[name]
        last, sharing = ("batch", "zero, one, table, ") if text.section == LOOP else ("length", "")
        yield f"{name}("
        yield f"    zero, zero, {last}, {sharing}reverse, {', '.join(STEPS)},"
        yield from (f"    {argument}," for argument in text.arguments)
        yield ")"

    def _there(self, array: str) -> str:
        """Whether the caller has given an array."""
        return f"table[{self.pointers.index(array)}] != 0"

    def _if_any(self, arrays: Sequence[str], lines: Iterable[str]) -> Iterator[str]:
        yield f"if {' or '.join(map(self._there, arrays))}:"
        yield from (f"    {line}" for line in lines)

    # products

    def _product(self, product: Product) -> Iterator[str]:
        """A product outside of the loop."""
        a, out = self._columns(product.operands), self.layout.results[product]
        rows, columns = self._matrix(product)
        out = f"{out}[0 : {ALL_ROWS}, 0 : {written_sum(columns)}]"
        start: list[str] = []
        if product.operation == "matmul":
            turned = f"turned_{len([name for name in self.axes if name.startswith('turned_')])}"
            self.axes[turned] = (rows, columns)
            units = f"0 : {written_sum(rows)}"
            for weights, heights in self._stretches(product.blocks):
                here = _slice(start, heights)
                yield f"transpose({weights}, {turned}[{units}, {here}])"
                start += heights
            yield f"product({a}, {turned}[{units}, 0 : {written_sum(columns)}], {out})"
        else:
            slab, position = self._found(product.operands)
            before = self.layout.columns_before(slab, position)
            for number, (weights, heights) in enumerate(self._stretches(product.blocks)):
                verb = "add_product" if number else "product"
                here = _slice([*before, *start], heights)
                yield f"{verb}({slab}[0 : {ALL_ROWS}, {here}], {weights}, {out})"
                start += heights

    def _packing(self, packed: str, product: Product) -> Iterator[str]:
        yield f"# {product}"
        mark = ".T" if product.operation == "matmul" else ""
        width = width_of(self.program.sizes[product.results[0]])
        how = f"{len(product.results)}, {width} // LANES, {packed}"
        together = lying_together(self.program, product.blocks)
        if len(together) == 1:
            family, rows = self._place(together[0])
            yield f"pack({family}[{rows}]{mark}, {how})"
            return
        stacked, start = f"stacked_{packed.removeprefix('packed_')}", list[str]()
        matrix = self._matrix(product)
        self.axes[stacked] = matrix[::-1] if mark else matrix
        for blocks in together:
            family, rows = self._place(blocks)
            heights = self._heights(blocks)
            yield f"copy({family}[{rows}], {stacked}[{_slice(start, heights)}])"
            start += heights
        yield f"pack({stacked}{mark}, {how})"

    def _matrix(self, product: Product) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The sizes of a product's matrix as it is multiplied: (operand, result)."""
        heights = tuple(self._heights(product.blocks))
        widths = self.program.shapes[product.blocks[0]][1:]
        return (widths, heights) if product.operation == "matmul" else (heights, widths)

    def _heights(self, blocks: Iterable[str]) -> list[str]:
        return [self.program.shapes[block][0] for block in blocks]

    def _stretches(self, blocks: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
        """Matrices of parameters that lie one below the other: their text, and their heights."""
        for together in lying_together(self.program, blocks):
            family, rows = self._place(together)
            width = written_sum(self.program.shapes[together[0]][1:])
            yield f"{family}[{rows}, 0 : {width}]", self._heights(together)

    def _place(self, blocks: Sequence[str], array: Mapping[str, str] | None = None) -> Any:
        """The array of some blocks that lie together, and their rows there."""
        family = blocks[0].split(".")[0]
        members = self.program.families[family]
        before = self._heights(members[: members.index(blocks[0])])
        return (array or self.families)[family], _slice(before, self._heights(blocks))

    def _found(self, values: tuple[str, ...]) -> tuple[str, int]:
        found = self.layout.find(values, steps=True)
        assert found is not None, f"{values} lie nowhere side by side"
        return found

    def _columns(self, values: tuple[str, ...]) -> str:
        """Values of all steps, side by side."""
        slab, position = self._found(values)
        before = self.layout.columns_before(slab, position)
        here = _slice(before, [self.program.sizes[value] for value in values])
        return f"{slab}[0 : {ALL_ROWS}, {here}]"

    # gradients of parameters

    def _gradients(self) -> Iterator[str]:
        started: set[str] = set()
        for outer in self.layout.schedule.outers:
            yield f"# {outer}"
            for family, lines in self._outer(outer, started):
                yield from self._if_any([self.totals[family]], lines)
        if self.layout.schedule.sums:
            self.axes["ones"] = (ONE_ROW, ALL_ROWS)
            yield "set_all(ones, 1.0)"
        for totals in self._sums_together():
            yield f"# {', '.join(f'd{total.parameter}' for total in totals)}"
            blocks = [total.parameter for total in totals]
            verb = "add_product" if started.issuperset(blocks) else "product"
            started.update(blocks)
            array, rows = self._place(blocks, self.totals)
            if totals[0] in self.layout.row_sums:
                sums = self.layout.row_sums[totals[0]]
                columns = written_sum(self._heights(blocks))
                a, b = f"ones[0:1, 0:{BATCH}]", f"{sums}[0:{BATCH}, 0 : {columns}]"
            else:
                a = f"ones[0:1, 0 : {ALL_ROWS}]"
                b = self._columns(tuple(total.factors[0] for total in totals))
            yield from self._if_any([array], [f"{verb}({a}, {b}, {array}[0:1, {rows}])"])
        for family, members in self.program.families.items():
            for block in (block for block in members if block not in started):
                array, rows = self._place([block], self.totals)
                place = f"0:1, {rows}" if self._is_vector(family) else rows
                yield from self._if_any([array], [f"set_all({array}[{place}], 0.0)"])

    def _outer(self, outer: Outer, started: set[str]) -> Iterator[tuple[str, list[str]]]:
        """Σ vectors ⊗ operand: family → what adds its blocks' part up."""
        slab, position = self._found(outer.vectors)
        before = [*self.layout.columns_before(slab, position)]
        operand = self._columns((outer.operand,))
        width = f"0 : {written_sum([self.program.sizes[outer.operand]])}"
        for together in lying_together(self.program, outer.blocks):
            fresh = started.isdisjoint(together)
            for blocks in [together] if fresh else [(block,) for block in together]:
                verb = "product" if started.isdisjoint(blocks) else "add_product"
                heights = self._heights(blocks)
                vectors = f"{slab}[0 : {ALL_ROWS}, {_slice(before, heights)}].T"
                array, rows = self._place(blocks, self.totals)
                yield (
                    blocks[0].split(".")[0],
                    [f"{verb}({vectors}, {operand}, {array}[{rows}, {width}])"],
                )
                started.update(blocks)
                before += heights

    def _sums_together(self) -> list[list[Total]]:
        """Sums in groups whose vectors, and whose parameters, lie side by side.

        A parameter that has a sum already is in a group of its own.
        """
        groups: list[list[Total]] = []
        seen: set[str] = set()
        joins = False
        for total in self.layout.schedule.sums:
            fresh = total.parameter not in seen and total not in self.layout.row_sums
            group = [*groups[-1], total] if groups else [total]
            vectors = tuple(one.factors[0] for one in group)
            if (
                fresh
                and joins
                and len(lying_together(self.program, [one.parameter for one in group])) == 1
                and self.layout.find(vectors, steps=True) is not None
            ):
                groups[-1] = group
            else:
                groups.append([total])
                joins = fresh
            seen.add(total.parameter)
        return groups

    # arrays

    def _axes(self) -> Iterator[tuple[str, tuple[Axis, ...]]]:
        program, layout = self.program, self.layout
        for name, slab in layout.slabs.items():
            if slab.tile:
                continue
            states = [state for state, buffer in layout.pending.items() if buffer == name]
            columns = tuple(program.sizes[value] for value in (slab.values or states))
            yield name, (ALL_ROWS if slab.steps else ONE_ROW if slab.scratch else BATCH, columns)
            if name in self.given:
                yield self.given[name], (BATCH, columns)
        for total, sums in layout.row_sums.items():
            yield sums, (BATCH, (program.shapes[total.parameter][0],))
        for family, array in self.families.items():
            blocks = program.families[family]
            stacked = tuple(self._heights(blocks))
            widths = tuple((letter,) for letter in program.shapes[blocks[0]][1:])
            yield array, (stacked, *widths)
            if family in self.totals:
                vector = self._is_vector(family)
                yield self.totals[family], (ONE_ROW, stacked) if vector else (stacked, *widths)

    def _is_vector(self, family: str) -> bool:
        return len(self.program.shapes[self.program.families[family][0]]) == 1


def _slice(before: Sequence[str], here: Sequence[str]) -> str:
    """From the end of some sizes on, those that follow."""
    start, stop = written_sum([*before]), written_sum([*before, *here])
    return f"{start} : {stop}"

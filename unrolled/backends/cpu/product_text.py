"""The text of products outside of the loop, and of packing those inside: on windows of arrays.

Of each product outside of the loop a thread has some columns or rows of the result, `first` to
`last` of them. Arrays with rows of all steps give those of a chunk, `begin` to `end`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from ...program import Program, Total
from ...schedule import Outer, Product
from ..blocks import lying_together
from .layout import Layout
from .sums import sums_together
from .tables import ALL_ROWS, FIRST, LENGTH, THREADS, Axis, written_sum
from .team import FILLED
from .units import width_of

MEET = "meet(table, shares)"
ONES = "ones"  # an array of ones, a row
ADDS, WRITES = "np.bool_(True)", "np.bool_(False)"  # for literals, functions are compiled anew


class ProductText:
    """Writes products on whole arrays.

    Attributes:
        layout: which array each value lies in.
        program: what is computed.
        families: family of parameters → its array.
        totals: the same of their gradients; none but of an adjoint program.
        pointers: the arrays that the caller gives, or leaves out.
        axes: of each array its axes.
        operands: how many units products outside of the loop add up.
        lying: the packed matrices that need not be → what tells whether they are not.
        lasting: the arrays in which weights stay packed for the next call.
        infers: whether it is a forward pass that keeps nothing: its weights may be those of the
            call before, where those of training are others each time.
    """

    layout: Layout
    program: Program
    families: Mapping[str, str]
    totals: Mapping[str, str]
    pointers: list[str]
    axes: dict[str, tuple[Axis, ...]]
    operands: list[Axis]
    lying: Mapping[str, str]
    lasting: set[str]
    infers: bool

    def _there(self, array: str) -> str:
        """Whether the caller has given an array."""
        return f"held(table, {FIRST + self.pointers.index(array)}) != 0"

    def _if_any(self, arrays: Sequence[str], lines: Iterable[str]) -> Iterator[str]:
        yield f"if {' or '.join(map(self._there, arrays))}:"
        yield from (f"    {line}" for line in lines)

    def _product(self, product: Product) -> Iterator[str]:
        """A product outside of the loop: some columns of `a @ b.T`, or some rows of `a @ b`."""
        slab, position = self._found(product.operands)
        out = self.layout.results[product]
        rows, columns = self._matrix(product)
        start: list[str] = []
        self.operands.append(rows)
        if product.operation == "matmul":
            a = self._columns(product.operands)
            for family, above, width, heights in self._stretches(product.blocks):
                yield f"first, last = share_of({written_sum(heights)}, share, shares, LANES)"
                weights = window(family, _share(above), f"0, {width}")
                here = window(out, "begin, end", _share(start))
                yield f"if few({ALL_ROWS}, {width}):"
                yield f"    dots({weights}, 0, last - first, {a}, 0, end - begin, {here}, 0, 0)"
                yield "else:"
                yield f"    product({a}, {weights}.T, {here}, {WRITES}, room)"
                start += heights
            return
        yield "first, last = share_of(end - begin, share, shares, 1)"
        before = self.layout.columns_before(slab, position)
        rows_here = "begin + first, begin + last"
        here = window(out, rows_here, f"0, {written_sum(columns)}")
        for number, found in enumerate(self._stretches(product.blocks)):
            family, above, width, heights = found
            operand = window(slab, rows_here, _behind([*before, *start], heights))
            weights = window(family, _behind(above, heights), f"0, {width}")
            adds = ADDS if number else WRITES
            yield f"product({operand}, {weights}, {here}, {adds}, room)"
            start += heights

    def _packing(self, packed: str, product: Product) -> Iterator[str]:
        """Each thread packs some groups: those that it will read, if threads share the units."""
        yield f"# {product}"
        letter, turned = self.program.sizes[product.results[0]], product.operation == "matmul"
        width, mark = width_of(letter), ".T" if turned else ""
        how = f"{len(product.results)}, {width} // LANES, {packed}, groups[0], groups[1]"
        number, stretches = packed.removeprefix("packed_"), list(self._stretches(product.blocks))
        shape = self._matrix(product)[::-1] if turned else self._matrix(product)
        fill = f"fill({{}}{mark}, {how})"
        if len(stretches) == 1:
            ((family, above, columns, heights),) = stretches
            weights = window(family, _behind(above, heights), f"0, {columns}")
            if turned and self.infers:
                used = f"used_{number}"
                self.axes[used] = shape
                self.lasting |= {packed, used}
                fill = f"fill_changed({{}}.T, {how}, {used}, held(table, {FILLED}))"
        else:
            weights, start = f"stacked_{number}", list[str]()
            self.axes[weights] = shape
            yield "if share == 0:"
            for family, above, columns, heights in stretches:
                given = window(family, _behind(above, heights), f"0, {columns}")
                stacked = window(weights, _behind(start, heights), f"0, {columns}")
                yield f"    copy({given}, {stacked})"
                start += heights
            yield MEET
        lines = [
            f"groups = groups_of({letter}_size, share, shares, {width})",
            fill.format(weights),
        ]
        if packed in self.lying:
            yield f"if not {self.lying[packed]}:"
            lines = [f"    {line}" for line in lines]
        yield from lines

    def _matrix(self, product: Product) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The sizes of a product's matrix as it is multiplied: (operand, result)."""
        heights = tuple(self._heights(product.blocks))
        widths = self.program.shapes[product.blocks[0]][1:]
        return (widths, heights) if product.operation == "matmul" else (heights, widths)

    def _heights(self, blocks: Iterable[str]) -> list[str]:
        return [self.program.shapes[block][0] for block in blocks]

    def _stretches(self, blocks: Sequence[str]) -> Iterator[tuple[str, list[str], str, list[str]]]:
        """Matrices of parameters that lie one below the other.

        Of each the array of its family, the heights of what stands above it there, how many columns
        it has, and the heights of its blocks.
        """
        for together in lying_together(self.program, blocks):
            family = self.families[together[0].split(".")[0]]
            width = written_sum(self.program.shapes[together[0]][1:])
            yield family, self._rows_above(together), width, self._heights(together)

    def _rows_above(self, blocks: Sequence[str]) -> list[str]:
        """The heights of what stands above some blocks in their family."""
        members = self.program.families[blocks[0].split(".")[0]]
        return self._heights(members[: members.index(blocks[0])])

    def _found(self, values: tuple[str, ...]) -> tuple[str, int]:
        found = self.layout.find(values, steps=True)
        assert found is not None, f"{values} lie nowhere side by side"
        return found

    def _columns(self, values: tuple[str, ...]) -> str:
        """Values of all steps, or of a chunk of them, side by side."""
        slab, position = self._found(values)
        before = self.layout.columns_before(slab, position)
        here = _behind(before, [self.program.sizes[value] for value in values])
        return window(slab, "begin, end", here)

    # gradients of parameters

    def _gradients(self) -> Iterator[str]:
        started: set[str] = set()
        for outer in self.layout.schedule.outers:
            yield f"# {outer}"
            for family, lines in self._outer(outer, started):
                yield from self._if_any([self.totals[family]], lines)
        for totals in sums_together(self.layout):
            yield f"# {', '.join(f'd{total.parameter}' for total in totals)}"
            blocks = [total.parameter for total in totals]
            adds = bool(started.intersection(blocks))
            started.update(blocks)
            yield from self._sum(totals, blocks, adds)
        for family, members in self.program.families.items():
            for block in (block for block in members if block not in started):
                array = self.totals[family]
                rows = _behind(self._rows_above([block]), self._heights([block]))
                width = written_sum(self.program.shapes[block][1:])
                place = ("0, 1", rows) if self._is_vector(family) else (rows, f"0, {width}")
                condition = f"if turn == 0 and share == 0 and {self._there(array)}:"
                yield from (condition, f"    set_all({window(array, *place)}, 0.0)")

    def _outer(self, outer: Outer, started: set[str]) -> Iterator[tuple[str, list[str]]]:
        """Σ vectors ⊗ operand: family → what adds its blocks' part up."""
        self.operands.append(ALL_ROWS)
        slab, position = self._found(outer.vectors)
        before = [*self.layout.columns_before(slab, position)]
        operand = self._columns((outer.operand,))
        width = f"0, {written_sum([self.program.sizes[outer.operand]])}"
        for together in lying_together(self.program, outer.blocks):
            fresh = started.isdisjoint(together)
            for blocks in [together] if fresh else [(block,) for block in together]:
                adds = not started.isdisjoint(blocks)
                sums = ADDS if adds else "turn > 0"
                heights = self._heights(blocks)
                family = blocks[0].split(".")[0]
                vectors = f"{window(slab, 'begin, end', _share(before))}.T"
                here = window(self.totals[family], _share(self._rows_above(blocks)), width)
                yield (
                    family,
                    [
                        *([MEET] if adds else []),  # shares of these rows were others
                        f"first, last = share_of({written_sum(heights)}, share, shares, 1)",
                        f"product({vectors}, {operand}, {here}, {sums}, room)",
                    ],
                )
                started.update(blocks)
                before += heights

    def _sum(self, totals: Sequence[Total], blocks: Sequence[str], adds: bool) -> Iterator[str]:
        """Σ vectors, of totals whose vectors and parameters lie side by side."""
        in_loop = totals[0] in self.layout.loop_sums
        self.operands.append(THREADS if in_loop else ALL_ROWS)
        array, heights = self.totals[blocks[0].split(".")[0]], self._heights(blocks)
        here = window(array, "0, 1", _share(self._rows_above(blocks)))
        if in_loop:
            ones = window(ONES, "0, 1", f"0, {THREADS}")
            vectors = window(self.layout.loop_sums[totals[0]], f"0, {THREADS}", "first, last")
            begun = WRITES
        else:
            slab, position = self._found(tuple(total.factors[0] for total in totals))
            before = self.layout.columns_before(slab, position)
            ones = window(ONES, "0, 1", "0, end - begin")
            vectors = window(slab, "begin, end", _share(before))
            begun = "turn > 0"
        lines = [
            *([MEET] if adds else []),
            f"first, last = share_of({written_sum(heights)}, share, shares, LANES)",
            f"product({ones}, {vectors}, {here}, {ADDS if adds else begun}, room)",
        ]
        if in_loop:  # which the loop has added up when it has ended
            lines = [f"if until == {LENGTH}:", *(f"    {line}" for line in lines)]
        yield from self._if_any([array], lines)

    def _is_vector(self, family: str) -> bool:
        return len(self.program.shapes[self.program.families[family][0]]) == 1


def window(array: str, rows: str, columns: str) -> str:
    """Some rows and columns of an array: `first, last` of both."""
    return f"window({array}, {rows}, {columns})"


def _behind(before: Sequence[str], here: Sequence[str]) -> str:
    """From the end of some sizes on, those that follow."""
    return f"{written_sum([*before])}, {written_sum([*before, *here])}"


def _share(before: Sequence[str]) -> str:
    """From the end of some sizes on, a thread's share."""
    left = written_sum([*before])
    return f"{left} + first, {left} + last"

"""The text of the functions of a kernel: a layout written as Numba code.

Here stand the loop, its products and how threads share both; the work unit by unit is `units`.
"""

import textwrap
from collections.abc import Iterable, Iterator

from ...schedule import Product
from ..blocks import lying_together
from .layout import Layout
from .packing import PANEL
from .slabs import LOOP, Segment
from .units import UnitText

STEPS = ("reverse", "active", "offset", "lengths")


class FunctionText(UnitText):
    """One function: the stages of a section that run in one pass over the steps.

    Outside the loop the steps know nothing of each other, and a thread takes some of them. In the
    loop it takes some rows of the batch at all steps or, where there are too few, a share of the
    units: a range of each vector, and panels of each product.

    Args:
        layout: which array each value lies in.
        section: the part of the schedule.
        function: the function's name.
        run: the number of the first stage of the run that it is; all of the section if None.
    """

    def __init__(self, layout: Layout, section: int, function: str, run: int | None = None) -> None:
        super().__init__(layout, section)
        self.function = function
        self.lying = lying(layout)
        self.body = list(self._loop_stages() if run is None else self._run(run))
        self.loop = list(self._loop())
        self.shared = list(self._ranges())

    @property
    def arguments(self) -> tuple[str, ...]:
        """The function's arguments after what a thread takes and `STEPS`: sizes, then arrays."""
        return (*self.letters, *self.arrays)

    def lines(self) -> Iterator[str]:
        """The function's definition."""
        yield '@inner(fastmath={"contract"})'
        yield f"def {self.function}("
        sharing: tuple[str, ...] = ()
        if self.section == LOOP:
            sharing = ("begin", "end", "share", "shares", "table", *self.lying.values())
        for group in (("part", "first", "last", *sharing, *STEPS), self.letters, self.arrays):
            yield from textwrap.wrap(
                ", ".join(group) + ",", 96, initial_indent="    ", subsequent_indent="    "
            )
        yield "):"
        yield "    mode = flush_denormals()"
        yield from self._indented(1, self.shared)
        yield from self._indented(1, self.loop)
        yield "    restore_mode(mode)"

    def _ranges(self) -> Iterator[str]:
        """The ranges of groups and units that the function goes through."""
        share = "share, shares" if self.section == LOOP and self.layout.shareable else "0, 1"
        for letter in self.ranges:
            size, groups, width = self._letter(letter), f"{letter}_groups", self._width(letter)
            yield f"{groups} = groups_of({size}, {share}, {width})"
            names = ", ".join(self._range(letter))
            yield f"{names} = units_of({size}, {groups}, {width}, LANES)"
        if self.layout.fused and self.section == LOOP:
            yield "tile = GROUP_ROWS * (part + share)"

    def _loop(self) -> Iterator[str]:
        """The steps; forward programs go on in reading order, adjoint ones back."""
        if self.section != LOOP:
            yield "for step in range(first, last):"
            yield "    rows = active[step]"
            yield "    base = offset[step]"
            yield from self._indented(1, self.body)
            return
        yield from self._both_buffers()
        yield "for k in range(begin, end):"
        yield from self._indented(1, self._changing_places())
        yield f"    step = {self._step()}"
        yield "    rows = min(active[step], last) - first"
        yield "    if rows <= 0:"
        yield "        continue"
        yield "    base = offset[step]"
        if self.looks_ahead:
            yield f"    base_ahead = offset[{self._step(ahead=1)}] if k + 1 < end else base"
        yield from self._indented(1, self.body)
        # Rows that begin late are given their first state in both buffers, and end with the others.
        late = "not reverse" if self.program.adjoint else "reverse"
        if settled := list(self._settled(f"active.size if {late} else lengths[row]")):
            yield "if end == active.size:"
            yield from self._indented(1, settled)

    def _step(self, ahead: int = 0) -> str:
        """The number of the step in this turn of the loop, or in one ahead."""
        onwards, back = f"k + {ahead}" if ahead else "k", f"active.size - {1 + ahead} - k"
        if self.program.adjoint:
            onwards, back = back, onwards
        return f"{back} if reverse else {onwards}"

    def _both_buffers(self) -> Iterator[str]:
        for received, buffer in self.layout.pending.items():
            state = self.layout.states[received]
            yield f"{state}_first, {buffer}_second = {self._array(state)}, {self._array(buffer)}"

    def _changing_places(self) -> Iterator[str]:
        """What a step has made is what the next one reads."""
        if self.layout.pending:
            yield "if k > begin:"
        for received, buffer in self.layout.pending.items():
            state = self.layout.states[received]
            yield f"    {state}, {buffer} = {buffer}, {state}"

    def _settled(self, steps: str) -> Iterator[str]:
        """The last states, where the caller looks for them."""
        if not self.layout.pending:
            return
        yield from self._meeting()
        yield "for row in range(first, last):"
        yield f"    steps = {steps}"
        yield "    if steps % 2:"
        for received, buffer in self.layout.pending.items():
            begin, end, tail = self._range(self.program.sizes[received])
            state = self.layout.states[received]
            there = f"row, {begin}, {end} + {tail}"
            yield f"        copy_row({buffer}_second, {state}_first, {there})"

    # stages

    def _loop_stages(self) -> Iterator[str]:
        stages, runs = self.layout.sections[LOOP], self.layout.runs(LOOP)
        for number in range(max([len(stages), *(number + 1 for number in runs)])):
            products = stages[number].products if number < len(stages) else ()
            segments = runs.get(number, [])
            yield from self._meeting() if products else ()
            if number in self.layout.fused:
                yield from self._fused(products, segments)
                size = self.program.sizes[products[0].results[0]]
                segments = [segment for segment in segments if segment.size != size]
            else:
                yield from self._awaited(number) if products else ()
                for product in products:
                    yield f"# {product}"
                    yield from self._product(product)
            if segments:
                yield from self._rows_of(segments)
        if self._waits_at_the_end():
            yield from self._meeting()

    def _run(self, number: int) -> Iterator[str]:
        """The segments of a run, one after the other for each row."""
        yield from self._rows_of(self.layout.runs(self.section)[number])

    def _rows_of(self, segments: Iterable[Segment]) -> Iterator[str]:
        known: set[str] = set()
        start = "first" if self.section == LOOP else "0"
        yield f"for row in range({start}, {start} + rows):"
        yield "    row = unforeseen(row)"
        yield "    at = base + row"
        for segment in segments:
            yield from self._indented(1, self._segment(segment, known))

    def _fused(self, products: Iterable[Product], segments: Iterable[Segment]) -> Iterator[str]:
        """Group by group of units, the products of some rows and the work on these units."""
        first_product = next(iter(products))
        letter = self.program.sizes[first_product.results[0]]
        self._range(letter)
        yield "high = height(rows, GROUP_ROWS)"
        yield f"for number in range({letter}_groups[0], {letter}_groups[1]):"
        yield f"    group = in_turn({letter}_groups, number, k)"
        self.group = letter
        names = ", ".join(self._range(letter))
        width = self._width(letter)
        yield f"    {names} = units_of({self._letter(letter)}, (group, group + 1), {width}, LANES)"
        yield "    start = first"
        yield "    while start < first + rows:"
        yield "        until = min(start + high, first + rows)"
        segments = [segment for segment in segments if segment.size == letter]
        for product in products:
            operand, packed = self._operand(product), self._packed(product)
            panels = f"{len(product.results)} * {width} // ({PANEL} * LANES)"
            row = "base + start" if self.layout.slabs[operand].steps else "start"
            out = self._array(self.layout.results[product])
            yield f"        # {product}"
            by_panels = (
                f"multiply_group({operand}, {row}, until - start, {packed}, group, "
                f"{panels}, {PANEL} * LANES, {out}, tile, k)"
            )
            by_dots = (
                f"dots_of_group({operand}, {row}, {packed}, group, {width}, "
                f"{self._letter(letter)}, {len(product.results)}, {out}, tile, 0, {width}, k)"
            )
            yield from self._indented(2, self._either(packed, by_dots, by_panels))
        yield "        for row in range(start, until):"
        yield "            row = unforeseen(row)"
        yield "            at = base + row"
        yield "            in_tile = tile + row - start"
        if any(list(self._asked_ahead(segment)) for segment in segments):
            self.looks_ahead = True
            yield "            ahead = at + 1 if row + 1 < first + rows else base_ahead + first"
        known: set[str] = set()
        for segment in segments:
            yield from self._indented(3, self._segment(segment, known))
        yield "        start = until"
        self.group = None

    def _awaited(self, number: int) -> Iterator[str]:
        """While products run that nothing is fused with, what a single row reads next comes nearer.

        That is what this step goes on with or, after its last products, what the next begins with.
        """
        stages, runs = self.layout.sections[LOOP], self.layout.runs(LOOP)
        if number in runs:
            condition, base = "rows == 1", "base"
        elif number == len(stages) - 1 and 0 in runs and not stages[0].products:
            condition, base = "rows == 1 and k + 1 < end", f"offset[{self._step(ahead=1)}]"
            number = 0
        else:
            return
        if lines := list(self._fetches(runs[number])):
            yield f"if {condition}:"
            yield f"    at = {base} + first"
            yield from self._indented(1, lines)

    def _fetches(self, segments: Iterable[Segment]) -> Iterator[str]:
        """Ask for the vectors of a row that segments read, and that the loop has not made."""
        made = {value for stage in self.layout.schedule.loop for value in stage.made}
        found: dict[str, dict[str, None]] = {}
        for segment in segments:
            for value in self.layout.read_by(segment):
                slab, position = self.layout.source(value, LOOP)
                if value not in made and self.layout.slabs[slab].steps:
                    column = self._column(slab, position)
                    line = f"    fetch({self._array(slab)}, at, {column})"
                    found.setdefault(segment.size, {})[line] = None
        for size, lines in found.items():
            begin, whole, _ = self._range(size)
            yield f"for j in range(unforeseen({begin}), {whole}, LANES):"
            yield from lines

    def _meeting(self) -> Iterator[str]:
        """All shares of what a product is given must be there before it.

        Its results are read by whoever has made them: products and the work unit by unit are shared
        in the same way.
        """
        if self.layout.shareable:
            yield "meet(table, shares)"

    def _waits_at_the_end(self) -> bool:
        """Whether a product might still read what the next step already writes."""
        stages, layout = self.layout.sections[LOOP], self.layout
        meetings = [number for number, stage in enumerate(stages) if stage.products]
        handed_on = dict(self.program.carried)
        for number in meetings:
            for product in stages[number].products:
                operand = layout.slabs[self._operand(product)]
                if operand.steps:
                    continue  # of each step its own rows
                # What a state changes places with is what the next step writes.
                written = (handed_on.get(value, value) for value in operand.values)
                for where in self._written_in_loop(tuple(written)):
                    if all(where < met <= number for met in meetings):
                        return True
        return False

    def _written_in_loop(self, values: tuple[str, ...]) -> Iterator[int]:
        """The stages of the loop that compute one of these values, or copy it to where it lies."""
        for (section, number), segments in self.layout.segments.items():
            for segment in segments if section == LOOP else ():
                made = {i.name for i in segment.instructions} | {*segment.copies, *segment.numbers}
                if not made.isdisjoint(values):
                    yield number
        for number, stage in enumerate(self.layout.sections[LOOP]):
            if any(not set(product.results).isdisjoint(values) for product in stage.products):
                yield number

    def _product(self, product: Product) -> Iterator[str]:
        operand, result = self._operand(product), self._array(self.layout.results[product])
        letter = self.program.sizes[product.results[0]]
        self._range(letter)
        row = "base + first" if self.layout.slabs[operand].steps else "first"
        packed, count = self._packed(product), len(product.results)
        by_panels = (
            f"multiply({operand}, {row}, rows, {packed}, {letter}_groups, "
            f"{PANEL} * LANES, {count}, {result}, first, k)"
        )
        by_dots = (
            f"dots_of_groups({operand}, {row}, {packed}, {letter}_groups, {PANEL} * LANES, "
            f"{self._letter(letter)}, {count}, {result}, first, k)"
        )
        yield from self._either(packed, by_dots, by_panels)

    def _either(self, packed: str, by_dots: str, by_panels: str) -> Iterator[str]:
        """A product with weights as they lie, if they may, or packed."""
        if packed not in self.lying:
            yield by_panels
            return
        yield f"if {self.lying[packed]}:"
        yield f"    {by_dots}"
        yield "else:"
        yield f"    {by_panels}"

    def _operand(self, product: Product) -> str:
        operand = self.layout.alone(product.operands)
        assert operand is not None, f"{product} has no operand array"
        return self._array(operand)

    def _packed(self, product: Product) -> str:
        return self._array(f"packed_{loop_products(self.layout).index(product)}")


def loop_products(layout: Layout) -> list[Product]:
    """The products of the loop, in order; `packed_0`, `packed_1` … are their matrices."""
    return [product for stage in layout.schedule.loop for product in stage.products]


def lying(layout: Layout) -> dict[str, str]:
    """Of the loop's matrices those that need not be packed: `packed_0` → `lies_0`, if it is not.

    They are read row by row, and all their blocks lie together.
    """
    program = layout.schedule.program
    return {
        f"packed_{number}": f"lies_{number}"
        for number, product in enumerate(loop_products(layout))
        if product.operation == "matmul" and len(lying_together(program, product.blocks)) == 1
    }

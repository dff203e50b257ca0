"""A whole pass over a sequence by one function with one argument.

A long sequence may pay for its products by a BLAS and for arrays of its own; of a short one they
would be most of the time. Here one compiled function does all that `plan.py` does in many calls:
the products before the loop, the work unit by unit, the loop, what comes after it, and the
gradients of parameters. The functions of the kernel are the same ones; products outside of the loop
are those of `outside`. What is neither given nor wanted lies in memory of the table, which is the
same from call to call.

A team of threads does it together. Of a product outside of the loop each thread has some columns or
rows of the result, of the work unit by unit some steps; they meet where one needs what another has
made. Or one of them goes through the loop, and another one does the work before and behind it,
chunk by chunk of steps (`pipeline`). No sum depends on how many come.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from ...program import Total
from ...schedule import Outer, Product
from ..blocks import lying_together
from .layout import AFTER, BEFORE, GRADIENTS, LOOP, Layout
from .outside import room_for_block, room_for_strip
from .packing import PANEL, packed_shape
from .products import TILE_ROWS
from .sums import sums_together
from .tables import (
    ALL_ROWS,
    BATCH,
    COUNTS,
    FIRST,
    LENGTH,
    ONE_ROW,
    THREADS,
    Axis,
    Extent,
    axis_of,
    letters_of,
    shape_of,
    written_shape,
    written_sum,
)
from .team import CUTS, PARTS, REVERSE, SHARES
from .text import FunctionText, loop_products
from .units import parameters_of, width_of
from .vectors import lanes

STEPS = ("active", "offset", "lengths")
UNITS_SHARED = "units_shared"  # whether threads share the units of a step, and not its rows
ROOMS = "rooms"  # memory that threads work in, each has a row
MEET = "meet(table, shares)"
ADDS, WRITES = "np.bool_(True)", "np.bool_(False)"  # for literals, functions are compiled anew
TITLES = ("before the loop", "the loop", "after the loop", "gradients of parameters")  # of tasks


class WholeText:
    """The text of the function.

    Args:
        layout: which array each value lies in.
        functions: name → the text of each of the kernel's other functions.

    Attributes:
        pointers: the arrays whose addresses change from call to call: inputs, outputs, the states
            given, the states handed on, families of parameters and, of an adjoint program, their
            gradients. States given may be missing (address 0), which are then zero; so may
            gradients that are not wanted, and outputs of an adjoint program if not
            `needs_outputs`.
        scratch: the other arrays.
        axes: of each array its axes.
        table: the name of what each place of the table behind its head holds.
        needs_outputs: whether outputs of an adjoint program must have a place even where they are
            not wanted: gradients of parameters need what is computed after the loop, or outputs
            are made before that, as dx is of an input that goes into no product.
    """

    function = "whole"

    def __init__(self, layout: Layout, functions: Mapping[str, FunctionText]) -> None:
        self.layout = layout
        self.program = layout.schedule.program
        self.functions = functions
        self.needs_outputs = layout.schedule.stages_of_totals > 0 or self._makes_outputs_early()
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
        self.operands: list[Axis] = []  # how many units products outside of the loop add up
        self.body = list(self._body())
        self.scratch = [name for name in self.axes if name not in self.pointers]
        self.scratch += [*self.packed, *self.tiles, *([ROOMS] if self.operands else [])]
        used = (letter for text in functions.values() for letter in text.letters)
        known = (f"{letter}_size" for letter in letters_of(self.axes.values()))
        self.letters = [*dict.fromkeys((*known, *used))]
        shapes = (axis_of(name, axis) for name in self._special for axis in (0, 1))
        self.table = [
            *self.pointers, *COUNTS, UNITS_SHARED, *STEPS, *self.letters, *self.scratch, *shapes,
        ]  # fmt: skip

    def _makes_outputs_early(self) -> bool:
        """Whether anything but the work after the loop writes outputs."""
        products = (p for stage in self.layout.schedule.before for p in stage.products)
        early = {self.layout.results[product] for product in products}
        for name, text in self.functions.items():
            early |= set() if name.startswith("after_") else set(text.arrays)
        return not early.isdisjoint(self.layout.outputs)

    @property
    def _special(self) -> tuple[str, ...]:
        """The arrays whose shapes are no sums of sizes; both axes stand in the table."""
        return *self.packed, *self.tiles, *([ROOMS] if self.operands else [])

    def shape(self, name: str, extent: Extent) -> tuple[int, ...]:
        """The shape of one of its arrays."""
        if name in self.packed:
            product = self.packed[name]
            letter = self.program.sizes[product.results[0]]
            (K,) = shape_of(self._matrix(product)[:1], extent)
            vectors, size = self._vectors(letter, extent), extent.sizes[letter]
            return packed_shape(K, len(product.results), size, vectors, extent.dtype)
        if name in self.tiles:
            values = self.tiles[name].values
            width = self.numbers(extent)[width_of(self.program.sizes[values[0]])]
            return TILE_ROWS * extent.sharing.threads, len(values) * width
        if name == ROOMS:
            strip = room_for_strip(max(shape_of((*self.operands,), extent)), extent.dtype)
            block = room_for_block(extent.steps.rows) if self.program.adjoint else 0
            return extent.sharing.threads, strip + block
        return shape_of(self.axes[name], extent)

    def numbers(self, extent: Extent) -> dict[str, int]:
        """The numbers of its table that only it knows: how many units groups have."""
        widths = {
            width_of(letter): lanes(extent.dtype) * self._vectors(letter, extent)
            for letter in self.layout.vectors
        }
        return {UNITS_SHARED: int(extent.sharing.shares > 1), **widths}

    def _vectors(self, letter: str, extent: Extent) -> int:
        return self.layout.vectors_of_group(
            letter, extent.sizes[letter], extent.dtype, extent.steps.batch, extent.sharing.shares
        )

    def lines(self) -> Iterator[str]:
        """The function's definition."""
        yield f"def {self.function}(address):"
        yield f"    table = table_at(address, {FIRST + len(self.table)})"
        yield "    while table.size:"
        yield "        thread, share, shares = enter(table)"
        yield "        if share < shares:"
        yield from (f"            {line}" for line in self._names())
        yield "            mode = flush_denormals()"
        yield from (f"            {line}" for line in self.body)
        yield "            restore_mode(mode)"
        yield "        table = table_behind(table)"

    def _names(self) -> Iterator[str]:
        """What the table holds gets its names."""
        place = {name: number for number, name in enumerate(self.table, FIRST)}
        yield f"reverse = table[{REVERSE}] != 0"
        yield f"threads = table[{SHARES}]"
        yield f"cuts = vector_at(table, {CUTS}, np.int64)"
        for name in (*COUNTS, UNITS_SHARED, *self.letters):
            yield f"{name} = table[{place[name]}]"
        for name in STEPS:
            shape = written_shape((BATCH if name == "lengths" else LENGTH,))
            yield f"{name} = array_at(table[{place[name]}], {shape}, np.int64)"
        for name, axes in self.axes.items():
            yield f"{name} = array_at(table[{place[name]}], {written_shape(axes)}, real)"
        for name in self._special:
            sizes = ", ".join(f"table[{place[axis_of(name, axis)]}]" for axis in (0, 1))
            yield f"{name} = array_at(table[{place[name]}], ({sizes}), real)"
        if self.operands:
            yield f"room = {_window(ROOMS, 'thread, thread + 1', f'0, {ROOMS}.shape[1]')}"

    def _body(self) -> Iterator[str]:
        """Task after task; where there is a pipeline, each comes again for each chunk of steps."""
        tasks = dict(self._tasks())
        first, last = min(tasks), max(tasks) + 1
        between = f"np.int64({first}), np.int64({last})"
        yield f"task, chunk = next_task(table, thread, np.int64(-1), {between})"
        yield f"while task < {last}:"
        yield f"    turn, until = turns_of(table, chunk, {LENGTH})"
        back, onwards = f"({LENGTH} - until, {LENGTH} - turn)", "(turn, until)"
        if self.program.adjoint:
            back, onwards = onwards, back
        yield f"    step, stop = {back} if reverse else {onwards}"
        yield "    begin, end = rows_of(step, stop, active, offset)"
        for task in range(first, last):
            yield f"    {'if' if task == first else 'elif'} task == {task}:  # {TITLES[task]}"
            yield from (f"        {line}" for line in tasks.get(task, ["pass"]))
        yield f"    task, chunk = next_task(table, thread, task, {between})"

    def _tasks(self) -> Iterator[tuple[int, list[str]]]:
        """What there is to do: the number of each task and its text."""
        if before := list(self._section(BEFORE)):
            yield BEFORE, before
        yield LOOP, list(self._loop())
        after = list(self._section(AFTER))
        gradients = list(self._gradients()) if self.program.adjoint else []
        if self.layout.schedule.stages_of_totals:
            yield AFTER, [*after, *gradients]
            return
        if after:
            adjoint = self.program.adjoint
            yield AFTER, list(self._if_any(self.layout.outputs, after)) if adjoint else after
        if gradients:
            yield GRADIENTS, gradients

    def _start(self) -> Iterator[str]:
        for state, given in self.given.items():
            yield f"if {self._there(given)}:"
            yield f"    copy({given}, {state})"
            yield "else:"
            yield f"    set_all({state}, 0.0)"
        for received, buffer in self.layout.pending.items():  # for rows that begin late
            yield f"copy({self.layout.states[received]}, {buffer})"
        for sums in self.layout.row_sums.values():
            yield f"set_all({sums}, 0.0)"
        if self.layout.schedule.sums:
            self.axes["ones"] = (ONE_ROW, ALL_ROWS)
            yield "set_all(ones, 1.0)"

    def _section(self, section: int) -> Iterator[str]:
        word = "before" if section == BEFORE else "after"
        waits = section == AFTER  # whether what comes next may need what another thread makes
        for number, stage in enumerate(self.layout.sections[section]):
            if stage.products:
                yield from [MEET] if waits else []
                for product in stage.products:
                    yield f"# {product}"
                    yield from self._product(product)
                waits = True
            if f"{word}_{number}" in self.functions:
                yield from [MEET] if waits else []
                yield "first, last = share_of(stop - step, share, shares, 1)"
                yield from self._call(f"{word}_{number}", "thread, step + first, step + last")
                waits = True

    def _loop(self) -> Iterator[str]:
        """The loop: each thread takes some units of all rows, or some rows."""
        yield "if turn == 0:"
        yield "    if share == 0:"
        yield from (f"        {line}" for line in self._start())
        for packed, product in self.packed.items():
            yield from (f"    {line}" for line in self._packing(packed, product))
        yield f"    {MEET}"
        yield f"if {UNITS_SHARED}:"
        yield "    start, stride, of_units, sharing = 0, 1, share, shares"
        yield "else:"
        yield "    start, stride, of_units, sharing = share, shares, 0, 1"
        yield f"for part in range(start, table[{PARTS}], stride):"
        taken = "part, cuts[part], cuts[part + 1], turn, until, of_units, sharing, table"
        yield from (f"    {line}" for line in self._call("loop", taken))

    def _call(self, name: str, taken: str) -> Iterator[str]:
        """Call one of the kernel's functions."""
        yield f"{name}("
        yield f"    {taken}, reverse, {', '.join(STEPS)},"
        yield from (f"    {argument}," for argument in self.functions[name].arguments)
        yield ")"

    def _there(self, array: str) -> str:
        """Whether the caller has given an array."""
        return f"table[{FIRST + self.pointers.index(array)}] != 0"

    def _if_any(self, arrays: Sequence[str], lines: Iterable[str]) -> Iterator[str]:
        yield f"if {' or '.join(map(self._there, arrays))}:"
        yield from (f"    {line}" for line in lines)

    # products

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
                weights = _window(family, _share(above), f"0, {width}")
                here = _window(out, "begin, end", _share(start))
                yield f"product({a}, {weights}.T, {here}, {WRITES}, room)"
                start += heights
            return
        yield "first, last = share_of(end - begin, share, shares, 1)"
        before = self.layout.columns_before(slab, position)
        rows_here = "begin + first, begin + last"
        here = _window(out, rows_here, f"0, {written_sum(columns)}")
        for number, found in enumerate(self._stretches(product.blocks)):
            family, above, width, heights = found
            operand = _window(slab, rows_here, _behind([*before, *start], heights))
            weights = _window(family, _behind(above, heights), f"0, {width}")
            adds = ADDS if number else WRITES
            yield f"product({operand}, {weights}, {here}, {adds}, room)"
            start += heights

    def _packing(self, packed: str, product: Product) -> Iterator[str]:
        yield f"# {product}"
        mark = ".T" if product.operation == "matmul" else ""
        blocks, letter = len(product.results), self.program.sizes[product.results[0]]
        width = width_of(letter)
        how = f"{blocks}, {width} // LANES, {packed}, first, last"
        # Each thread packs the groups that it will read, if threads share the units.
        panels = f"{blocks} * {width} // ({PANEL} * LANES)"
        stretches = list(self._stretches(product.blocks))
        if len(stretches) == 1:
            ((family, above, columns, heights),) = stretches
            weights = _window(family, _behind(above, heights), f"0, {columns}")
        else:
            weights, start = f"stacked_{packed.removeprefix('packed_')}", list[str]()
            matrix = self._matrix(product)
            self.axes[weights] = matrix[::-1] if mark else matrix
            yield "if share == 0:"
            for family, above, columns, heights in stretches:
                given = _window(family, _behind(above, heights), f"0, {columns}")
                stacked = _window(weights, _behind(start, heights), f"0, {columns}")
                yield f"    copy({given}, {stacked})"
                start += heights
            yield MEET
        yield f"groups = groups_of({letter}_size, share, shares, {width})"
        yield f"first, last = groups[0] * ({panels}), groups[1] * ({panels})"
        yield f"fill({weights}{mark}, {how})"

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
        return _window(slab, "begin, end", here)

    # gradients of parameters

    def _gradients(self) -> Iterator[str]:
        started: set[str] = set()
        yield MEET
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
                yield from (condition, f"    set_all({_window(array, *place)}, 0.0)")

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
                vectors = f"{_window(slab, 'begin, end', _share(before))}.T"
                here = _window(self.totals[family], _share(self._rows_above(blocks)), width)
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
        self.operands.append(ALL_ROWS)
        array, heights = self.totals[blocks[0].split(".")[0]], self._heights(blocks)
        here = _window(array, "0, 1", _share(self._rows_above(blocks)))
        if totals[0] in self.layout.row_sums:
            ones = _window("ones", "0, 1", f"0, {BATCH}")
            vectors = _window(self.layout.row_sums[totals[0]], f"0, {BATCH}", "first, last")
            begun = WRITES
        else:
            slab, position = self._found(tuple(total.factors[0] for total in totals))
            before = self.layout.columns_before(slab, position)
            ones = _window("ones", "0, 1", "0, end - begin")
            vectors = _window(slab, "begin, end", _share(before))
            begun = "turn > 0"
        lines = [
            *([MEET] if adds else []),
            f"first, last = share_of({written_sum(heights)}, share, shares, LANES)",
            f"product({ones}, {vectors}, {here}, {ADDS if adds else begun}, room)",
        ]
        if totals[0] in self.layout.row_sums:  # which the loop has added up when it has ended
            lines = [f"if until == {LENGTH}:", *(f"    {line}" for line in lines)]
        yield from self._if_any([array], lines)

    # arrays

    def _axes(self) -> Iterator[tuple[str, tuple[Axis, ...]]]:
        program, layout = self.program, self.layout
        for name, slab in layout.slabs.items():
            if slab.tile:
                continue
            states = [state for state, buffer in layout.pending.items() if buffer == name]
            columns = tuple(program.sizes[value] for value in (slab.values or states))
            yield name, (ALL_ROWS if slab.steps else THREADS if slab.scratch else BATCH, columns)
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


def _window(array: str, rows: str, columns: str) -> str:
    """Some rows and columns of an array: `first, last` of both."""
    return f"window({array}, {rows}, {columns})"


def _behind(before: Sequence[str], here: Sequence[str]) -> str:
    """From the end of some sizes on, those that follow."""
    return f"{written_sum([*before])}, {written_sum([*before, *here])}"


def _share(before: Sequence[str]) -> str:
    """From the end of some sizes on, a thread's share."""
    left = written_sum([*before])
    return f"{left} + first, {left} + last"

"""A whole pass over a sequence by one function with one argument.

It does everything: the products before the loop, the work unit by unit, the loop, what comes after
it, and the gradients of parameters, by the other functions of the kernel and the products of
`outside`. What is neither given nor wanted lies in memory that the table knows, the same from call
to call.

A team of threads does it, chunk by chunk of steps (`tasks`). Of a product outside of the loop each
thread has some columns or rows of the result, of the work unit by unit some steps; they meet where
one needs what another has made. Or one of them goes through the loop, and another one does the work
before and behind it. No sum depends on how many come.
"""

from collections.abc import Iterator, Mapping
from math import prod

from ...schedule import Product
from .dots import LEAST_BYTES, LEAST_UNITS
from .layout import Layout
from .outside import room_for_block, room_for_strip
from .packing import packed_shape
from .product_text import MEET, ONES, ProductText, window
from .products import GROUP_ROWS
from .sharing import SECOND_CACHE
from .slabs import AFTER, BEFORE, GRADIENTS, LOOP
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
from .tasks import FEW, MANY, PIPELINE, Chunks, even_chunks
from .team import BEHIND, CUTS, FILLED, PARTS, PIPELINED, REVERSE, SHARES
from .text import FunctionText, loop_products, lying
from .units import parameters_of, width_of
from .vectors import WIDE_ZEN, lanes

STEPS = ("active", "offset", "lengths")
UNITS_SHARED = "units_shared"  # whether threads share the units of a step, and not its rows
CHUNKS = ("chunks", "first_turns", "turns_each")  # how many there are; see `tasks.Chunks`
ROOMS = "rooms"  # memory that threads work in, each has a row
HERE = "end"  # an axis of rows of all steps: in memory there are those of a chunk
TITLES = ("before the loop", "the loop", "after the loop", "gradients of parameters")  # of tasks


class WholeText(ProductText):
    """The text of the function.

    Args:
        layout: which array each value lies in.
        functions: name → the text of each of the kernel's other functions.

    Attributes:
        pointers: the arrays whose addresses change from call to call: inputs, the states given,
            outputs, the states handed on, families of parameters and, of an adjoint program, their
            gradients. States given may be missing (address 0), which are then zero; so may
            gradients that are not wanted, and outputs of an adjoint program if not
            `needs_outputs`.
        scratch: the other arrays.
        lasting: those of them in which weights stay packed for the next call.
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
        self.infers = not self.program.adjoint and len(self.program.outputs) == 1
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
            *layout.inputs, *self.given.values(), *layout.outputs, *states,
            *self.families.values(), *self.totals.values(),
        ]  # fmt: skip
        self.lying = lying(layout)
        self.operands: list[Axis] = []  # how many units products outside of the loop add up
        self.lasting: set[str] = set()
        self.tasks = dict(self._tasks())
        self.scratch = [name for name in self.axes if name not in self.pointers]
        self.scratch += self._special
        used = (letter for text in functions.values() for letter in text.letters)
        known = (f"{letter}_size" for letter in letters_of(self.axes.values()))
        self.letters = [*dict.fromkeys((*known, *used))]
        shapes = (axis_of(name, axis) for name in self._special for axis in (0, 1))
        self.table = [
            *self.pointers, *COUNTS, UNITS_SHARED, *CHUNKS, *self.lying.values(), *STEPS,
            *self.letters, *self.scratch, *shapes,
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
        ones = [ONES] if self.layout.schedule.sums else []
        return *self.packed, *self.tiles, *ones, *([ROOMS] if self.operands else [])

    def shape(self, name: str, extent: Extent) -> tuple[int, ...]:
        """The shape of one of its arrays."""
        packed = name.replace("used_", "packed_")
        if packed in self.lying and self._lies(packed, extent):
            return 0, 0
        if name in self.packed:
            product = self.packed[name]
            letter = self.program.sizes[product.results[0]]
            (K,) = shape_of(self._matrix(product)[:1], extent)
            vectors, size = self._vectors(letter, extent), extent.sizes[letter]
            return packed_shape(K, len(product.results), size, vectors, extent.dtype)
        if name in self.tiles:
            values = self.tiles[name].values
            width = self.numbers(extent)[width_of(self.program.sizes[values[0]])]
            return GROUP_ROWS * extent.sharing.threads, len(values) * width
        if name == ROOMS:
            strip = room_for_strip(max(shape_of((*self.operands,), extent)), extent.dtype)
            block = room_for_block(extent.steps.rows, extent.dtype) if self.program.adjoint else 0
            return extent.sharing.threads, strip + block
        if name == ONES:
            return 1, max(self._rows_at_once(extent), extent.sharing.threads)
        rows, *columns = self.axes[name]
        if rows == HERE:
            return self._rows_at_once(extent), *shape_of((*columns,), extent)
        return shape_of(self.axes[name], extent)

    def chunks(self, extent: Extent) -> Chunks:
        """How the steps are cut."""
        steps, sharing = extent.steps, extent.sharing
        if sharing.pipelined:
            return PIPELINE
        rows = self._rows_back(extent) if self.program.adjoint else self._rows_forward(extent)
        if steps.rows < steps.length * steps.batch:
            rows = steps.rows  # threads have the same work of ragged rows in all steps, not in some
        return even_chunks(steps.length, steps.rows, max(1, rows))

    def _rows_back(self, extent: Extent) -> int:
        """How many rows of all steps a chunk of a backward pass should have."""
        weights = sum(prod(shape_of(self.axes[name], extent)) for name in self.totals.values())
        near = weights * extent.dtype.itemsize <= extent.sharing.threads * SECOND_CACHE
        return FEW if near else MANY

    def _rows_forward(self, extent: Extent) -> int:
        """And of a forward pass: on a Zen 5 many, elsewhere no more than stay in the caches."""
        made = (columns for rows, *columns in self.axes.values() if rows == HERE)
        row = sum(prod(shape_of((*columns,), extent)) for columns in made) * extent.dtype.itemsize
        stay = extent.sharing.threads * SECOND_CACHE // 2 // max(1, row)
        return MANY if WIDE_ZEN or stay < FEW else min(stay, MANY)

    def _rows_at_once(self, extent: Extent) -> int:
        """How many rows of all steps arrays have that nobody else knows: those of a chunk."""
        steps = extent.steps
        if extent.sharing.pipelined:  # chunks overtake each other
            return steps.rows
        return min(steps.rows, self.chunks(extent).first * steps.batch)

    def numbers(self, extent: Extent) -> dict[str, int]:
        """The numbers of its table that only it knows: of chunks, and the units of groups."""
        chunks = self.chunks(extent)
        known = (chunks.count(extent.steps.length), *chunks)
        widths = {
            width_of(letter): lanes(extent.dtype) * self._vectors(letter, extent)
            for letter in self.layout.vectors
        }
        shared = {UNITS_SHARED: int(extent.sharing.shares > 1)}
        lies = {there: int(self._lies(packed, extent)) for packed, there in self.lying.items()}
        return {**shared, **dict(zip(CHUNKS, known, strict=True)), **lies, **widths}

    def _lies(self, packed: str, extent: Extent) -> bool:
        """Whether a matrix of the loop stays where it lies: a large one, for a single row."""
        units, results = shape_of(self._matrix(self.packed[packed]), extent)
        large = units * results * extent.dtype.itemsize >= LEAST_BYTES
        return extent.steps.batch == 1 and units >= LEAST_UNITS and large

    def _vectors(self, letter: str, extent: Extent) -> int:
        return self.layout.vectors_of_group(
            letter, extent.sizes[letter], extent.dtype, extent.sharing.shares
        )

    def lines(self) -> Iterator[str]:
        """The function's definition."""
        yield f"def {self.function}(address):"
        yield "    while address:"
        yield f"        table = array_at(address, ({FIRST + len(self.table)},), np.int64)"
        yield "        thread, share, shares = enter(table)"
        yield "        if share < shares:"
        yield from (f"            {line}" for line in self._names())
        yield "            mode = flush_denormals()"
        yield from (f"            {line}" for line in self._chunks())
        yield "            restore_mode(mode)"
        yield f"        address = held(table, {BEHIND})"

    def _names(self) -> Iterator[str]:
        """What the table holds gets its names."""
        place = {name: number for number, name in enumerate(self.table, FIRST)}
        yield f"reverse = held(table, {REVERSE}) != 0"
        yield f"threads = held(table, {SHARES})"
        yield f"cuts = array_at(held(table, {CUTS}), (held(table, {CUTS + 1}),), np.int64)"
        for name in (*COUNTS, UNITS_SHARED, *CHUNKS, *self.lying.values(), *self.letters):
            yield f"{name} = held(table, {place[name]})"
        for name in STEPS:
            shape = written_shape((BATCH if name == "lengths" else LENGTH,))
            yield f"{name} = array_at(held(table, {place[name]}), {shape}, np.int64)"
        for name, axes in self.axes.items():
            if axes[0] != HERE:
                yield f"{name} = array_at(held(table, {place[name]}), {written_shape(axes)}, real)"
        for name in self._special:
            sizes = ", ".join(f"held(table, {place[axis_of(name, axis)]})" for axis in (0, 1))
            yield f"{name} = array_at(held(table, {place[name]}), ({sizes}), real)"
        for packed, lies in self.lying.items():
            yield f"if {lies}:"
            yield f"    {packed} = {self._where_it_lies(self.packed[packed], place)}"
        if self.operands:
            yield f"room = {window(ROOMS, 'thread, thread + 1', f'0, {ROOMS}.shape[1]')}"

    def _where_it_lies(self, product: Product, place: Mapping[str, int]) -> str:
        """The matrix of a product among the parameters."""
        ((family, above, width, heights),) = self._stretches(product.blocks)
        shape = f"({written_sum(heights)}, {width})"
        before = f"-({written_sum(above)})" if above else "0"
        return f"rows_at(held(table, {place[family]}), {before}, {shape}, real)"

    def _names_here(self) -> Iterator[str]:
        """What holds rows of a chunk only is numbered as if it held those of all steps."""
        place = {name: number for number, name in enumerate(self.table, FIRST)}
        yield f"row_here = 0 if held(table, {PIPELINED}) else begin"
        for name, axes in self.axes.items():
            if axes[0] == HERE:
                shape = written_shape(axes)
                yield f"{name} = rows_at(held(table, {place[name]}), row_here, {shape}, real)"

    def _chunks(self) -> Iterator[str]:
        """Chunk by chunk of steps, task after task; see `tasks`."""
        first, last = min(self.tasks), max(self.tasks) + 1
        between = f"np.int64({first}), np.int64({last}), chunks"
        yield f"task, chunk = next_task(table, thread, np.int64(-1), np.int64(0), {between})"
        yield f"while task < {last}:"
        if first == BEFORE:  # who is behind reads what the chunk before has left
            yield f"    if task == {first} and not held(table, {PIPELINED}):"
            yield f"        {MEET}"
        yield f"    turn, until = turns_of(chunk, first_turns, turns_each, {LENGTH})"
        back, onwards = f"({LENGTH} - until, {LENGTH} - turn)", "(turn, until)"
        if self.program.adjoint:
            back, onwards = onwards, back
        yield f"    step, stop = {back} if reverse else {onwards}"
        yield "    begin, end = rows_of(step, stop, active, offset)"
        yield from (f"    {line}" for line in self._names_here())
        for task in range(first, last):
            yield f"    {'if' if task == first else 'elif'} task == {task}:  # {TITLES[task]}"
            yield from (f"        {line}" for line in self.tasks.get(task, ["pass"]))
        yield f"    task, chunk = next_task(table, thread, task, chunk, {between})"

    def _tasks(self) -> Iterator[tuple[int, list[str]]]:
        """What there is to do: the number of each task and its text."""
        if before := list(self._section(BEFORE)):
            yield BEFORE, before
        yield LOOP, list(self._loop())
        # Who goes on to these needs what all have left in the loop.
        after = list(self._section(AFTER))
        gradients = list(self._gradients()) if self.program.adjoint else []
        if self.layout.schedule.stages_of_totals:
            yield AFTER, [MEET, *after, MEET, *gradients]
            return
        if after:
            adjoint = self.program.adjoint
            outputs = self._if_any(self.layout.outputs, after) if adjoint else after
            yield AFTER, [MEET, *outputs]
        if gradients:
            yield GRADIENTS, gradients if after else [MEET, *gradients]

    def _start(self) -> Iterator[str]:
        for state, given in self.given.items():
            yield f"if {self._there(given)}:"
            yield f"    copy({given}, {state})"
            yield "else:"
            yield f"    set_all({state}, 0.0)"
        for received, buffer in self.layout.pending.items():  # for rows that begin late
            yield f"copy({self.layout.states[received]}, {buffer})"
        for sums in self.layout.loop_sums.values():
            yield f"set_all({sums}, 0.0)"
        if self.layout.schedule.sums:
            yield f"set_all({ONES}, 1.0)"

    def _section(self, section: int) -> Iterator[str]:
        word = "before" if section == BEFORE else "after"
        waits = False  # whether what comes next may need what another thread makes
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
        yield MEET
        if self.infers:
            yield f"table[{FILLED}] = 1"
        yield f"if {UNITS_SHARED}:"
        yield "    start, stride, of_units, sharing = 0, 1, share, shares"
        yield "else:"
        yield "    start, stride, of_units, sharing = share, shares, 0, 1"
        yield f"for part in range(start, held(table, {PARTS}), stride):"
        taken = "part, cuts[part], cuts[part + 1], turn, until, of_units, sharing, table"
        taken = ", ".join((taken, *self.lying.values()))
        yield from (f"    {line}" for line in self._call("loop", taken))

    def _call(self, name: str, taken: str) -> Iterator[str]:
        """Call one of the kernel's functions."""
        yield f"{name}("
        yield f"    {taken}, reverse, {', '.join(STEPS)},"
        yield from (f"    {argument}," for argument in self.functions[name].arguments)
        yield ")"

    # arrays

    def _axes(self) -> Iterator[tuple[str, tuple[Axis, ...]]]:
        program, layout = self.program, self.layout
        known = {*layout.inputs, *layout.outputs}
        for name, slab in layout.slabs.items():
            if slab.tile:
                continue
            states = [state for state, buffer in layout.pending.items() if buffer == name]
            columns = tuple(program.sizes[value] for value in (slab.values or states))
            rows = ALL_ROWS if name in known else HERE if slab.steps else BATCH
            yield name, (THREADS if slab.scratch else rows, columns)
            if name in self.given:
                yield self.given[name], (BATCH, columns)
        for total, sums in layout.loop_sums.items():
            yield sums, (THREADS, (program.shapes[total.parameter][0],))
        for family, array in self.families.items():
            blocks = program.families[family]
            stacked = tuple(self._heights(blocks))
            widths = tuple((letter,) for letter in program.shapes[blocks[0]][1:])
            yield array, (stacked, *widths)
            if family in self.totals:
                vector = self._is_vector(family)
                yield self.totals[family], (ONE_ROW, stacked) if vector else (stacked, *widths)

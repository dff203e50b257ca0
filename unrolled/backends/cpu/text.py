"""The text of the functions of a kernel: a layout written as Numba code.

The work unit by unit is written twice, for whole vectors of units and for the rest of them.
"""

import math
import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from ...language.sizes import ONE
from ...program import STEP_NUMBER, Argument, Instruction
from ...schedule import Product, Stage
from .layout import LOOP, Layout, Segment
from .team import ARRAYS, BATCH, PARTS, REVERSE

# Operation → how a kernel writes it, for vectors of units.
OPERATIONS: dict[str, str] = {
    "same": "{0}",
    "add": "{0} + {1}",
    "sub": "{0} - {1}",
    "mul": "{0} * {1}",
    "div": "{0} / {1}",
    "neg": "-{0}",
    "pow": "power({0}, {1})",
    "lt": "{0} < {1}",
    "le": "{0} <= {1}",
    "gt": "{0} > {1}",
    "ge": "{0} >= {1}",
    "eq": "{0} == {1}",
    "ne": "{0} != {1}",
    "where": "where({0}, {1}, {2})",
    "maximum": "maximum({0}, {1})",
    "minimum": "minimum({0}, {1})",
    "sigmoid": "sigmoid({0})",
    "tanh": "tanh({0})",
    "exp": "exp({0})",
    "log": "log({0})",
    "sqrt": "square_root({0})",
    "abs": "absolute({0})",
    "relu": "relu({0})",
    "softplus": "softplus({0})",
}

# Module of the backend → what a kernel may take from it.
_OFFERED = {
    "denormals": ("flush_denormals", "restore_mode"),
    "dots": ("dots",),
    "functions": ("exp", "log", "power", "relu", "sigmoid", "softplus", "tanh"),
    "products": ("fill", "multiply"),
    "team": ("array_at", "matrix_at", "next_part", "table_at", "vector_at"),
    "vectors": (
        *("absolute", "load", "load_part", "maximum", "minimum", "splat", "square_root"),
        *("store", "store_part", "where"),
    ),
}

_TAKEN = {
    *("active", "address", "at", "base", "before", "first", "j", "k", "last", "length", "lengths"),
    *("min", "mode", "njit", "np", "offset", "range", "real", "reverse", "row", "rows", "step"),
    *("table", "tail", "LANES"),
    *(name for names in _OFFERED.values() for name in names),
}

# How the names of arrays and sizes end; those of values do not.
_ENDINGS = ("_steps", "_rows", "_sums", "_parameters", "_size", "_given")

STEPS = ("first", "last", "reverse", "active", "offset", "lengths")


class FunctionText:
    """One function: the stages of a section that run in one pass over the steps."""

    step_number = "real(lengths[row] - step if reverse else step + 1)"

    def __init__(self, layout: Layout, section: int, numbers: Sequence[int], function: str) -> None:
        self.layout = layout
        self.program = layout.schedule.program
        self.section = section
        self.function = function
        self.arrays: dict[str, None] = {}
        self.names: dict[str, str] = {}
        self.letters: dict[str, None] = {}
        self.packed: list[int] = []  # numbers of the loop's products, as in `loop_products`
        self.body = [line for number in numbers for line in self._stage(number)]

    @property
    def arguments(self) -> tuple[str, ...]:
        """The names of the function's arguments after `STEPS`: sizes, then arrays."""
        return (*self.letters, *self.arrays)

    def lines(self) -> Iterator[str]:
        """The function's definition."""
        yield "@njit(**OPTIONS)"
        yield f"def {self.function}("
        for group in (STEPS, self.letters, self.arrays):
            yield from textwrap.wrap(
                ", ".join(group) + ",", 96, initial_indent="    ", subsequent_indent="    "
            )
        yield "):"
        yield "    mode = flush_denormals()"
        yield from self._indented(1, self._loop())
        yield "    restore_mode(mode)"

    def team_lines(self) -> Iterator[str]:
        """The same function for a team of threads, which share its parts; see `team`."""
        yield f"def {self.function}_team(address):"
        slots = ARRAYS
        passed = []
        for name in (*STEPS[3:], *self.letters, *self.arrays):
            if name in self.letters:
                passed.append(f"table[{slots}]")
                slots += 1
            elif name in STEPS or name in map(parameters_of, self.program.families):
                dtype = "np.int64" if name in STEPS else "real"
                passed.append(f"vector_at(table, {slots}, {dtype})")
                slots += 2
            else:
                passed.append(f"matrix_at(table, {slots}, real)")
                slots += 3
        yield f"    table = table_at(address, {slots})"
        yield "    part = next_part(table)"
        yield f"    while part < table[{PARTS}]:"
        yield f"        first = table[{BATCH}] * part // table[{PARTS}]"
        yield f"        last = table[{BATCH}] * (part + 1) // table[{PARTS}]"
        yield f"        {self.function}("
        yield f"            first, last, table[{REVERSE}] != 0,"
        yield from (f"            {argument}," for argument in passed)
        yield "        )"
        yield "        part = next_part(table)"

    def _loop(self) -> Iterator[str]:
        """Forward programs go on in reading order, adjoint ones back; `reverse` turns both."""
        first, last = "k", "active.size - 1 - k"
        onwards, back = (last, first) if self.program.adjoint else (first, last)
        yield "for k in range(active.size):"
        yield f"    step = {back} if reverse else {onwards}"
        yield "    rows = min(active[step], last) - first"
        yield "    if rows <= 0:"
        yield "        continue"
        yield "    base = offset[step]"
        yield from self._indented(1, self.body)
        if self.section == LOOP:
            yield from self._indented(1, self._commits())

    # one stage

    def _stage(self, number: int) -> Iterator[str]:
        stages = self.layout.sections[self.section]
        stage = stages[number] if number < len(stages) else Stage((), ())
        if self.section == LOOP:
            for product in stage.products:
                position = loop_products(self.layout).index(product)
                yield f"# {product}"
                operand = self.layout.alone(product.operands)
                assert operand is not None, f"{product} has no operand array"
                yield from self._product(operand, self.layout.results[product], position)
        for segment in self.layout.segments.get((self.section, number), ()):
            yield from self._segment(segment)

    def _product(self, operand: str, result: str, position: int) -> Iterator[str]:
        self._array(operand)
        self._array(result)
        self._array(f"packed_{position}")
        if self.layout.slabs[operand].steps:
            here = "base + first : base + first + rows"
            yield (
                f"multiply({operand}[{here}], 0, rows, packed_{position}, "
                f"{result}[first : first + rows], False)"
            )
        else:
            yield f"multiply({operand}, first, rows, packed_{position}, {result}, False)"

    def _segment(self, segment: Segment) -> Iterator[str]:
        size = self._letter(segment.size)
        scalars = list(self._scalars(segment))
        whole = list(self._units(segment, whole=True))
        rest = list(self._units(segment, whole=False))
        yield "for row in range(first, first + rows):"
        yield "    at = base + row"
        yield from self._indented(1, scalars)
        yield f"    tail = {size} % LANES"
        yield f"    for j in range(0, {size} - tail, LANES):"
        yield from self._indented(2, whole)
        yield "    if tail:"
        yield f"        j = {size} - tail"
        yield from self._indented(2, rest)

    def _scalars(self, segment: Segment) -> Iterator[str]:
        """The numbers that a segment needs: the step's, and what is computed from it."""
        needed: set[str] = set()
        open_names = [v for i in segment.instructions for v in i.operands]
        while open_names:
            name = open_names.pop()
            if name in self.layout.scalars and name not in needed:
                open_names.extend(self.layout.scalars[name].operands)
            needed.add(name)
        if STEP_NUMBER in needed:
            yield f"{STEP_NUMBER} = {self.step_number}"
        for name, instruction in self.layout.scalars.items():
            if name in needed:
                yield f"{self._name(name)} = {self._written(instruction)}"

    def _units(self, segment: Segment, whole: bool) -> Iterator[str]:
        for value in self.layout.read_by(segment):
            slab, position = self.layout.source(value, self.section)
            yield f"{self._name(value)} = {self._load(slab, self._column(slab, position), whole)}"
        for block in self._vectors_of_parameters(segment):
            family = block.split(".")[0]
            array = self._array(parameters_of(family))
            column = self._sum(self._rows_before(block))
            yield f"{self._name(block)} = {self._load_row(array, column, whole)}"
        for instruction in segment.instructions:
            written = self._written(instruction)
            if instruction.operation == "same" and not self._is_vector(instruction.arguments[0]):
                written = f"splat({self._any_array()}, {written})"
            yield f"{self._name(instruction.name)} = {written}"
        for value in (*segment.copies, *(i.name for i in segment.instructions)):
            yield from self._stores(value, whole)

    def _stores(self, value: str, whole: bool) -> Iterator[str]:
        name = self._name(value)
        for slab, position in self.layout.homes(value):
            yield self._store(slab, self._column(slab, position), name, whole)
        if self.section == LOOP:
            for received, handed_on in self.program.carried:
                if handed_on == value:
                    buffer = self.layout.pending.get(received, self.layout.states[received])
                    yield self._store(buffer, "j", name, whole)
            for total, rows in self.layout.row_sums.items():
                if total.factors[0] == value:
                    self._array(rows)
                    so_far = self._call("load", rows, "row", "j", whole)
                    yield self._call("store", rows, "row", "j", whole, f"{so_far} + {name}")

    def _commits(self) -> Iterator[str]:
        for received, buffer in self.layout.pending.items():
            state = self._array(self.layout.states[received])
            yield f"{state}[first : first + rows] = {self._array(buffer)}[first : first + rows]"

    # words

    def _written(self, instruction: Instruction) -> str:
        parts = [self._name(a) if isinstance(a, str) else _number(a) for a in instruction.arguments]
        return OPERATIONS[instruction.operation].format(*parts)

    def _name(self, value: str) -> str:
        """A value's or a block's name as a variable; no two have the same."""
        if value not in self.names:
            name = value.replace(".", "_")
            if name in _TAKEN or name.endswith(_ENDINGS) or name.startswith("packed_"):
                name += "_value"
            while name in self.names.values():
                name += "_value"
            self.names[value] = name
        return self.names[value]

    def _is_vector(self, argument: Argument) -> bool:
        if not isinstance(argument, str):
            return False
        return self.program.is_parameter(argument) or self.program.sizes[argument] != ONE

    def _vectors_of_parameters(self, segment: Segment) -> Iterator[str]:
        operands = dict.fromkeys(v for i in segment.instructions for v in i.operands)
        return (value for value in operands if self.program.is_parameter(value))

    def _rows_before(self, block: str) -> tuple[str, ...]:
        blocks = self.program.families[block.split(".")[0]]
        return tuple(self.program.shapes[b][0] for b in blocks[: blocks.index(block)])

    def _column(self, slab: str, position: int) -> str:
        return self._sum(self.layout.columns_before(slab, position))

    def _sum(self, letters: tuple[str, ...]) -> str:
        terms = [
            self._letter(letter) if count == 1 else f"{count} * {self._letter(letter)}"
            for letter, count in Counter(letters).items()
        ]
        return " + ".join([*terms, "j"])

    def _letter(self, letter: str) -> str:
        self.letters[f"{letter}_size"] = None
        return f"{letter}_size"

    def _array(self, name: str) -> str:
        self.arrays[name] = None
        return name

    def _any_array(self) -> str:
        return self._array(next(iter(self.layout.slabs)))

    def _load(self, slab: str, column: str, whole: bool) -> str:
        return self._call("load", self._array(slab), self._row(slab), column, whole)

    def _load_row(self, array: str, column: str, whole: bool) -> str:
        return f"load({array}, {column})" if whole else f"load_part({array}, {column}, tail)"

    def _store(self, slab: str, column: str, value: str, whole: bool) -> str:
        return self._call("store", self._array(slab), self._row(slab), column, whole, value)

    def _call(
        self, verb: str, array: str, row: str, column: str, whole: bool, value: str = ""
    ) -> str:
        rest = ([] if whole else ["tail"]) + ([value] if value else [])
        return f"{verb}{'' if whole else '_part'}({', '.join([array, row, column, *rest])})"

    def _row(self, slab: str) -> str:
        return "at" if self.layout.slabs[slab].steps else "row"

    @staticmethod
    def _indented(depth: int, lines: Iterable[str]) -> Iterator[str]:
        return ("    " * depth + line for line in lines)


# The matrix of a product in the loop is packed by this function of the kernel's own file, so that
# its machine code is cached with the kernel's.
PACK = ("", "", "@njit(**OPTIONS)", "def pack(weights, packed):", "    fill(weights, packed)")


def imports(lines: Iterable[str]) -> Iterator[str]:
    """The imports that the text of a kernel's functions needs."""
    used = set(re.findall(r"[a-z_]+(?=\()", "\n".join(lines)))
    yield "import numpy as np"
    yield "from numba import njit"
    yield ""
    for module, offered in _OFFERED.items():
        if names := [name for name in offered if name in used]:
            yield f"from unrolled.backends.cpu.{module} import {', '.join(names)}"


def parameters_of(family: str) -> str:
    """The name of the array that holds a family's vectors."""
    return f"{family}_parameters"


def _number(value: float) -> str:
    if math.isfinite(value):
        return repr(value)
    return "np.nan" if math.isnan(value) else "np.inf" if value > 0 else "(-np.inf)"


def loop_products(layout: Layout) -> list[Product]:
    """The products of the loop, in order; `packed_0`, `packed_1` … are their matrices."""
    return [product for stage in layout.schedule.loop for product in stage.products]

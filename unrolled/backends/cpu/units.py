"""The work unit by unit of a kernel's functions, as text, and the words that it is written in.

It is written twice, for whole vectors of units and for the rest of them.
"""

import math
import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator

from ...language.operations import REDUCTIONS
from ...language.sizes import ONE
from ...program import STEP_NUMBER, Argument, Instruction
from .layout import Layout
from .slabs import LOOP, Segment

# Operation → how a kernel writes it, for vectors of units and for numbers.
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

# To divide by a number of units would take a while at each step; its reciprocal is there before.
_A_PART = "(real(1.0) / {1})"

# Operation that makes one number of a vector → how a kernel writes it, where {0} is what has been
# added up lane by lane, and {1} how many units there were.
ADDED_UP: dict[str, str] = {"sum": "added_up({0})", "mean": f"added_up({{0}}) * {_A_PART}"}

# Module of the backend → what a kernel may take from it.
_OFFERED = {
    "atomics": ("held",),
    "denormals": ("flush_denormals", "restore_mode"),
    "dots": ("dots", "dots_of_group", "dots_of_groups", "few"),
    "functions": ("exp", "log", "power", "relu", "sigmoid", "softplus", "tanh"),
    "inner": ("inner",),
    "outside": ("copy", "copy_row", "product", "set_all"),
    "packing": ("fill", "fill_changed"),
    "products": ("GROUP_ROWS", "height", "multiply", "multiply_group"),
    "shared": ("know",),
    "tasks": ("next_task", "rows_of", "turns_of"),
    "team": (
        *("array_at", "enter", "groups_of", "in_turn", "meet", "rows_at", "share_of"),
        *("unforeseen", "units_of", "window"),
    ),
    "vectors": (
        *("absolute", "added_up", "fetch", "first_part", "load", "load_part", "maximum", "minimum"),
        *("splat", "square_root", "store", "store_part", "where"),
    ),
}

_TAKEN = {
    *(
        "active",
        "address",
        "ahead",
        "at",
        "base",
        "base_ahead",
        "before",
        "begin",
        "cuts",
        "end",
        "first",
        "group",
        "high",
        "in_tile",
        "j",
    ),
    *(
        "k",
        "last",
        "left",
        "length",
        "lengths",
        "min",
        "mode",
        "np",
        "number",
        "offset",
        "part",
    ),
    *("range", "real", "reverse", "row", "rows", "share", "shares", "start", "step", "steps"),
    *("table", "tail", "tile", "unit", "until", "LANES"),
    *(name for names in _OFFERED.values() for name in names),
}

# How the names of arrays and sizes end; those of values do not.
_ENDINGS = (
    *("_steps", "_rows", "_sums", "_parameters", "_size", "_given"),
    *("_begin", "_width", "_whole", "_tail", "_groups", "_tile", "_first", "_second"),
)


class UnitText:
    """The text of a function's work on units, and all names in it.

    Args:
        layout: which array each value lies in.
        section: the part of the schedule.
    """

    step_number = "real(lengths[row] - step if reverse else step + 1)"

    def __init__(self, layout: Layout, section: int) -> None:
        self.layout = layout
        self.program = layout.schedule.program
        self.section = section
        self.arrays: dict[str, None] = {}
        self.names: dict[str, str] = {}
        self.letters: dict[str, None] = {}
        self.ranges: dict[str, None] = {}  # the sizes of the vectors that it goes through
        self.group: str | None = None  # the size of the vectors of the fused stage being written
        self.looks_ahead = False  # whether a row asks for what the next one needs

    def _segment(self, segment: Segment, known: set[str]) -> Iterator[str]:
        """The work of one segment on one row; `known` are the numbers computed for it so far."""
        yield from self._scalars(segment, known)
        for name in segment.numbers:
            for place in self.layout.homes(name):
                # Threads that share the units have all of them computed it.
                once = "if share == 0: " if self.section == LOOP else ""
                yield f"{once}{self._number_at(*place)} = {self._name(name)}"
        if not (segment.instructions or segment.copies):
            return
        size = self._letter(segment.size)
        begin, end, tail = self._range(segment.size)
        whole = list(self._units(segment, whole=True))
        rest = list(self._units(segment, whole=False))
        sums = [i for i in segment.instructions if i.operation in REDUCTIONS]
        for total in sums:
            yield f"{self._so_far(total)} = splat({self._any_array()}, 0.0)"
        yield f"for j in range(unforeseen({begin}), {end}, LANES):"
        if self.group:
            yield from self._indented(1, self._asked_ahead(segment))
        yield from self._indented(1, whole)
        yield f"if {tail}:"
        yield f"    j, tail = unforeseen({end}), {tail}"
        yield from self._indented(1, rest)
        for total in sums:
            name = self._name(total.name)
            written = ADDED_UP[total.operation].format(self._so_far(total), f"real({size})")
            yield f"{name} = {written}"
            known.add(total.name)
            for place in self.layout.homes(total.name):
                yield f"{self._number_at(*place)} = {name}"

    def _asked_ahead(self, segment: Segment) -> Iterator[str]:
        """Ask for what the row ahead reads of rows of all steps, and for lines it will write."""
        read = [self.layout.source(v, self.section) for v in self.layout.read_by(segment)]
        written = [place for value in _written_by(segment) for place in self._homes(value)]
        places = [place for place in read if self.layout.slabs[place[0]].steps]
        places += [place for place in written if place[0] in self.layout.outputs]
        for slab, position in dict.fromkeys(places):
            yield f"fetch({self._array(slab)}, ahead, {self._column(slab, position)})"

    def _scalars(self, segment: Segment, known: set[str]) -> Iterator[str]:
        """The numbers that a segment needs: the step's, sums, and what is computed from them."""
        needed: set[str] = set()
        open_names = [*segment.numbers, *(v for i in segment.instructions for v in i.operands)]
        while open_names:
            name = open_names.pop()
            if name in self.layout.scalars and name not in needed:
                open_names.extend(self.layout.scalars[name].operands)
            needed.add(name)
        numbers = {v for v in needed - known if self.program.size_of(v) == ONE}
        known |= numbers
        if STEP_NUMBER in numbers:
            yield f"{STEP_NUMBER} = {self.step_number}"
        numbers -= {STEP_NUMBER, *self.program.counts}
        for name in sorted(numbers - self.layout.scalars.keys()):
            place = self.layout.source(name, self.section)
            yield f"{self._name(name)} = {self._number_at(*place)}"
        for name, instruction in self.layout.scalars.items():
            if name in numbers:
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
            if instruction.operation in REDUCTIONS:
                part = written if whole else f"first_part({written}, tail)"
                yield f"{self._so_far(instruction)} += {part}"
                continue
            if instruction.operation == "same" and not self._is_vector(instruction.arguments[0]):
                written = f"splat({self._any_array()}, {written})"
            yield f"{self._name(instruction.name)} = {written}"
        for value in _written_by(segment):
            yield from self._stores(value, whole)

    def _stores(self, value: str, whole: bool) -> Iterator[str]:
        name = self._name(value)
        for slab, position in self._homes(value):
            yield self._store(slab, self._column(slab, position), name, whole)
        if self.section == LOOP:
            for received, handed_on in self.program.carried:
                if handed_on == value:
                    buffer = self.layout.pending.get(received, self.layout.states[received])
                    yield self._store(buffer, "j", name, whole)
            for total, sums in self.layout.loop_sums.items():
                if total.factors[0] == value:
                    self._array(sums)
                    so_far = self._call("load", sums, "part", "j", whole)
                    yield self._call("store", sums, "part", "j", whole, f"{so_far} + {name}")

    def _homes(self, value: str) -> list[tuple[str, int]]:
        """Where a value is written, states aside; in the loop not what has been written before."""
        made_before = self.section == LOOP and value in self.layout.made_before
        return [] if made_before else self.layout.homes(value)

    # words

    def _written(self, instruction: Instruction) -> str:
        parts = [self._name(a) if isinstance(a, str) else _number(a) for a in instruction.arguments]
        if instruction.operation in REDUCTIONS:
            return parts[0]  # what is added up
        if instruction.operation == "div" and instruction.arguments[1] in self.program.counts:
            return f"{parts[0]} * {_A_PART.format(*parts)}"
        return OPERATIONS[instruction.operation].format(*parts)

    def _name(self, value: str) -> str:
        """A value's or a block's name as a variable; no two have the same."""
        if value in self.program.counts:
            return f"real({self._letter(value.strip('|'))})"
        if value not in self.names:
            name = value.replace(".", "_").replace(" ", "_")
            if name in _TAKEN or name.endswith(_ENDINGS) or name.startswith(("packed_", "lies_")):
                name += "_value"
            while name in self.names.values():
                name += "_value"
            self.names[value] = name
        return self.names[value]

    def _so_far(self, total: Instruction) -> str:
        """The variable that a sum over units is added up in, lane by lane."""
        return self._name(f"{total.name} lanes")

    def _is_vector(self, argument: Argument) -> bool:
        if not isinstance(argument, str):
            return False
        return self.program.size_of(argument) != ONE

    def _vectors_of_parameters(self, segment: Segment) -> Iterator[str]:
        operands = dict.fromkeys(v for i in segment.instructions for v in i.operands)
        return (value for value in operands if self.program.is_parameter(value))

    def _rows_before(self, block: str) -> tuple[str, ...]:
        blocks = self.program.families[block.split(".")[0]]
        return tuple(self.program.shapes[b][0] for b in blocks[: blocks.index(block)])

    def _column(self, slab: str, position: int) -> str:
        if self.layout.slabs[slab].tile:
            before = f"{position} * " if position > 1 else ""
            return f"{before}{self._width(self.group or '')} + j - unit" if position else "j - unit"
        return self._sum(self.layout.columns_before(slab, position))

    def _sum(self, letters: tuple[str, ...]) -> str:
        return " + ".join([*self._terms(letters), "j"])

    def _terms(self, letters: tuple[str, ...]) -> Iterator[str]:
        for letter, count in Counter(letters).items():
            if letter == ONE:
                yield str(count)
            else:
                yield self._letter(letter) if count == 1 else f"{count} * {self._letter(letter)}"

    def _number_at(self, slab: str, position: int) -> str:
        """Where a number lies."""
        terms = list(self._terms(self.layout.columns_before(slab, position)))
        return f"{self._array(slab)}[{self._row(slab)}, {' + '.join(terms) or 0}]"

    def _letter(self, letter: str) -> str:
        self.letters[f"{letter}_size"] = None
        return f"{letter}_size"

    def _range(self, letter: str) -> tuple[str, str, str]:
        """Of a vector: the first unit, the end of whole vectors of lanes, the units left over."""
        if letter == self.group:
            return "unit", "whole", "left"
        self.ranges[letter] = None
        return f"{letter}_begin", f"{letter}_whole", f"{letter}_tail"

    def _width(self, letter: str) -> str:
        """How many units of a vector a group has."""
        if self.section != LOOP or letter not in self.layout.vectors:
            return "LANES"
        self.letters[width_of(letter)] = None
        return width_of(letter)

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
        if self.layout.slabs[slab].tile:
            return "in_tile"
        if self.layout.slabs[slab].scratch:
            return "part"
        return "at" if self.layout.slabs[slab].steps else "row"

    @staticmethod
    def _indented(depth: int, lines: Iterable[str]) -> Iterator[str]:
        return ("    " * depth + line for line in lines)


def imports(lines: Iterable[str]) -> Iterator[str]:
    """The imports that the text of a kernel's functions needs."""
    used = {"know"} | set(re.findall(r"[a-z_]+(?=\()|[A-Z]+_[A-Z]+", "\n".join(lines)))
    yield "import numpy as np"
    yield ""
    for module, offered in _OFFERED.items():
        if names := [name for name in offered if name in used]:
            listed = textwrap.fill(", ".join(names), 92, subsequent_indent="    ")
            bracketed = f"(\n    {listed},\n)" if "\n" in listed else listed
            yield f"from unrolled.backends.cpu.{module} import {bracketed}"


def _written_by(segment: Segment) -> tuple[str, ...]:
    """The vectors that a segment writes to where they lie."""
    made = (i.name for i in segment.instructions if i.operation not in REDUCTIONS)
    return (*segment.copies, *made)


def parameters_of(family: str) -> str:
    """The name of the array that holds a family's vectors."""
    return f"{family}_parameters"


def width_of(letter: str) -> str:
    """The name of how many units of a vector a group has."""
    return f"{letter}_width"


def _number(value: float) -> str:
    if math.isfinite(value):
        return repr(value)
    return "np.nan" if math.isnan(value) else "np.inf" if value > 0 else "(-np.inf)"

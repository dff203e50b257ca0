"""Kernels for few steps, streaming first of all: one function, one call, no preparation.

The kernels of `kernel.py` pay before the loop for what they save in it: products for all steps at
once, packed weights. Over one step nothing of that comes back. Here all work is in the loop, and
products read the parameters where they lie, so a weight that has just changed counts at once.

The function gets one address. There lies a table of 64-bit numbers: first the addresses that change
from call to call, then what stays the same for given sizes, rows and steps.
"""

import ctypes
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, cached_property
from itertools import groupby
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numba import cfunc

from ...language.sizes import ONE
from ...program import Program
from ...schedule import Product, schedule
from .. import files
from . import vectors
from .kernel import OPTIONS_OF_CALLBACKS, announce, foundations
from .layout import LOOP, Layout
from .text import FunctionText, imports, parameters_of

Axis = str | tuple[str, ...]
ROWS, ALL_ROWS = "batch", "length * batch"
COUNTS = ("length", "batch", "before", "reverse")


class LiveText(FunctionText):
    """The text of the function: all stages of a few steps of all rows.

    Attributes:
        pointers: the arrays whose addresses change from call to call: inputs, outputs, the states
            given, the states handed on, families of parameters.
        scratch: the other arrays.
        axes: of each array its axes: of rows, or the sizes that are side by side on it.
        table: the name of what each place of the table holds.
    """

    step_number = "real(before + (length - step if reverse else step + 1))"

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout, LOOP, "live")
        states = layout.states.values()
        self.given = [f"{state.removesuffix('_rows')}_given" for state in states]
        self.families = {
            parameters_of(family): blocks
            for family, blocks in self.program.families.items()
            if blocks
        }
        self.pointers = [*layout.inputs, *layout.outputs, *self.given, *states, *self.families]
        self.scratch = [name for name in self.arrays if name not in self.pointers]
        self.axes = {name: self._axes(name) for name in (*self.pointers, *self.scratch)}
        self._shapes = {name: self._shape(axes) for name, axes in self.axes.items()}
        self.table = [*self.pointers, *COUNTS, *self.letters, *self.scratch]

    def lines(self) -> Iterator[str]:
        """The function's definition."""
        yield f"def {self.function}(address):"
        yield f"    table = table_at(address, {len(self.table)})"
        for place, name in enumerate(self.table):
            if name not in self.axes:
                yield f"    {name} = table[{place}]"
        for name, shape in self._shapes.items():
            yield f"    {name} = array_at(table[{self.table.index(name)}], {shape}, real)"
        yield "    part, first, last, rows = 0, 0, batch, batch"
        yield "    share, shares = 0, 1"
        yield "    mode = flush_denormals()"
        for state, given in zip(self.layout.states.values(), self.given, strict=True):
            yield f"    {state}[:] = {given}"
        yield from self._indented(1, self.shared)
        yield from self._indented(1, self.loop)
        yield "    restore_mode(mode)"

    def _loop(self) -> Iterator[str]:
        yield from self._both_buffers()
        yield "for k in range(length):"
        yield from self._indented(1, self._changing_places())
        yield "    step = length - 1 - k if reverse else k"
        yield "    base = step * batch"
        yield from self._indented(1, self.body)
        yield from self._settled("length")

    def _meeting(self) -> Iterator[str]:
        return iter(())

    def _product(self, product: Product) -> Iterator[str]:
        operand, result = self._operand(product), self._array(self.layout.results[product])
        row = "base" if self.layout.slabs[operand].steps else "0"
        column: list[str] = []
        for blocks in _stretches(self.program, product.blocks):
            heights = [self.program.shapes[block][0] for block in blocks]
            yield (
                f"dots({parameters_of(blocks[0].split('.')[0])}, "
                f"{self._total(self._rows_before(blocks[0]))}, {self._total(heights)}, "
                f"{operand}, {row}, rows, {result}, {self._total(column)})"
            )
            column += heights

    def _axes(self, name: str) -> tuple[Axis, ...]:
        if name in self.families:
            shapes = [self.program.shapes[block] for block in self.families[name]]
            return tuple(rows for rows, *_ in shapes), *((letter,) for letter in shapes[0][1:])
        states = dict(zip(self.given, self.layout.states.values(), strict=True))
        slab = self.layout.slabs[states.get(name, name)]
        values = slab.values or [
            received for received, buffer in self.layout.pending.items() if buffer == name
        ]
        columns = tuple(self.program.sizes[value] for value in values)
        return ALL_ROWS if slab.steps else ROWS, columns

    def _shape(self, axes: tuple[Axis, ...]) -> str:
        return f"({', '.join(a if isinstance(a, str) else self._total(a) for a in axes)},)"

    def _total(self, letters: Sequence[str]) -> str:
        """The sum of some sizes."""
        return self._sum(tuple(letters)).removesuffix("j").removesuffix(" + ") or "0"


class LiveKernel:
    """A forward program compiled for few steps.

    Attributes:
        program: what it computes.
        dtype: float32 or float64.
        layout: which array each value lies in.
        function: the text of its function.
    """

    def __init__(self, program: Program, dtype: np.dtype[Any]) -> None:
        self.program = program
        self.dtype = dtype
        self.layout = Layout(schedule(program, few_steps=True), tiles=False)
        self.function = LiveText(self.layout)

    @cached_property
    def text(self) -> str:
        """The text of the kernel's file."""
        function = list(self.function.lines())
        lines = [
            f'"""{self.program.name} for few steps, {self.dtype}: generated by Unrolled from its',
            "equations.",
            "",
            *str(self.program).replace("\\", "/").split("\n"),
            '"""',
            "",
            *imports(function),
            "",
            f"LANES = {vectors.lanes(self.dtype)}",
            f"real = np.{self.dtype}",
            "",
            "",
            *function,
        ]
        return "\n".join(lines) + "\n"

    @cached_property
    def path(self) -> Path:
        """The kernel's file in the cache folder."""
        return files.write(f"{self.program.name}_live_{self.dtype}", self.text, foundations())

    @cached_property
    def module(self) -> ModuleType:
        """The kernel's file as a module."""
        return files.load(self.path)

    @cached_property
    def call(self) -> Callable[[int], None]:
        """The compiled function, which takes the address of a table."""
        name = self.function.function
        announce(self.path, name, self.program, self.dtype)
        compiled = cfunc("void(voidptr)", cache=True, **OPTIONS_OF_CALLBACKS)
        self._code = compiled(getattr(self.module, name))  # the machine code lives as long as this
        return ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self._code.address)


def _stretches(program: Program, blocks: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Blocks that lie one after the other in their family, together."""
    places = {
        block: (family, number)
        for family, members in program.families.items()
        for number, block in enumerate(members)
    }

    def start(numbered: tuple[int, str]) -> tuple[str, int]:
        position, block = numbered
        family, number = places[block]
        return family, number - position

    for _, stretch in groupby(enumerate(blocks), start):
        yield tuple(block for _, block in stretch)


@cache
def live_kernel_for(program: Program, dtype: np.dtype[Any]) -> LiveKernel:
    """The kernel of a forward program for few steps of float32 or float64; one in a process."""
    return LiveKernel(program, dtype)


def shape_of(axes: tuple[Axis, ...], numbers: Mapping[str, int], length: int, batch: int) -> Any:
    """The shape of an array of a kernel, given the number of each size."""
    rows, known = {ROWS: batch, ALL_ROWS: length * batch}, {**numbers, ONE: 1}
    return tuple(
        rows[axis] if isinstance(axis, str) else sum(known[letter] for letter in axis)
        for axis in axes
    )


class Table:
    """The table of a call for given sizes, steps and rows; only addresses are still to be written.

    Attributes:
        numbers: the table, beginning with the addresses of the kernel's `pointers`.
        address: where it lies.
    """

    def __init__(
        self,
        kernel: LiveKernel,
        sizes: Mapping[str, int],
        length: int,
        batch: int,
        reverse: bool = False,
    ) -> None:
        function = kernel.function
        self._scratch = {
            name: np.empty(shape_of(function.axes[name], sizes, length, batch), kernel.dtype)
            for name in function.scratch
        }
        known = {
            **{f"{letter}_size": number for letter, number in sizes.items()},
            **{name: array.ctypes.data for name, array in self._scratch.items()},
            **dict(zip(COUNTS, (length, batch, 0, reverse), strict=True)),
        }
        self.numbers = (ctypes.c_int64 * len(function.table))()
        first = len(function.pointers)
        self.numbers[first:] = [known[name] for name in function.table[first:]]
        self.address = ctypes.addressof(self.numbers)

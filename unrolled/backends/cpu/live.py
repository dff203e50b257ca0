"""Kernels for few steps, streaming first of all: one function, one call, no preparation.

The kernels of `kernel.py` pay before the loop for what they save in it: products for all steps at
once, packed weights. Over one step nothing of that comes back. Here all work is in the loop, and
products read the parameters where they lie, so a weight that has just changed counts at once.

The function gets the address of a table; see `tables`.
"""

import ctypes
from collections.abc import Callable, Iterator
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ...program import Program
from ...schedule import Product, schedule
from .. import files
from ..blocks import lying_together
from . import vectors
from .compilation import compiled
from .layout import Layout
from .shared import foundations
from .slabs import LOOP
from .tables import (
    ALL_ROWS,
    BATCH,
    COUNTS,
    FIRST,
    Axis,
    Extent,
    letters_of,
    shape_of,
    written_shape,
    written_sum,
)
from .team import REVERSE
from .text import FunctionText
from .units import imports, parameters_of


class LiveText(FunctionText):
    """The text of the function: all stages of a few steps of all rows.

    Attributes:
        pointers: the arrays whose addresses change from call to call: inputs, the states given
            (address 0: zeros), outputs, the states handed on, families of parameters.
        scratch: the other arrays.
        lasting: none: it keeps nothing for the next call.
        axes: of each array its axes: of rows, or the sizes that are side by side on it.
        table: the name of what each place of the table behind its head holds.
    """

    step_number = "real(length - step if reverse else step + 1)"

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout, LOOP, "live")
        states = layout.states.values()
        self.given = [f"{state.removesuffix('_rows')}_given" for state in states]
        self.families = {
            parameters_of(family): blocks
            for family, blocks in self.program.families.items()
            if blocks
        }
        self.pointers = [*layout.inputs, *self.given, *layout.outputs, *states, *self.families]
        self.scratch = [name for name in self.arrays if name not in self.pointers]
        self.lasting: set[str] = set()
        self.axes = {name: self._axes(name) for name in (*self.pointers, *self.scratch)}
        for letter in letters_of(self.axes.values()):
            self._letter(letter)
        self.table = [*self.pointers, *COUNTS, *self.letters, *self.scratch]

    def lines(self) -> Iterator[str]:
        """The function's definition."""
        yield f"def {self.function}(address):"
        place = {name: number for number, name in enumerate(self.table, FIRST)}
        yield f"    table = array_at(address, ({FIRST + len(self.table)},), np.int64)"
        yield f"    reverse = held(table, {REVERSE}) != 0"
        for name in self.table:
            if name not in self.axes:
                yield f"    {name} = held(table, {place[name]})"
        for name, axes in self.axes.items():
            yield f"    {name} = array_at(held(table, {place[name]}), {written_shape(axes)}, real)"
        yield "    part, first, last, rows = 0, 0, batch, batch"
        yield "    begin, share, shares = 0, 0, 1"
        yield "    mode = flush_denormals()"
        for state, given in zip(self.layout.states.values(), self.given, strict=True):
            yield f"    if held(table, {place[given]}) != 0:"
            yield f"        copy({given}, {state})"
            yield "    else:"
            yield f"        set_all({state}, 0.0)"
        yield from self._indented(1, self.shared)
        yield from self._indented(1, self.loop)
        yield "    restore_mode(mode)"

    def _loop(self) -> Iterator[str]:
        yield from self._both_buffers()
        yield "for k in range(begin, length):"
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
        for blocks in lying_together(self.program, product.blocks):
            heights = [self.program.shapes[block][0] for block in blocks]
            yield (
                f"dots({parameters_of(blocks[0].split('.')[0])}, "
                f"{written_sum(self._rows_before(blocks[0]))}, {written_sum(heights)}, "
                f"{operand}, {row}, rows, {result}, 0, {written_sum(column)})"
            )
            column += heights

    def numbers(self, extent: Extent) -> dict[str, int]:
        """None of its own."""
        return {}

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
        return ALL_ROWS if slab.steps else BATCH, columns

    def shape(self, name: str, extent: Extent) -> tuple[int, ...]:
        """The shape of one of its arrays."""
        return shape_of(self.axes[name], extent)


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
            "know(real)",
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
    def call(self) -> Callable[[int], None]:
        """The compiled function, which takes the address of a table."""
        address = compiled(self.path, self.function.function, self.program.name, self.dtype)
        return ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)


@cache
def live_kernel_for(program: Program, dtype: np.dtype[Any]) -> LiveKernel:
    """The kernel of a forward program for few steps of float32 or float64; one in a process."""
    return LiveKernel(program, dtype)

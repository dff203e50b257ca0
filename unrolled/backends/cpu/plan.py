"""A kernel for given sizes, and running it: what depends on no array is worked out once."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from ...language.sizes import ONE
from ...program import Program
from ...schedule import Product
from ..blocks import block_rows, family_shapes, stretches
from ..steps import Array, Result, Steps
from .layout import AFTER, BEFORE, Layout
from .packing import packed_shape
from .team import CUTS, PARTS, REVERSE, SHARES, described
from .text import FunctionText, loop_products, parameters_of
from .threads import run_together
from .totals import Totals

Matmul = Callable[[Array, Array, Array], Any]

# Work below which another thread costs more than it brings: about 30 µs of it.
THREAD_WORK = 1_000_000

# Threads share the units of a step where each would have fewer rows of the batch than this, and
# the multiplications of a step are worth two meetings.
FEW_ROWS = 3
SHARED_WORK = 10_000


class Compiled(Protocol):
    """Where the compiled functions are; a kernel."""

    @property
    def module(self) -> ModuleType:
        """The generated file as a module."""

    def address(self, name: str) -> int:
        """The address of one of its functions for a team of threads."""


@dataclass(frozen=True)
class Weights:
    """Blocks of parameters stacked for a product.

    Attributes:
        parts: family and rows of each stretch of blocks that lie one after the other.
        transposed: whether the product takes them transposed.
    """

    parts: tuple[tuple[str, slice], ...]
    transposed: bool

    def of(self, parameters: Mapping[str, Array]) -> Array:
        """The stacked blocks, (operand, result): a view where they lie together."""
        if len(self.parts) == 1:
            family, rows = self.parts[0]
            stacked = parameters[family][rows]
        else:
            stacked = np.concatenate([parameters[family][rows] for family, rows in self.parts])
        return stacked.T if self.transposed else stacked


class Plan:
    """A kernel for given sizes.

    Args:
        layout: which array each value lies in.
        sizes: letter → number.
        dtype: of all arrays.
        functions: name → the text of each function of the kernel.
        kernel: where the compiled functions are.
    """

    def __init__(
        self,
        layout: Layout,
        sizes: Mapping[str, int],
        dtype: np.dtype[Any],
        functions: Mapping[str, FunctionText],
        kernel: Compiled,
    ) -> None:
        self.layout = layout
        self.program: Program = layout.schedule.program
        self.sizes = {**sizes, ONE: 1}
        self.dtype = dtype
        self.kernel = kernel
        self.places = block_rows(self.program, self.sizes)
        self.family_shapes = family_shapes(self.program, self.sizes)
        self.work_of_a_row = self._work_of_a_row()
        self.arguments = {name: self._arguments(text) for name, text in functions.items()}
        given = {*layout.inputs, *layout.states.values()}
        self.slabs = [
            (name, slab, self._width(slab.values))
            for name, slab in layout.slabs.items()
            if name not in given and name not in layout.pending.values()
        ]
        self.weights = {
            product: self._weights(product)
            for stages in layout.sections
            for stage in stages
            for product in stage.products
        }
        self.vectors = [
            (parameters_of(family), family)
            for family, blocks in self.program.families.items()
            if blocks and len(self.program.shapes[blocks[0]]) == 1
        ]
        self.packed = [
            (f"packed_{number}", self.weights[product])
            for number, product in enumerate(loop_products(layout))
        ]
        self.row_sums = [
            (name, self.sizes[self.program.shapes[total.parameter][0]])
            for total, name in layout.row_sums.items()
        ]
        self._columns: dict[tuple[str, ...], tuple[str, slice]] = {}
        self.outputs = frozenset(value for group in self.program.outputs for value in group)

    def run(
        self,
        inputs: Sequence[Array],
        states: Sequence[Array],
        parameters: Mapping[str, Array],
        steps: Steps,
        reverse: bool,
        matmul: Matmul,
        threads: int,
        wanted: frozenset[str] | None,
    ) -> Result:
        """Run the kernel over a sequence; the arguments are those of `Kernel.run`."""
        call = _Call(self, inputs, states, parameters, steps, reverse, matmul, threads)
        return call.result(wanted)

    def columns(self, values: tuple[str, ...]) -> tuple[str, slice]:
        """The array with rows of all steps that holds `values` side by side, and its columns."""
        if values not in self._columns:
            found = self.layout.find(values, steps=True)
            assert found is not None, f"{values} lie nowhere side by side"
            slab, position = found
            start = sum(self.sizes[letter] for letter in self.layout.columns_before(slab, position))
            self._columns[values] = slab, slice(start, start + self._width(values))
        return self._columns[values]

    def _width(self, values: tuple[str, ...]) -> int:
        return sum(self.sizes[self.program.sizes[value]] for value in values)

    def _arguments(self, text: FunctionText) -> tuple[int | str, ...]:
        """Of a function its arguments after the steps: sizes, and names of arrays."""
        numbers = {f"{letter}_size": size for letter, size in self.sizes.items()}
        return tuple(numbers.get(argument, argument) for argument in text.arguments)

    def _work_of_a_row(self) -> int:
        """About how many multiplications one step of one row takes."""
        units = sum(self.sizes[self.program.sizes[i.name]] for i in self.program.instructions)
        return 8 * units + sum(
            self.sizes[rows] * self.sizes[columns]
            for product in loop_products(self.layout)
            for rows, columns in (self.program.shapes[block] for block in product.blocks)
        )

    def _weights(self, product: Product) -> Weights:
        parts = stretches(self.places[block] for block in product.blocks)
        return Weights(tuple(parts), product.operation == "matmul")


class _Call:
    """One run of a plan: its arrays, and the order of things."""

    def __init__(
        self,
        plan: Plan,
        inputs: Sequence[Array],
        states: Sequence[Array],
        parameters: Mapping[str, Array],
        steps: Steps,
        reverse: bool,
        matmul: Matmul,
        threads: int,
    ) -> None:
        self.plan = plan
        self.parameters = parameters
        self.steps = steps
        self.reverse = reverse
        self.matmul = matmul
        self.threads = min(threads, 1 + steps.rows * plan.work_of_a_row // THREAD_WORK)
        self.arrays: dict[str, Array] = {}
        self._take(inputs, states)

    def _take(self, inputs: Sequence[Array], states: Sequence[Array]) -> None:
        plan, arrays, dtype = self.plan, self.arrays, self.plan.dtype
        layout, steps = plan.layout, self.steps
        for name, array in zip(layout.inputs, inputs, strict=True):
            arrays[name] = np.ascontiguousarray(array, dtype)
        for name, state in zip(layout.states.values(), states, strict=True):
            arrays[name] = np.array(state, dtype, order="C")
        for received, name in layout.pending.items():
            arrays[name] = np.empty_like(arrays[layout.states[received]])
        for name, slab, columns in plan.slabs:
            rows = steps.rows if slab.steps else self.threads if slab.scratch else steps.batch
            arrays[name] = np.empty((rows, columns), dtype)
        for name, size in plan.row_sums:
            arrays[name] = np.zeros((steps.batch, size), dtype)
        for name, family in plan.vectors:
            arrays[name] = np.ascontiguousarray(self.parameters[family], dtype)
        for name, weights in plan.packed:
            arrays[name] = self._packed(weights.of(self.parameters))

    def _packed(self, weights: Array) -> Array:
        rows, columns = weights.shape
        packed = np.empty(packed_shape(rows, columns, weights.dtype), weights.dtype)
        self.plan.kernel.module.pack(weights, packed)
        return packed

    def result(self, wanted: frozenset[str] | None) -> Result:
        self._section(BEFORE)
        self._call("loop")
        layout = self.plan.layout
        wanting = wanted is None or not wanted.isdisjoint(self.plan.outputs)
        if wanting or layout.schedule.totals_wait:
            self._section(AFTER)
        return Result(
            outputs=tuple(self.arrays[name] for name in layout.outputs),
            states=tuple(self.arrays[name] for name in layout.states.values()),
            totals=self._totals(wanted) if self.plan.program.adjoint else {},
        )

    def _section(self, section: int) -> None:
        word = "before" if section == BEFORE else "after"
        for number, stage in enumerate(self.plan.layout.sections[section]):
            for product in stage.products:
                out = self.arrays[self.plan.layout.results[product]]
                weights = self.plan.weights[product].of(self.parameters)
                self.matmul(self._columns(product.operands), weights, out)
            if f"{word}_{number}" in self.plan.arguments:
                self._call(f"{word}_{number}")

    def _call(self, name: str) -> None:
        """Call one of the functions, by a team of threads that share its work out."""
        steps, threads, shares = self.steps, self.threads, 1
        if name != "loop":
            cuts = steps.cut_steps(threads)
        elif self._few_rows():
            shares, cuts = threads, steps.cut_rows(1)
        else:
            threads = max(1, min(threads, steps.batch))
            cuts = steps.cut_rows(threads)
        head = [0] * CUTS
        head[PARTS], head[SHARES], head[REVERSE] = len(cuts) - 1, shares, self.reverse
        arrays = (self.arrays[a] if isinstance(a, str) else a for a in self.plan.arguments[name])
        rest = described([cuts, steps.active, steps.offset, steps.lengths, *arrays])
        table = np.array([*head, *rest], np.int64)
        run_together(self.plan.kernel.address(name), table.ctypes.data, threads)

    def _few_rows(self) -> bool:
        """Whether the threads share the units of each step, and not the rows of the batch."""
        batch, plan = self.steps.batch, self.plan
        return (
            self.threads > 1
            and batch < FEW_ROWS * self.threads
            and batch * plan.work_of_a_row >= SHARED_WORK
            and plan.layout.shareable
        )

    def _columns(self, values: tuple[str, ...]) -> Array:
        slab, columns = self.plan.columns(values)
        return self.arrays[slab][:, columns]

    # gradients of parameters

    def _totals(self, wanted: frozenset[str] | None) -> dict[str, Array]:
        plan = self.plan
        totals = Totals(plan.family_shapes, wanted, plan.places, plan.dtype)
        for outer in plan.layout.schedule.outers:
            if totals.want(outer.blocks):
                vectors, operand = self._columns(outer.vectors), self._columns((outer.operand,))
                with totals.adding(outer.blocks) as out:
                    self.matmul(vectors.T, operand, out)
        for total in plan.layout.schedule.sums:
            if totals.want((total.parameter,)):
                with totals.adding((total.parameter,)) as out:
                    if total in plan.layout.row_sums:
                        self.arrays[plan.layout.row_sums[total]].sum(0, out=out)
                    else:
                        columns = self._columns(total.factors)
                        ones = np.ones((1, len(columns)), plan.dtype)
                        self.matmul(ones, columns, out[None])
        return totals.finished()

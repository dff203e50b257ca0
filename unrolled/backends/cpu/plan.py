"""A kernel for given sizes, and running it: what depends on no array is worked out once."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import gcd
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ...language.sizes import ONE
from ...program import Program
from ...schedule import Product
from ..blocks import block_rows, family_shapes, stretches
from ..steps import Array, Result, Steps
from . import memory, packing, short
from .layout import AFTER, BEFORE, Layout
from .products import TILE_ROWS
from .sharing import share_out, work_outside, worth
from .shelf import Shelf
from .short import Pass, WholePasses
from .sums import sums_together
from .tables import Table
from .team import BEHIND, CUTS, PARTS, REVERSE, SHARES, described
from .text import FunctionText, loop_products
from .threads import run_together
from .totals import Totals
from .units import parameters_of, width_of
from .vectors import lanes
from .whole import WholeText

Matmul = Callable[[Array, Array, Array], Any]

_shelf = Shelf()


class Compiled(Protocol):
    """Where the compiled functions are; a kernel."""

    whole: WholeText

    def run_whole(self, tables: Sequence[Table], threads: int) -> None:
        """Do whole passes, one table each."""

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
        self.work_of_a_row = layout.work_of_a_row(self.sizes)
        self.work_outside = work_outside(layout.schedule, self.sizes)
        self.arguments = {name: text.arguments for name, text in functions.items()}
        self.numbers = {f"{letter}_size": size for letter, size in self.sizes.items()}
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
            (f"packed_{number}", product) for number, product in enumerate(loop_products(layout))
        ]
        self.row_sums = [
            (name, self.sizes[self.program.shapes[total.parameter][0]])
            for total, name in layout.row_sums.items()
        ]
        self.sums = sums_together(layout)
        self._columns: dict[tuple[str, ...], tuple[str, slice]] = {}
        self.infers = not self.program.adjoint and len(self.program.outputs) == 1
        self.outputs = frozenset(value for group in self.program.outputs for value in group)
        self.whole_passes = WholePasses(
            kernel.whole, kernel.run_whole, self.sizes, dtype, self.family_shapes
        )

    def run(
        self,
        passes: Sequence[Pass],
        steps: Steps,
        matmul: Matmul,
        threads: int,
        wanted: frozenset[str] | None,
    ) -> list[Result]:
        """Run the kernel over a sequence; the arguments are those of `Kernel.run_together`."""
        work = self.work_outside + self.work_of_a_row
        threads = worth(len(passes) * steps.rows, work, threads)
        sharing = share_out(
            steps, self.work_of_a_row, self.layout.shareable, max(1, threads // len(passes)),
            self.work_outside, self.dtype.itemsize, trains=not self.infers,
        )  # fmt: skip
        if short.is_whole(steps.rows, steps.batch, work):
            return self.whole_passes.run(passes, steps, sharing, threads, wanted)
        # So that all have the same work: three threads and two passes are three parts of each.
        each = threads // gcd(threads, len(passes))
        calls = [_Call(self, one, steps, matmul, each, sharing.shares) for one in passes]
        self._section(calls, BEFORE, threads)
        self._together(calls, "loop", threads)
        if wanted is None or not wanted.isdisjoint(self.outputs):
            self._section(calls, AFTER, threads)
        elif wanted:
            self._section(calls, AFTER, threads, self.layout.schedule.stages_of_totals)
        return [call.result(wanted) for call in calls]

    def _section(
        self, calls: Sequence["_Call"], section: int, threads: int, stages: int | None = None
    ) -> None:
        """Run the first stages of a section, all if None."""
        word = "before" if section == BEFORE else "after"
        for number, stage in enumerate(self.layout.sections[section][:stages]):
            for call in calls:
                call.multiply(stage.products)
            if f"{word}_{number}" in self.arguments:
                self._together(calls, f"{word}_{number}", threads)

    def _together(self, calls: Sequence["_Call"], name: str, threads: int) -> None:
        """Do one of the functions for all calls, by a team of threads that share its work out."""
        tables = [call.table(name) for call in calls]
        for table, behind in pairwise(tables):
            table[BEHIND] = behind.ctypes.data
        shared = sum(int(max(table[PARTS], table[SHARES])) for table in tables)
        first = tables[0].ctypes.data
        run_together(self.kernel.address(name), first, max(1, min(threads, shared)))

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

    def _weights(self, product: Product) -> Weights:
        parts = stretches(self.places[block] for block in product.blocks)
        return Weights(tuple(parts), product.operation == "matmul")


class _Call:
    """One pass of a plan: its arrays, and what is done with them.

    Args:
        plan: the kernel for its sizes.
        given: what the pass is given.
        steps: the rows of each step.
        matmul: for the large products.
        parts: in how many parts its rows and steps are cut.
        shares: how many threads share the units of each step, where it has few rows.
    """

    def __init__(
        self, plan: Plan, given: Pass, steps: Steps, matmul: Matmul, parts: int, shares: int
    ) -> None:
        self.plan = plan
        self.parameters = given.parameters
        self.steps = steps
        self.reverse = given.reverse
        self.matmul = matmul
        self.parts = parts
        self.shares = shares
        self.arrays: dict[str, Array] = {}
        self._take(given.inputs, given.states)

    def _take(self, inputs: Sequence[Array], states: Sequence[Array]) -> None:
        plan, arrays, dtype = self.plan, self.arrays, self.plan.dtype
        layout, steps = plan.layout, self.steps
        for name, array in zip(layout.inputs, inputs, strict=True):
            arrays[name] = np.ascontiguousarray(array, dtype)
        for name, state in zip(layout.states.values(), states, strict=True):
            arrays[name] = memory.copied(state, dtype)
        for received, name in layout.pending.items():
            arrays[name] = memory.copied(arrays[layout.states[received]], dtype)
        self.vectors = {
            letter: layout.vectors_of_group(
                letter, plan.sizes[letter], dtype, steps.batch, self.shares
            )
            for letter in layout.vectors
        }
        numbers = {width_of(letter): n * lanes(dtype) for letter, n in self.vectors.items()}
        self.numbers = {**plan.numbers, **numbers}
        for name, slab, columns in plan.slabs:
            rows = steps.rows if slab.steps else steps.batch
            if slab.scratch:
                rows = self.parts
            if slab.tile:
                rows = self.parts * TILE_ROWS
                columns = len(slab.values) * self._group(plan.program.sizes[slab.values[0]])
            arrays[name] = memory.empty((rows, columns), dtype)
        for name, size in plan.row_sums:
            arrays[name] = np.zeros((steps.batch, size), dtype)
        for name, family in plan.vectors:
            arrays[name] = np.ascontiguousarray(self.parameters[family], dtype)
        for name, product in plan.packed:
            arrays[name] = self._packed(product)

    def _group(self, letter: str) -> int:
        """How many units of a vector a group has."""
        return self.vectors[letter] * lanes(self.plan.dtype)

    def _packed(self, product: Product) -> Array:
        weights = self.plan.weights[product].of(self.parameters)
        blocks, letter = len(product.results), self.plan.program.sizes[product.results[0]]
        vectors = self.vectors[letter]

        def pack() -> Array:
            return packing.pack(weights, blocks, vectors)

        # While a network learns, its weights are others at each call.
        return _shelf.packed(weights, (blocks, vectors), pack) if self.plan.infers else pack()

    def multiply(self, products: Iterable[Product]) -> None:
        """Do some large products."""
        for product in products:
            out = self.arrays[self.plan.layout.results[product]]
            weights = self.plan.weights[product].of(self.parameters)
            self.matmul(self._columns(product.operands), weights, out)

    def result(self, wanted: frozenset[str] | None) -> Result:
        """What the pass gives, when all is done."""
        layout = self.plan.layout
        return Result(
            outputs=tuple(self.arrays[name] for name in layout.outputs),
            states=tuple(self.arrays[name] for name in layout.states.values()),
            totals=self._totals(wanted) if self.plan.program.adjoint else {},
        )

    def table(self, name: str) -> npt.NDArray[np.int64]:
        """The table of a function, which shares its work out; see `team`."""
        steps, shares = self.steps, 1
        if name != "loop":
            cuts = steps.cut_steps(self.parts)
        elif self.shares > 1:
            shares, cuts = self.shares, steps.cut_rows(1)
        else:
            cuts = steps.cut_rows(max(1, min(self.parts, steps.batch)))
        head = [0] * CUTS
        head[PARTS], head[SHARES], head[REVERSE] = len(cuts) - 1, shares, self.reverse
        arrays = (
            self.numbers[argument] if argument in self.numbers else self.arrays[argument]
            for argument in self.plan.arguments[name]
        )
        rest = described([cuts, steps.active, steps.offset, steps.lengths, *arrays])
        self._cuts = cuts  # the table knows nothing but its address
        return np.array([*head, *rest], np.int64)

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
        for group in plan.sums:
            parameters = tuple(total.parameter for total in group)
            if totals.want(parameters):
                with totals.adding(parameters) as out:
                    if group[0] in plan.layout.row_sums:
                        self.arrays[plan.layout.row_sums[group[0]]].sum(0, out=out)
                    else:
                        columns = self._columns(tuple(total.factors[0] for total in group))
                        ones = np.ones((1, len(columns)), plan.dtype)
                        self.matmul(ones, columns, out[None])
        return totals.finished()

"""A kernel for given sizes, and running it: what depends on no array is worked out once."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from struct import Struct
from typing import Any, NamedTuple

import numpy as np

from ...language.sizes import ONE
from ..blocks import family_shapes
from ..steps import Array, Result, Steps
from . import memory
from .lending import Lending
from .sharing import Sharing, share_out, work_outside, worth
from .tables import FIRST, Extent, Table
from .whole import WholeText


class Pass(NamedTuple):
    """What one pass over a sequence is given.

    Attributes:
        inputs: an array for each group of inputs.
        states: an array (B, size) for each carried pair.
        parameters: family → stacked blocks.
        reverse: whether the layer reads the sequence from its end.
    """

    inputs: Sequence[Array]
    states: Sequence[Array]
    parameters: Mapping[str, Array]
    reverse: bool


class Plan:
    """A kernel for given sizes.

    Args:
        text: of the function that does whole passes.
        run_whole: does passes by their tables, on so many threads; see `Kernel.run_whole`.
        sizes: letter → number.
        dtype: of all arrays.
    """

    def __init__(
        self,
        text: WholeText,
        run_whole: Callable[[Sequence[Table], int], None],
        sizes: Mapping[str, int],
        dtype: np.dtype[Any],
    ) -> None:
        self._text, self._run_whole, self._dtype = text, run_whole, dtype
        self._sizes = {**sizes, ONE: 1}
        program = text.program
        self._family_shapes = family_shapes(program, self._sizes)
        self._work_of_a_row = text.layout.work_of_a_row(self._sizes)
        self._work_outside = work_outside(text.layout.schedule, self._sizes)
        self._write = Struct(f"{len(text.pointers)}q").pack_into
        self._tables: Lending[Table] = Lending()
        self._widths = [
            sum(self._sizes[program.sizes[value]] for value in group) for group in program.outputs
        ]
        self._outputs = frozenset(value for group in program.outputs for value in group)
        self._trains = program.adjoint or len(program.outputs) > 1

    def run(
        self, passes: Sequence[Pass], steps: Steps, threads: int, wanted: frozenset[str] | None
    ) -> list[Result]:
        """Run the kernel over a sequence; the arguments are those of `Kernel.run_together`."""
        work = self._work_outside + self._work_of_a_row
        threads = worth(len(passes) * steps.rows, work, threads)
        sharing = share_out(
            steps, self._work_of_a_row, self._text.layout.shareable,
            max(1, threads // len(passes)), self._work_outside, self._dtype.itemsize, self._trains,
        )  # fmt: skip
        keys = [_key(steps, sharing, one.reverse) for one in passes]
        tables = [
            self._lent(key, steps, sharing, one.reverse)
            for key, one in zip(keys, passes, strict=True)
        ]
        # What has been made contiguous must live until all is done.
        prepared = [self._arrays(one, steps, wanted) for one in passes]
        for table, (arrays, _) in zip(tables, prepared, strict=True):
            self._write(table.numbers, 8 * FIRST, *map(_address, arrays))
        self._run_whole(tables, threads)
        for key, table in zip(keys, tables, strict=True):
            self._tables.put_back(key, table)
        return [result for _, result in prepared]

    def _lent(self, key: Hashable, steps: Steps, sharing: Sharing, reverse: bool) -> Table:
        """A table that nobody else works with."""
        table = self._tables.taken(key)
        if table is None:
            extent = Extent(self._sizes, steps, sharing, self._dtype)
            table = Table(self._text, extent, reverse)
        return table

    def _arrays(
        self, given: Pass, steps: Steps, wanted: frozenset[str] | None
    ) -> tuple[list[Array | None], Result]:
        """The arrays of a pass in the order of its table, None for what is not wanted."""
        dtype, text = self._dtype, self._text
        everything = wanted is None or text.needs_outputs or not wanted.isdisjoint(self._outputs)
        outputs = tuple(memory.empty((steps.rows, width), dtype) for width in self._widths)
        begun = [np.ascontiguousarray(state, dtype) for state in given.states]
        states = tuple(memory.empty(state.shape, dtype) for state in begun)
        totals = {
            family: memory.empty(self._family_shapes[family], dtype)
            for family in text.totals
            if wanted is None or family in wanted
        }
        arrays: list[Array | None] = [
            *(np.ascontiguousarray(array, dtype) for array in given.inputs),
            *begun,
            *(outputs if everything else [None] * len(outputs)),
            *states,
            *(np.ascontiguousarray(given.parameters[family], dtype) for family in text.families),
            *(totals.get(family) for family in text.totals),
        ]
        return arrays, Result(outputs, states, totals)


def _key(steps: Steps, sharing: Sharing, reverse: bool) -> Hashable:
    """What a table depends on: of a ragged batch, on these very steps."""
    dense = steps.rows == steps.length * steps.batch
    rows = (steps.length, steps.batch) if dense else steps
    return rows, sharing.threads, sharing.shares, sharing.pipelined, reverse


def _address(array: Array | None) -> int:
    return 0 if array is None else int(array.__array_interface__["data"][0])

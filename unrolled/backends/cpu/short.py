"""Whole passes on arrays by one call, with tables that are kept; and what sequences are short."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from struct import Struct
from typing import Any, NamedTuple

import numpy as np

from ..steps import Array, Result, Steps
from . import memory
from .lending import Lending
from .sharing import Sharing
from .tables import FIRST, Extent, Table
from .vectors import WIDE_ZEN, lanes
from .whole import WholeText

# A sequence is short up to so many multiplications in one direction of one layer. Beyond, a BLAS
# was quicker in the products outside of the loop. Measured with AVX-512 on two cores of a Xeon: at
# 260 million as long in training and 0.85 of the time in inference, at 400 million 1.2 and 0.95.
SHORT_WORK = 16_000_000 * lanes(np.float32)

# A single row is short up to so many times that: little of its time goes into those products, which
# may be a second thread's beside the loop (`pipeline`). Measured up to 2300 million (LSTM, GRU; 64
# to 256 units): 0.7 to 0.9 of the time in inference, 0.65 to 1.0 in training.
SINGLE_ROW = 100

# MKL and OpenBLAS take vectors of 512 bits on Intel's processors only. On a Zen 5 (AMD) `outside`
# multiplies at 2.1 to 2.6 times the rate of theirs, so there a BLAS has nothing to do. A Zen 4,
# which does a vector of 512 bits in two halves, was not measured.
BLAS_IS_WIDE = not WIDE_ZEN


def is_short(rows: int, batch: int, work_of_a_row: int) -> bool:
    """Whether a sequence is short.

    Args:
        rows: of all steps.
        batch: B, rows of the batch.
        work_of_a_row: about how many multiplications each takes, in and outside of the loop.
    """
    return rows * work_of_a_row <= SHORT_WORK * (SINGLE_ROW if batch == 1 else 1)


def is_whole(rows: int, batch: int, work_of_a_row: int) -> bool:
    """Whether one call of a kernel does the whole of a pass; arguments as `is_short` takes them."""
    return not BLAS_IS_WIDE or is_short(rows, batch, work_of_a_row)


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


class WholePasses:
    """Whole passes of one program for given sizes.

    Args:
        text: of the function that does them.
        run_whole: does passes by their tables, on so many threads; see `Kernel.run_whole`.
        sizes: letter → number, numbers themselves among them.
        dtype: of all arrays.
        family_shapes: family → its shape.
    """

    def __init__(
        self,
        text: WholeText,
        run_whole: Callable[[Sequence[Table], int], None],
        sizes: Mapping[str, int],
        dtype: np.dtype[Any],
        family_shapes: Mapping[str, tuple[int, ...]],
    ) -> None:
        self._text, self._run_whole = text, run_whole
        self._sizes, self._dtype, self._family_shapes = sizes, dtype, family_shapes
        self._write = Struct(f"{len(text.pointers)}q").pack_into
        self._tables: Lending[Table] = Lending()
        program = text.program
        self._widths = [
            sum(sizes[program.sizes[value]] for value in group) for group in program.outputs
        ]
        self._outputs = frozenset(value for group in program.outputs for value in group)

    def run(
        self,
        passes: Sequence[Pass],
        steps: Steps,
        sharing: Sharing,
        threads: int,
        wanted: frozenset[str] | None,
    ) -> list[Result]:
        """Do the passes.

        Args:
            passes: as `Kernel.run_together` takes them.
            steps: as `Kernel.run_together` takes them.
            sharing: how each pass is shared out.
            threads: how many there are for all passes.
            wanted: as `Kernel.run_together` takes it.
        """
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
            *(outputs if everything else [None] * len(outputs)),
            *begun,
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

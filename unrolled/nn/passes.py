"""Passes: of each direction of each layer a compiled function with its table, for one shape."""

from collections.abc import Callable, Sequence
from functools import cached_property
from struct import Struct
from typing import Any, NamedTuple

import numpy as np

from ..backends.cpu import Kernel, kernel_for, memory
from ..backends.cpu.live import LiveKernel, LiveText, live_kernel_for
from ..backends.cpu.sharing import share_out, work_outside
from ..backends.cpu.tables import Extent, Table, room_of
from ..backends.cpu.whole import WholeText
from ..backends.steps import Array, Steps
from ..program import Program
from .direction import Direction

# Rows of one step that read weights where they lie, at most, times the threads that they are worth.
# More are quicker with packed weights. Measured on a Zen 5 (LSTM, GRU, simple RNN; 64 to 512
# units): by one thread as long at 8 to 16 rows, by two at 4 to 6 where two are of use, and 0.4 of
# the time at 64.
ROWS = 8


class Pass(NamedTuple):
    """One direction of one layer: what a call writes into its table, and the call.

    Attributes:
        write: `write(numbers, place, *addresses)`, of as many as change from call to call.
        numbers: the table's.
        call: the compiled function, for one thread.
        address: where the table lies.
        table: which holds the memory.
        kernel: by which a team of threads does it; None if it takes one thread only.
    """

    write: Callable[..., None]
    numbers: Any
    call: Callable[[int], None]
    address: int
    table: Table
    kernel: Kernel | None


class Passes:
    """The passes through a stack of layers.

    Args:
        directions: of all layers, the two of a bidirectional one side by side.
        width: directions of a layer.
        steps: the rows of each step.
        threads: how many there are for a layer.
        dtype: float32 or float64.

    Attributes:
        nbytes: the memory that the passes made so far hold.
    """

    def __init__(
        self,
        directions: Sequence[Direction],
        width: int,
        steps: Steps,
        threads: int,
        dtype: np.dtype[Any],
    ) -> None:
        self.directions, self.width = directions, width
        self.steps, self.threads, self.dtype = steps, threads, dtype
        self.nbytes = 0

    def inference(self) -> list[Pass]:
        """Forward, when nothing is kept; weights stay packed in memory of each pass's own."""
        return self._made("inference", self._rooms("inference"))

    def training(self) -> list[Pass]:
        """Forward, when a backward pass will follow."""
        return self._made("training", self.rooms_of_training)

    def adjoint(self) -> list[Pass]:
        """Backward."""
        return self._made("adjoint", self.rooms_of_training)

    @cached_property
    def rooms_of_training(self) -> list[Array]:
        """The memory in which passes of training work, for each direction of a layer."""
        return self._rooms("training", "adjoint")

    def _rooms(self, *kinds: str) -> list[Array]:
        """Memory for passes that come one after the other, for each direction of a layer.

        That is those of all layers, forward and back. None of them needs what another one has left,
        so they work in the same memory: each finds in the caches what it writes on, and nothing
        there that nobody will read.
        """
        needed = [0] * self.width
        for number, direction in enumerate(self.directions):
            for kind in kinds:
                kernel = self._kernel(direction, kind)
                nbytes = room_of(_function_of(kernel), self._extent(direction, kind, kernel))
                needed[number % self.width] = max(needed[number % self.width], nbytes)
        self.nbytes += sum(needed)
        return [memory.empty((nbytes,), np.dtype(np.uint8)) for nbytes in needed]

    def _made(self, kind: str, rooms: Sequence[Array]) -> list[Pass]:
        made = [
            self._pass(direction, kind, rooms[number % self.width])
            for number, direction in enumerate(self.directions)
        ]
        self.nbytes += sum(one.table.nbytes for one in made)
        return made

    def _kernel(self, direction: Direction, kind: str) -> Kernel | LiveKernel:
        program: Program = getattr(direction, kind)
        steps = self.steps
        one_step = steps.length == 1 and steps.rows == steps.batch
        if kind == "inference" and one_step and steps.rows * self.threads <= ROWS:
            return live_kernel_for(program, self.dtype)
        return kernel_for(program, self.dtype)

    def _extent(self, direction: Direction, kind: str, kernel: Kernel | LiveKernel) -> Extent:
        shareable, work, outside, threads = False, 0, 0, 1
        if isinstance(kernel, Kernel):
            shareable = kernel.layout.shareable
            work = kernel.layout.work_of_a_row(direction.sizes)
            outside = work_outside(kernel.schedule, direction.sizes)
            threads = max(1, self.threads // self.width)
        sharing = share_out(
            self.steps, work, shareable, threads, outside, self.dtype.itemsize, kind != "inference"
        )
        return Extent(direction.sizes, self.steps, sharing, self.dtype)

    def _pass(self, direction: Direction, kind: str, room: Array) -> Pass:
        kernel, team = self._kernel(direction, kind), None
        function = _function_of(kernel)
        table = Table(function, self._extent(direction, kind, kernel), direction.reverse, room)
        if isinstance(kernel, Kernel):
            call = kernel.call_whole
            if self.threads > 1 and table.threads * self.width > 1:
                team = kernel
        else:
            call = kernel.call
        write = Struct(f"{len(function.pointers)}q").pack_into
        return Pass(write, table.numbers, call, table.address, table, team)


def _function_of(kernel: Kernel | LiveKernel) -> WholeText | LiveText:
    """The function that does a pass."""
    return kernel.whole if isinstance(kernel, Kernel) else kernel.function

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
# More are quicker with packed weights. Measured on a Xeon (LSTM, GRU, simple RNN; 64 to 512 units):
# with 16 rows one thread takes 0.7 to 1.07 of the time of a pass with packed weights, with 8 one
# takes 0.75 to 1.1 of that of two; with 16, two threads are quicker at 512 units.
ROWS = 16


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


class _Function(NamedTuple):
    """What does a pass, before it is compiled and has memory.

    Attributes:
        reverse: whether it reads the sequence from its end.
        kernel: whose function it is.
        text: of the function.
        extent: what the shapes of its arrays depend on.
    """

    reverse: bool
    kernel: Kernel | LiveKernel
    text: WholeText | LiveText
    extent: Extent


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
        functions = self._functions("inference")
        return self._made(functions, self._rooms(functions))

    def training(self) -> list[Pass]:
        """Forward, when a backward pass will follow."""
        return self._made(self._of_training[0], self.rooms_of_training)

    def adjoint(self) -> list[Pass]:
        """Backward."""
        return self._made(self._of_training[1], self.rooms_of_training)

    @cached_property
    def _of_training(self) -> tuple[list[_Function], list[_Function]]:
        return self._functions("training"), self._functions("adjoint")

    @cached_property
    def rooms_of_training(self) -> list[Array]:
        """The memory in which passes of training work, for each direction of a layer."""
        return self._rooms(*self._of_training)

    def _rooms(self, *kinds: list[_Function]) -> list[Array]:
        """Memory for passes that come one after the other, for each direction of a layer.

        That is those of all layers, forward and back. None of them needs what another one has left,
        so they work in the same memory: each finds in the caches what it writes on, and nothing
        there that nobody will read.
        """
        needed = [
            max(
                room_of(one.text, one.extent)
                for functions in kinds
                for one in functions[side :: self.width]
            )
            for side in range(self.width)
        ]
        self.nbytes += sum(needed)
        return [memory.empty((nbytes,), np.dtype(np.uint8)) for nbytes in needed]

    def _functions(self, kind: str) -> list[_Function]:
        return [self._function(direction, kind) for direction in self.directions]

    def _function(self, direction: Direction, kind: str) -> _Function:
        program: Program = getattr(direction, kind)
        steps, dtype = self.steps, self.dtype
        one_step = steps.length == 1 and steps.rows == steps.batch
        if kind == "inference" and one_step and steps.rows * self.threads <= ROWS:
            live = live_kernel_for(program, dtype)
            sharing = share_out(steps, 0, False, 1)
            extent = Extent(direction.sizes, steps, sharing, dtype)
            return _Function(direction.reverse, live, live.function, extent)
        kernel = kernel_for(program, dtype)
        sharing = share_out(
            steps, kernel.layout.work_of_a_row(direction.sizes), kernel.layout.shareable,
            max(1, self.threads // self.width), work_outside(kernel.schedule, direction.sizes),
            dtype.itemsize, kind != "inference",
        )  # fmt: skip
        extent = Extent(direction.sizes, steps, sharing, dtype)
        return _Function(direction.reverse, kernel, kernel.whole, extent)

    def _made(self, functions: Sequence[_Function], rooms: Sequence[Array]) -> list[Pass]:
        made = [
            self._pass(function, rooms[number % self.width])
            for number, function in enumerate(functions)
        ]
        self.nbytes += sum(one.table.nbytes for one in made)
        return made

    def _pass(self, function: _Function, room: Array) -> Pass:
        reverse, kernel, text, extent = function
        table, team = Table(text, extent, reverse, room), None
        if isinstance(kernel, Kernel):
            call = kernel.call_whole
            if self.threads > 1 and table.threads * self.width > 1:
                team = kernel
        else:
            call = kernel.call
        write = Struct(f"{len(text.pointers)}q").pack_into
        return Pass(write, table.numbers, call, table.address, table, team)

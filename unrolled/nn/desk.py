"""A desk: the tables for one shape of input, and the memory that kernels work in.

Each layer is one call of a compiled function, forward or backward, which is told all that it needs
by a table for each direction; a call writes only the addresses that have changed. One step is the
kernel that reads weights where they lie (`backends.cpu.live`); more are a whole pass
(`backends.cpu.whole`), of a team of threads where it has work for them.
"""

from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate, starmap
from math import prod
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..backends.cpu import kernel_for, memory
from ..backends.cpu.tables import FIRST
from ..backends.cpu.team import NEXT
from ..backends.steps import Steps
from ..language.sizes import ONE
from . import fresh
from .direction import Direction
from .fresh import DTYPES, form_of, nbytes_of
from .passes import Pass, Passes

_address = Tensor.data_ptr
_PLACE = 8 * FIRST  # the byte of a table from which on a call writes addresses


class Beside(NamedTuple):
    """What a call is given beside its input, states and parameters; no gradient reaches it.

    Attributes:
        noises: the random values of each direction, shaped as the input; none if it has none.
        between: for each layer above the first what its input is multiplied by, shaped as that;
            none if nothing is dropped.
    """

    noises: Sequence[Tensor] = ()
    between: Sequence[Tensor] = ()


class Stack:
    """Layers, one above the other, of one dtype.

    Args:
        directions: of all layers, the two of a bidirectional one side by side.
        width: directions of a layer.
        dtype: float32 or float64.

    Attributes:
        all_states: whether it gives every state at every step, of all layers and directions, and
            not the output of the last layer only.
        families: the forms of the families of all directions.
        work: about how many multiplications one step of one row of a layer takes, at most.
        kept_of_a_row: how many bytes all layers keep of one step of one row for the backward pass,
            the outputs that they hand on among them.
    """

    def __init__(self, directions: list[Direction], width: int, dtype: torch.dtype) -> None:
        self.directions, self.width, self.dtype = directions, width, dtype
        first = directions[0]
        self.all_states = first.all_states
        self.input_size = first.sizes["I"]
        self.state_sizes = [first.sizes[first.cell.sizes.values[s]] for s in first.cell.states]
        self.families_each = len(first.families)
        self.families = [
            form_of(shape, dtype)
            for direction in directions
            for shape in direction.cell.parameter_shapes(direction.sizes).values()
        ]
        self.work = max(map(_work_of_a_row, directions))
        widths = sum(sum(direction.widths) for direction in directions)
        self.kept_of_a_row = widths * int(DTYPES[dtype].itemsize)

    @cached_property
    def needs_dx(self) -> bool:
        """Whether a backward pass must have a place for the gradient of the input."""
        kernel = kernel_for(self.directions[0].adjoint, DTYPES[self.dtype])
        return kernel.whole.needs_outputs


def _work_of_a_row(direction: Direction) -> int:
    """About how many multiplications one step of one row takes."""
    program, sizes = direction.inference, {**direction.sizes, ONE: 1}
    units = sum(sizes[program.sizes[i.name]] for i in program.instructions)
    return 8 * units + sum(
        prod(sizes[letter] for letter in program.shapes[matrix])
        for instruction in program.instructions
        if instruction.operation == "matmul"
        for matrix, _ in instruction.pairs
    )


class Desk:
    """What one call at a time works with: tables, memory, and how tensors look for one shape.

    Args:
        stack: the layers.
        shape: of the input, (T, B, I), or (T, I) for one sequence; of one step without T; of ragged
            rows (rows of all steps, I).
        how: whether it is one step; of ragged rows, their steps.
        threads: how many there are for it, from 1 on.

    Attributes:
        nbytes: the memory that it holds.
    """

    def __init__(self, stack: Stack, shape: torch.Size, how: bool | Steps, threads: int) -> None:
        self.stack, self.threads = stack, threads
        rows = shape[:-1]
        if isinstance(how, Steps):
            self.steps = how
            between: tuple[int, ...] = (how.batch,)  # of a state
        else:
            between = rows if how else rows[1:]
            self.steps = Steps.dense(1 if how else rows[0], between[0] if between else 1)
        self.rows = self.steps.rows
        self.dtype: np.dtype[Any] = DTYPES[stack.dtype]
        self._passes = Passes(stack.directions, stack.width, self.steps, threads, self.dtype)
        size, count, dtype = stack.state_sizes[0], len(stack.directions), stack.dtype
        self.input, self.output = form_of(shape, dtype), form_of((*rows, stack.width * size), dtype)
        # What kernels write at every step: every state of all directions, or the output.
        self.emitted = (
            [form_of((count, *rows, size), dtype) for size in stack.state_sizes]
            if stack.all_states
            else [self.output]
        )
        self.emitted_spans = [nbytes_of(form) // count for form in self.emitted]
        self.states = [form_of((count, *between, size), dtype) for size in stack.state_sizes]
        self.nothing = [0] * len(self.states)
        self.spans = [nbytes_of(form) // count for form in self.states]
        self.top = count // stack.width - 1
        # A layer below the last leaves its output here, and each of two directions its own there.
        self.inner = self._empty(self.top, *rows, stack.width * size)
        self.inner_at, self.inner_span = self.inner.data_ptr(), nbytes_of(self.output)
        self.halves = [self._empty(*rows, size) for _ in range(stack.width)]
        self.halves_at = [half.data_ptr() for half in self.halves]
        # The gradients of every state of one direction, side by side.
        self.sides = [
            self._empty(*rows, sum(stack.state_sizes))
            for _ in range(stack.width * stack.all_states)
        ]
        # What is kept for the backward pass: outputs of layers below the last, then what each
        # direction keeps, which begins at these places.
        ends = accumulate(
            (self.rows * direction.widths[-1] for direction in stack.directions),
            initial=self.inner.numel(),
        )
        *starts, all_kept = ends
        self.kept_from = [start * self.dtype.itemsize for start in starts]
        # What a call makes, if nothing is kept and if it is.
        self.results = [*self.emitted, *self.states]
        self.made = [*self.emitted, form_of((all_kept,), dtype), *self.states]
        self.gradients = [self._empty(*form[0]) for form in self.states]  # that nobody wants
        largest = max(map(nbytes_of, (self.input, *self.made, *stack.families)))
        self.new = fresh.small_tensor if largest < memory.LARGE else fresh.tensor
        own = self.inner, *self.halves, *self.sides, *self.gradients
        self.nbytes = self._own = sum(part.nbytes for part in own)

    def _empty(self, *shape: int) -> Tensor:
        with torch.inference_mode(False):  # it serves outside of that mode, too
            return torch.from_numpy(np.empty(shape, self.dtype))

    # Of all directions a pass; compiled by the first call that it serves.

    @cached_property
    def inference(self) -> list[Pass]:
        """Forward, when nothing is kept."""
        return self._counted(self._passes.inference())

    @cached_property
    def training(self) -> list[Pass]:
        """Forward, when `backward` will follow."""
        return self._counted(self._passes.training())

    @cached_property
    def adjoint(self) -> list[Pass]:
        """Backward, in the memory of `training`."""
        return self._counted(self._passes.adjoint())

    def _counted(self, made: list[Pass]) -> list[Pass]:
        self.nbytes = self._own + self._passes.nbytes
        return made

    def forward(
        self,
        x: Tensor,
        states: Sequence[Tensor],
        families: Sequence[Tensor],
        beside: Beside,
        keep: bool,
    ) -> tuple[Tensor, ...]:
        """All layers. Each line is paid for at each call, hence their plainness.

        Args:
            x: the input.
            states: the initial states of all layers and directions, or none.
            families: the families of all layers and directions.
            beside: what else the call is given.
            keep: whether `backward` will follow.

        Returns:
            The output, or every state; with `keep`, what `backward` needs; the last states.
        """
        x, given_at = x.contiguous(), self.nothing
        if states:
            states = [part.contiguous() for part in states]
            given_at = [*map(_address, states)]
        passes, forms = (self.training, self.made) if keep else (self.inference, self.results)
        made = tuple(starmap(self.new, forms))
        if len(passes) > 1:
            self._stacked(passes, x, given_at, made, families, beside)
            return made
        # One direction of one layer has all of everything, in the order of its table.
        write, numbers, call, address, _, kernel = passes[0]
        write(
            numbers, _PLACE, x.data_ptr(), *map(_address, beside.noises), *given_at,
            *map(_address, (*made, *families)),
        )  # fmt: skip
        if kernel is None:
            numbers[NEXT] = 0
            call(address)
        else:
            self._together(passes)
        return made

    def _stacked(
        self,
        passes: Sequence[Pass],
        x: Tensor,
        given_at: Sequence[int],
        made: Sequence[Tensor],
        families: Sequence[Tensor],
        beside: Beside,
    ) -> None:
        """`forward` through several directions or layers."""
        stack, width, each = self.stack, self.stack.width, self.stack.families_each
        made_at, emitted = [*map(_address, made)], len(self.emitted)
        kept = made[emitted] if len(made) > len(self.results) else None
        inner_at = self.inner_at if kept is None else kept.data_ptr()
        emitted_at, last_at = made_at[:emitted], made_at[-len(self.states) :]
        families_at, noises_at = [*map(_address, families)], [*map(_address, beside.noises)]
        kept_at = [] if kept is None else [inner_at + start for start in self.kept_from]
        y, below = made[0], x.data_ptr()
        for number, (write, numbers, call, address, _, kernel) in enumerate(passes):
            layer, side = divmod(number, width)
            is_top = layer == self.top
            above = emitted_at[0] if is_top else inner_at + layer * self.inner_span
            if stack.all_states:
                out_at = _of(number, emitted_at, self.emitted_spans)
            else:
                out_at = [above if width == 1 else self.halves_at[side]]
            write(
                numbers, _PLACE, below, *noises_at[number : number + 1],
                *_of(number, given_at, self.spans), *out_at, *kept_at[number : number + 1],
                *_of(number, last_at, self.spans),
                *families_at[number * each : (number + 1) * each],
            )  # fmt: skip
            if kernel is None:
                numbers[NEXT] = 0
                call(address)
            if side == width - 1:
                if kernel is not None:
                    self._together(passes[number - side : number + 1])
                if stack.all_states:
                    if not is_top:
                        parts = [*y[layer * width : (layer + 1) * width]]
                        torch.cat(parts, -1, out=self._inner(kept, layer))
                elif width > 1:
                    torch.cat(self.halves, -1, out=y if is_top else self._inner(kept, layer))
                if beside.between and not is_top:
                    self._inner(kept, layer).mul_(beside.between[layer])
                below = above

    def _together(self, passes: Sequence[Pass]) -> None:
        """All directions of a layer, by a team of threads."""
        kernel = passes[0].kernel
        assert kernel is not None
        kernel.run_whole([one.table for one in passes], self.threads)

    def _inner(self, kept: Tensor | None, layer: int) -> Tensor:
        """Where a layer below the last leaves its output."""
        if kept is None:
            return self.inner[layer]
        return kept[: self.inner.numel()].view(self.inner.shape)[layer]

    def backward(
        self,
        x: Tensor,
        kept: Tensor,
        families: Sequence[Tensor],
        beside: Beside,
        demitted: Sequence[Tensor | None],
        dlast: Sequence[Tensor | None],
        wants_x: bool,
        wants_states: bool,
        wanted: Sequence[bool],
    ) -> tuple[Tensor | None, list[Tensor], list[Tensor | None]]:
        """All layers, from the last to the first.

        Args:
            x: the input.
            kept: what `forward` kept.
            families: the families of all layers and directions.
            beside: what else the call was given.
            demitted: the gradient of the output, or of every state; None: zero.
            dlast: the gradients of the last states; None: zero.
            wants_x: whether the gradient of the input is wanted.
            wants_states: whether those of the initial states are.
            wanted: of each family whether its gradient is wanted.

        Returns:
            The gradients of the input, of the initial states, and of the families.
        """
        stack, new, x = self.stack, self.new, x.contiguous()
        above: Tensor | None = None  # the gradient of the output
        if not stack.all_states:
            (dy,) = demitted
            above = new(*self.output).zero_() if dy is None else dy.resolve_neg().contiguous()
        ends = [None if end is None else end.resolve_neg().contiguous() for end in dlast]
        ends_at = [0 if end is None else end.data_ptr() for end in ends]
        begun = [*starmap(new, self.states)] if wants_states else self.gradients
        dfamilies = [
            new(*form) if want else None
            for form, want in zip(stack.families, wanted)  # noqa: B905 - equal
        ]
        dfamilies_at = [0 if d is None else d.data_ptr() for d in dfamilies]
        if len(self.adjoint) > 1:
            dx = self._stacked_backward(
                x, kept, families, beside, demitted, above, ends_at, begun, dfamilies_at, wants_x
            )
            return dx if wants_x else None, begun, dfamilies
        dx = new(*self.input) if wants_x or stack.needs_dx else None
        write, numbers, call, address, _, kernel = self.adjoint[0]
        write(
            numbers, _PLACE, x.data_ptr(), *map(_address, beside.noises), kept.data_ptr(),
            *self._above(0, above, demitted), *ends_at, 0 if dx is None else dx.data_ptr(),
            *map(_address, (*begun, *families)), *dfamilies_at,
        )  # fmt: skip
        if kernel is None:
            numbers[NEXT] = 0
            call(address)
        else:
            self._together(self.adjoint)
        return dx if wants_x else None, begun, dfamilies

    def _stacked_backward(
        self,
        x: Tensor,
        kept: Tensor,
        families: Sequence[Tensor],
        beside: Beside,
        demitted: Sequence[Tensor | None],
        above: Tensor | None,
        ends_at: Sequence[int],
        begun: Sequence[Tensor],
        dfamilies_at: Sequence[int],
        wants_x: bool,
    ) -> Tensor | None:
        """`backward` through several directions or layers; returns dx.

        `above` is the gradient of what a layer gives to the one above, or out.
        """
        stack, width, each = self.stack, self.stack.width, self.stack.families_each
        noises_at, begun_at = [*map(_address, beside.noises)], [*map(_address, begun)]
        families_at, kept_at = [*map(_address, families)], kept.data_ptr()
        for layer in range(self.top, -1, -1):
            below = x.data_ptr() if layer == 0 else kept_at + (layer - 1) * self.inner_span
            above_at = self._above(layer, above, demitted)
            form = self.output if layer else self.input
            needed = layer or wants_x or stack.needs_dx
            sides = [self.new(*form) for _ in range(width)] if needed else []
            passes = self.adjoint[layer * width : (layer + 1) * width]
            for side, (write, numbers, call, address, _, kernel) in enumerate(passes):
                number = layer * width + side
                here = slice(number * each, (number + 1) * each)
                write(
                    numbers, _PLACE, below, *noises_at[number : number + 1],
                    kept_at + self.kept_from[number], above_at[side],
                    *_of(number, ends_at, self.spans), sides[side].data_ptr() if sides else 0,
                    *_of(number, begun_at, self.spans),
                    *families_at[here], *dfamilies_at[here],
                )  # fmt: skip
                if kernel is None:
                    numbers[NEXT] = 0
                    call(address)
            if kernel is not None:
                self._together(passes)
            if sides:
                above = sides[0] if width == 1 else sides[0].add_(sides[1])
                if layer and beside.between:
                    above.mul_(beside.between[layer - 1])
        return above

    def _above(
        self, layer: int, above: Tensor | None, demitted: Sequence[Tensor | None]
    ) -> list[int]:
        """Where the gradient of what each direction of a layer gives lies."""
        width = self.stack.width
        if not self.stack.all_states:
            assert above is not None
            if width == 1:
                return [above.data_ptr()]
            for half, part in zip(self.halves, above.chunk(width, -1)):  # noqa: B905 - two
                half.copy_(part)
            return self.halves_at
        for side, out in enumerate(self.sides):
            parts = torch.split(out, self.stack.state_sizes, -1)
            for part, gradient in zip(parts, demitted, strict=True):
                if gradient is None:
                    part.zero_()
                else:
                    part.copy_(gradient[layer * width + side])
            if above is not None:
                parts[0].add_(above.chunk(width, -1)[side])
        return [side.data_ptr() for side in self.sides]


def _of(number: int, all_at: Sequence[int], spans: Sequence[int]) -> Sequence[int]:
    """Where the part of one direction lies, given where those of all do; 0: nowhere."""
    if number == 0:
        return all_at
    return [at and at + number * span for at, span in zip(all_at, spans)]  # noqa: B905 - equal

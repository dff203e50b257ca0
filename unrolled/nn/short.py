"""The short way: stacks of layers over few steps and rows, where the way to a kernel is most of it.

The tables for one shape of input, and memory to work in, lie on a `Desk`, at which one call at a
time works. Here is what leads to one: whether a call can go this way, and autograd.
"""

from collections.abc import Callable, Sequence
from functools import cache
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, is_grad_enabled, nn
from torch._C import _get_tracing_state, _len_torch_dispatch_stack
from torch._C._functorch import peek_interpreter_stack
from torch.autograd import forward_ad
from torch.compiler import is_compiling

from ..backends.cpu.vectors import lanes
from ..language.sizes import ONE
from .checks import State
from .choice import refuse_second_derivative
from .desk import Desk, Stack
from .direction import Direction, direction_of, forward_eager

# A sequence is short up to so many multiplications in one direction of one layer: two cores would
# save no more than the ordinary way costs by itself. Measured with AVX-512 on two cores, for the
# LSTM, the GRU and the simple RNN between 60 and 1000 steps: the short way takes 0.2 to 0.85 of the
# ordinary way's time up to 48 million, and as long at 64 million.
SHORT_WORK = 3_000_000 * lanes(np.float32)
# Where a step has more multiplications than this, its weights lie in no near cache of one core,
# and two cores read them twice as fast: then only a third of that is short. At (T, B, H) = (25,
# 1, 512) the short way takes 0.8 of the ordinary way's time for the simple RNN (13 million), and
# 2.5 times as long for the GRU (40 million).
NEAR_WORK = 200_000
ROWS = 64  # of one step, at most; more are quicker on several threads, with packed weights
_PLAIN = (nn.Parameter, Tensor)
_KEPT = 16  # shapes of input for which tables are kept

Key = tuple[torch.Size, bool]  # the shape of the input, and whether it is of one step, without T


class Shortcut:
    """The short way through a stack of layers, for one dtype.

    Args:
        text: of the cell.
        numbers: of each direction of each layer its sizes, in the order of `Cell.sizes.letters`.
        names: of each the names of its families of parameters, in the cell's order.
        bidirectional: whether every other one reads the sequence from its end.
        backend: as the layer's argument names it.
        recompute: whether the forward pass keeps states only.
        dtype: float32 or float64.
    """

    def __init__(
        self,
        text: str,
        numbers: tuple[tuple[int, ...], ...],
        names: tuple[tuple[str, ...], ...],
        bidirectional: bool,
        backend: str,
        recompute: bool,
        dtype: torch.dtype,
    ) -> None:
        self._about = text, numbers, names, bidirectional, backend, recompute, dtype
        self.backend = backend
        self.dtype = dtype
        width = 1 + bidirectional
        directions = [
            direction_of(text, sizes, bool(number % width), backend, recompute=recompute)
            for number, sizes in enumerate(numbers)
        ]
        self.stack = Stack(directions, width, dtype)
        self.families = [
            (name, torch.Size(shape))
            for of_direction, direction in zip(names, directions, strict=True)
            for name, shape in zip(
                of_direction,
                direction.cell.parameter_shapes(direction.sizes).values(),
                strict=True,
            )
        ]
        self.work = max(map(_work_of_a_row, directions))
        self.free: dict[Key, list[Desk]] = {}  # desks that no thread is working at

    def __reduce__(self) -> Any:
        # Copies and pickles lead to the one that is there already, with its tables.
        return shortcut_of, self._about

    def __call__(
        self, module: nn.Module, x: Tensor, state: State | None, one_step: bool
    ) -> tuple[Tensor, State] | None:
        """Run all layers, if the sequence is short and these tensors need nothing but numbers.

        Args:
            module: whose parameters they are.
            x: (T, B, I), or (T, I) for one sequence, of the dtype; of one step without T.
            state: a tensor (layers · directions, B, size) or a tuple of several, without B for one
                sequence; zeros if None.
            one_step: whether `x` is one step.

        Returns:
            The output and the last state; None if the kernels cannot do it, or something does not
            fit.
        """
        key = x.shape, one_step
        free = self.free.get(key)
        if free is None and (free := self._prepared(key)) is None:
            return None
        dtype, graph = self.dtype, is_grad_enabled()
        if not x.is_cpu or x.is_neg():
            return None
        wanted = graph and x.requires_grad
        parameters, families = module._parameters, []
        for name, shape in self.families:
            family = parameters.get(name)
            if family is None:
                family = getattr(module, name)
            if (
                type(family) not in _PLAIN
                or family.shape != shape
                or family.dtype is not dtype
                or not family.is_cpu
                or not family.is_contiguous()
            ):
                return None
            if graph and family.requires_grad:
                wanted = True
            families.append(family)
        try:
            desk = free.pop()
        except IndexError:
            desk = Desk(self.stack, *key)
        try:
            states: list[Tensor] = []
            if state is not None:
                given = (state,) if type(state) is Tensor else state
                if len(given) != len(desk.states):
                    return None
                for part, like in zip(given, desk.states):  # noqa: B905 - equal, see above
                    if (
                        type(part) is not Tensor
                        or part.shape != like.shape
                        or part.dtype is not dtype
                        or not part.is_cpu
                        or part.is_neg()
                    ):
                        return None
                    if graph and part.requires_grad:
                        wanted = True
                    states.append(part)
            if not wanted:
                y, last, _ = desk.forward(x, states, families, keep=False)
        finally:
            free.append(desk)
        if wanted:
            if not self.is_short(desk.rows):
                return None
            y, *last = _apply(self, key, len(states), x, *states, *families)
        return y, last[0] if len(last) == 1 else tuple(last)

    def is_short(self, rows: int) -> bool:
        """Whether so many rows of all steps are quicker on one core and in one call."""
        return rows * self.work <= (SHORT_WORK if self.work <= NEAR_WORK else SHORT_WORK // 3)

    def desk(self, key: Key) -> "Desk":
        """A desk that nobody else works at, until it is put back."""
        try:
            return self.free[key].pop()
        except (IndexError, KeyError):
            return Desk(self.stack, *key)

    def put_back(self, key: Key, desk: "Desk") -> None:
        """Nobody works at a desk any more."""
        self.free.setdefault(key, []).append(desk)

    def _prepared(self, key: Key) -> "list[Desk] | None":
        """Where desks for a shape are found; None if the sequence is not short, or no sequence."""
        shape, one_step = key
        if len(shape) not in ((1, 2) if one_step else (2, 3)) or shape[-1] != self.stack.input_size:
            return None
        rows = prod(shape[:-1])
        live = rows <= ROWS and (one_step or shape[0] == 1)
        if rows == 0 or not (live or self.is_short(rows)):
            return None
        if len(self.free) >= _KEPT:
            self.free.clear()
        return self.free.setdefault(key, [])


@cache
def shortcut_of(*about: Any) -> Shortcut:
    """The one `Shortcut` of this process with these arguments."""
    return Shortcut(*about)


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


class _Short(torch.autograd.Function):
    """Both passes of a stack, for autograd."""

    @staticmethod
    def forward(
        ctx: Any, way: Shortcut, key: Key, count: int, x: Tensor, *rest: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.about = way, key, count
        desk = way.desk(key)
        try:
            y, last, kept = desk.forward(x, rest[:count], rest[count:], keep=True)
        finally:
            way.put_back(key, desk)
        ctx.save_for_backward(x, kept, *rest)
        return y, *last

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        way, key, count = ctx.about
        x, kept, *rest = ctx.saved_tensors
        if is_grad_enabled() or type(x) is not Tensor or watched():
            found = _differentiable_gradients(way, key, count, [x, *rest], gradients)
            return None, None, None, *found
        wants_x, *wanted = ctx.needs_input_grad[3:]
        desk = way.desk(key)
        try:
            dx, dstates, dfamilies = desk.backward(
                x, kept, rest[count:], gradients[0], gradients[1:], wants_x, count > 0,
                wanted[count:],
            )  # fmt: skip
        finally:
            way.put_back(key, desk)
        return None, None, None, dx, *dstates[:count], *dfamilies


# What `Function.apply` does before it is for transforms of torch.func, which do not come this way.
_apply: Callable[..., tuple[Tensor, ...]] = super(torch.autograd.Function, _Short).apply


def _differentiable_gradients(
    way: Shortcut,
    key: Key,
    count: int,
    tensors: Sequence[Tensor],
    gradients: Sequence[Tensor | None],
) -> list[Tensor | None]:
    """The gradients by torch's own operations, for whoever asks for second derivatives."""
    graph = is_grad_enabled()
    if graph:
        refuse_second_derivative(way.backend)
    with torch.enable_grad():
        outputs = _eagerly(way, key, tensors[0], tensors[1 : 1 + count], tensors[1 + count :])
    pairs = [
        (y, dy) for y, dy in zip(outputs, gradients, strict=True)
        if dy is not None and y.requires_grad
    ]  # fmt: skip
    places = [place for place, tensor in enumerate(tensors) if tensor.requires_grad]
    found: list[Tensor | None] = [None] * len(tensors)
    for place, gradient in zip(
        places,
        torch.autograd.grad(
            [y for y, _ in pairs],
            [tensors[place] for place in places],
            [dy for _, dy in pairs],
            create_graph=graph,
            allow_unused=True,
        ),
        strict=True,
    ):
        found[place] = gradient
    return found


def _eagerly(
    way: Shortcut, key: Key, x: Tensor, states: Sequence[Tensor], families: Sequence[Tensor]
) -> list[Tensor]:
    """The output and the last states of all layers."""
    shape, one_step = key
    rows = shape[:-1]
    between = rows if one_step else rows[1:]
    batch = between[0] if between else 1
    stack, count = way.stack, len(way.stack.directions)
    states = [part.reshape(count, batch, -1) for part in states] or [
        x.new_zeros(count, batch, size) for size in stack.state_sizes
    ]
    y = x.reshape(-1, batch, x.shape[-1])
    last: list[Sequence[Tensor]] = []
    start = 0
    for first in range(0, count, stack.width):
        outputs = []
        for number in range(first, first + stack.width):
            stop = start + stack.families_each
            output, *ends = forward_eager(
                stack.directions[number], y, [part[number] for part in states],
                families[start:stop], None, None, None, (),
            )  # fmt: skip
            outputs.append(output)
            last.append(ends)
            start = stop
        y = outputs[0] if stack.width == 1 else torch.cat(outputs, -1)
    ends = [torch.stack(parts) for parts in zip(*last, strict=True)]
    return [y.reshape(*rows, -1), *(end.reshape(count, *between, -1) for end in ends)]


def watched() -> bool:
    """Whether something must see torch's own operations."""
    return (
        is_compiling()
        or _len_torch_dispatch_stack() > 0
        or _get_tracing_state() is not None
        or peek_interpreter_stack() is not None
        or forward_ad._current_level >= 0
    )

"""The short way: stacks of layers over few steps and rows, where the way to a kernel is most of it.

Each layer and direction is one call of a compiled function, forward or backward, which is told all
that it needs by a table. The tables for one shape of input lie on a *desk*, with the memory that
the kernels work in; a call writes only the addresses that have changed. One step is the kernel that
reads weights where they lie (`backends.cpu.live`); more are a whole pass (`backends.cpu.whole`).
"""

from collections.abc import Callable, Sequence
from functools import cache, cached_property
from itertools import accumulate
from math import prod
from struct import Struct
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, empty_like, is_grad_enabled, nn
from torch._C import _get_tracing_state, _len_torch_dispatch_stack
from torch._C._functorch import peek_interpreter_stack
from torch.autograd import forward_ad
from torch.compiler import is_compiling

from ..backends.cpu import kernel_for
from ..backends.cpu.live import LiveText, live_kernel_for
from ..backends.cpu.tables import Table
from ..backends.cpu.whole import WholeText
from ..language.sizes import ONE
from ..program import Program
from .checks import State
from .choice import refuse_second_derivative
from .direction import Direction, direction_of, forward_eager

DTYPES: dict[torch.dtype, np.dtype[Any]] = {
    torch.float32: np.dtype("float32"),
    torch.float64: np.dtype("float64"),
}
# A sequence is short up to so many multiplications in one direction of one layer: one core takes
# some 200 µs for them, and two would save no more than the ordinary way costs by itself.
SHORT_WORK = 8_000_000
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
        self.width = 1 + bidirectional  # directions of a layer
        self.directions = [
            direction_of(text, sizes, bool(number % self.width), backend, recompute=recompute)
            for number, sizes in enumerate(numbers)
        ]
        first = self.directions[0]
        self.input_size = first.sizes["I"]
        self.state_sizes = [first.sizes[first.cell.sizes.values[s]] for s in first.cell.states]
        self.families = [
            (name, torch.Size(shape))
            for of_direction, direction in zip(names, self.directions, strict=True)
            for name, shape in zip(
                of_direction, first.cell.parameter_shapes(direction.sizes).values(), strict=True
            )
        ]
        self.families_each = len(names[0])
        self.work = max(map(_work_of_a_row, self.directions))
        self.free: dict[Key, list[_Desk]] = {}  # desks that no thread is working at

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
            desk = _Desk(self, *key)
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
            if not desk.small:
                return None
            y, *last = _apply(self, key, len(states), x, *states, *families)
        return y, last[0] if len(last) == 1 else tuple(last)

    def is_short(self, rows: int) -> bool:
        """Whether so many rows of all steps are quicker on one core and in one call."""
        return rows * self.work <= SHORT_WORK

    @cached_property
    def needs_after(self) -> bool:
        """Whether a backward pass must have a place for the gradient of the input."""
        kernel = kernel_for(self.directions[0].adjoint, DTYPES[self.dtype])
        return kernel.whole.needs_after

    def desk(self, key: Key) -> "_Desk":
        """A desk that nobody else works at, until it is put back."""
        try:
            return self.free[key].pop()
        except (IndexError, KeyError):
            return _Desk(self, *key)

    def put_back(self, key: Key, desk: "_Desk") -> None:
        """Nobody works at a desk any more."""
        self.free.setdefault(key, []).append(desk)

    def _prepared(self, key: Key) -> "list[_Desk] | None":
        """Where desks for a shape are found; None if the sequence is not short, or no sequence."""
        shape, one_step = key
        if len(shape) not in ((1, 2) if one_step else (2, 3)) or shape[-1] != self.input_size:
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


class _Pass(NamedTuple):
    """One direction of one layer: what a call writes into its table, and the call.

    Attributes:
        write: `write(table, 0, *addresses)`, of as many as change from call to call.
        numbers: the table.
        call: the compiled function.
        address: where the table lies.
        table: which holds the memory.
    """

    write: Callable[..., None]
    numbers: Any
    call: Callable[[int], None]
    address: int
    table: Table


class _Desk:
    """What one call at a time works with: tables, memory, and how tensors look for one shape."""

    def __init__(self, way: Shortcut, shape: torch.Size, one_step: bool) -> None:
        self.way = way
        rows = shape[:-1]
        between = rows if one_step else rows[1:]  # of a state
        self.length = 1 if one_step else rows[0]
        self.batch = between[0] if between else 1
        self.small = way.is_short(self.length * self.batch)
        self.dtype: np.dtype[Any] = DTYPES[way.dtype]
        size, count = way.state_sizes[0], len(way.directions)
        self.output = self._empty(*rows, way.width * size)
        self.states = [self._empty(count, *between, size) for size in way.state_sizes]
        self.nothing = [0] * len(self.states)
        self.spans = [part.nbytes // count for part in self.states]
        self.top = count // way.width - 1
        # A layer below the last leaves its output here, and each of two directions its own there.
        self.inner = self._empty(self.top, *self.output.shape)
        self.inner_at = self.inner.data_ptr()
        self.halves = [self._empty(*rows, size) for _ in range(way.width)]
        self.halves_at = [half.data_ptr() for half in self.halves]
        # What is kept for the backward pass: outputs of layers below the last, then what each
        # direction keeps, which begins at these places.
        ends = accumulate(
            (self.length * self.batch * direction.widths[-1] for direction in way.directions),
            initial=self.inner.numel(),
        )
        *self.kept_from, all_kept = (end * self.dtype.itemsize for end in ends)
        self.kept = self._empty(all_kept // self.dtype.itemsize)
        self.gradients = [self._empty(*part.shape) for part in self.states]  # that nobody wants
        self._passes: dict[str, list[_Pass]] = {}

    def _empty(self, *shape: int) -> Tensor:
        with torch.inference_mode(False):  # it serves outside of that mode, too
            return torch.from_numpy(np.empty(shape, self.dtype))

    def passes(self, kind: str) -> list[_Pass]:
        """Those of all directions: `"inference"`, `"training"` or `"adjoint"`."""
        if kind not in self._passes:  # compiled by the first call that it serves
            self._passes[kind] = [self._pass(direction, kind) for direction in self.way.directions]
        return self._passes[kind]

    def _pass(self, direction: Direction, kind: str) -> _Pass:
        program: Program = getattr(direction, kind)
        function: LiveText | WholeText
        if kind == "inference" and self.length == 1:
            live = live_kernel_for(program, self.dtype)
            function, call = live.function, live.call
        else:
            kernel = kernel_for(program, self.dtype)
            function, call = kernel.whole, kernel.run_whole
        table = Table(
            function, self.dtype, direction.sizes, self.length, self.batch, direction.reverse
        )
        write = Struct(f"{len(function.pointers)}q").pack_into
        return _Pass(write, table.numbers, call, table.address, table)

    def forward(
        self, x: Tensor, states: Sequence[Tensor], families: Sequence[Tensor], keep: bool
    ) -> tuple[Tensor, list[Tensor], Tensor | None]:
        """All layers. Each line is paid for at each call, hence their plainness.

        Args:
            x: the input.
            states: the initial states of all layers and directions, or none.
            families: the families of all layers and directions.
            keep: whether `backward` will follow.

        Returns:
            The output, the last states and, with `keep`, what `backward` needs.
        """
        width, each = self.way.width, self.way.families_each
        x, given_at = x.contiguous(), self.nothing
        if states:
            states = [part.contiguous() for part in states]
            given_at = [part.data_ptr() for part in states]
        y, last = empty_like(self.output), [empty_like(like) for like in self.states]
        kept = empty_like(self.kept) if keep else None
        inner_at = self.inner_at if kept is None else kept.data_ptr()
        last_at = [part.data_ptr() for part in last]
        families_at = [family.data_ptr() for family in families]
        below = x.data_ptr()
        for number, (write, numbers, call, address, _) in enumerate(
            self.passes("training" if keep else "inference")
        ):
            layer, side = divmod(number, width)
            above = y.data_ptr() if layer == self.top else inner_at + layer * self.output.nbytes
            write(
                numbers, 0, below, above if width == 1 else self.halves_at[side],
                *((inner_at + self.kept_from[number],) if keep else ()),
                *self._of(number, given_at), *self._of(number, last_at),
                *families_at[number * each : (number + 1) * each],
            )  # fmt: skip
            call(address)
            if side == width - 1:
                if width > 1:
                    out = y if layer == self.top else self._inner(kept, layer)
                    torch.cat(self.halves, -1, out=out)
                below = above
        return y, last, kept

    def _of(self, number: int, states_at: list[int]) -> list[int]:
        """Where the states of one direction lie, given where those of all do; 0: nowhere."""
        if number == 0:
            return states_at
        return [at and at + number * span for at, span in zip(states_at, self.spans)]  # noqa: B905

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
        dy: Tensor | None,
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
            dy: the gradient of the output; None: zero.
            dlast: the gradients of the last states; None: zero.
            wants_x: whether the gradient of the input is wanted.
            wants_states: whether those of the initial states are.
            wanted: of each family whether its gradient is wanted.

        Returns:
            The gradients of the input, of the initial states, and of the families.
        """
        way, width, each = self.way, self.way.width, self.way.families_each
        x = x.contiguous()
        above = torch.zeros_like(self.output) if dy is None else dy.resolve_neg().contiguous()
        ends = [None if end is None else end.resolve_neg().contiguous() for end in dlast]
        ends_at = [0 if end is None else end.data_ptr() for end in ends]
        begun = [empty_like(like) for like in self.states] if wants_states else self.gradients
        begun_at = [part.data_ptr() for part in begun]
        dfamilies = [empty_like(f) if want else None for f, want in zip(families, wanted)]  # noqa: B905
        dfamilies_at = [0 if d is None else d.data_ptr() for d in dfamilies]
        families_at = [family.data_ptr() for family in families]
        kept_at, passes = kept.data_ptr(), self.passes("adjoint")
        dx: Tensor | None = None
        for layer in range(self.top, -1, -1):
            below = x.data_ptr() if layer == 0 else kept_at + (layer - 1) * self.output.nbytes
            if width > 1:
                for half, part in zip(self.halves, above.chunk(width, -1)):  # noqa: B905 - two
                    half.copy_(part)
            sides = []
            for side in range(width):
                number = layer * width + side
                if layer or wants_x or way.needs_after:
                    sides.append(empty_like(self.output if layer else x))
                write, numbers, call, address, _ = passes[number]
                here = slice(number * each, (number + 1) * each)
                write(
                    numbers, 0, below, kept_at + self.kept_from[number],
                    above.data_ptr() if width == 1 else self.halves_at[side],
                    sides[side].data_ptr() if sides else 0,
                    *self._of(number, ends_at), *self._of(number, begun_at),
                    *families_at[here], *dfamilies_at[here],
                )  # fmt: skip
                call(address)
            if sides:
                dx = above = sides[0] if width == 1 else sides[0].add_(sides[1])
        return dx if wants_x else None, begun, dfamilies


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
_apply = super(torch.autograd.Function, _Short).apply


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
    count = len(way.directions)
    states = [part.reshape(count, batch, -1) for part in states] or [
        x.new_zeros(count, batch, size) for size in way.state_sizes
    ]
    y = x.reshape(-1, batch, x.shape[-1])
    last: list[Sequence[Tensor]] = []
    start = 0
    for first in range(0, count, way.width):
        outputs = []
        for number in range(first, first + way.width):
            stop = start + way.families_each
            output, *ends = forward_eager(
                way.directions[number], y, [part[number] for part in states],
                families[start:stop], None, None, None, (),
            )  # fmt: skip
            outputs.append(output)
            last.append(ends)
            start = stop
        y = outputs[0] if way.width == 1 else torch.cat(outputs, -1)
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

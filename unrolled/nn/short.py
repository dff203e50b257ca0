"""The short way: a stack of layers by one call a layer, where that takes little memory.

The tables for one shape of input, and memory to work in, lie on a `Desk`, at which one call at a
time works. Here is what leads to one: whether a call can go this way, and autograd.
"""

import sys
from collections.abc import Callable, Sequence
from functools import cache
from math import prod
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, is_grad_enabled, nn
from torch._C._dynamo.guards import TensorGuards

from ..backends.cpu.lending import LIMIT, Lending
from ..backends.cpu.sharing import worth
from ..backends.steps import Steps
from .choice import refuse_second_derivative, threads_at_hand, watched
from .desk import Beside, Desk, Stack
from .direction import direction_of, forward_eager
from .passes import ROWS

_PLAIN = (nn.Parameter, Tensor)
_LOOKS = 4  # of families that are known: those of one layer may be frozen, of another not
_KNOWN = 256  # shapes of which is known whether they are short

# The shape of the input; whether it is of one step, without T, or the steps of ragged rows.
Place = tuple[torch.Size, bool | Steps]
Key = tuple[torch.Size, bool | Steps, int]  # a place and the number of threads
_NOTHING = Beside()


class Shortcut:
    """The short way through a stack of layers, for one dtype.

    Args:
        text: of the cell.
        numbers: of each direction of each layer its sizes, in the order of `Cell.sizes.letters`.
        names: of each the names of its families of parameters, in the cell's order.
        bidirectional: whether every other one reads the sequence from its end.
        backend: as the layer's argument names it.
        recompute: whether the forward pass keeps states only.
        all_states: whether it gives every state at every step, of all layers and directions.
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
        all_states: bool,
        dtype: torch.dtype,
    ) -> None:
        self._about = text, numbers, names, bidirectional, backend, recompute, all_states, dtype
        self.backend = backend
        self.dtype = dtype
        width = 1 + bidirectional
        directions = [
            direction_of(text, sizes, bool(number % width), backend, all_states, recompute)
            for number, sizes in enumerate(numbers)
        ]
        self.stack = Stack(directions, width, dtype)
        self._names = [name for of_direction in names for name in of_direction]
        self._shapes = [torch.Size(shape) for shape, _, _ in self.stack.families]
        # Whether families look as some did that kernels could read: one call of torch's, which code
        # that it has compiled asks, takes a third of the time of looking at each.
        self._alike: tuple[Callable[..., bool], ...] = ()
        self.desks: Lending[Desk] = Lending()
        self._most: dict[Place, int] = {}  # of how many threads a call can make use; 0: not short

    def __reduce__(self) -> Any:
        # Copies and pickles lead to the one that is there already, with its tables.
        return shortcut_of, self._about

    def families_of(self, module: nn.Module) -> list[Tensor] | None:
        """The families of all layers and directions; None if kernels cannot read one of them."""
        parameter_of = module._parameters.get
        families: list[Any] = [
            getattr(module, name) if (parameter := parameter_of(name)) is None else parameter
            for name in self._names
        ]
        for alike in self._alike:
            if alike(*families):
                return families
        for family, shape in zip(families, self._shapes, strict=True):
            if (
                type(family) not in _PLAIN
                or family.shape != shape
                or family.dtype is not self.dtype
                or not family.is_cpu
                or family.is_neg()
                or not family.is_contiguous()
            ):
                return None
        guards = TensorGuards(*families, dynamic_dims_sizes=None, dynamic_dims_strides=None)
        self._alike = (guards.check, *self._alike[: _LOOKS - 1])
        return families

    def run(
        self,
        x: Tensor,
        how: bool | Steps,
        states: Sequence[Tensor],
        families: Sequence[Tensor],
        beside: Beside = _NOTHING,
    ) -> Sequence[Tensor] | None:
        """Run all layers on families that kernels can read.

        Args:
            x: the input, of the dtype.
            how: whether it is one step; of ragged rows, their steps.
            states: the initial states, (layers · directions, B, size) each; zeros if none.
            families: of all layers and directions.
            beside: what else the call is given.

        Returns:
            The output, or every state at every step, and the last states; None as above.
        """
        place = x.shape, how
        most = self._most.get(place)
        if most is None:
            most = self._threads_of_use(place)
        if most == 0 or not x.is_cpu or x.is_neg():
            return None
        key: Key = *place, 1 if most == 1 else min(most, threads_at_hand())
        desk = self.desk(key)
        try:
            if states and not self._fit(states, desk):
                return None
            wanted = is_grad_enabled() and (
                x.requires_grad
                or any(map(_needs_gradient, families))
                or any(map(_needs_gradient, states))
            )
            if not wanted:
                return desk.forward(x, states, families, beside, keep=False)
            if not self.is_short(desk.rows):
                return None
            return _apply(desk, (self, key, len(states), beside), x, *states, *families)
        finally:
            self.desks.put_back(key, desk)

    def _fit(self, states: Sequence[Tensor], desk: Desk) -> bool:
        """Whether a call can begin with these states."""
        if len(states) != len(desk.states):
            return False
        for part, (shape, _, _) in zip(states, desk.states):  # noqa: B905 - equal, see above
            if (
                type(part) is not Tensor
                or part.shape != shape
                or part.dtype is not self.dtype
                or not part.is_cpu
                or part.is_neg()
            ):
                return False
        return True

    def is_short(self, rows: int) -> bool:
        """Whether all that layers keep of so many rows of all steps is little enough for a desk."""
        return rows * self.stack.kept_of_a_row <= LIMIT

    def desk(self, key: Key) -> Desk:
        """A desk that nobody else works at, until it is put back."""
        return self.desks.taken(key) or Desk(self.stack, *key)

    def _threads_of_use(self, place: Place) -> int:
        """Of how many threads a call can make use; 0 if it is not short, or no sequence."""
        shape, how = place
        axes = (2,) if isinstance(how, Steps) else (1, 2) if how else (2, 3)
        if len(shape) not in axes or shape[-1] != self.stack.input_size:
            return 0
        rows = prod(shape[:-1])
        one_step = how if isinstance(how, bool) else how.length == 1 and how.rows == how.batch
        live = rows <= ROWS and (one_step or shape[0] == 1)
        short = rows > 0 and (live or self.is_short(rows))
        if len(self._most) >= _KNOWN:
            self._most.clear()
        most = worth(rows, self.stack.work, sys.maxsize) if short else 0
        return self._most.setdefault(place, most)


_needs_gradient = attrgetter("requires_grad")


@cache
def shortcut_of(*about: Any) -> Shortcut:
    """The one `Shortcut` of this process with these arguments."""
    return Shortcut(*about)


class _Short(torch.autograd.Function):
    """Both passes of a stack, for autograd."""

    @staticmethod
    def forward(
        ctx: Any, desk: Desk, about: tuple[Shortcut, Key, int, Beside], x: Tensor, *rest: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.about = about
        _, _, count, beside = about
        made = desk.forward(x, rest[:count], rest[count:], beside, keep=True)
        emitted = len(desk.emitted)
        ctx.save_for_backward(x, made[emitted], *rest)
        return made[:emitted] + made[emitted + 1 :]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        way, key, count, beside = ctx.about
        x, kept, *rest = ctx.saved_tensors
        if is_grad_enabled() or type(x) is not Tensor or watched():
            found = _differentiable_gradients(way, key, count, beside, [x, *rest], gradients)
            return None, None, *found
        _, _, wants_x, *wanted = ctx.needs_input_grad
        desk = way.desk(key)
        try:
            emitted = len(desk.emitted)
            wants_states = True in wanted[:count]
            dx, dstates, dfamilies = desk.backward(
                x, kept, rest[count:], beside, gradients[:emitted], gradients[emitted:], wants_x,
                wants_states, wanted[count:],
            )  # fmt: skip
        finally:
            way.desks.put_back(key, desk)
        return None, None, dx, *(dstates if wants_states else (None,) * count), *dfamilies


# What `Function.apply` does before it is for transforms of torch.func, which do not come this way.
_apply: Callable[..., tuple[Tensor, ...]] = super(torch.autograd.Function, _Short).apply


def _differentiable_gradients(
    way: Shortcut,
    key: Key,
    count: int,
    beside: Beside,
    tensors: Sequence[Tensor],
    gradients: Sequence[Tensor | None],
) -> list[Tensor | None]:
    """The gradients by torch's own operations, for whoever asks for second derivatives."""
    graph = is_grad_enabled()
    if graph:
        refuse_second_derivative(way.backend)
    with torch.enable_grad():
        x, states, families = tensors[0], tensors[1 : 1 + count], tensors[1 + count :]
        outputs = _eagerly(way, key, x, states, families, beside)
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


def _between(rows: tuple[int, ...], how: bool | Steps) -> tuple[int, ...]:
    """B, of a state; nothing for one sequence."""
    if isinstance(how, Steps):
        return (how.batch,)
    return rows if how else rows[1:]


def _eagerly(
    way: Shortcut,
    key: Key,
    x: Tensor,
    states: Sequence[Tensor],
    families: Sequence[Tensor],
    beside: Beside,
) -> list[Tensor]:
    """The output, or every state, and the last states of all layers."""
    shape, how, _ = key
    rows, stack, count = shape[:-1], way.stack, len(way.stack.directions)
    counts = torch.from_numpy(how.active) if isinstance(how, Steps) else None
    between = _between(rows, how)
    batch = between[0] if between else 1
    inside = rows if isinstance(how, Steps) else (prod(rows) // batch, batch)
    states = [part.reshape(count, batch, -1) for part in states] or [
        x.new_zeros(count, batch, size) for size in stack.state_sizes
    ]
    y = x.reshape(*inside, x.shape[-1])
    found: list[list[Tensor]] = []
    start = 0
    for first in range(0, count, stack.width):
        if first and beside.between:
            mask = beside.between[first // stack.width - 1]
            y = y * mask.reshape(y.shape)
        for number in range(first, first + stack.width):
            stop = start + stack.families_each
            noise = beside.noises[number].reshape(*inside, -1) if beside.noises else None
            found.append(
                forward_eager(
                    stack.directions[number], y, [part[number] for part in states],
                    families[start:stop], counts, None, noise, (),
                )
            )  # fmt: skip
            start = stop
        y = torch.cat([outputs[0] for outputs in found[first:]], -1)
    if stack.all_states:
        emitted = len(stack.state_sizes)
        every = [torch.stack(parts) for parts in zip(*(o[:emitted] for o in found), strict=True)]
        outputs = [part.reshape(count, *rows, -1) for part in every]
    else:
        emitted = 1
        outputs = [y.reshape(*rows, -1)]
    last = [torch.stack(parts) for parts in zip(*(o[emitted:] for o in found), strict=True)]
    return [*outputs, *(end.reshape(count, *between, -1) for end in last)]

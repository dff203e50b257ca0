"""One direction of one layer as a torch operator, with its shapes and its derivative.

`unrolled::forward` and `unrolled::backward` know a cell by its text, so an exported program that
contains them loads in any process that imports `unrolled.nn`. Tensors that nothing is watching
but autograd take a shorter way to the same functions: the dispatcher costs more than a short loop.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor

from ..backends import eager
from ..backends.steps import Result, Steps
from ..cell import Cell
from ..derivative import kept_values
from ..language.sizes import ONE
from ..program import Program
from .choice import EAGER, choose, refuse_second_derivative, run_kernels

Gradients = tuple[Tensor | None, list[Tensor], list[Tensor]]  # of input, states, parameters


@dataclass(frozen=True)
class Direction:
    """One direction of one layer: all that its two passes need beside tensors.

    Attributes:
        text: the text of the cell.
        numbers: its sizes, in the order of `Cell.sizes.letters`.
        reverse: whether it reads the sequence from its end.
        backend: as the layer's argument names it.
    """

    text: str
    numbers: tuple[int, ...]
    reverse: bool
    backend: str

    @cached_property
    def cell(self) -> Cell:
        """The cell."""
        return Cell.parse(self.text)

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Letter → number."""
        return dict(zip(self.cell.sizes.letters, self.numbers, strict=True))

    @cached_property
    def adjoint(self) -> Program:
        """The backward pass."""
        return self.cell.backward

    @cached_property
    def inference(self) -> Program:
        """The forward pass that keeps nothing."""
        return self.cell.forward.with_outputs((self.cell.states[0],))

    @cached_property
    def training(self) -> Program:
        """The forward pass that keeps what the backward pass needs."""
        return self.cell.forward.with_outputs((self.cell.states[0],), kept_values(self.adjoint))

    @cached_property
    def families(self) -> tuple[str, ...]:
        """The families of parameters, in the order in which the operators take them."""
        return tuple(family for family, blocks in self.cell.program.families.items() if blocks)

    @cached_property
    def widths(self) -> tuple[int, int]:
        """The sizes of the output and of all kept values together."""
        numbers = {**self.sizes, ONE: 1}
        output, kept = (
            sum(numbers[self.training.sizes[value]] for value in group)
            for group in self.training.outputs
        )
        return output, kept

    def __reduce__(self) -> Any:
        # Copies and pickles lead to the one that is there already, with its programs.
        return direction_of, (self.text, self.numbers, self.reverse, self.backend)


@lru_cache(maxsize=None)
def direction_of(text: str, numbers: tuple[int, ...], reverse: bool, backend: str) -> Direction:
    """The one `Direction` of this process with these attributes, its programs at hand."""
    direction = Direction(text, numbers, reverse, backend)
    _ = direction.inference, direction.widths, direction.families
    return direction


@lru_cache(maxsize=32)
def _dense_steps(length: int, batch: int) -> Steps:
    return Steps.dense(length, batch)


def _steps(x: Tensor, states: Sequence[Tensor], active: Tensor | None) -> Steps:
    if active is None:
        return _dense_steps(x.shape[0], x.shape[1])
    return Steps(active.numpy(), states[0].shape[0])


def recurrence(
    direction: Direction,
    x: Tensor,
    states: Sequence[Tensor],
    parameters: Sequence[Tensor],
    active: Tensor | None = None,
) -> list[Tensor]:
    """Run one direction of one layer.

    Args:
        direction: the cell, its sizes, its direction and the backend.
        x: (T, B, I), or (rows of all steps, I) where `active` is given.
        states: the initial states, each (B, size).
        parameters: stacked families, in the order of the cell's families.
        active: (T,) how many rows take part at each step, int64 on the CPU; all if None.

    Returns:
        The outputs, shaped as `x` with the size of the first state, and the last states.

    Raises:
        BackendError: if a named backend cannot serve these tensors.
        InputError: if the tensors differ in dtype or device, or no backend has that name.
    """
    if choose(direction.backend, x, states, parameters) == EAGER:
        return _eager(direction, x, states, parameters, active)
    keep = torch.is_grad_enabled() and (
        x.requires_grad
        or any(tensor.requires_grad for tensor in parameters)
        or any(tensor.requires_grad for tensor in states)
    )
    if _watched(x):
        outputs: list[Tensor] = torch.ops.unrolled.forward(
            x, states, parameters, active, direction.text, direction.numbers, direction.reverse,
            direction.backend, keep,
        )  # fmt: skip
        return outputs[:-1] if keep else outputs
    if keep:
        return list(_Recurrence.apply(direction, active, len(states), x, *states, *parameters))
    return _forward(direction, x, states, parameters, active, keep=False)


def _watched(x: Tensor) -> bool:
    """Whether something other than autograd must see the operator itself."""
    return (
        torch.compiler.is_compiling()
        or type(x) is not Tensor
        or torch._C._len_torch_dispatch_stack() > 0
        or torch.jit.is_tracing()
    )


def _eager(
    direction: Direction,
    x: Tensor,
    states: Sequence[Tensor],
    parameters: Sequence[Tensor],
    active: Tensor | None,
) -> list[Tensor]:
    outputs, last, _ = eager.unroll(
        direction.inference,
        direction.sizes,
        [x.flatten(0, 1) if active is None else x],
        states,
        dict(zip(direction.families, parameters, strict=True)),
        [x.shape[1]] * x.shape[0] if active is None else active.tolist(),
        direction.reverse,
    )
    return [outputs[0].reshape(*x.shape[:-1], direction.widths[0]), *last]


# The two passes on CPU tensors.


def _forward(
    direction: Direction,
    x: Tensor,
    states: Sequence[Tensor],
    parameters: Sequence[Tensor],
    active: Tensor | None,
    keep: bool,
) -> list[Tensor]:
    """The output at every step, the last states and, if asked for, what the other pass needs."""
    result = _run(
        direction, direction.training if keep else direction.inference, [x], states, parameters,
        _steps(x, states, active),
    )  # fmt: skip
    y, *kept = (_tensor(rows, x) for rows in result.outputs)
    return [y, *map(torch.from_numpy, result.states), *kept]


def _backward(
    direction: Direction,
    x: Tensor,
    kept: Tensor,
    dy: Tensor,
    dstates: Sequence[Tensor],
    parameters: Sequence[Tensor],
    active: Tensor | None,
    gradient_of_input: bool,
    gradient_of_parameters: bool,
) -> list[Tensor]:
    """The gradients of the initial states, then those of the input and the families if wanted."""
    wanted = direction.families if gradient_of_parameters else ()
    if gradient_of_input:
        wanted = (*wanted, *direction.adjoint.outputs[0])
    result = _run(
        direction, direction.adjoint, [x, kept, dy], dstates, parameters,
        _steps(x, dstates, active), frozenset(wanted),
    )  # fmt: skip
    return [
        *map(torch.from_numpy, result.states),
        *([_tensor(result.outputs[0], x)] if gradient_of_input else ()),
        *(
            [torch.from_numpy(result.totals[family]) for family in direction.families]
            if gradient_of_parameters
            else ()
        ),
    ]


def _run(
    direction: Direction,
    program: Program,
    inputs: Sequence[Tensor],
    states: Sequence[Tensor],
    parameters: Sequence[Tensor],
    steps: Steps,
    wanted: frozenset[str] | None = None,
) -> Result:
    return run_kernels(
        direction.backend,
        program,
        direction.sizes,
        [group.detach().numpy().reshape(steps.rows, group.shape[-1]) for group in inputs],
        [state.detach().numpy() for state in states],
        {
            family: stacked.detach().numpy()
            for family, stacked in zip(direction.families, parameters, strict=True)
        },
        steps,
        direction.reverse,
        wanted,
    )


def _tensor(rows: Any, x: Tensor) -> Tensor:
    """The rows of all steps, shaped as `x`."""
    return torch.from_numpy(rows.reshape(*x.shape[:-1], rows.shape[1]))


# The derivative.


class _Recurrence(torch.autograd.Function):
    """The two passes for autograd, without the dispatcher."""

    @staticmethod
    def forward(
        ctx: Any, direction: Direction, active: Tensor | None, states: int, x: Tensor, *rest: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.direction, ctx.active, ctx.states = direction, active, states
        *outputs, kept = _forward(direction, x, rest[:states], rest[states:], active, keep=True)
        ctx.save_for_backward(x, kept, *rest)
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, *dstates: Tensor | None) -> Any:
        x, kept, *rest = ctx.saved_tensors
        needs_x, *needs_rest = ctx.needs_input_grad[3:]
        dx, dinitial, dparameters = _gradients(
            ctx.direction, x, kept, rest[: ctx.states], rest[ctx.states :], ctx.active, dy, dstates,
            needs_x, any(needs_rest[ctx.states :]),
        )  # fmt: skip
        return None, None, None, dx, *dinitial, *dparameters


def _gradients(
    direction: Direction,
    x: Tensor,
    kept: Tensor | None,
    states: Sequence[Tensor],
    parameters: Sequence[Tensor],
    active: Tensor | None,
    dy: Tensor | None,
    dlast: Sequence[Tensor | None],
    gradient_of_input: bool,
    gradient_of_parameters: bool,
) -> tuple[Tensor | None, list[Any], list[Any]]:
    """The gradients of input, initial states and parameters; None for what is not wanted."""
    if torch.is_grad_enabled():
        return _differentiable_gradients(
            direction, x, states, parameters, active, [dy, *dlast], gradient_of_input
        )
    if kept is None:  # a program exported for inference, and trained all the same
        kept = torch.ops.unrolled.forward(
            x, states, parameters, active, direction.text, direction.numbers, direction.reverse,
            direction.backend, True,
        )[-1]  # fmt: skip
    if dy is None:
        dy = x.new_zeros(*x.shape[:-1], direction.widths[0])
    given = [
        torch.zeros_like(state) if gradient is None else gradient
        for gradient, state in zip(dlast, states, strict=True)
    ]
    if _watched(x):
        found = torch.ops.unrolled.backward(
            x, kept, dy, given, parameters, active, direction.text, direction.numbers,
            direction.reverse, direction.backend, gradient_of_input, gradient_of_parameters,
        )  # fmt: skip
    else:
        found = _backward(
            direction, x, kept, dy, given, parameters, active, gradient_of_input,
            gradient_of_parameters,
        )  # fmt: skip
    count = len(states)
    dx = found[count] if gradient_of_input else None
    families = found[count + gradient_of_input :] or [None] * len(parameters)
    return dx, found[:count], families


def _differentiable_gradients(
    direction: Direction,
    x: Tensor,
    states: Sequence[Tensor],
    parameters: Sequence[Tensor],
    active: Tensor | None,
    gradients: Sequence[Tensor | None],
    gradient_of_input: bool,
) -> tuple[Tensor | None, list[Any], list[Any]]:
    """The same by torch's own operations, for whoever asks for second derivatives."""
    refuse_second_derivative(direction.backend)
    outputs = _eager(direction, x, states, parameters, active)
    pairs = [(y, dy) for y, dy in zip(outputs, gradients, strict=True)
             if dy is not None and y.requires_grad]  # fmt: skip
    everything = [x, *states, *parameters]
    places = [place for place, tensor in enumerate(everything) if tensor.requires_grad]
    found: list[Any] = [None] * len(everything)
    for place, gradient in zip(
        places,
        torch.autograd.grad(
            [y for y, _ in pairs],
            [everything[place] for place in places],
            [dy for _, dy in pairs],
            create_graph=True,
            allow_unused=True,
        ),
        strict=True,
    ):
        found[place] = gradient
    return found[0], found[1 : 1 + len(states)], found[1 + len(states) :]


# The operators, for torch.compile, torch.export and everything else that must see them.

_library = torch.library.Library("unrolled", "DEF")
_library.define(
    "forward(Tensor x, Tensor[] states, Tensor[] parameters, Tensor? active, str cell, "
    "int[] sizes, bool reverse, str backend, bool keep) -> Tensor[]"
)
_library.define(
    "backward(Tensor x, Tensor kept, Tensor dy, Tensor[] dstates, Tensor[] parameters, "
    "Tensor? active, str cell, int[] sizes, bool reverse, str backend, bool gradient_of_input, "
    "bool gradient_of_parameters) -> Tensor[]"
)


def _forward_operator(
    x: Tensor,
    states: list[Tensor],
    parameters: list[Tensor],
    active: Tensor | None,
    cell: str,
    sizes: list[int],
    reverse: bool,
    backend: str,
    keep: bool,
) -> list[Tensor]:
    direction = direction_of(cell, tuple(sizes), reverse, backend)
    return _forward(direction, x, states, parameters, active, keep)


def _forward_shapes(
    x: Tensor,
    states: list[Tensor],
    parameters: list[Tensor],
    active: Tensor | None,
    cell: str,
    sizes: list[int],
    reverse: bool,
    backend: str,
    keep: bool,
) -> list[Tensor]:
    output, kept = direction_of(cell, tuple(sizes), reverse, backend).widths
    outputs = [x.new_empty(*x.shape[:-1], output), *(x.new_empty(s.shape) for s in states)]
    return [*outputs, x.new_empty(*x.shape[:-1], kept)] if keep else outputs


def _backward_operator(
    x: Tensor,
    kept: Tensor,
    dy: Tensor,
    dstates: list[Tensor],
    parameters: list[Tensor],
    active: Tensor | None,
    cell: str,
    sizes: list[int],
    reverse: bool,
    backend: str,
    gradient_of_input: bool,
    gradient_of_parameters: bool,
) -> list[Tensor]:
    return _backward(
        direction_of(cell, tuple(sizes), reverse, backend), x, kept, dy, dstates, parameters, active,
        gradient_of_input, gradient_of_parameters,
    )  # fmt: skip


def _backward_shapes(
    x: Tensor,
    kept: Tensor,
    dy: Tensor,
    dstates: list[Tensor],
    parameters: list[Tensor],
    active: Tensor | None,
    cell: str,
    sizes: list[int],
    reverse: bool,
    backend: str,
    gradient_of_input: bool,
    gradient_of_parameters: bool,
) -> list[Tensor]:
    found = [*dstates, *([x] if gradient_of_input else ())]
    return [x.new_empty(t.shape) for t in (*found, *(parameters if gradient_of_parameters else ()))]


def _save(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    x, states, parameters, active, cell, sizes, reverse, backend, keep = inputs
    ctx.set_materialize_grads(False)
    ctx.direction = direction_of(cell, tuple(sizes), reverse, backend)
    ctx.states, ctx.keep, ctx.ragged = len(states), keep, active is not None
    extra = [*([active] if ctx.ragged else ()), *(output[-1:] if keep else ())]
    ctx.save_for_backward(*extra, x, *states, *parameters)


def _derivative(ctx: Any, gradients: list[Tensor | None]) -> Any:
    saved = list(ctx.saved_tensors)
    active = saved.pop(0) if ctx.ragged else None
    kept = saved.pop(0) if ctx.keep else None
    x, *rest = saved
    states, parameters = rest[: ctx.states], rest[ctx.states :]
    dx, dinitial, dparameters = _gradients(
        ctx.direction, x, kept, states, parameters, active, gradients[0],
        gradients[1 : 1 + ctx.states], ctx.needs_input_grad[0], any(ctx.needs_input_grad[2]),
    )  # fmt: skip
    return dx, dinitial, dparameters, None, None, None, None, None, None


_library.impl("forward", _forward_operator, "CPU")
_library.impl("backward", _backward_operator, "CPU")
torch.library.register_fake("unrolled::forward", _forward_shapes, lib=_library)
torch.library.register_fake("unrolled::backward", _backward_shapes, lib=_library)
torch.library.register_autograd("unrolled::forward", _derivative, setup_context=_save, lib=_library)

"""One direction of one layer as a torch operator, with its shapes and its derivative.

`unrolled::forward` and `unrolled::backward` know a cell by its text, so an exported program that
contains them loads in any process that imports `unrolled.nn`. Tensors that nothing is watching
but autograd take a shorter way to the same functions: the dispatcher costs more than a short loop.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .choice import EAGER, choose, refuse_second_derivative
from .direction import Direction, backward, direction_of, forward, forward_eager

Gradients = tuple[Tensor | None, list[Any], list[Any]]  # of the input, the states, the families


def recurrence(
    direction: Direction,
    x: Tensor,
    states: Sequence[Tensor],
    parameters: Sequence[Tensor],
    counts: Tensor | None = None,
) -> list[Tensor]:
    """Run one direction of one layer, differentiably.

    Args:
        direction: the cell, its sizes, its direction and the backend.
        x: (T, B, I), or (rows of all steps, I) of a packed sequence.
        states: the initial states, each (B, size).
        parameters: stacked families, in the order of the cell's families.
        counts: of a packed sequence (T,), how many rows take part at each step; of a padded one
            (B,), how many steps of each row count; int64. None: all.

    Returns:
        The emitted states at every step, shaped as `x` with their sizes, and the last states.

    Raises:
        BackendError: if a named backend cannot serve these tensors.
        InputError: if the tensors differ in dtype or device.
    """
    if choose(direction.backend, x, states, parameters) == EAGER:
        return forward_eager(direction, x, states, parameters, counts)
    keep = torch.is_grad_enabled() and (
        x.requires_grad
        or any(tensor.requires_grad for tensor in parameters)
        or any(tensor.requires_grad for tensor in states)
    )
    if _watched(x):
        outputs = _operator_forward(direction, x, states, parameters, counts, keep)
        return outputs[:-1] if keep else outputs
    if keep:
        return list(_Recurrence.apply(direction, counts, len(states), x, *states, *parameters))  # type: ignore[no-untyped-call]
    return forward(direction, x, states, parameters, counts, keep=False)


def _watched(x: Tensor) -> bool:
    """Whether something other than autograd must see the operator itself."""
    return (
        torch.compiler.is_compiling()
        or type(x) is not Tensor
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._get_tracing_state() is not None
    )


# The derivative.


class _Recurrence(torch.autograd.Function):
    """The two passes for autograd, without the dispatcher."""

    @staticmethod
    def forward(
        ctx: Any, direction: Direction, counts: Tensor | None, states: int, x: Tensor, *rest: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.direction, ctx.counts, ctx.states = direction, counts, states
        *outputs, kept = forward(direction, x, rest[:states], rest[states:], counts, keep=True)
        ctx.save_for_backward(x, kept, *rest)
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        x, kept, *rest = ctx.saved_tensors
        needs_x, *needs_rest = ctx.needs_input_grad[3:]
        dx, dstates, dparameters = _gradients(
            ctx.direction, x, kept, rest[: ctx.states], rest[ctx.states :], ctx.counts, gradients,
            needs_x, any(needs_rest[ctx.states :]),
        )  # fmt: skip
        return None, None, None, dx, *dstates, *dparameters


def _gradients(
    direction: Direction,
    x: Tensor,
    kept: Tensor | None,
    states: Sequence[Tensor],
    parameters: Sequence[Tensor],
    counts: Tensor | None,
    gradients: Sequence[Tensor | None],
    gradient_of_input: bool,
    gradient_of_parameters: bool,
) -> Gradients:
    """The gradients wanted, given those of the outputs and the last states (None: zero)."""
    if torch.is_grad_enabled():
        return _differentiable_gradients(direction, x, states, parameters, counts, gradients)
    if kept is None:  # a program exported for inference, and trained all the same
        kept = _operator_forward(direction, x, states, parameters, counts, keep=True)[-1]
    emitted = len(direction.emitted)
    demitted = [
        x.new_zeros(*x.shape[:-1], width) if gradient is None else gradient
        for gradient, width in zip(gradients[:emitted], direction.widths, strict=False)
    ]
    dlast = [
        torch.zeros_like(state) if gradient is None else gradient
        for gradient, state in zip(gradients[emitted:], states, strict=True)
    ]
    run = _operator_backward if _watched(x) else backward
    found = run(
        direction, x, kept, demitted, dlast, parameters, counts, gradient_of_input,
        gradient_of_parameters,
    )  # fmt: skip
    count = len(states)
    return (
        found[count] if gradient_of_input else None,
        found[:count],
        found[count + gradient_of_input :] or [None] * len(parameters),
    )


def _differentiable_gradients(
    direction: Direction,
    x: Tensor,
    states: Sequence[Tensor],
    parameters: Sequence[Tensor],
    counts: Tensor | None,
    gradients: Sequence[Tensor | None],
) -> Gradients:
    """The same by torch's own operations, for whoever asks for second derivatives."""
    refuse_second_derivative(direction.backend)
    outputs = forward_eager(direction, x, states, parameters, counts)
    pairs = [
        (y, dy)
        for y, dy in zip(outputs, gradients, strict=True)
        if dy is not None and y.requires_grad
    ]
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
    count = 1 + len(states)
    return found[0], found[1:count], found[count:]


# The operators, for torch.compile, torch.export and whatever else must see them. `about` is what
# makes a `Direction`: the text of the cell, its sizes, and so on.

_library = torch.library.Library("unrolled", "DEF")  # type: ignore[no-untyped-call]
_library.define(  # type: ignore[no-untyped-call]
    "forward(Tensor x, Tensor[] states, Tensor[] parameters, Tensor? counts, bool keep, "
    "str cell, int[] sizes, bool reverse, str backend, bool all_states) -> Tensor[]"
)
_library.define(  # type: ignore[no-untyped-call]
    "backward(Tensor x, Tensor kept, Tensor[] demitted, Tensor[] dlast, Tensor[] parameters, "
    "Tensor? counts, bool gradient_of_input, bool gradient_of_parameters, "
    "str cell, int[] sizes, bool reverse, str backend, bool all_states) -> Tensor[]"
)


def _operator_forward(direction: Direction, *tensors: Any, **keep: bool) -> list[Tensor]:
    found: list[Tensor] = torch.ops.unrolled.forward(*tensors, **keep, **_about(direction))
    return found


def _operator_backward(direction: Direction, *tensors: Any) -> list[Tensor]:
    found: list[Tensor] = torch.ops.unrolled.backward(*tensors, **_about(direction))
    return found


def _about(direction: Direction) -> dict[str, Any]:
    return {
        "cell": direction.text,
        "sizes": direction.numbers,
        "reverse": direction.reverse,
        "backend": direction.backend,
        "all_states": direction.all_states,
    }


def _direction(cell: str, sizes: list[int], *options: Any) -> Direction:
    return direction_of(cell, tuple(sizes), *options)


def _forward(
    x: Tensor,
    states: list[Tensor],
    parameters: list[Tensor],
    counts: Tensor | None,
    keep: bool,
    *about: Any,
) -> list[Tensor]:
    found = forward(_direction(*about), x, states, parameters, counts, keep)
    if keep:  # in the shape promised below, however few rows take part
        kept, rows = found[-1], math.prod(x.shape[:-1])
        if len(kept) < rows:
            kept = x.new_empty(rows, kept.shape[1])
            kept[: len(found[-1])] = found[-1]
        found[-1] = kept.reshape(*x.shape[:-1], kept.shape[1])
    return found


def _forward_shapes(
    x: Tensor,
    states: list[Tensor],
    parameters: list[Tensor],
    counts: Tensor | None,
    keep: bool,
    *about: Any,
) -> list[Tensor]:
    *emitted, kept = (x.new_empty(*x.shape[:-1], width) for width in _direction(*about).widths)
    found = [*emitted, *(x.new_empty(state.shape) for state in states)]
    return [*found, kept] if keep else found


def _backward(*arguments: Any) -> list[Tensor]:
    tensors, about = arguments[:-5], arguments[-5:]
    return backward(_direction(*about), *tensors)


def _backward_shapes(
    x: Tensor,
    kept: Tensor,
    demitted: list[Tensor],
    dlast: list[Tensor],
    parameters: list[Tensor],
    counts: Tensor | None,
    gradient_of_input: bool,
    gradient_of_parameters: bool,
    *about: Any,
) -> list[Tensor]:
    like = [*dlast, *([x] if gradient_of_input else [])]
    like += parameters if gradient_of_parameters else []
    return [x.new_empty(tensor.shape) for tensor in like]


def _save(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    x, states, parameters, counts, keep, *about = inputs
    ctx.set_materialize_grads(False)
    ctx.direction = _direction(*about)
    ctx.states, ctx.keep, ctx.ragged = len(states), keep, counts is not None
    extra = [*([counts] if ctx.ragged else []), *(output[-1:] if keep else [])]
    ctx.save_for_backward(*extra, x, *states, *parameters)


def _derivative(ctx: Any, gradients: list[Tensor | None]) -> Any:
    saved = list(ctx.saved_tensors)
    counts = saved.pop(0) if ctx.ragged else None
    kept = saved.pop(0) if ctx.keep else None
    x, *rest = saved
    found = _gradients(
        ctx.direction, x, kept, rest[: ctx.states], rest[ctx.states :], counts,
        gradients[: len(ctx.direction.emitted) + ctx.states], ctx.needs_input_grad[0],
        any(ctx.needs_input_grad[2]),
    )  # fmt: skip
    return *found, *[None] * 7


_library.impl("forward", _forward, "CPU")  # type: ignore[no-untyped-call]
_library.impl("backward", _backward, "CPU")  # type: ignore[no-untyped-call]
torch.library.register_fake("unrolled::forward", _forward_shapes, lib=_library)
torch.library.register_fake("unrolled::backward", _backward_shapes, lib=_library)
torch.library.register_autograd("unrolled::forward", _derivative, setup_context=_save, lib=_library)

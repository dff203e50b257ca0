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

# Of the input, the initial states, the states that rows start anew with, the families.
Gradients = tuple[Tensor | None, list[Any], list[Any], list[Any]]


def recurrence(
    direction: Direction,
    x: Tensor,
    states: Sequence[Tensor],
    parameters: Sequence[Tensor],
    counts: Tensor | None = None,
    resets: Tensor | None = None,
    noise: Tensor | None = None,
    anew: Sequence[Tensor] = (),
) -> list[Tensor]:
    """Run one direction of one layer, differentiably.

    Args:
        direction: the cell, its sizes, its direction and the backend.
        x: (T, B, I), or (rows of all steps, I) of a packed sequence.
        states: the initial states, each (B, size).
        parameters: stacked families, in the order of the cell's families.
        counts: of a packed sequence (T,), how many rows take part at each step; of a padded one
            (B,), how many steps of each row count; int64. None: all.
        resets: (T, B) the rows of a padded sequence that start anew before each step, bool.
        noise: the cell's random values side by side, shaped as `x` with their sizes; no gradient
            reaches them. None if the cell has none.
        anew: the states (size,) that they then start with, zeros if there are none; where there
            are no resets they are not looked at.

    Returns:
        The emitted states at every step, shaped as `x` with their sizes, and the last states.

    Raises:
        BackendError: if a named backend cannot serve these tensors.
        InputError: if the tensors differ in dtype or device.
    """
    anew = () if resets is None else anew
    arguments = (x, states, parameters, counts, resets, noise, anew)
    if choose(direction.backend, x, [*states, *anew], parameters) == EAGER:
        return forward_eager(direction, *arguments)
    keep = torch.is_grad_enabled() and (
        x.requires_grad
        or any(tensor.requires_grad for tensor in parameters)
        or any(tensor.requires_grad for tensor in (*states, *anew))
    )
    if _watched(x):
        outputs = _operator_forward(direction, *arguments, keep)
        return outputs[:-1] if keep else outputs
    if keep:
        counted = (len(states), len(anew))
        return list(
            _Recurrence.apply(  # type: ignore[no-untyped-call]
                direction, counts, resets, noise, counted, x, *states, *anew, *parameters
            )
        )
    return forward(direction, *arguments, keep=False)


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
        ctx: Any,
        direction: Direction,
        counts: Tensor | None,
        resets: Tensor | None,
        noise: Tensor | None,
        counted: tuple[int, int],
        x: Tensor,
        *rest: Tensor,
    ) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.direction, ctx.given, ctx.counted = direction, (counts, resets, noise), counted
        states, anew, parameters = _apart(rest, counted)
        *outputs, kept = forward(
            direction, x, states, parameters, counts, resets, noise, anew, keep=True
        )  # fmt: skip
        ctx.save_for_backward(x, kept, *rest)
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        x, kept, *rest = ctx.saved_tensors
        needs_x, *needs_rest = ctx.needs_input_grad[5:]
        counts, resets, noise = ctx.given
        states, anew, parameters = _apart(rest, ctx.counted)
        dx, dstates, danew, dparameters = _gradients(
            ctx.direction, x, kept, states, parameters, counts, resets, noise, anew, gradients,
            needs_x, any(needs_rest[sum(ctx.counted) :]),
        )  # fmt: skip
        return None, None, None, None, None, dx, *dstates, *danew, *dparameters


def _apart(tensors: Sequence[Tensor], counted: tuple[int, int]) -> tuple[Any, Any, Any]:
    """States, states to start anew with, and families."""
    states, both = counted[0], sum(counted)
    return tensors[:states], tensors[states:both], tensors[both:]


def _gradients(
    direction: Direction,
    x: Tensor,
    kept: Tensor | None,
    states: Sequence[Tensor],
    parameters: Sequence[Tensor],
    counts: Tensor | None,
    resets: Tensor | None,
    noise: Tensor | None,
    anew: Sequence[Tensor],
    gradients: Sequence[Tensor | None],
    gradient_of_input: bool,
    gradient_of_parameters: bool,
) -> Gradients:
    """The gradients wanted, given those of the outputs and the last states (None: zero)."""
    arguments = (x, states, parameters, counts, resets, noise, anew)
    if torch.is_grad_enabled():
        return _differentiable_gradients(direction, arguments, gradients)
    if kept is None:  # a program exported for inference, and trained all the same
        kept = _operator_forward(direction, *arguments, True)[-1]
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
        direction, x, kept, demitted, dlast, parameters, counts, resets, noise,
        gradient_of_input, gradient_of_parameters,
    )  # fmt: skip
    count = len(states)
    dstates, danew, rest = found[:count], found[count : 2 * count], found[2 * count :]
    return (
        rest[0] if gradient_of_input else None,
        dstates,
        danew if anew else [],
        rest[gradient_of_input:] or [None] * len(parameters),
    )


def _differentiable_gradients(
    direction: Direction, arguments: tuple[Any, ...], gradients: Sequence[Tensor | None]
) -> Gradients:
    """The same by torch's own operations, for whoever asks for second derivatives."""
    refuse_second_derivative(direction.backend)
    x, states, parameters, *_, anew = arguments
    outputs = forward_eager(direction, *arguments)
    pairs = [
        (y, dy)
        for y, dy in zip(outputs, gradients, strict=True)
        if dy is not None and y.requires_grad
    ]
    everything = [x, *states, *anew, *parameters]
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
    return found[0], *_apart(found[1:], (len(states), len(anew)))


# The operators, for torch.compile, torch.export and whatever else must see them. `about` is what
# makes a `Direction`: the text of the cell, its sizes, and so on.

_library = torch.library.Library("unrolled", "DEF")  # type: ignore[no-untyped-call]
_library.define(  # type: ignore[no-untyped-call]
    "forward(Tensor x, Tensor[] states, Tensor[] parameters, Tensor? counts, Tensor? resets, "
    "Tensor? noise, Tensor[] anew, bool keep, "
    "str cell, int[] sizes, bool reverse, str backend, bool all_states, bool recompute) -> Tensor[]"
)
_library.define(  # type: ignore[no-untyped-call]
    "backward(Tensor x, Tensor kept, Tensor[] demitted, Tensor[] dlast, Tensor[] parameters, "
    "Tensor? counts, Tensor? resets, Tensor? noise, "
    "bool gradient_of_input, bool gradient_of_parameters, "
    "str cell, int[] sizes, bool reverse, str backend, bool all_states, bool recompute) -> Tensor[]"
)


def _operator_forward(direction: Direction, *arguments: Any) -> list[Tensor]:
    found: list[Tensor] = torch.ops.unrolled.forward(*arguments, **_about(direction))
    return found


def _operator_backward(direction: Direction, *arguments: Any) -> list[Tensor]:
    found: list[Tensor] = torch.ops.unrolled.backward(*arguments, **_about(direction))
    return found


def _about(direction: Direction) -> dict[str, Any]:
    return {
        "cell": direction.text,
        "sizes": direction.numbers,
        "reverse": direction.reverse,
        "backend": direction.backend,
        "all_states": direction.all_states,
        "recompute": direction.recompute,
    }


def _direction(cell: str, sizes: list[int], *options: Any) -> Direction:
    return direction_of(cell, tuple(sizes), *options)


def _forward(
    x: Tensor,
    states: list[Tensor],
    parameters: list[Tensor],
    counts: Tensor | None,
    resets: Tensor | None,
    noise: Tensor | None,
    anew: list[Tensor],
    keep: bool,
    *about: Any,
) -> list[Tensor]:
    found = forward(_direction(*about), x, states, parameters, counts, resets, noise, anew, keep)
    if keep:  # in the shape promised below, however few rows take part
        kept, rows = found[-1], math.prod(x.shape[:-1])
        if len(kept) < rows:
            kept = x.new_zeros(rows, kept.shape[1])
            kept[: len(found[-1])] = found[-1]
        found[-1] = kept.reshape(*x.shape[:-1], kept.shape[1])
    return found


def _forward_shapes(
    x: Tensor,
    states: list[Tensor],
    parameters: list[Tensor],
    counts: Tensor | None,
    resets: Tensor | None,
    noise: Tensor | None,
    anew: list[Tensor],
    keep: bool,
    *about: Any,
) -> list[Tensor]:
    *emitted, kept = (x.new_empty(*x.shape[:-1], width) for width in _direction(*about).widths)
    found = [*emitted, *(x.new_empty(state.shape) for state in states)]
    return [*found, kept] if keep else found


def _backward(*arguments: Any) -> list[Tensor]:
    tensors, about = arguments[:-6], arguments[-6:]
    return backward(_direction(*about), *tensors)


def _backward_shapes(
    x: Tensor,
    kept: Tensor,
    demitted: list[Tensor],
    dlast: list[Tensor],
    parameters: list[Tensor],
    counts: Tensor | None,
    resets: Tensor | None,
    noise: Tensor | None,
    gradient_of_input: bool,
    gradient_of_parameters: bool,
    *about: Any,
) -> list[Tensor]:
    like = [*dlast, *(state.sum(0) for state in dlast), *([x] if gradient_of_input else [])]
    like += parameters if gradient_of_parameters else []
    return [x.new_empty(tensor.shape) for tensor in like]


def _save(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    x, states, parameters, counts, resets, noise, anew, keep, *about = inputs
    ctx.set_materialize_grads(False)
    ctx.direction = _direction(*about)
    ctx.counted = (len(states), len(anew))
    optional = [counts, resets, noise, output[-1] if keep else None]
    ctx.there = [tensor is not None for tensor in optional]
    given = [tensor for tensor in optional if tensor is not None]
    ctx.save_for_backward(*given, x, *states, *anew, *parameters)


def _derivative(ctx: Any, gradients: list[Tensor | None]) -> Any:
    saved = list(ctx.saved_tensors)
    counts, resets, noise, kept = (saved.pop(0) if there else None for there in ctx.there)
    x, *rest = saved
    states, anew, parameters = _apart(rest, ctx.counted)
    dx, dstates, danew, dparameters = _gradients(
        ctx.direction, x, kept, states, parameters, counts, resets, noise, anew,
        gradients[: len(ctx.direction.emitted) + len(states)], ctx.needs_input_grad[0],
        any(ctx.needs_input_grad[2]),
    )  # fmt: skip
    return dx, dstates, dparameters, None, None, None, danew, *[None] * 7


_library.impl("forward", _forward, "CPU")  # type: ignore[no-untyped-call]
_library.impl("backward", _backward, "CPU")  # type: ignore[no-untyped-call]
torch.library.register_fake("unrolled::forward", _forward_shapes, lib=_library)
torch.library.register_fake("unrolled::backward", _backward_shapes, lib=_library)
torch.library.register_autograd("unrolled::forward", _derivative, setup_context=_save, lib=_library)

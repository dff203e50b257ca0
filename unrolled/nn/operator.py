"""The directions of a layer for autograd, and one as a torch operator with its derivative.

`unrolled::forward` and `unrolled::backward` know a cell by its text, so an exported program that
contains them loads in any process that imports `unrolled.nn`. Tensors that nothing is watching
but autograd take a shorter way to the same functions: the dispatcher costs more than a short loop.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from operator import add
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from . import fresh
from .choice import EAGER, choose, refuse_second_derivative
from .direction import Direction, Given, backward, direction_of, forward, forward_eager

# Of the initial states, the states that rows start anew with, the families.
Gradients = tuple[list[Any], list[Any], list[Any]]


def recurrence(
    directions: Sequence[Direction],
    x: Tensor,
    given: Sequence[Given],
    counts: Tensor | None = None,
    resets: Tensor | None = None,
) -> list[list[Tensor]]:
    """Run the directions of one layer, differentiably.

    Args:
        directions: of each the cell, its sizes, its direction and the backend.
        x: (T, B, I), or (rows of all steps, I) of a packed sequence.
        given: states, families and noise of each; no gradient reaches the noise. Where there are
            no resets, the states to start anew with are not looked at.
        counts: of a packed sequence (T,), how many rows take part at each step; of a padded one
            (B,), how many steps of each row count; int64. None: all.
        resets: (T, B) the rows of a padded sequence that start anew before each step, bool.

    Returns:
        For each direction the emitted states at every step, shaped as `x` with their sizes, and
        the last states.

    Raises:
        BackendError: if a named backend cannot serve these tensors.
        InputError: if the tensors differ in dtype or device.
    """
    if resets is None:
        given = [replace(one, anew=()) if one.anew else one for one in given]
    states = [state for one in given for state in (*one.states, *one.anew)]
    parameters = [family for one in given for family in one.parameters]
    if choose(directions[0].backend, x, states, parameters) == EAGER:
        return [
            forward_eager(direction, *_flat(x, one, counts, resets))
            for direction, one in zip(directions, given, strict=True)
        ]
    keep = torch.is_grad_enabled() and (
        x.requires_grad
        or any(tensor.requires_grad for tensor in parameters)
        or any(tensor.requires_grad for tensor in states)
    )
    if _watched(x):
        outputs = [
            _operator_forward(direction, *_flat(x, one, counts, resets), keep=keep)
            for direction, one in zip(directions, given, strict=True)
        ]
        return [found[:-1] for found in outputs] if keep else outputs
    if not keep:
        return forward(directions, x, given, counts, resets, keep=False)
    noises = [one.noise for one in given]
    counted = (len(given[0].states), len(given[0].anew))
    tensors = [tensor for one in given for tensor in (*one.states, *one.anew, *one.parameters)]
    found: Sequence[Tensor] = _Recurrence.apply(  # type: ignore[no-untyped-call]
        directions, counts, resets, noises, counted, x, *tensors
    )
    return _split(found, len(directions))


def _flat(x: Tensor, given: Given, counts: Tensor | None, resets: Tensor | None) -> tuple[Any, ...]:
    """The arguments of one direction alone, in the operator's order."""
    return x, given.states, given.parameters, counts, resets, given.noise, given.anew


def _split(tensors: Sequence[Any], parts: int) -> list[list[Any]]:
    """As many lists of the same length."""
    size = len(tensors) // parts
    return [list(tensors[part * size : (part + 1) * size]) for part in range(parts)]


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
        directions: Sequence[Direction],
        counts: Tensor | None,
        resets: Tensor | None,
        noises: Sequence[Tensor | None],
        counted: tuple[int, int],
        x: Tensor,
        *rest: Tensor,
    ) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.directions, ctx.counted = directions, counted
        ctx.given = counts, resets, noises
        given = _given(rest, noises, counted)
        found = forward(directions, x, given, counts, resets, keep=True)
        ctx.save_for_backward(x, *(kept for *_, kept in found), *rest)
        return tuple(output for *outputs, _ in found for output in outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        x, *saved = ctx.saved_tensors
        count = len(ctx.directions)
        kept, rest = saved[:count], saved[count:]
        counts, resets, noises = ctx.given
        needs_x, *needs_rest = ctx.needs_input_grad[5:]
        needs_parameters = any(
            any(needs[sum(ctx.counted) :]) for needs in _split(needs_rest, count)
        )
        dx, found = _gradients(
            ctx.directions, x, kept, _given(rest, noises, ctx.counted), counts, resets,
            _split(gradients, count), needs_x, needs_parameters,
        )  # fmt: skip
        flat = [gradient for parts in found for part in parts for gradient in part]
        return None, None, None, None, None, dx, *flat


def _given(
    tensors: Sequence[Tensor], noises: Sequence[Tensor | None], counted: tuple[int, int]
) -> list[Given]:
    """What each direction is given, from all tensors in a row."""
    found = []
    for part, noise in zip(_split(tensors, len(noises)), noises, strict=True):
        states, anew, parameters = _apart(part, counted)
        found.append(Given(states, parameters, noise, anew))
    return found


def _apart(tensors: Sequence[Tensor], counted: tuple[int, int]) -> tuple[Any, Any, Any]:
    """States, states to start anew with, and families."""
    states, both = counted[0], sum(counted)
    return tensors[:states], tensors[states:both], tensors[both:]


def _gradients(
    directions: Sequence[Direction],
    x: Tensor,
    kept: Sequence[Tensor | None],
    given: Sequence[Given],
    counts: Tensor | None,
    resets: Tensor | None,
    gradients: Sequence[Sequence[Tensor | None]],
    gradient_of_input: bool,
    gradient_of_parameters: bool,
) -> tuple[Tensor | None, list[Gradients]]:
    """The gradients wanted, given those of the outputs and the last states (None: zero)."""
    flat = [_flat(x, one, counts, resets) for one in given]
    if torch.is_grad_enabled():
        found = [
            _differentiable_gradients(direction, arguments, some)
            for direction, arguments, some in zip(directions, flat, gradients, strict=True)
        ]
        return _sum([dx for dx, _ in found]), [parts for _, parts in found]
    saved = [
        # There is none where a program was exported for inference, and trained all the same.
        _operator_forward(direction, *arguments, keep=True)[-1] if one is None else one
        for direction, arguments, one in zip(directions, flat, kept, strict=True)
    ]
    filled = [
        _filled(directions[0], x, one, some) for one, some in zip(given, gradients, strict=True)
    ]
    wanted = gradient_of_input, gradient_of_parameters
    if _watched(x):
        results = [
            _operator_backward(direction, x, one, *some, *arguments[2:6], *wanted)
            for direction, one, some, arguments in zip(directions, saved, filled, flat, strict=True)
        ]
    else:
        results = backward(directions, x, saved, filled, given, counts, resets, *wanted)
    dxs: list[Tensor | None] = []
    rest: list[Gradients] = []
    for one, result in zip(given, results, strict=True):
        count = len(one.states)
        dstates, danew, others = result[:count], result[count : 2 * count], result[2 * count :]
        dxs.append(others[0] if gradient_of_input else None)
        dparameters: list[Any] = others[gradient_of_input:]
        dparameters = dparameters or [None] * len(one.parameters)
        rest.append((dstates, danew if one.anew else [], dparameters))
    return _sum(dxs), rest


def _filled(
    direction: Direction, x: Tensor, given: Given, gradients: Sequence[Tensor | None]
) -> tuple[list[Tensor], list[Tensor]]:
    """The gradients of the emitted states and of the last ones, zeros where there are none."""
    emitted = len(direction.emitted)
    demitted = [
        fresh.zeros((*x.shape[:-1], width), x) if gradient is None else gradient
        for gradient, width in zip(gradients[:emitted], direction.widths, strict=False)
    ]
    dlast = [
        torch.zeros_like(state) if gradient is None else gradient
        for gradient, state in zip(gradients[emitted:], given.states, strict=True)
    ]
    return demitted, dlast


def _sum(gradients: Sequence[Tensor | None]) -> Tensor | None:
    """The gradient of the input, which all directions read."""
    there = [gradient for gradient in gradients if gradient is not None]
    return reduce(add, there) if there else None


def _differentiable_gradients(
    direction: Direction, arguments: tuple[Any, ...], gradients: Sequence[Tensor | None]
) -> tuple[Tensor | None, Gradients]:
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
    return found[0], _apart(found[1:], (len(states), len(anew)))


# The operators, for torch.compile, torch.export and whatever else must see them. `about` is what
# makes a `Direction`: the text of the cell, its sizes, and so on. `width` is how many numbers are
# kept for each row of a step, −1 where nothing is: a compiled graph that is cached belongs to that
# number, which another version of this library may change.

_library = torch.library.Library("unrolled", "DEF")  # type: ignore[no-untyped-call]
_library.define(  # type: ignore[no-untyped-call]
    "forward(Tensor x, Tensor[] states, Tensor[] parameters, Tensor? counts, Tensor? resets, "
    "Tensor? noise, Tensor[] anew, int width, "
    "str cell, int[] sizes, bool reverse, str backend, bool all_states, bool recompute) -> Tensor[]"
)
_library.define(  # type: ignore[no-untyped-call]
    "backward(Tensor x, Tensor kept, Tensor[] demitted, Tensor[] dlast, Tensor[] parameters, "
    "Tensor? counts, Tensor? resets, Tensor? noise, "
    "bool gradient_of_input, bool gradient_of_parameters, "
    "str cell, int[] sizes, bool reverse, str backend, bool all_states, bool recompute) -> Tensor[]"
)


def _operator_forward(direction: Direction, *arguments: Any, keep: bool) -> list[Tensor]:
    width = direction.widths[-1] if keep else -1
    found: list[Tensor] = torch.ops.unrolled.forward(*arguments, width, **_about(direction))
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
    width: int,
    *about: Any,
) -> list[Tensor]:
    given, direction = Given(states, parameters, noise, anew), _direction(*about)
    if width >= 0 and width != direction.widths[-1]:
        raise InputError(
            f"This program keeps {width} numbers of each row and step for its gradients, where "
            f"this version of unrolled keeps {direction.widths[-1]}. Compile or export it again."
        )
    (found,) = forward([direction], x, [given], counts, resets, width >= 0)
    if width >= 0:  # in the shape promised below, however few rows take part
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
    width: int,
    *about: Any,
) -> list[Tensor]:
    rows, direction = x.shape[:-1], _direction(*about)
    found = [x.new_empty(*rows, emitted) for emitted in direction.widths[:-1]]
    found += [x.new_empty(state.shape) for state in states]
    return [*found, x.new_empty(*rows, width)] if width >= 0 else found


def _backward(
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
    wanted = gradient_of_input, gradient_of_parameters
    given, gradients = Given((), parameters, noise), (demitted, dlast)
    (found,) = backward(
        [_direction(*about)], x, [kept], [gradients], [given], counts, resets, *wanted
    )
    return found


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
    x, states, parameters, counts, resets, noise, anew, width, *about = inputs
    ctx.set_materialize_grads(False)
    ctx.direction = _direction(*about)
    ctx.counted = (len(states), len(anew))
    optional = [counts, resets, noise, output[-1] if width >= 0 else None]
    ctx.there = [tensor is not None for tensor in optional]
    given = [tensor for tensor in optional if tensor is not None]
    ctx.save_for_backward(*given, x, *states, *anew, *parameters)


def _derivative(ctx: Any, gradients: list[Tensor | None]) -> Any:
    saved = list(ctx.saved_tensors)
    counts, resets, noise, kept = (saved.pop(0) if there else None for there in ctx.there)
    x, *rest = saved
    states, anew, parameters = _apart(rest, ctx.counted)
    dx, [(dstates, danew, dparameters)] = _gradients(
        [ctx.direction], x, [kept], [Given(states, parameters, noise, anew)], counts, resets,
        [gradients[: len(ctx.direction.emitted) + len(states)]], ctx.needs_input_grad[0],
        any(ctx.needs_input_grad[2]),
    )  # fmt: skip
    return dx, dstates, dparameters, None, None, None, danew, *[None] * 7


_library.impl("forward", _forward, "CPU")  # type: ignore[no-untyped-call]
_library.impl("backward", _backward, "CPU")  # type: ignore[no-untyped-call]
torch.library.register_fake("unrolled::forward", _forward_shapes, lib=_library)
torch.library.register_fake("unrolled::backward", _backward_shapes, lib=_library)
torch.library.register_autograd("unrolled::forward", _derivative, setup_context=_save, lib=_library)

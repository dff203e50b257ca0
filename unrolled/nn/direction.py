"""The directions of one layer: what their two passes need, and the passes on CPU tensors."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor

from ..backends import eager
from ..backends.cpu import Pass
from ..backends.steps import Result, Steps
from ..cell import Cell
from ..derivative import differentiate, kept_values
from ..language.sizes import ONE
from ..program import Program
from . import fresh
from .choice import can_checkpoint, can_look, run_kernels
from .rows import Rows, rows_of
from .unpacked import unroll_unpacked


@dataclass(frozen=True)
class Direction:
    """One direction of one layer: all that its two passes need beside tensors.

    Attributes:
        text: the text of the cell.
        numbers: its sizes, in the order of `Cell.sizes.letters`.
        reverse: whether it reads the sequence from its end.
        backend: as the layer's argument names it.
        all_states: whether it gives every state at every step, and not the first one only.
        recompute: whether the forward pass keeps states only, and the backward pass computes the
            other values of a step again.
    """

    text: str
    numbers: tuple[int, ...]
    reverse: bool
    backend: str
    all_states: bool = False
    recompute: bool = False

    @cached_property
    def cell(self) -> Cell:
        """The cell."""
        return _parsed(self.text)

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Letter → number."""
        return dict(zip(self.cell.sizes.letters, self.numbers, strict=True))

    @cached_property
    def with_all_states(self) -> "Direction":
        """The same, giving every state at every step."""
        return direction_of(
            self.text, self.numbers, self.reverse, self.backend, True, self.recompute
        )

    @cached_property
    def emitted(self) -> tuple[str, ...]:
        """The states that it gives at every step."""
        return self.cell.states if self.all_states else self.cell.states[:1]

    @cached_property
    def inference(self) -> Program:
        """The forward pass that keeps nothing."""
        return _programs(self.text, self.emitted, self.recompute)[0]

    @cached_property
    def training(self) -> Program:
        """The forward pass that keeps what the backward pass needs."""
        return _programs(self.text, self.emitted, self.recompute)[1]

    @cached_property
    def adjoint(self) -> Program:
        """The backward pass."""
        return _programs(self.text, self.emitted, self.recompute)[2]

    @cached_property
    def families(self) -> tuple[str, ...]:
        """The families of parameters, in the order in which their tensors come."""
        return tuple(family for family, blocks in self.cell.program.families.items() if blocks)

    @cached_property
    def widths(self) -> tuple[int, ...]:
        """The sizes of what it gives at every step, and of all kept values together."""
        numbers = {**self.sizes, ONE: 1}
        return tuple(
            sum(numbers[self.training.sizes[value]] for value in group)
            for group in self.training.outputs
        )

    def __reduce__(self) -> Any:
        # Copies and pickles lead to the one that is there already, with its programs.
        return direction_of, (
            self.text, self.numbers, self.reverse, self.backend, self.all_states, self.recompute,
        )  # fmt: skip


@cache
def direction_of(
    text: str,
    numbers: tuple[int, ...],
    reverse: bool,
    backend: str,
    all_states: bool = False,
    recompute: bool = False,
) -> Direction:
    """The one `Direction` of this process with these attributes, its programs at hand."""
    direction = Direction(text, numbers, reverse, backend, all_states, recompute)
    _ = direction.inference, direction.widths, direction.families, direction.emitted
    if not all_states:
        _ = direction.with_all_states
    return direction


# A cell's programs are the same objects for all layers, so their kernels are found quickly.


@cache
def _parsed(text: str) -> Cell:
    return Cell.parse(text)


@cache
def _programs(
    text: str, emitted: tuple[str, ...], recompute: bool
) -> tuple[Program, Program, Program]:
    """For inference, for training, and backward."""
    forward = _parsed(text).forward
    adjoint = differentiate(forward, outputs=emitted, recompute="all" if recompute else "near")
    groups = [(state,) for state in emitted]
    return (
        forward.with_outputs(*groups),
        forward.with_outputs(*groups, kept_values(adjoint)),
        adjoint,
    )


@dataclass(frozen=True)
class Given:
    """What one direction of a layer is given beside its input.

    Attributes:
        states: the initial states, each (B, size).
        parameters: the stacked families.
        noise: the cell's random values side by side, shaped as the input; None if it has none.
        anew: the states (size,) that rows start anew with; none: zeros.
    """

    states: Sequence[Tensor]
    parameters: Sequence[Tensor]
    noise: Tensor | None = None
    anew: Sequence[Tensor] = ()


def forward(
    directions: Sequence[Direction],
    x: Tensor,
    given: Sequence[Given],
    counts: Tensor | None,
    resets: Tensor | None,
    keep: bool,
) -> list[list[Tensor]]:
    """Run the directions of a layer forward on CPU tensors, all at once.

    Args:
        directions: what to run.
        x: (T, B, I), or (rows of all steps, I) of a packed sequence.
        given: what each direction is given beside it.
        counts: of a packed sequence (T,), how many rows take part at each step; of a padded one
            (B,), how many steps of each row count; int64. None: all.
        resets: (T, B) the rows of a padded sequence that start anew before each step, bool; none if
            None.
        keep: whether `backward` will follow.

    Returns:
        For each direction the emitted states at every step, the last states and, with `keep`, what
        `backward` needs: its rows are those that take part.
    """
    first = directions[0]
    rows = [
        rows_of(x, given[0].states[0].shape[0], counts, resets, one.reverse) for one in directions
    ]
    results = _run(
        directions,
        first.training if keep else first.inference,
        [_inputs(r, x, one.noise) for r, one in zip(rows, given, strict=True)],
        [r.entered(one.states, one.anew) for r, one in zip(rows, given, strict=True)],
        given,
        rows[0].steps,
    )
    count, outputs = len(first.emitted), []
    for r, result in zip(rows, results, strict=True):
        found = [torch.from_numpy(output) for output in result.outputs]
        last = r.left([torch.from_numpy(state) for state in result.states])
        outputs.append([*map(r.padded, found[:count]), *last, *found[count:]])
    return outputs


def backward(
    directions: Sequence[Direction],
    x: Tensor,
    kept: Sequence[Tensor],
    gradients: Sequence[tuple[Sequence[Tensor], Sequence[Tensor]]],
    given: Sequence[Given],
    counts: Tensor | None,
    resets: Tensor | None,
    gradient_of_input: bool,
    gradient_of_parameters: bool,
) -> list[list[Tensor]]:
    """Run the directions of a layer backward on CPU tensors, all at once.

    Args:
        directions: what to run.
        x: the input, as `forward` took it.
        kept: what `forward` kept of each direction; rows beyond those that take part are not read.
        gradients: for each direction those of the emitted states at every step, and those of the
            last states.
        given: as `forward` took it.
        counts: as `forward` took it.
        resets: as `forward` took it.
        gradient_of_input: whether dx is wanted.
        gradient_of_parameters: whether the gradients of the families are wanted.

    Returns:
        For each direction the gradients of the initial states, of the states that rows start anew
        with, then those wanted: dx, then each family's.
    """
    first = directions[0]
    wanted = first.families if gradient_of_parameters else ()
    if gradient_of_input:
        wanted = (*wanted, *first.adjoint.outputs[0])
    rows = [
        rows_of(x, gradients[0][1][0].shape[0], counts, resets, one.reverse) for one in directions
    ]
    inputs = []
    for r, one, saved, (demitted, _) in zip(rows, given, kept, gradients, strict=True):
        # The gradients of all emitted states are one group of inputs, side by side.
        packed = [r.packed(gradient) for gradient in demitted]
        together = packed[0] if len(packed) == 1 else _side_by_side(packed)
        inputs.append([*_inputs(r, x, one.noise), saved.flatten(0, -2)[: r.steps.rows], together])
    results = _run(
        directions,
        first.adjoint,
        inputs,
        [r.left_backward(dlast) for r, (_, dlast) in zip(rows, gradients, strict=True)],
        given,
        rows[0].steps,
        frozenset(wanted),
    )
    found = []
    for r, result in zip(rows, results, strict=True):
        initial, anew = r.entered_backward([torch.from_numpy(state) for state in result.states])
        found.append([*initial, *anew])
        if gradient_of_input:
            found[-1].append(r.padded(torch.from_numpy(result.outputs[0])))
        if gradient_of_parameters:
            found[-1] += [torch.from_numpy(result.totals[family]) for family in first.families]
    return found


def forward_eager(
    direction: Direction,
    x: Tensor,
    states: Sequence[Tensor],
    parameters: Sequence[Tensor],
    counts: Tensor | None,
    resets: Tensor | None,
    noise: Tensor | None,
    anew: Sequence[Tensor],
) -> list[Tensor]:
    """As `forward`, with torch's own operations, which torch can differentiate and transform."""

    def unroll(
        given: list[Tensor],
        initial: Sequence[Tensor],
        active: list[int],
        numbered: Tensor | None = None,
    ) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        outputs, last, _ = eager.unroll(
            direction.inference,
            direction.sizes,
            given,
            initial,
            dict(zip(direction.families, parameters, strict=True)),
            active,
            direction.reverse,
            direction.recompute and can_checkpoint(),
            numbered,
        )
        return outputs, last

    dense = counts is None and resets is None
    blind = not dense and not can_look(packed=x.dim() == 2)
    if dense or (blind and not len(x)):  # nothing here but shapes, so that compilers can read it
        flat = [x.flatten(0, 1), *([] if noise is None else [noise.flatten(0, 1)])]
        found, last = unroll(flat, states, [x.shape[1]] * x.shape[0])
        return [*(y.reshape(*x.shape[:-1], y.shape[1]) for y in found), *last]
    if blind:
        found, last = unroll_unpacked(
            lambda step, entering, number: unroll(step, entering, [x.shape[1]], number),
            [group for group in (x, noise) if group is not None],
            states,
            counts,
            resets,
            anew,
            direction.reverse,
        )
        return [*found, *last]
    rows = rows_of(x, states[0].shape[0], counts, resets, direction.reverse)
    initial = rows.entered(states, anew)
    found, last = unroll(_inputs(rows, x, noise), initial, rows.steps.active.tolist())
    return [*map(rows.padded, found), *rows.left(last)]


def _side_by_side(parts: Sequence[Tensor]) -> Tensor:
    """Some (rows, size) as one tensor."""
    out = fresh.empty((len(parts[0]), sum(part.shape[1] for part in parts)), parts[0])
    return torch.cat(list(parts), 1, out=out)


def _inputs(rows: Rows, x: Tensor, noise: Tensor | None) -> list[Tensor]:
    """What a step is given, group by group."""
    return [rows.packed(group) for group in (x, noise) if group is not None]


def _run(
    directions: Sequence[Direction],
    program: Program,
    inputs: Sequence[Sequence[Tensor]],
    states: Sequence[Sequence[Tensor]],
    given: Sequence[Given],
    steps: Steps,
    wanted: frozenset[str] | None = None,
) -> list[Result]:
    first = directions[0]
    passes = [
        Pass(
            [group.numpy(force=True) for group in groups],
            [state.numpy(force=True) for state in initial],
            {
                family: stacked.numpy(force=True)
                for family, stacked in zip(first.families, one.parameters, strict=True)
            },
            direction.reverse,
        )
        for direction, groups, initial, one in zip(directions, inputs, states, given, strict=True)
    ]
    return run_kernels(first.backend, program, first.sizes, passes, steps, wanted)

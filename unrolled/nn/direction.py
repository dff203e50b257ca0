"""One direction of one layer: what its two passes need, and the passes on CPU tensors."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor

from ..backends import eager
from ..backends.steps import Result, Steps
from ..cell import Cell
from ..derivative import differentiate, kept_values
from ..language.sizes import ONE
from ..program import Program
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
    adjoint = differentiate(forward, outputs=emitted, recompute=recompute)
    groups = [(state,) for state in emitted]
    return (
        forward.with_outputs(*groups),
        forward.with_outputs(*groups, kept_values(adjoint)),
        adjoint,
    )


def forward(
    direction: Direction,
    x: Tensor,
    states: Sequence[Tensor],
    parameters: Sequence[Tensor],
    counts: Tensor | None,
    resets: Tensor | None,
    noise: Tensor | None,
    anew: Sequence[Tensor],
    keep: bool,
) -> list[Tensor]:
    """Run forward on CPU tensors.

    Args:
        direction: what to run.
        x: (T, B, I), or (rows of all steps, I) of a packed sequence.
        states: the initial states, each (B, size).
        parameters: the stacked families.
        counts: of a packed sequence (T,), how many rows take part at each step; of a padded one
            (B,), how many steps of each row count; int64. None: all.
        resets: (T, B) the rows of a padded sequence that start anew before each step, bool; none if
            None.
        noise: the cell's random values side by side, shaped as `x`; None if it has none.
        anew: the states (size,) that they then start with; none: zeros.
        keep: whether `backward` will follow.

    Returns:
        The emitted states at every step, the last states and, with `keep`, what `backward` needs:
        its rows are those that take part.
    """
    program = direction.training if keep else direction.inference
    rows = rows_of(x, states[0], counts, resets, direction.reverse)
    initial = rows.entered(states, anew)
    given = _given(rows, x, noise)
    result = _run(direction, program, given, initial, parameters, rows.steps)
    found = [torch.from_numpy(output) for output in result.outputs]
    count = len(direction.emitted)
    last = rows.left([torch.from_numpy(state) for state in result.states])
    return [*map(rows.padded, found[:count]), *last, *found[count:]]


def backward(
    direction: Direction,
    x: Tensor,
    kept: Tensor,
    demitted: Sequence[Tensor],
    dlast: Sequence[Tensor],
    parameters: Sequence[Tensor],
    counts: Tensor | None,
    resets: Tensor | None,
    noise: Tensor | None,
    gradient_of_input: bool,
    gradient_of_parameters: bool,
) -> list[Tensor]:
    """Run backward on CPU tensors.

    Args:
        direction: what to run.
        x: the input, as `forward` took it.
        kept: what `forward` kept; rows beyond those that take part are not read.
        demitted: the gradients of the emitted states at every step.
        dlast: the gradients of the last states.
        parameters: the stacked families.
        counts: as `forward` took it.
        resets: as `forward` took it.
        noise: as `forward` took it.
        gradient_of_input: whether dx is wanted.
        gradient_of_parameters: whether the gradients of the families are wanted.

    Returns:
        The gradients of the initial states, of the states that rows start anew with, then those
        wanted: dx, then each family's.
    """
    wanted = direction.families if gradient_of_parameters else ()
    if gradient_of_input:
        wanted = (*wanted, *direction.adjoint.outputs[0])
    rows = rows_of(x, dlast[0], counts, resets, direction.reverse)
    kept = kept.flatten(0, -2)[: rows.steps.rows]
    # The gradients of all emitted states are one group of inputs, side by side.
    given = [rows.packed(gradient) for gradient in demitted]
    result = _run(
        direction,
        direction.adjoint,
        [*_given(rows, x, noise), kept, given[0] if len(given) == 1 else torch.cat(given, 1)],
        rows.left_backward(dlast),
        parameters,
        rows.steps,
        frozenset(wanted),
    )
    initial, anew = rows.entered_backward([torch.from_numpy(state) for state in result.states])
    found = [*initial, *anew]
    if gradient_of_input:
        found.append(rows.padded(torch.from_numpy(result.outputs[0])))
    if gradient_of_parameters:
        found += [torch.from_numpy(result.totals[family]) for family in direction.families]
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
    rows = rows_of(x, states[0], counts, resets, direction.reverse)
    initial = rows.entered(states, anew)
    found, last = unroll(_given(rows, x, noise), initial, rows.steps.active.tolist())
    return [*map(rows.padded, found), *rows.left(last)]


def _given(rows: Rows, x: Tensor, noise: Tensor | None) -> list[Tensor]:
    """What a step is given, group by group."""
    return [rows.packed(group) for group in (x, noise) if group is not None]


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
        [group.numpy(force=True) for group in inputs],
        [state.numpy(force=True) for state in states],
        {
            family: stacked.numpy(force=True)
            for family, stacked in zip(direction.families, parameters, strict=True)
        },
        steps,
        direction.reverse,
        wanted,
    )

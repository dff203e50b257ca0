"""A program on torch tensors, step by step: any device, any dtype, anything that torch can do.

Made of torch's own functions without a change in place, so autograd, forward mode, vmap and
second derivatives go through it. What depends on no state is computed for all steps at once.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..language.operations import PRODUCTS
from ..language.sizes import ONE
from ..program import STEP_NUMBER, Argument, Instruction, Program, count_of
from .blocks import split_blocks
from .steps import Result, Steps

# Operation → what it does. The two products stand in `_Evaluation.product`.
OPERATIONS: dict[str, Callable[..., Tensor]] = {
    "same": lambda a: a,
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": torch.div,
    "neg": torch.neg,
    "pow": torch.pow,
    "lt": torch.lt,
    "le": torch.le,
    "gt": torch.gt,
    "ge": torch.ge,
    "eq": torch.eq,
    "ne": torch.ne,
    "where": torch.where,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "exp": torch.exp,
    "log": torch.log,
    "sqrt": torch.sqrt,
    "abs": torch.abs,
    "relu": torch.relu,
    "softplus": lambda a: torch.logaddexp(a, torch.zeros_like(a)),
    "sum": lambda a: a.sum(-1, keepdim=True),
    "mean": lambda a: a.mean(-1, keepdim=True),
}


def run(
    program: Program,
    sizes: Mapping[str, int],
    inputs: Sequence[Tensor],
    states: Sequence[Tensor],
    parameters: Mapping[str, Tensor],
    steps: Steps,
    reverse: bool = False,
) -> Result:
    """Run a program over a sequence, as `reference.run` does, on tensors.

    Args:
        program: a forward or an adjoint program.
        sizes: letter → number.
        inputs: a tensor (rows of all steps, sizes of the group) for each group of inputs.
        states: a tensor (B, size) for each carried pair, handed to the first step.
        parameters: family → its blocks stacked along the first axis.
        steps: the rows of each step.
        reverse: whether the layer reads the sequence from its end.

    Returns:
        Outputs, last states and totals as tensors.
    """
    counts: list[int] = steps.active.tolist()
    outputs, last, totals = unroll(program, sizes, inputs, states, parameters, counts, reverse)
    return Result(tuple(outputs), tuple(last), totals)  # type: ignore[arg-type]


def unroll(
    program: Program,
    sizes: Mapping[str, int],
    inputs: Sequence[Tensor],
    states: Sequence[Tensor],
    parameters: Mapping[str, Tensor],
    counts: Sequence[int],
    reverse: bool = False,
    recompute: bool = False,
    numbered: Tensor | None = None,
) -> tuple[list[Tensor], list[Tensor], dict[str, Tensor]]:
    """The same, given how many rows take part at each step, for torch's compilers to follow.

    With `recompute`, autograd keeps what a step receives, and computes the rest of it again.
    `numbered` are the numbers of the steps, (rows of all steps,), where they are not counted here.

    Returns:
        Outputs, last states, and family → total.
    """
    numbers = {**sizes, ONE: 1}
    like = inputs[0]
    evaluation = _Evaluation(program, numbers, split_blocks(program, numbers, parameters), like)
    rows = _given(program, numbers, inputs, counts, reverse, numbered)
    loop = []
    for instruction in program.instructions:
        ready = all(name in rows or name in evaluation.blocks for name in instruction.operands)
        if ready and not recompute:  # what is computed for all steps at once is kept for all
            size = evaluation.units(instruction)
            rows[instruction.name] = evaluation(instruction, rows).expand(like.shape[0], size)
        else:
            loop.append(instruction)
    forwards = reverse == program.adjoint
    series, last = _loop(program, loop, evaluation, rows, states, counts, forwards, recompute)

    def wanted(name: str) -> Tensor:
        if name in rows:
            return rows[name]
        if not counts:  # no rows, and still something that gradients can go through
            return like.sum(1, keepdim=True).expand(0, numbers[program.sizes[name]])
        return torch.cat(series[name])

    outputs = [
        torch.cat([wanted(value) for value in group], dim=1)
        if group
        else like.new_zeros(like.shape[0], 0)
        for group in program.outputs
    ]
    totals = _totals(program, evaluation.blocks, wanted) if program.totals else {}
    return outputs, last, totals


class _Evaluation:
    """What an instruction gives, from the values of one step or of all."""

    def __init__(
        self,
        program: Program,
        numbers: Mapping[str, int],
        blocks: Mapping[str, Tensor],
        like: Tensor,
    ) -> None:
        self.program = program
        self.sizes = numbers
        self.blocks = blocks
        self.like = like
        self.numbers: dict[float, Tensor] = {}

    def __call__(self, instruction: Instruction, values: Mapping[str, Tensor]) -> Tensor:
        if instruction.operation in PRODUCTS:
            return self.product(instruction, values)
        arguments = [self.meaning(argument, values) for argument in instruction.arguments]
        value = OPERATIONS[instruction.operation](*arguments)
        if instruction.operation == "same" and value.dim() == 2:
            return value.expand(-1, self.units(instruction))  # a number may become a vector here
        return value

    def units(self, instruction: Instruction) -> int:
        """How many units the result has."""
        return self.sizes[self.program.sizes[instruction.name]]

    def meaning(self, argument: Argument, values: Mapping[str, Tensor]) -> Tensor:
        if isinstance(argument, str):
            return values[argument] if argument in values else self.blocks[argument]
        if argument not in self.numbers:
            self.numbers[argument] = self.like.new_full((), argument)
        return self.numbers[argument]

    def product(self, instruction: Instruction, values: Mapping[str, Tensor]) -> Tensor:
        transposed = instruction.operation == "matmul_t"
        terms = [
            values[vector] @ (self.blocks[matrix] if transposed else self.blocks[matrix].T)
            for matrix, vector in instruction.pairs
        ]
        whole = terms[0]
        for term in terms[1:]:
            whole = whole + term
        return whole


def _given(
    program: Program,
    numbers: Mapping[str, int],
    inputs: Sequence[Tensor],
    counts: Sequence[int],
    reverse: bool,
    numbered: Tensor | None,
) -> dict[str, Tensor]:
    """The values that come from outside, for the rows of all steps."""
    rows: dict[str, Tensor] = {}
    for group, array in zip(program.inputs, inputs, strict=True):
        widths = [numbers[program.sizes[value]] for value in group]
        rows |= zip(
            group, torch.split_with_sizes(array, widths, dim=1) if group else (), strict=True
        )
    if any(STEP_NUMBER in instruction.operands for instruction in program.instructions):
        if numbered is None:
            numbered = inputs[0].new_tensor(_numbers(counts, reverse))
        rows[STEP_NUMBER] = numbered[:, None]
    for size, units in numbers.items():
        if count_of(size) in program.counts:
            rows[count_of(size)] = inputs[0].new_full((len(inputs[0]), 1), units)
    return rows


def _numbers(counts: Sequence[int], reverse: bool) -> list[float]:
    """The number of the step of each row of all steps; from the end, rows of any length begin."""
    lengths = [sum(row < count for count in counts) for row in range(max(counts, default=0))]
    return [
        float(lengths[row] - step if reverse else step + 1)
        for step, count in enumerate(counts)
        for row in range(count)
    ]


def _loop(
    program: Program,
    loop: Sequence[Instruction],
    evaluation: _Evaluation,
    rows: Mapping[str, Tensor],
    states: Sequence[Tensor],
    counts: Sequence[int],
    forwards: bool,
    recompute: bool,
) -> tuple[dict[str, list[Tensor]], list[Tensor]]:
    """The steps: each wanted value at each step, and what the last step handed on."""
    needed = {name for instruction in loop for name in instruction.operands}
    needed |= {handed_on for _, handed_on in program.carried}
    # Split once: its derivative is one concatenation, where slices would cost one sum a step.
    parts = {
        name: torch.split_with_sizes(value, counts)
        for name, value in rows.items()
        if name in needed
    }
    series: dict[str, list[Tensor]] = {name: [] for name in program.wanted if name not in rows}
    left = {*series, *(new for _, new in program.carried)}  # what is left of a step

    def run_step(values: dict[str, Tensor], count: int) -> dict[str, Tensor]:
        values = dict(values)
        for instruction in loop:
            value = evaluation(instruction, values)
            if value.dim() < 2 and instruction.name in left:  # it is made of parameters alone
                value = value.expand(count, evaluation.units(instruction))
            values[instruction.name] = value
        return {name: values[name] for name in left}

    carried = list(states)
    for step in range(len(counts)) if forwards else reversed(range(len(counts))):
        count = counts[step]
        values = {name: part[step] for name, part in parts.items()}
        for (received, _), state in zip(program.carried, carried, strict=True):
            values[received] = state if count == state.shape[0] else state[:count]
        if recompute:
            found = checkpoint(
                run_step, values, count, use_reentrant=False, preserve_rng_state=False
            )
        else:
            found = run_step(values, count)
        for place, (_, handed_on) in enumerate(program.carried):
            new, old = found[handed_on], carried[place]
            carried[place] = new if count == old.shape[0] else torch.cat([new, old[count:]])
        for name, of_steps in series.items():
            of_steps.append(found[name])
    if not forwards:
        for of_steps in series.values():
            of_steps.reverse()
    return series, carried


def _totals(
    program: Program, blocks: Mapping[str, Tensor], wanted: Callable[[str], Tensor]
) -> dict[str, Tensor]:
    """Family → its gradient: sums over the rows of all steps."""
    sums: dict[str, Tensor] = {}
    for total in program.totals:
        first = wanted(total.factors[0])
        term = first.T @ wanted(total.factors[1]) if len(total.factors) == 2 else first.sum(0)
        sums[total.parameter] = sums[total.parameter] + term if total.parameter in sums else term
    return {
        family: torch.cat([sums.get(name, torch.zeros_like(blocks[name])) for name in names])
        for family, names in program.families.items()
        if names
    }

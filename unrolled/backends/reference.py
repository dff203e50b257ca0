"""The truth: a program run step by step in NumPy, as it is written, never optimised.

Every other backend is judged by it.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import numpy as np

from ..functions import relu, sigmoid, softplus
from ..language.operations import PRODUCTS
from ..language.sizes import ONE
from ..program import STEP_NUMBER, Argument, Instruction, Program, count_of
from .blocks import split_blocks, stack_blocks
from .steps import Array, Result, Steps

# Operation → what it does. The two products stand in `_product`.
OPERATIONS: dict[str, Callable[..., Array]] = {
    "same": lambda a: a,
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "neg": np.negative,
    "pow": np.power,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "eq": np.equal,
    "ne": np.not_equal,
    "where": np.where,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "sigmoid": sigmoid,
    "tanh": np.tanh,
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
    "abs": np.abs,
    "relu": relu,
    "softplus": softplus,
    "sum": lambda a: a.sum(-1, keepdims=True),
    "mean": lambda a: a.mean(-1, keepdims=True),
}


def run(
    program: Program,
    sizes: Mapping[str, int],
    inputs: Sequence[Array],
    states: Sequence[Array],
    parameters: Mapping[str, Array],
    steps: Steps,
    reverse: bool = False,
) -> Result:
    """Run a program over a sequence.

    Args:
        program: a forward or an adjoint program.
        sizes: letter → number.
        inputs: an array (rows of all steps, sizes of the group) for each group of inputs.
        states: an array (B, size) for each carried pair, handed to the first step.
        parameters: family → its blocks stacked along the first axis.
        steps: the rows of each step.
        reverse: whether the layer reads the sequence from its end; an adjoint program then
            goes from the first step to the last.

    Returns:
        Outputs, last states and totals, in the dtype of the arrays given.
    """
    with np.errstate(all="ignore"):
        return _run(program, {**sizes, ONE: 1}, inputs, states, parameters, steps, reverse)


def _run(
    program: Program,
    numbers: Mapping[str, int],
    inputs: Sequence[Array],
    states: Sequence[Array],
    parameters: Mapping[str, Array],
    steps: Steps,
    reverse: bool,
) -> Result:
    blocks = split_blocks(program, numbers, parameters)
    dtype = np.result_type(*inputs, *states, *parameters.values())
    carried = [np.array(state, dtype) for state in states]
    outputs = [
        np.zeros((steps.rows, sum(numbers[program.sizes[value]] for value in group)), dtype)
        for group in program.outputs
    ]
    totals = {name: np.zeros_like(block, dtype) for name, block in blocks.items()}
    order = range(steps.length)
    for step in order if reverse == program.adjoint else reversed(order):
        count = int(steps.active[step])
        here = slice(int(steps.offset[step]), int(steps.offset[step]) + count)
        number = steps.lengths[:count] - step if reverse else np.full(count, step + 1)
        values: dict[str, Array] = {STEP_NUMBER: number.astype(dtype)[:, None], **blocks}
        values |= {count_of(size): np.asarray(units, dtype) for size, units in numbers.items()}
        for group, array in zip(program.inputs, inputs, strict=True):
            values |= _split(array[here], group, program, numbers)
        for (received, _), state in zip(program.carried, carried, strict=True):
            values[received] = state[:count].copy()
        for instruction in program.instructions:
            size = program.sizes[instruction.name]
            value = _evaluate(instruction, values, dtype)
            values[instruction.name] = np.broadcast_to(value, (count, numbers[size]))
        for state, new in zip(
            carried, [values[handed_on] for _, handed_on in program.carried], strict=True
        ):
            state[:count] = new
        for output, group in zip(outputs, program.outputs, strict=True):
            if group:
                output[here] = np.concatenate([values[value] for value in group], axis=1)
        for total in program.totals:
            first = values[total.factors[0]]
            totals[total.parameter] += (
                first.T @ values[total.factors[1]] if len(total.factors) == 2 else first.sum(0)
            )
    return Result(tuple(outputs), tuple(carried), stack_blocks(program, totals))


def _evaluate(instruction: Instruction, values: Mapping[str, Array], dtype: np.dtype) -> Array:
    def meaning(argument: Argument) -> Array:
        return values[argument] if isinstance(argument, str) else np.asarray(argument, dtype)

    if instruction.operation in PRODUCTS:
        return _product(instruction, values)
    return OPERATIONS[instruction.operation](*map(meaning, instruction.arguments))


def _product(instruction: Instruction, values: Mapping[str, Array]) -> Array:
    terms = []
    for matrix, vector in instruction.pairs:
        weights = values[matrix]
        terms.append(values[vector] @ (weights.T if instruction.operation == "matmul" else weights))
    return np.sum(terms, axis=0) if len(terms) > 1 else terms[0]


def _split(
    array: Array, group: Sequence[str], program: Program, numbers: Mapping[str, int]
) -> dict[str, Array]:
    ends = np.cumsum([0, *(numbers[program.sizes[value]] for value in group)])
    parts = (array[:, start:end] for start, end in pairwise(ends))
    return dict(zip(group, parts, strict=True))

"""The product of a single row, or of few steps: weights are read where and as they lie.

Packing a matrix costs more than reading it a few times. So does keeping a large one packed from
call to call, as each compares it with what was packed.
"""

from __future__ import annotations

import sys
from typing import Any

from llvmlite import ir
from numba.core import errors, types
from numba.core.typing import signature

from .dot_tiles import DotTiles
from .emission import Matrix
from .inner import inner
from .shared import Written, matrices_of
from .team import in_turn
from .vectors import REGISTERS, WIDE_ZEN, compiled, only_compiled, vector_of

# In the loop over a single row's steps weights stay where they lie from so many units of the
# operand, and so many bytes, on. Measured on a Xeon (LSTM, GRU, simple RNN; 64 to 512 units, 25 to
# 300 steps): from here on inference takes 0.7 to 1.0 of the time, and with less up to 1.18. A Zen 5
# reads one stream from its second cache more quickly than several, and each row is one: what was
# tried there gained at most 10 % of inference, and lost in training.
LEAST_UNITS, LEAST_BYTES = 128, sys.maxsize if WIDE_ZEN else 1 << 18

# Of up to so many rows, if there are so many units for each, weights are not turned either before
# the loop. Measured on a Xeon (64 to 1024 units): such a product takes 0.5 to 1.0 of the time. On a
# Zen 3 48 rows of 512 units take 0.8, 64 rows of 650 or 1024 0.9.
FEW_ROWS, _UNITS_A_ROW = 32 if REGISTERS == 32 else 64, 10


def dots(
    weights: Any,
    first: Any,
    count: Any,
    operand: Any,
    row: Any,
    rows: Any,
    out: Any,
    at: Any,
    column: Any,
) -> None:
    """Columns of `out = operand @ weights[first : first + count].T`. For compiled code only.

    The rows of all three are contiguous. Each result has its order of terms, whatever is beside it.

    Args:
        weights: (…, K).
        first: the first row of the weights.
        count: how many rows of the weights.
        operand: (…, K), of the same dtype.
        row: the first row of the operand.
        rows: how many rows of the operand.
        out: (…, N), of the same dtype.
        at: the first row of `out` that is written.
        column: of `out` where the result of the first row of weights lies.
    """
    raise only_compiled("dots")


def _result(weights: Any, first: Any, count: Any, operand: Any, row: Any, *rest: Any) -> Any:
    rows, out, at, column = rest
    arrays, numbers = (weights, operand, out), (first, count, row, rows, at, column)
    if any(not isinstance(array, types.Array) or array.ndim != 2 for array in arrays) or (
        len({array.dtype for array in arrays}) > 1
        or any(not isinstance(number, types.Integer) for number in numbers)
    ):
        raise errors.TypingError(
            f"dots takes matrices of one dtype; found {', '.join(map(str, arrays))}"
        )
    index = types.intp
    return signature(types.none, weights, index, index, operand, index, index, out, index, index)


def _write(builder: Any, vector: Any, *arguments: Any) -> None:
    """Addresses of the weights, the operand and `out`, each with the step of its rows; numbers."""
    one = ir.Constant(ir.IntType(64), 1)
    pairs = zip(arguments[:6:2], arguments[1:6:2], strict=True)
    matrices = (Matrix(*pair, one) for pair in pairs)
    DotTiles(builder, vector, *matrices, *arguments[6:]).write()


_DOTS = Written("dots", "awawawwww", _write)


def _call(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
    _, first, count, _, row, rows, _, at, column = arguments
    found = matrices_of(context, builder, sig, arguments)
    zero = context.get_constant(types.intp, 0)
    entries = (first, zero), (row, zero), (at, column)
    places = [
        part
        for (matrix, _), entry in zip(found, entries, strict=True)
        for part in (matrix.at(builder, *entry), matrix.row_step)
    ]
    (_, (_, units)), *_ = found
    _DOTS.call(builder, vector_of(context, sig.args[0]), (*places, count, rows, units))
    return context.get_dummy_value()


compiled(dots, _result, _call)


@inner(forceinline=True)
def few(rows, units):  # type: ignore[no-untyped-def]
    """Whether a product of all steps has so few rows that its weights are better left as they lie.

    Args:
        rows: of all steps, not of a chunk of them: so no bits depend on how these are cut.
        units: of the operand.
    """
    return rows <= FEW_ROWS and rows * _UNITS_A_ROW <= units


@inner(forceinline=True)
def dots_of_group(  # type: ignore[no-untyped-def]
    operand, row, weights, group, width, size, blocks, out, at, column, hop, step
):
    """One group of a product of a single row with weights as they lie, block by block.

    Args:
        operand: (…, K), C-contiguous.
        row: its row.
        weights: (blocks * size, K), C-contiguous, of the same dtype.
        group: the group's number.
        width: how many units a group has.
        size: how many a block has.
        blocks: of the weights.
        out: (…, N), C-contiguous, of the same dtype.
        at: its row.
        column: where the units of the first block lie.
        hop: those of the next block lie so far behind them.
        step: the number of the step; see `team.in_turn`.
    """
    start = group * width
    count = min(width, size - start)
    for number in range(blocks):
        block = blocks - 1 - number if step % 2 else number
        dots(weights, block * size + start, count, operand, row, 1, out, at, column + block * hop)


@inner(forceinline=True)
def dots_of_groups(operand, row, weights, groups, width, size, blocks, out, at, step):  # type: ignore[no-untyped-def]
    """Some groups of it, each where it belongs in `out`.

    Args:
        operand: as `dots_of_group` takes it.
        row: as `dots_of_group` takes it.
        weights: as `dots_of_group` takes it.
        groups: the groups from the first of these two numbers to the second; see `groups_of`.
        width: as `dots_of_group` takes it.
        size: as `dots_of_group` takes it.
        blocks: as `dots_of_group` takes it.
        out: (…, blocks * size), C-contiguous, of the same dtype.
        at: as `dots_of_group` takes it.
        step: as `dots_of_group` takes it.
    """
    for number in range(groups[0], groups[1]):
        group = in_turn(groups, number, step)
        dots_of_group(
            operand, row, weights, group, width, size, blocks, out, at, group * width, size, step
        )

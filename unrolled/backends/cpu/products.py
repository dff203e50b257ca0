"""The product inside the time loop: a few rows times a matrix that stays the same for many steps.

The matrix is packed once, so that the innermost loop, a tile, reads it from one end to the other.
Here is how tiles follow one another, panel by panel and rows by rows.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import errors, types
from numba.core.typing import signature

from .inner import inner
from .shared import Written, matrices_of
from .tiles import PANELS, SINGLE_PANELS, TILE_ROWS, write_row, write_tile
from .vectors import REGISTERS, WIDE_ZEN, compiled, only_compiled, vector_of

# Tiles of six rows and two panels read the operand half as often as the largest, and are better
# where weights are near: of a matrix of so many numbers, or of so many if rows are more than those.
# Measured on a Xeon: 1.0 to 1.2 times the rate, most while a neighbour shares the core; with larger
# matrices 0.8 to 1.1 times. On a Zen 5 tiles are at the machine's rate anyway.
_LOW_ROWS = 6
_NUMBERS, _NUMBERS_OF_MANY_ROWS = (0, 0) if WIDE_ZEN else (1 << 18, 1 << 20)
# Rows that go through a panel, tile by tile, before the next panel is read. Measured on a Xeon at 2
# MB of second cache (LSTM; 64 rows of 512 units, 20 of 650): 0.97 to 1.0 of the time with a tile's
# rows, and as long at 128 units; with twice as many the same. On a Zen 5 it is not measured.
GROUP_ROWS = TILE_ROWS if WIDE_ZEN else 3 * TILE_ROWS
# With 16 registers three rows, which take two panels at once, come last, and none are cut so that
# four are left: of one panel these have eight sums, as many as two multipliers want, and none to
# spare. Measured on a Zen 3, loud: 8 rows 1.05 to 1.1 times the rate of 4 + 4, 14 rows 1.03.
_THREE_LAST = REGISTERS == 16
_WHOLE = ir.IntType(64)

_TILE = Written("tile", "awawawwwwww", write_tile)
_ROW = Written("row", "aawawwww", write_row)


def _tile(
    operand: Any,
    row: Any,
    rows: Any,
    packed: Any,
    panel: Any,
    panels: Any,
    out: Any,
    at: Any,
    column: Any,
    hop: Any,
    left: Any,
    fewer: Any,
) -> None:
    """Some rows of some panels; in `out` they begin at (at, column), with `left` columns.

    The next panel has its columns so far (`hop`) from the first of these, and `fewer` of them.
    """
    raise only_compiled("_tile")


def _tile_result(*arguments: Any) -> Any:
    operand, _, _, packed, _, _, out, *_ = arguments
    arrays = (operand, packed, out)
    if any(array.ndim != 2 or array.layout != "C" for array in arrays) or (
        len({array.dtype for array in arrays}) > 1
    ):
        raise errors.TypingError(
            "a product takes C-contiguous matrices of one dtype; "
            f"found {', '.join(map(str, arrays))}"
        )
    kinds = (kind if isinstance(kind, types.Array) else types.intp for kind in arguments)
    return signature(types.none, *kinds)


def _call(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
    _, row, rows, _, panel, panels, _, at, column, *edge = arguments
    matrices = [matrix for matrix, _ in matrices_of(context, builder, sig, arguments)]
    zero, one = (ir.Constant(_WHOLE, number) for number in (0, 1))
    entries = (row, zero), (panel, zero), (at, column)
    places = [
        part
        for matrix, entry in zip(matrices, entries, strict=True)
        for part in (matrix.at(builder, *entry), matrix.row_step)
    ]
    vector = vector_of(context, sig.args[0])
    with builder.if_else(builder.icmp_signed("==", rows, one)) as (single, several):
        with single:
            operand, _, first, span, place, _ = places
            _ROW.call(builder, vector, (operand, first, span, place, *edge, panels))
        with several:
            _TILE.call(builder, vector, (*places, *edge, rows, panels))
    return context.get_dummy_value()


compiled(_tile, _tile_result, _call)

# A call would pass each array number by number, which takes a tenth of a short step.


@inner(forceinline=True)
def highest(rows, numbers):  # type: ignore[no-untyped-def]
    """How many rows a tile has at most, of so many rows and a matrix of so many numbers."""
    near = _NUMBERS if rows <= TILE_ROWS else _NUMBERS_OF_MANY_ROWS
    return _LOW_ROWS if numbers <= near else TILE_ROWS


@inner(forceinline=True)
def height(rows, most):  # type: ignore[no-untyped-def]
    """How many rows parts of at most so many have, to be about equal: 12 rows are 6 + 6."""
    if rows <= most:  # to divide takes as long as the tanh of a vector
        return rows
    parts = (rows + most - 1) // most
    return (rows + parts - 1) // parts


@inner(forceinline=True)
def tile_rows(left, high):  # type: ignore[no-untyped-def]
    """How many rows the next tile has, where so many are left, and tiles are about so high."""
    if not _THREE_LAST:
        return min(left, high)
    if left <= TILE_ROWS:
        return left
    if left <= TILE_ROWS + 3:
        return left - 3
    return TILE_ROWS - 1 if left in (10, 13) else TILE_ROWS  # 5 + 5, 5 + 5 + 3


@inner(forceinline=True)
def multiply_group(operand, row, rows, packed, group, panels, width, out, at, step):  # type: ignore[no-untyped-def]
    """One group of a product, tile by tile of some rows, panel by panel.

    Args:
        operand: (…, K), C-contiguous.
        row: its first row.
        rows: how many, from 1 to `GROUP_ROWS`.
        packed: the weights as `fill` writes them, of the same dtype.
        group: the group's number.
        panels: how many panels a group has.
        width: how many columns a panel has: two vectors.
        out: (…, width of a group): the vectors of the group side by side, block by block.
        at: its first row.
        step: the number of the step; see `team.in_turn`.
    """
    wide, done = SINGLE_PANELS if rows == 1 else PANELS, 0
    high = height(rows, highest(rows, packed.size))
    while done < panels:
        taken = min(wide, panels - done)
        first = panels - done - taken if step % 2 else done
        column = first * width
        above = 0
        while above < rows:
            some = tile_rows(rows - above, high)
            _tile(
                operand, row + above, some, packed, group * panels + first, taken, out, at + above,
                column, width, out.shape[1] - column, width,
            )  # fmt: skip
            above += some
        done += taken


@inner(forceinline=True)
def multiply(operand, row, rows, packed, groups, width, blocks, out, at, step):  # type: ignore[no-untyped-def]
    """Some rows and groups of `out = operand @ weights`.

    Args:
        operand: (…, K), C-contiguous.
        row: its first row.
        rows: how many rows; 0 does nothing.
        packed: the weights as `fill` writes them with two vectors a group, of the same dtype.
        groups: the groups from the first of these two numbers to the second; see `groups_of`.
        width: how many units a group has: two vectors.
        blocks: of the weights.
        out: (…, blocks * size), C-contiguous.
        at: its first row.
        step: the number of the step; see `team.in_turn`.
    """
    size, high = out.shape[1] // blocks, height(rows, highest(rows, packed.size))
    # Some panels at once: of several blocks, or of several groups if there is one block.
    wide = SINGLE_PANELS if rows == 1 else PANELS
    together, hop, fewer = (wide, width, width) if blocks == 1 else (1, size, 0)
    done, count = 0, groups[1] - groups[0]
    while done < count:
        taken = min(together, count - done)
        group = groups[1] - done - taken if step % 2 else groups[0] + done
        start = group * width
        for block in range(0, blocks, wide):
            panels = taken if blocks == 1 else min(wide, blocks - block)
            above = 0
            while above < rows:
                some = tile_rows(rows - above, high)
                _tile(
                    operand, row + above, some, packed, group * blocks + block, panels, out,
                    at + above, block * size + start, hop, size - start, fewer,
                )  # fmt: skip
                above += some
        done += taken

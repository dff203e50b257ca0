"""A matrix packed for the product inside the time loop, which then reads it from end to end.

The blocks of a product go *group* by group: some units of every block side by side, so that a tile
of the product has all that the work on these units needs. A group is cut in panels of two vectors.

Parameters lie in memory as torch stores them, a row of weights for each result. The product wants
them the other way round, so packing mostly turns small squares of numbers, as wide as a vector.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.core.typing import signature

from .emission import further, shuffled
from .inner import inner
from .shared import Shared, matrices_of
from .team import array_at
from .vectors import (
    compiled,
    first_lanes,
    lanes,
    masked_load,
    only_compiled,
    vector_of,
)

PANEL = 2  # vectors in a panel: with six rows, 12 sums fill the 16 registers of AVX2
WIDEST = 8  # vectors of units that a group has, for each block, at most
# What it takes to begin a group, in parts of a vector of units: its tiles start with empty pipes,
# and the work on its first units waits for each of its instructions. Measured on a Zen 5.
_BEGINNING = 1 / 16


def wide_group(size: int, least: int, shares: int, dtype: Any) -> int:
    """How many vectors of units a group has, for each block.

    Wide ones are few, but groups are whole, with zeros behind the last unit, which are multiplied
    too. So a group is as wide as takes the least time for the share that has most to do.

    Args:
        size: units of each block.
        least: of which a group has some times as many.
        shares: how many threads share the groups.
        dtype: float32 or float64.
    """
    vectors = -(-size // lanes(dtype))

    def time_of_a_share(each: int) -> float:
        return -(-vectors // (each * shares)) * (each + _BEGINNING)

    return min(range(least, WIDEST + 1, least), key=lambda each: (time_of_a_share(each), -each))


def packed_shape(K: int, blocks: int, size: int, vectors: int, dtype: Any) -> tuple[int, int]:
    """The shape of a packed matrix: (panels, K * width), `width = 2 * lanes(dtype)`.

    Args:
        K: units of the operand.
        blocks: how many blocks stand one below the other.
        size: units of the result of each block.
        vectors: of a group, for each block; `blocks * vectors` is even.
        dtype: float32 or float64.
    """
    groups = -(-size // (vectors * lanes(dtype)))
    return groups * blocks * vectors // PANEL, K * PANEL * lanes(dtype)


def fill(weights: Any, blocks: Any, vectors: Any, packed: Any, first: Any, last: Any) -> None:
    """Write the groups `first` to `last` of a packed matrix. For compiled code only.

    A panel holds two vectors of columns, one row of the matrix after the other; zeros stand where a
    block has no more columns.

    Args:
        weights: (K, N), in any order in memory.
        blocks: how many blocks stand side by side there.
        vectors: of a group, for each block.
        packed: an array of its packed shape, C-contiguous.
        first: the first group that is written.
        last: the first that is not.
    """
    raise only_compiled("fill")


def fill_changed(
    weights: Any,
    blocks: Any,
    vectors: Any,
    packed: Any,
    first: Any,
    last: Any,
    used: Any,
    filled: Any,
) -> None:
    """The same, but only of groups whose weights have changed. For compiled code only.

    Nothing tells of every change of a weight: a write through `.data`, say, leaves no trace. So the
    weights are compared with those that were packed, bit by bit. That takes 0.3 to 0.8 of the time
    of packing, and is never wrong.

    Args:
        weights: as `fill` takes them; their columns are contiguous, and follow one another.
        blocks: as `fill` takes it.
        vectors: as `fill` takes it.
        packed: as `fill` takes it.
        first: as `fill` takes it.
        last: as `fill` takes it.
        used: (N, K), C-contiguous: the weights that were packed, turned.
        filled: whether the packed matrix and `used` have been written before (1), or not (0).
    """
    raise only_compiled("fill_changed")


@inner(forceinline=True)
def _columns_of(strip, in_group, vectors, lanes, size):  # type: ignore[no-untyped-def]
    """The first column that goes into a vector of a panel, and how many there are."""
    group, place = strip // in_group, strip % in_group
    start = (group * vectors + place % vectors) * lanes
    return place // vectors * size + start, max(0, min(lanes, size - start))


@inner
def _fill(real, weights, packed, row_step, column_step, K, N, blocks, vectors, lanes, first, last):  # type: ignore[no-untyped-def]
    size, in_group, width = N // blocks, blocks * vectors, PANEL * lanes
    first, last = first * in_group // PANEL, last * in_group // PANEL
    given = array_at(weights, (1 + (K - 1) * row_step + (N - 1) * column_step,), real)
    flat = array_at(packed, (last * K * width,), real)
    if column_step == 1:  # both vectors of a panel, as they lie side by side: rows are far apart
        for panel in range(first, last):
            column, count = _columns_of(PANEL * panel, in_group, vectors, lanes, size)
            next_column, next_count = _columns_of(PANEL * panel + 1, in_group, vectors, lanes, size)
            for k in range(K):
                entry, at = k * row_step, (panel * K + k) * width
                lay(given, entry + column, count, flat, at)
                lay(given, entry + next_column, next_count, flat, at + lanes)
        return
    for strip in range(first * PANEL, last * PANEL):
        column, count = _columns_of(strip, in_group, vectors, lanes, size)
        column *= column_step
        base = strip // PANEL * K * width + strip % PANEL * lanes
        turned = 0
        if count == lanes and row_step == 1:
            turned = K // lanes * lanes
            for k in range(0, turned, lanes):
                turn(given, k + column, column_step, flat, base + k * width, width)
        for k in range(turned, K):
            at, entry = base + k * width, k * row_step + column
            for j in range(count):
                flat[np.uint64(at + j)] = given[np.uint64(entry + j * column_step)]
            for j in range(count, lanes):
                flat[np.uint64(at + j)] = 0


_FILL = Shared("fill", "aawwwwwwwww", _fill)


def _fill_group(real: Any, weights: Any, packed: Any, *numbers: Any) -> None:
    raise only_compiled("_fill_group")


@inner
def _fill_changed(  # type: ignore[no-untyped-def]
    real, weights, packed, used, row_step, column_step, K, N, blocks, vectors, lanes, first, last,
    filled,
):  # fmt: skip
    size, wide = N // blocks, vectors * lanes
    words = array_at(weights, (1,), real).itemsize // 4
    given = array_at(weights, (N * K * words,), np.int32)
    kept = array_at(used, (N * K * words,), np.int32)
    for group in range(first, last):
        columns, same = min(wide, size - group * wide) * K * words, filled
        for block in range(blocks):
            start, different = (block * size + group * wide) * K * words, np.int32(0)
            if same:
                for word in range(columns):
                    different |= given[np.uint64(start + word)] ^ kept[np.uint64(start + word)]
            same = same and different == 0
        if same:
            continue
        for block in range(blocks):
            start = (block * size + group * wide) * K * words
            for word in range(columns):
                kept[np.uint64(start + word)] = given[np.uint64(start + word)]
        _fill_group(
            real, weights, packed, row_step, column_step, K, N, blocks, vectors, lanes, group
        )


_FILL_CHANGED = Shared("fill_changed", "aaawwwwwwwwww", _fill_changed)


def turn(given: Any, start: Any, apart: Any, flat: Any, at: Any, width: Any) -> None:
    """Copy a square of numbers, as wide as a vector, that begins at `given[start]`.

    For compiled code only. Its columns are contiguous, and begin `apart` after each other; they
    become rows in `flat`: the first begins at `at`, the others `width` further each.
    """
    raise only_compiled("turn")


def lay(given: Any, start: Any, count: Any, flat: Any, at: Any) -> None:
    """Copy `count` numbers from `given[start]` on to `flat[at]`, as a vector filled with zeros.

    For compiled code only.
    """
    raise only_compiled("lay")


def _fill_result(
    weights: Any, blocks: Any, vectors: Any, packed: Any, first: Any, last: Any
) -> Any:
    index = types.intp
    return signature(types.none, weights, index, index, packed, index, index)


def _call_fill(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
    _, blocks, vectors, _, first, last = arguments
    (given, shape), (packed, _) = matrices_of(context, builder, sig, arguments)
    vector = vector_of(context, sig.args[0])
    lanes = context.get_constant(types.intp, vector.count)
    places = given.start, packed.start, given.row_step, given.column_step
    _FILL.call(builder, vector, (*places, *shape, blocks, vectors, lanes, first, last))
    return context.get_dummy_value()


def _fill_changed_result(weights: Any, *others: Any) -> Any:
    kinds = (kind if isinstance(kind, types.Array) else types.intp for kind in others)
    return signature(types.none, weights, *kinds)


def _call_fill_changed(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
    _, blocks, vectors, _, first, last, _, filled = arguments
    matrices = matrices_of(context, builder, sig, arguments)
    (given, shape), (packed, _), (used, _) = matrices
    vector = vector_of(context, sig.args[0])
    lanes = context.get_constant(types.intp, vector.count)
    places = given.start, packed.start, used.start, given.row_step, given.column_step
    _FILL_CHANGED.call(
        builder, vector, (*places, *shape, blocks, vectors, lanes, first, last, filled)
    )
    return context.get_dummy_value()


def _fill_group_result(real: Any, *others: Any) -> Any:
    return signature(types.none, real, *(types.intp,) * len(others))


def _call_fill_group(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
    _, weights, packed, *numbers, group = arguments
    vector = vector_of(context, sig.args[0])
    places = (builder.inttoptr(at, vector.element.as_pointer()) for at in (weights, packed))
    after = builder.add(group, ir.Constant(group.type, 1))
    _FILL.call(builder, vector, (*places, *numbers, group, after))
    return context.get_dummy_value()


def _turn_result(given: Any, start: Any, apart: Any, flat: Any, at: Any, width: Any) -> Any:
    index = types.intp
    return signature(types.none, given, index, index, flat, index, index)


def _lay_result(given: Any, start: Any, count: Any, flat: Any, at: Any) -> Any:
    index = types.intp
    return signature(types.none, given, index, index, flat, index)


def _turn(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
    given, start, apart, flat, at, width = arguments
    size = sig.args[0].dtype.bitwidth // 8
    vector = vector_of(context, sig.args[0])
    given, flat = (
        context.make_array(kind)(context, builder, array).data
        for kind, array in ((sig.args[0], given), (sig.args[3], flat))
    )

    def places(pointer: Any, start: Any, step: Any) -> list[Any]:
        numbers = (ir.Constant(start.type, number) for number in range(vector.count))
        offsets = (builder.add(start, builder.mul(number, step)) for number in numbers)
        return [_vector_at(builder, pointer, offset, vector) for offset in offsets]

    columns = [builder.load(place, align=size) for place in places(given, start, apart)]
    rows = zip(turned(builder, columns), places(flat, at, width), strict=True)
    for row, place in rows:
        builder.store(row, place, align=size)
    return context.get_dummy_value()


def _lay(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
    given, start, count, flat, at = arguments
    vector = vector_of(context, sig.args[0])
    given, flat = (
        context.make_array(kind)(context, builder, array).data
        for kind, array in ((sig.args[0], given), (sig.args[3], flat))
    )
    place = _vector_at(builder, given, start, vector)
    row = masked_load(builder, place, vector, first_lanes(builder, vector, count))
    place = _vector_at(builder, flat, at, vector)
    builder.store(row, place, align=sig.args[0].dtype.bitwidth // 8)
    return context.get_dummy_value()


def _vector_at(builder: Any, pointer: Any, offset: Any, vector: Any) -> Any:
    return builder.bitcast(further(builder, pointer, offset), vector.as_pointer())


def turned(builder: Any, vectors: list[Any]) -> list[Any]:
    """A square of vectors with rows and columns exchanged.

    First the small squares that lie in 16 bytes of as many rows: their halves are interleaved as
    often as they can be halved. Processors move numbers within 16 bytes of a vector four times as
    quickly as through all of it. Then these pieces of 16 bytes go where they belong.
    """
    count = len(vectors)
    side = min(count, 16 // (4 if isinstance(vectors[0].type.element, ir.FloatType) else 8))
    starts = range(0, count, side)
    halves = [
        [start + half + n // 2 + n % 2 * count for start in starts for n in range(side)]
        for half in (0, side // 2)
    ]
    squares = []
    for start in starts:
        rows = vectors[start : start + side]
        for _ in range(side.bit_length() - 1):
            pairs = [*zip(rows[: side // 2], rows[side // 2 :], strict=True)]
            rows = [shuffled(builder, pair, half) for pair in pairs for half in halves]
        squares.append(rows)
    # Of two vectors all pieces with an even number, and all with an odd one.
    parities = [[n for n in range(2 * count) if n // side % 2 == odd] for odd in (0, 1)]
    columns = []
    for pieces in map(list, zip(*squares, strict=True)):
        for _ in range(len(starts).bit_length() - 1):
            pairs = [*zip(pieces[::2], pieces[1::2], strict=True)]
            pieces = [shuffled(builder, pair, parity) for parity in parities for pair in pairs]
        columns.append(pieces)
    return [column for apart in zip(*columns, strict=True) for column in apart]


compiled(fill, _fill_result, _call_fill)
compiled(_fill_group, _fill_group_result, _call_fill_group)
compiled(fill_changed, _fill_changed_result, _call_fill_changed)
compiled(turn, _turn_result, _turn)
compiled(lay, _lay_result, _lay)

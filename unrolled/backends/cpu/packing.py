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
from numba import njit
from numba.core import types
from numba.core.typing import signature

from .vectors import (
    VectorType,
    compiled,
    first_lanes,
    lanes,
    lanes_of,
    masked_load,
    only_compiled,
)

PANEL = 2  # vectors in a panel: with six rows, 12 sums fill the 16 registers of AVX2


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


@njit(nogil=True, error_model="numpy")
def fill(weights, blocks, vectors, packed, first, last):  # type: ignore[no-untyped-def]
    """Write a matrix (K, N) of `blocks` blocks side by side into an array of its packed shape.

    The panels `first` to `last` are written. A panel holds two vectors of columns, one row of the
    matrix after the other; zeros stand where a block has no more columns.
    """
    K, N = weights.shape
    lanes = packed.shape[1] // K // PANEL
    size, in_group = N // blocks, blocks * vectors
    flat = packed.reshape(packed.size)
    for strip in range(first * PANEL, last * PANEL):
        group, place = strip // in_group, strip % in_group
        start = (group * vectors + place % vectors) * lanes
        count = max(0, min(lanes, size - start))
        column = place // vectors * size + start
        base = strip // PANEL * packed.shape[1] + strip % PANEL * lanes
        if count and weights.strides[1] == weights.itemsize:
            for k in range(K):
                lay(weights, k, column, count, flat, base + k * PANEL * lanes)
            continue
        turned = 0
        if count == lanes and weights.strides[0] == weights.itemsize:
            turned = K // lanes * lanes
            for k in range(0, turned, lanes):
                turn(weights, k, column, flat, base + k * PANEL * lanes, PANEL * lanes)
        for k in range(turned, K):
            at = base + k * PANEL * lanes
            for j in range(count):
                flat[np.uint64(at + j)] = weights[k, column + j]
            for j in range(count, lanes):
                flat[np.uint64(at + j)] = 0


def turn(weights: Any, k: Any, column: Any, flat: Any, at: Any, width: Any) -> None:
    """Copy a square of the weights, as wide as a vector, that begins at (k, column).

    For compiled code only. Columns of the weights are contiguous, and become rows in `flat`: the
    first begins at `at`, the others `width` further each.
    """
    raise only_compiled("turn")


def lay(weights: Any, k: Any, column: Any, count: Any, flat: Any, at: Any) -> None:
    """Copy the `count` columns from `column` on of row k to `flat[at]`, a vector filled with zeros.

    For compiled code only. Rows of the weights are contiguous.
    """
    raise only_compiled("lay")


def _turn_result(weights: Any, k: Any, column: Any, flat: Any, at: Any, width: Any) -> Any:
    index = types.intp
    return signature(types.none, weights, index, index, flat, index, index)


def _lay_result(weights: Any, k: Any, column: Any, count: Any, flat: Any, at: Any) -> Any:
    index = types.intp
    return signature(types.none, weights, index, index, index, flat, index)


def _turn(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
    given, k, column, flat, at, width = arguments
    dtype = sig.args[0].dtype
    weights = context.make_array(sig.args[0])(context, builder, given)
    packed = context.make_array(sig.args[3])(context, builder, flat)
    vector = context.get_value_type(VectorType(dtype, lanes_of(dtype)))
    size = dtype.bitwidth // 8
    apart = _numbers_apart(context, builder, weights, 1, size)

    def places(pointer: Any, start: Any, step: Any) -> list[Any]:
        numbers = (ir.Constant(start.type, number) for number in range(vector.count))
        offsets = (builder.add(start, builder.mul(number, step)) for number in numbers)
        return [_vector_at(builder, pointer, offset, vector) for offset in offsets]

    start = builder.add(builder.mul(column, apart), k)
    columns = [builder.load(place, align=size) for place in places(weights.data, start, apart)]
    rows = zip(turned(builder, columns), places(packed.data, at, width), strict=True)
    for row, place in rows:
        builder.store(row, place, align=size)
    return context.get_dummy_value()


def _lay(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
    given, k, column, count, flat, at = arguments
    dtype = sig.args[0].dtype
    weights = context.make_array(sig.args[0])(context, builder, given)
    packed = context.make_array(sig.args[4])(context, builder, flat)
    vector = context.get_value_type(VectorType(dtype, lanes_of(dtype)))
    apart = _numbers_apart(context, builder, weights, 0, dtype.bitwidth // 8)
    start = builder.add(builder.mul(k, apart), column)
    place = _vector_at(builder, weights.data, start, vector)
    row = masked_load(builder, place, vector, first_lanes(builder, vector, count))
    place = _vector_at(builder, packed.data, at, vector)
    builder.store(row, place, align=dtype.bitwidth // 8)
    return context.get_dummy_value()


def _numbers_apart(context: Any, builder: Any, array: Any, axis: int, size: int) -> Any:
    """How many numbers lie between neighbours of an axis."""
    index = context.get_value_type(types.intp)
    return builder.udiv(builder.extract_value(array.strides, axis), ir.Constant(index, size))


def _vector_at(builder: Any, pointer: Any, offset: Any, vector: Any) -> Any:
    place = builder.gep(pointer, [offset], inbounds=True)
    return builder.bitcast(place, vector.as_pointer())


def turned(builder: Any, vectors: list[Any]) -> list[Any]:
    """A square of vectors with rows and columns exchanged.

    Both halves of the vectors are interleaved, lane by lane, as often as the square can be halved.
    """
    count, half = len(vectors), len(vectors) // 2
    lane = ir.IntType(32)
    kind = ir.VectorType(lane, count)
    orders = ([n // 2 + start + n % 2 * count for n in range(count)] for start in (0, half))
    masks = [ir.Constant(kind, [ir.Constant(lane, n) for n in order]) for order in orders]
    for _ in range(count.bit_length() - 1):
        vectors = [
            builder.shuffle_vector(above, below, mask)
            for above, below in zip(vectors[:half], vectors[half:], strict=True)
            for mask in masks
        ]
    return vectors


compiled(turn, _turn_result, _turn)
compiled(lay, _lay_result, _lay)

"""A matrix packed for the product inside the time loop, which then reads it from end to end.

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

from .vectors import VectorType, compiled, lanes, lanes_of, only_compiled

PANEL = 2  # vectors in a panel: with six rows, 12 sums fill the 16 registers of AVX2


def packed_shape(K: int, N: int, dtype: Any) -> tuple[int, int]:
    """The shape of a matrix (K, N) when it is packed: (panels, K * width)."""
    width = PANEL * lanes(dtype)
    return -(-N // width), K * width


@njit(nogil=True, error_model="numpy")
def fill(weights, packed):  # type: ignore[no-untyped-def]
    """Write a matrix (K, N) into an array of its packed shape.

    Panel p holds the columns from `p * width` on, `width = 2 * lanes(dtype)`, one row of `width`
    numbers after the other; zeros fill the last panel. Indices are unsigned where it counts:
    nobody then asks whether they are negative.
    """
    K, N = weights.shape
    width = packed.shape[1] // K
    square = width // PANEL
    flat = packed.reshape(packed.size)
    for panel in range(packed.shape[0]):
        first, base = panel * width, panel * K * width
        count = min(width, N - first)
        turned = 0
        if count == width and weights.strides[0] == weights.itemsize:
            turned = K // square * square
            for k in range(0, turned, square):
                for j in range(0, width, square):
                    turn(weights, k, first + j, flat, base + k * width + j, width)
        for k in range(turned, K):
            row, at = weights[k], base + k * width
            for j in range(count):
                flat[np.uint64(at + j)] = row[np.uint64(first + j)]
            for j in range(count, width):
                flat[np.uint64(at + j)] = 0


def turn(weights: Any, k: Any, column: Any, flat: Any, at: Any, width: Any) -> None:
    """Copy a square of the weights, as wide as a vector, that begins at (k, column).

    For compiled code only. Columns of the weights are contiguous, and become rows in `flat`: the
    first begins at `at`, the others `width` further each.
    """
    raise only_compiled("turn")


def _result(weights: Any, k: Any, column: Any, flat: Any, at: Any, width: Any) -> Any:
    index = types.intp
    return signature(types.none, weights, index, index, flat, index, index)


def _emit(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
    given, k, column, flat, at, width = arguments
    dtype = sig.args[0].dtype
    weights = context.make_array(sig.args[0])(context, builder, given)
    packed = context.make_array(sig.args[3])(context, builder, flat)
    vector = context.get_value_type(VectorType(dtype, lanes_of(dtype)))
    index, size = context.get_value_type(types.intp), dtype.bitwidth // 8
    apart = builder.udiv(builder.extract_value(weights.strides, 1), ir.Constant(index, size))

    def places(pointer: Any, start: Any, step: Any) -> list[Any]:
        offsets = (
            builder.add(start, builder.mul(ir.Constant(index, number), step))
            for number in range(vector.count)
        )
        pointers = (builder.gep(pointer, [offset], inbounds=True) for offset in offsets)
        return [builder.bitcast(pointer, vector.as_pointer()) for pointer in pointers]

    start = builder.add(builder.mul(column, apart), k)
    columns = [builder.load(place, align=size) for place in places(weights.data, start, apart)]
    rows = zip(turned(builder, columns), places(packed.data, at, width), strict=True)
    for row, place in rows:
        builder.store(row, place, align=size)
    return context.get_dummy_value()


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


compiled(turn, _result, _emit)

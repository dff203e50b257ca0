"""The products outside the loop of a short sequence against NumPy, for every tile and edge."""

import ctypes
import itertools
import mmap
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numba import njit
from numba.core.errors import TypingError

from unrolled.backends.cpu import outside
from unrolled.backends.cpu.outside import (
    BLOCK_ROWS,
    BLOCK_UNITS,
    FEW_BLOCK_ROWS,
    FEW_ROWS,
    LARGE,
    MANY_STRIPS,
    MOST_BLOCK_UNITS,
    MOST_UNITS,
    ROWS,
    STRIP,
    UNITS,
    WIDE_ROWS,
    WIDE_UNITS,
    copy,
    copy_row,
    room_for_block,
    room_for_strip,
    set_all,
)
from unrolled.backends.cpu.shared import know
from unrolled.backends.cpu.vectors import lanes

DTYPES = (np.float32, np.float64)
SIZES = (1, 2, 7, 8, 9, 16, 17, 33, 65, 130)
MARK = 7.0


@njit
def _product(a, b, out, adds, room):
    outside.product(a, b, out, adds, room)


def product(a, b, out, adds):
    """As kernels call it, with as much room as they give, and a mark behind it.

    Returns how many numbers it has laid there.
    """
    know(out.dtype)
    units = a.shape[1]
    laid = a.strides[1] != a.itemsize
    numbers = room_for_strip(units, out.dtype) + (room_for_block(units, out.dtype) if laid else 0)
    room = np.full((1, numbers + 1), MARK, out.dtype)
    _product(a, b, out, adds, room)
    assert room[0, numbers] == MARK
    return np.count_nonzero(room[0] != MARK)


def drawn(rng, rows, columns, dtype, transposed=False):
    """A matrix in the midst of a larger one, so that rows are not next to each other."""
    shape = (columns, rows) if transposed else (rows, columns)
    large = rng.standard_normal((shape[0] + 2, shape[1] + 3)).astype(dtype)
    part = large[1:-1, 2:-1]
    return part.T if transposed else part


def close(found, exact, units, dtype):
    tolerance = (1e-6 if dtype == np.float32 else 1e-14) * np.sqrt(max(units, 1)) * 3
    np.testing.assert_allclose(found, exact, rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("rows", [*range(18), 25, 63])
def test_every_shape(rows, transposed, dtype):
    rng = np.random.default_rng(rows)
    for units in (0, 1, 5, 64):
        for columns in (0, *SIZES):
            a = drawn(rng, rows, units, dtype, transposed)
            b = drawn(rng, units, columns, dtype)
            large = rng.standard_normal((rows + 2, columns + 2)).astype(dtype)
            around = large.copy()
            exact = a.astype(np.float64) @ b.astype(np.float64)
            before = large[1:-1, 1:-1].astype(np.float64)
            product(a, b, large[1:-1, 1:-1], False)
            close(large[1:-1, 1:-1], exact, units, dtype)
            large[1:-1, 1:-1] = around[1:-1, 1:-1]
            product(a, b, large[1:-1, 1:-1], True)
            close(large[1:-1, 1:-1], before + exact, units, dtype)
            large[1:-1, 1:-1] = around[1:-1, 1:-1]
            np.testing.assert_array_equal(large, around)  # nothing else was touched


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_order_of_a_sum_is_that_of_its_terms(dtype):
    """So the bits of a row depend on no other row, and on no other column."""
    rng = np.random.default_rng(0)
    a, b = drawn(rng, 23, 40, dtype), drawn(rng, 40, 150, dtype)
    whole = np.empty((25, 152), dtype)[1:-1, 1:-1]
    product(a, b, whole, False)
    for rows, columns in ((slice(3, 4), slice(0, 150)), (slice(0, 23), slice(16, 67))):
        part = np.empty((25, 152), dtype)[rows, columns]
        product(a[rows, :], b[:, columns], part, False)
        np.testing.assert_array_equal(part, whole[rows, columns])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("units", [1, 7, 16, 33, MOST_UNITS, MOST_UNITS + 1])
def test_an_operand_has_the_same_bits_however_it_lies(units, dtype):
    """In the midst of other numbers, which stay as they are."""
    rng = np.random.default_rng(0)
    for rows in (1, 5, 13, 40, 160, 200):
        for columns in SIZES:
            a, b = drawn(rng, rows, units, dtype), drawn(rng, units, columns, dtype)
            expected = np.empty((rows, columns), dtype)
            product(a, b, expected, False)
            lefts, rights = (turned(a), turned(a, apart=600)), (b, turned(b))
            for left, right in ((a, turned(b)), *itertools.product(lefts, rights)):
                large = np.full((rows + 2, columns + 2), MARK, dtype)
                product(left, right, large[1:-1, 1:-1], False)
                np.testing.assert_array_equal(large[1:-1, 1:-1], expected)
                large[1:-1, 1:-1] = MARK
                assert (large == MARK).all()


def turned(matrix, apart=1):
    """The same numbers, with columns that are contiguous, and begin so far apart at least."""
    rows, columns = matrix.shape
    large = np.full((columns, max(rows, apart)), MARK, matrix.dtype)
    large[:, :rows] = matrix.T
    return large[:, :rows].T


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("rows", "units", "columns"),
    [
        (7, 0, 5),
        (40, 2 * UNITS + 5, STRIP * 16 + 3),
        (40, MOST_UNITS, STRIP * 16 + 3),
        (BLOCK_ROWS + 13, 2 * BLOCK_UNITS + 70, 30),
        (2 * BLOCK_ROWS, BLOCK_UNITS, STRIP * lanes(np.float64)),
        (FEW_BLOCK_ROWS, BLOCK_UNITS + 9, 70),
        (FEW_BLOCK_ROWS + 1, BLOCK_UNITS + 9, 70),
        (BLOCK_ROWS + 13, 2 * MOST_BLOCK_UNITS + 3, MANY_STRIPS * STRIP * 16),
        (BLOCK_ROWS, MOST_BLOCK_UNITS, MANY_STRIPS * STRIP * 16 + 3),  # all the room that there is
        (20, 5 * WIDE_UNITS + 3, 900),
        (20, 4 * WIDE_UNITS, 1030),  # what a wide strip takes is all the room that there is
    ],
)
def test_more_than_strips_and_blocks_hold(rows, units, columns, dtype):
    rng = np.random.default_rng(0)
    a, b = drawn(rng, rows, units, dtype), drawn(rng, units, columns, dtype)
    exact = a.astype(np.float64) @ b.astype(np.float64)
    for left in (a, turned(a)):
        for right in (b, turned(b)):
            out = np.empty((rows, columns), dtype)
            product(left, right, out, False)
            close(out, exact, 4 * units, dtype)
            product(left, right, out, True)
            close(out, 2 * exact, 16 * units, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_wide_strips_and_narrow_ones_give_the_same_bits(dtype):
    """Few rows read wide ones of a large matrix, more rows narrow ones; a small one stays."""
    rng = np.random.default_rng(0)
    units, columns = 5 * WIDE_UNITS + 3, 900
    a, b = drawn(rng, WIDE_ROWS, units, dtype), drawn(rng, units, columns, dtype)
    assert b.size * b.itemsize >= LARGE
    narrow, wide = np.empty((WIDE_ROWS, columns), dtype), np.empty((WIDE_ROWS - 1, columns), dtype)
    assert product(a, b, narrow, False) == units * STRIP * lanes(dtype)
    assert product(a[:-1], b, wide, False) == WIDE_UNITS * 4 * STRIP * lanes(dtype)
    np.testing.assert_array_equal(wide, narrow[:-1])
    few = slice(FEW_ROWS - 1)
    assert product(a[few], b[:, :70], wide[few, :70], False) == 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("units", [40, MOST_UNITS + 1])
def test_parts_of_many_rows_have_the_bits_of_all_at_once(units, dtype):
    rng = np.random.default_rng(0)
    rows, columns = 3 * ROWS + 5, 5 * lanes(dtype) + 3
    a, b = drawn(rng, rows, units, dtype), drawn(rng, units, columns, dtype)
    at_once = drawn(rng, rows, columns, dtype)
    piecewise = at_once.copy()
    exact = at_once + a.astype(np.float64) @ b
    product(a, b, at_once, True)
    close(at_once, exact, 4 * units, dtype)
    for first in range(0, rows, 700):
        piece = slice(first, first + 700)
        product(a[piece], turned(b), piecewise[piece], True)
    np.testing.assert_array_equal(at_once, piecewise)


@pytest.mark.parametrize(
    ("rows", "parts"),
    [(ROWS * 3 // 2, 1), (ROWS * 3 // 2 + 2, 2), (ROWS * 5 // 2, 2), (ROWS * 4, 4)],
)
def test_all_columns_of_some_rows_come_before_the_next_rows(rows, parts):
    """Rows of the operand are numbers that earlier rows of the result write, in its last column.

    So what the first strip of a part reads, the part before has doubled.
    """
    each = rows // parts
    apart = min(each, rows // 2)
    memory = np.ones((apart + rows, 2 * STRIP * lanes(np.float32)), np.float32)
    twice = np.full((1, memory.shape[1]), 2, np.float32)
    product(memory[:rows, -1:], twice, memory[apart:], False)
    np.testing.assert_array_equal(memory[apart:, 0], 2.0 ** (1 + np.arange(rows) // each))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("rows", "units", "apart", "laid"),
    [(20, 8, 512, True), (20, 7, 512, False), (20, 8, 511, False), (20, 65, 511, False),
     (FEW_BLOCK_ROWS + 1, 65, 511, True), (FEW_BLOCK_ROWS, 65, 511, False),
     (FEW_BLOCK_ROWS + 1, 64, 511, False)],
)  # fmt: skip
def test_rows_whose_units_are_far_apart_are_laid(rows, units, apart, laid, dtype):
    rng = np.random.default_rng(0)
    a, b = turned(drawn(rng, rows, units, dtype), apart), drawn(rng, units, 5, dtype)
    of_strip = units * STRIP * lanes(dtype) if rows >= FEW_ROWS else 0
    found = product(a, b, np.empty((rows, 5), dtype), False)
    assert (found > of_strip) == laid


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("strips", [MANY_STRIPS - 1, MANY_STRIPS])
def test_a_block_is_laid_row_by_row_if_many_strips_read_it(strips, dtype):
    rng = np.random.default_rng(0)
    rows, units, columns = 193, 80, strips * STRIP * lanes(dtype)
    a, b = turned(drawn(rng, rows, units, dtype)), drawn(rng, units, columns, dtype)
    of_strip = room_for_strip(units, dtype)
    room = np.zeros((1, of_strip + room_for_block(units, dtype)), dtype)
    _product(a, b, np.empty((rows, columns), dtype), False, room)
    of_block = room[0, of_strip:]
    by_rows = of_block[: rows * units].reshape(rows, units)
    by_columns = of_block[: units * BLOCK_ROWS].reshape(units, BLOCK_ROWS)[:, :rows].T
    np.testing.assert_array_equal(by_rows if strips >= MANY_STRIPS else by_columns, a)


def before_a_guard(matrix):
    """A copy, behind whose last number a page begins that nobody may read."""
    size = -(-matrix.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = mmap.mmap(-1, size + mmap.PAGESIZE)
    page = ctypes.addressof(ctypes.c_char.from_buffer(memory)) + size
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(page), mmap.PAGESIZE, 0) == 0
    copied = np.frombuffer(memory, matrix.dtype, matrix.size, size - matrix.nbytes)
    copied = copied.reshape(matrix.shape)
    copied[:] = matrix
    return copied


def read_up_to_the_guard():
    rng = np.random.default_rng(0)
    sizes = (1, 1), (7, 3), (40, 16), (33, 20), (2, 65)
    small = [*itertools.product(sizes, (1, 5, 16, 24, 33))]
    for dtype in DTYPES:
        for (rows, columns), units in (*small, ((3, 830), 5 * WIDE_UNITS + 3), ((515, 200), 9)):
            a, b = (drawn(rng, size, units, dtype) for size in (rows, columns))
            exact = a.astype(np.float64) @ b.T.astype(np.float64)
            a, b = before_a_guard(a), before_a_guard(b)
            for left in (a, before_a_guard(a.T).T):
                for right in (b.T, before_a_guard(b.T)):
                    out = before_a_guard(np.empty((rows, columns), dtype))
                    product(left, right, out, False)
                    close(out, exact, units, dtype)


@pytest.mark.skipif(sys.platform != "linux", reason="pages are guarded as Linux guards them")
def test_nothing_behind_the_operands_is_read():
    """In a process of its own, which would end there."""
    code = "import test_cpu_outside; test_cpu_outside.read_up_to_the_guard()"
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, check=True)


@njit
def copied_and_set(given):
    """A copy with zeros around, one with every entry set, and that with a part of a row copied."""
    rows, columns = given.shape
    first = np.zeros((rows + 2, columns + 2))
    second, third = np.empty_like(given), np.empty_like(given)
    copy(given, first[1:-1, 1:-1])
    set_all(second, 1.5)
    set_all(third, 1.5)
    copy_row(given, third, 1, 2, 4)
    return first, second, third


def test_copying_and_setting():
    rng = np.random.default_rng(0)
    given, expected = rng.standard_normal((3, 5)), np.full((3, 5), 1.5)
    copied, set_, partly = copied_and_set(given)
    np.testing.assert_array_equal(copied, np.pad(given, 1))
    np.testing.assert_array_equal(set_, expected)
    expected[1, 2:4] = given[1, 2:4]
    np.testing.assert_array_equal(partly, expected)


def test_mixed_dtypes_are_an_error_of_compilation():
    a, b = np.zeros((2, 3)), np.zeros((3, 4), np.float32)
    with pytest.raises(TypingError, match="matrices of one dtype"):
        _product(a, b, np.zeros((2, 4)), False, np.zeros((1, 1000)))

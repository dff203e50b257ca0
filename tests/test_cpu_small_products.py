"""The products outside the loop of a short sequence against NumPy, for every tile and edge."""

import numpy as np
import pytest
from numba import njit
from numba.core.errors import TypingError

from unrolled.backends.cpu import small_products
from unrolled.backends.cpu.small_products import STRIP, copy, copy_row, set_all
from unrolled.backends.cpu.vectors import lanes

DTYPES = (np.float32, np.float64)
SIZES = (1, 2, 7, 8, 9, 16, 17, 33, 65, 130)


@njit
def product(a, b, out, adds):
    small_products.product(a, b, out, adds)


@njit
def product_turned(a, b, strip, out):
    small_products.product_turned(a, b, strip, out)


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
@pytest.mark.parametrize("rows", [*range(14), 63])
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
def test_the_second_operand_turned(dtype):
    """In the midst of other numbers, which stay as they are."""
    rng = np.random.default_rng(0)
    for units in (1, 7, 16, 33):
        strip = np.empty((units, STRIP * lanes(dtype)), dtype)
        for rows in (1, 5, 13):
            for columns in SIZES:
                a, b = drawn(rng, rows, units, dtype), drawn(rng, columns, units, dtype)
                large = np.full((rows + 2, columns + 2), 7, dtype)
                product_turned(a, b, strip, large[1:-1, 1:-1])
                expected = np.empty((rows, columns), dtype)
                product(a, np.ascontiguousarray(b.T), expected, False)
                np.testing.assert_array_equal(large[1:-1, 1:-1], expected)
                large[1:-1, 1:-1] = 7
                assert (large == 7).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_operands_of_any_length_block_by_block(dtype, monkeypatch):
    rng = np.random.default_rng(0)
    for units, columns in ((0, 5), (33, 2000), (700, 130)):
        a, b = drawn(rng, 7, units, dtype), drawn(rng, units, columns, dtype)
        out = np.empty((7, columns), dtype)
        product(a, b, out, False)
        exact = a.astype(np.float64) @ b.astype(np.float64)
        tolerance = (1e-6 if dtype == np.float32 else 1e-14) * 100
        np.testing.assert_allclose(out, exact, rtol=0, atol=tolerance)
        product(a, b, out, True)
        np.testing.assert_allclose(out, 2 * exact, rtol=0, atol=2 * tolerance)


def test_copying_and_setting():
    rng = np.random.default_rng(0)
    given, out = rng.standard_normal((3, 5)), np.empty((3, 5))
    copy(given, out)
    np.testing.assert_array_equal(out, given)
    set_all(out, 1.5)
    assert (out == 1.5).all()
    copy_row(given, out, 1, 2, 4)
    expected = np.full((3, 5), 1.5)
    expected[1, 2:4] = given[1, 2:4]
    np.testing.assert_array_equal(out, expected)


def test_mixed_dtypes_are_an_error_of_compilation():
    a, b = np.zeros((2, 3)), np.zeros((3, 4), np.float32)
    with pytest.raises(TypingError, match="matrices of one dtype"):
        njit(lambda a, b, out: product(a, b, out, False))(a, b, np.zeros((2, 4)))

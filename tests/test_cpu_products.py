"""The product of the time loop against NumPy, for every shape of tile and edge."""

import numpy as np
import pytest
from numba import njit
from numba.core.errors import TypingError

from unrolled.backends.cpu import products, vectors
from unrolled.backends.cpu.packing import fill, packed_shape
from unrolled.backends.cpu.products import multiply, panels_of

compile_ = njit(nogil=True, error_model="numpy", fastmath={"contract"})
DTYPES = (np.float32, np.float64)
SIZES = [1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 65, 130]


@compile_
def product(operand, first, rows, packed, out, shares=1):
    for share in range(shares):
        multiply(operand, first, rows, packed, panels_of(packed, share, shares), out)


def pack(weights):
    packed = np.empty(packed_shape(*weights.shape, weights.dtype), weights.dtype)
    fill(weights, packed)
    return packed


def check(K, N, rows, dtype, compiled=product):
    """Some rows in the midst of others, which must stay as they are."""
    rng = np.random.default_rng([K, N, rows])
    weights = rng.standard_normal((K, N)).astype(dtype)
    operand = rng.standard_normal((rows + 4, K)).astype(dtype)
    middle = slice(3, 3 + rows)
    packed = pack(weights)
    before = rng.standard_normal((rows + 4, N)).astype(dtype)
    expected = before.astype(np.float64)
    exact = operand.astype(np.float64) @ weights.astype(np.float64)
    expected[middle] = exact[middle]
    out = before.copy()
    compiled(operand, 3, rows, packed, out)
    tolerance = (1e-6 if dtype == np.float32 else 1e-14) * np.sqrt(K) * 3
    np.testing.assert_allclose(out, expected, rtol=0, atol=tolerance)
    np.testing.assert_array_equal(out[:3], before[:3])
    np.testing.assert_array_equal(out[3 + rows :], before[3 + rows :])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", range(14))
def test_every_number_of_rows(rows, dtype):
    for K, N in [(1, 1), (33, 132), (7, 16), (4, 65), (65, 31), (16, 128)]:
        check(K, N, rows, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("K", SIZES)
def test_every_size(K, dtype):
    for N in SIZES:
        for rows in (1, 2, 3, 6, 8):
            check(K, N, rows, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_packed_panels(dtype):
    width = 2 * vectors.lanes(dtype)
    K, N = 3, width + 1
    weights = np.arange(1, 1 + K * N).reshape(K, N).astype(dtype)
    packed = pack(weights)
    assert packed.shape == packed_shape(K, N, dtype) == (2, K * width)
    panels = packed.reshape(2, K, width)
    np.testing.assert_array_equal(panels[0], weights[:, :width])
    np.testing.assert_array_equal(panels[1, :, :1], weights[:, width:])
    assert (panels[1, :, 1:] == 0).all()
    again = np.full_like(packed, -1)
    fill(np.asfortranarray(weights), again)
    np.testing.assert_array_equal(again, packed)
    np.testing.assert_array_equal(pack(np.repeat(weights, 2, axis=1)[:, ::2]), packed)


def test_an_operand_may_be_wider_than_the_matrix():
    rng = np.random.default_rng(0)
    operand, weights = rng.standard_normal((5, 9)), rng.standard_normal((4, 21))
    out = np.empty((5, 21))
    product(operand, 0, 5, pack(weights), out)
    np.testing.assert_allclose(out, operand[:, :4] @ weights, rtol=0, atol=1e-13)


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_shares_of_the_panels_give_the_same_bits(rows):
    rng = np.random.default_rng(0)
    operand, packed = rng.standard_normal((rows, 65)), pack(rng.standard_normal((65, 300)))
    first = np.empty((rows, 300))
    product(operand, 0, rows, packed, first)
    for shares in (1, 2, 3, 50):
        out = np.empty_like(first)
        product(operand, 0, rows, packed, out, shares)
        np.testing.assert_array_equal(out, first)


def test_constant_arguments_compile_nothing_twice():
    @compile_
    def run(operand, packed, out):
        panels = panels_of(packed, 0, 1)
        multiply(operand, 0, 2, packed, panels, out)
        multiply(operand, 0, 1, packed, panels, out)
        multiply(operand, 1, operand.shape[0] - 1, packed, panels, out)

    operand, weights, out = np.ones((2, 4)), np.ones((4, 3)), np.ones((2, 3))
    packed = pack(weights)
    product(operand, 0, 2, packed, out)
    before = len(products._product.signatures)
    run(operand, packed, out)
    np.testing.assert_array_equal(out, np.full((2, 3), 4))
    assert len(products._product.signatures) == before


@pytest.mark.parametrize("width", [16, 64])
def test_other_widths_of_vector(monkeypatch, width):
    monkeypatch.setattr(vectors, "_vector_bytes", lambda: width)
    product_of_panels = njit(error_model="numpy")(products._product.py_func)

    @njit
    def compiled(operand, first, rows, packed, out):
        product_of_panels(operand, first, rows, packed, (0, packed.shape[0]), out)

    for rows in (1, 2, 3, 5, 7):
        check(33, 70, rows, np.float64, compiled)


def test_python_cannot_call_it():
    with pytest.raises(TypeError, match="for functions that Numba compiles"):
        multiply(np.ones((1, 1)), 0, 1, np.ones((1, 16)), (0, 1), np.ones((1, 1)))


def test_arrays_that_do_not_fit_are_refused():
    operand, weights, out = np.ones((2, 4)), np.ones((4, 3)), np.ones((2, 3))
    packed = pack(weights)
    for wrong in (operand.astype(np.float32), np.ones((2, 8))[:, ::2]):
        with pytest.raises(TypingError, match="C-contiguous matrices of one dtype; found"):
            product(wrong, 0, 2, packed, out)

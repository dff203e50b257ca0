"""Vectors in compiled code against NumPy: memory, operators, choices."""

import itertools
import operator

import numpy as np
import pytest
from numba import njit
from numba.core.errors import TypingError

from unrolled.backends.cpu import vectors
from unrolled.backends.cpu.vectors import (
    absolute,
    fma,
    load,
    load_part,
    maximum,
    minimum,
    splat,
    square_root,
    store,
    store_part,
    where,
)

compile_ = njit(nogil=True, error_model="numpy", fastmath={"contract"})
DTYPES = (np.float32, np.float64)
SPECIAL = [0.0, -0.0, 1.0, -1.0, 2.5, -2.5, np.inf, -np.inf, np.nan]


@compile_
def copy_rows(a, out, lanes):
    for row in range(a.shape[0]):
        column = 0
        while column + lanes <= a.shape[1]:
            store(out, row, column, load(a, row, column))
            column += lanes
        if column < a.shape[1]:
            count = a.shape[1] - column
            store_part(out, row, column, count, load_part(a, row, column, count))


@compile_
def part_to_whole(a, out, column, count):
    store(out, 0, load_part(a, column, count))


@compile_
def whole_to_part(a, out, column, count):
    store_part(out, column, count, load(a, 0))


def applied(function, *arguments):
    """A function of one or two vectors, run in compiled code over whole arrays."""
    if len(arguments) == 1:

        @compile_
        def run(out, lanes, a):
            for column in range(0, a.size, lanes):
                store(out, column, function(load(a, column)))
    else:

        @compile_
        def run(out, lanes, a, b):
            for column in range(0, a.size, lanes):
                store(out, column, function(load(a, column), load(b, column)))

    out = np.full_like(arguments[0], 7)
    run(out, vectors.lanes(out.dtype), *arguments)
    return out


def special(dtype):
    """Special numbers, enough for whole vectors."""
    return np.resize(np.array(SPECIAL, dtype), 16)


def pairs(dtype):
    """Each special number with each other."""
    left, right = np.array(list(itertools.product(SPECIAL, SPECIAL)), dtype).T
    return np.resize(left, 96), np.resize(right, 96)


@pytest.mark.parametrize("dtype", DTYPES)
def test_lanes_fill_a_vector(dtype):
    assert vectors.lanes(dtype) * np.dtype(dtype).itemsize in (16, 32, 64)
    assert vectors.lanes(np.float32) == 2 * vectors.lanes(np.float64)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", [1, 3, 4, 5, 8, 15, 16, 17, 33])
def test_rows_of_any_length_are_copied_exactly(dtype, columns):
    a = np.random.default_rng(0).standard_normal((3, columns)).astype(dtype)
    memory = np.full(3 * columns + 40, -1, dtype)
    out = memory[1 : 1 + 3 * columns].reshape(3, columns)  # not aligned to a vector
    copy_rows(a, out, vectors.lanes(dtype))
    np.testing.assert_array_equal(out, a)
    assert memory[0] == -1
    assert (memory[1 + 3 * columns :] == -1).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_parts_leave_the_rest_alone(dtype):
    lanes = vectors.lanes(dtype)
    a = np.arange(1, 1 + 2 * lanes, dtype=dtype)
    for count in range(1, lanes):
        out = np.full(lanes, -1, dtype)
        part_to_whole(a, out, 2, count)
        np.testing.assert_array_equal(out[:count], a[2 : 2 + count])
        assert (out[count:] == 0).all()
        out = np.full(2 * lanes, -1, dtype)
        whole_to_part(a, out, 2, count)
        np.testing.assert_array_equal(out[2 : 2 + count], a[:count])
        assert (out[2 + count :] == -1).all()
        assert (out[:2] == -1).all()


def test_three_axes_take_three_indices():
    lanes = vectors.lanes(np.float32)
    a = np.arange(2 * 3 * lanes, dtype=np.float32).reshape(2, 3, lanes)
    out = np.zeros_like(a)

    @compile_
    def run(a, out):
        store(out, 1, 0, 0, load(a, 0, 2, 0))

    run(a, out)
    np.testing.assert_array_equal(out[1, 0], a[0, 2])
    assert np.count_nonzero(out) == lanes


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("function", [operator.add, operator.sub, operator.mul, operator.truediv])
def test_arithmetic_is_numpys(dtype, function):
    a, b = pairs(dtype)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(applied(function, a, b), function(a, b))


@pytest.mark.parametrize("dtype", DTYPES)
def test_numbers_stand_in_every_lane(dtype):
    a = np.resize(np.array([0.5, -1.5, 3.0], dtype), vectors.lanes(dtype))

    @compile_
    def run(out, a, whole, half):
        v = load(a, 0)
        v += 1
        v *= half
        v -= whole
        store(out, 0, whole / v + (1 - -v) * 2.0)

    out = np.empty_like(a)
    run(out, a, 3, np.float64(0.5))
    v = (a + 1) * dtype(0.5) - 3
    np.testing.assert_allclose(
        out, 3 / v + (1 + v) * 2, rtol=1e-6 if dtype == np.float32 else 1e-15
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "sign", [operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne]
)
def test_comparisons_are_numpys(dtype, sign):
    @compile_
    def chosen(a, b):
        return where(sign(a, b), 1, splat(a, 0))

    a, b = pairs(dtype)
    np.testing.assert_array_equal(applied(chosen, a, b), sign(a, b))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("function", "expected"), [(maximum, np.maximum), (minimum, np.minimum)], ids=["max", "min"]
)
def test_extremes_keep_nan(dtype, function, expected):
    @compile_
    def with_number(a):
        return function(function(a, 0.5), -1)

    @compile_
    def with_number_first(a):
        return function(-1, function(0.5, a))

    a, b = pairs(dtype)
    np.testing.assert_array_equal(applied(function, a, b), expected(a, b))
    reference = expected(expected(a, dtype(0.5)), dtype(-1))
    np.testing.assert_array_equal(applied(with_number, a), reference)
    np.testing.assert_array_equal(applied(with_number_first, a), reference)


@pytest.mark.parametrize("dtype", DTYPES)
def test_absolute_value_and_square_root(dtype):
    a = special(dtype)
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(applied(absolute, a), np.abs(a))
        np.testing.assert_array_equal(applied(square_root, a), np.sqrt(a))
        np.testing.assert_array_equal(applied(operator.neg, a), -a)


@pytest.mark.parametrize("dtype", DTYPES)
def test_where_takes_vectors_and_numbers(dtype):
    lanes = vectors.lanes(dtype)
    a = np.linspace(-1, 1, lanes).astype(dtype)
    out = np.empty((5, lanes), dtype)

    @compile_
    def run(a, out, truth):
        v = load(a, 0)
        store(out, 0, 0, where(v > 0, v, -v))
        store(out, 1, 0, where(v > 0, 1, v))
        store(out, 2, 0, where(v > 0, 1.0, 0))
        store(out, 3, 0, where(truth, v, 3.0))
        store(out, 4, 0, where(not truth, v, splat(a, 3)))

    run(a, out, True)
    expected = [np.abs(a), np.where(a > 0, 1, a), a > 0, a, np.full(lanes, 3)]
    np.testing.assert_array_equal(out, np.array(expected, dtype))


def test_numbers_alone_stay_numbers():
    @compile_
    def run(t, x):
        return (
            fma(t, x, 1),
            maximum(t, x),
            minimum(t, x),
            absolute(-t),
            where(t > 2, x, 0),
            square_root(x),
        )

    assert run(3, 0.25) == (1.75, 3.0, 0.25, 3.0, 0.25, 0.5)
    assert run(np.float32(3), np.float32(0.25)) == (1.75, 3.0, 0.25, 3.0, 0.25, 0.5)
    assert np.isnan(run(3.0, np.nan)[1])


@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_in_a_loop_stay_vectors(dtype):
    lanes = vectors.lanes(dtype)
    a = np.random.default_rng(1).integers(-9, 9, (50, lanes)).astype(dtype)
    out = np.empty(lanes, dtype)

    @compile_
    def run(a, out):
        total = splat(a, 0)
        for row in range(a.shape[0]):
            total = fma(load(a, row, 0), 2, total)
        store(out, 0, total)

    run(a, out)
    np.testing.assert_array_equal(out, 2 * a.sum(axis=0))


@pytest.mark.parametrize("width", [16, 32, 64])
def test_every_width_of_vector_works(monkeypatch, width):
    """LLVM splits vectors that are longer than the machine's."""
    monkeypatch.setattr(vectors, "_vector_bytes", lambda: width)
    lanes = vectors.lanes(np.float64)
    assert lanes == width // 8
    a = np.random.default_rng(2).standard_normal((2, 19))
    out = np.zeros_like(a)
    compile_(copy_rows.py_func)(a, out, lanes)
    np.testing.assert_array_equal(out, a)


def test_what_vectors_cannot_do_is_said():
    @compile_
    def run(a, b):
        return load(a, 0) + load(b, 0)

    with pytest.raises(TypingError, match="vectors of two types meet"):
        run(np.ones(16, np.float32), np.ones(16))
    with pytest.raises(TypingError, match="C-contiguous arrays, one index for each axis"):
        run(np.ones(32)[::2], np.ones(16))
    with pytest.raises(TypingError, match="C-contiguous arrays, one index for each axis"):
        run(np.ones((2, 16)), np.ones(16))
    with pytest.raises(TypeError, match="for functions that Numba compiles"):
        load(np.ones(8), 0)


def test_no_calls_are_left_in_the_code():
    """A vector operation is an instruction, not a call."""

    @compile_
    def run(a, out):
        v = load(a, 0)
        store(out, 0, fma(v, v, maximum(v, 0.5)) / where(v > 1, v, 2))

    run(np.ones(16, np.float32), np.ones(16, np.float32))
    code = run.inspect_llvm(run.signatures[0])
    body = code[code.index("define") :].split("\n}")[0]
    assert f"<{vectors.lanes(np.float32)} x float>" in body
    calls = [line for line in body.splitlines() if " call " in line]
    assert all("@llvm." in line for line in calls), calls

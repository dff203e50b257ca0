"""The functions of compiled code against NumPy in extended precision, over all numbers."""

import math
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numba import njit

from unrolled.backends.cpu import functions, vectors
from unrolled.backends.cpu.vectors import load, store

compile_ = njit(nogil=True, error_model="numpy", fastmath={"contract"})
DTYPES = (np.float32, np.float64)


def sigmoid(x):
    return np.where(x > 0, 1 / (1 + np.exp(-x)), np.exp(x) / (1 + np.exp(x)))


def softplus(x):
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


FUNCTIONS = {
    "sigmoid": sigmoid,
    "tanh": np.tanh,
    "exp": np.exp,
    "log": np.log,
    "softplus": softplus,
    "relu": lambda x: np.maximum(x, 0),
}


def stated_error(name):
    """The worst error that a function's docstring states, in ulp."""
    text = getattr(functions, name).__doc__
    found = re.search(r"to ([\d.]+) ulp", text)
    assert found or "exactly" in text
    return float(found[1]) if found else 0.0


def over_vectors(function, lanes):
    @compile_
    def run(a, out):
        for column in range(0, a.size, lanes):
            store(out, column, function(load(a, column)))

    return run


def sample(dtype, size):
    """Bit patterns from the whole range of a format, and more of them where functions bend."""
    rng = np.random.default_rng(5)
    bits = np.uint32 if dtype == np.float32 else np.uint64
    edges = [0.0, -0.0, 1, -1, np.inf, -np.inf, np.nan, math.log(2) / 2, -math.log(2) / 2]
    parts = [
        np.array(edges, dtype),
        np.linspace(-90, -86, 999).astype(dtype),  # the ends of float32
        np.linspace(86, 90, 999).astype(dtype),
        np.linspace(-105, -102, 999).astype(dtype),
        np.linspace(-746, -707, 9999).astype(dtype),  # and of float64
        np.linspace(707, 711, 999).astype(dtype),
        rng.integers(0, np.iinfo(bits).max, size, dtype=bits, endpoint=True).view(dtype),
        *(rng.uniform(-r, r, size).astype(dtype) for r in (0.01, 2, 40)),
        rng.uniform(0.7, 1.5, size).astype(dtype),
    ]
    x = np.concatenate(parts)
    return np.concatenate([x, np.ones(-x.size % vectors.lanes(dtype), dtype)])


def check(name, x):
    """Compare on all of x; beside the normal numbers only an absolute error is asked for."""
    reference, allowed = FUNCTIONS[name], stated_error(name)
    dtype = x.dtype
    out = np.empty_like(x)
    over_vectors(getattr(functions, name), vectors.lanes(dtype))(x, out)
    with np.errstate(all="ignore"):
        exact = reference(x.astype(np.longdouble))
        rounded = exact.astype(dtype)
        np.testing.assert_array_equal(np.isnan(out), np.isnan(rounded))
        ends = np.isinf(rounded) & (np.abs(exact) > np.finfo(dtype).max * 1.001)
        np.testing.assert_array_equal(out[ends], rounded[ends])
        smallest = np.finfo(dtype).tiny
        normal = np.isfinite(rounded) & (np.abs(exact) >= smallest)
        error = np.abs(out - exact)[normal] / np.spacing(np.abs(rounded[normal]))
        small = np.isfinite(rounded) & ~normal
        assert (np.abs(out - exact)[small] <= smallest).all()
    worst = error.argmax()
    assert error[worst] <= allowed, (name, x[normal][worst], out[normal][worst])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_error_over_all_numbers(name, dtype):
    check(name, sample(dtype, 20_000))


@pytest.mark.slow
@pytest.mark.parametrize("name", FUNCTIONS)
def test_error_over_a_dense_sample(name):
    check(name, sample(np.float64, 2_000_000))
    patterns = np.arange(0, 2**32, 997, dtype=np.uint64).astype(np.uint32).view(np.float32)
    check(name, np.concatenate([patterns, np.ones(-patterns.size % 16, np.float32)]))


@pytest.mark.parametrize("dtype", DTYPES)
def test_values_at_the_ends(dtype):
    x = np.array([-np.inf, -1000, -0.0, 0.0, 1000, np.inf, np.nan, 1], dtype)
    x = np.resize(x, 16)
    expected = {
        "sigmoid": [0, 0, 0.5, 0.5, 1, 1],
        "tanh": [-1, -1, -0.0, 0, 1, 1],
        "exp": [0, 0, 1, 1, np.inf, np.inf],
        "log": [np.nan, np.nan, -np.inf, -np.inf, np.log(dtype(1000)), np.inf],
        "softplus": [0, 0, np.log(dtype(2)), np.log(dtype(2)), 1000, np.inf],
        "relu": [0, 0, 0, 0, 1000, np.inf],
    }
    for name, values in expected.items():
        out = np.empty_like(x)
        over_vectors(getattr(functions, name), vectors.lanes(dtype))(x, out)
        np.testing.assert_allclose(out[:6], values, rtol=2 * np.finfo(dtype).eps, atol=0)
        assert np.isnan(out[6])
    out = np.empty_like(x)
    over_vectors(functions.tanh, vectors.lanes(dtype))(x, out)
    assert np.signbit(out[2])
    assert not np.signbit(out[3])


@pytest.mark.parametrize("dtype", DTYPES)
def test_small_numbers_keep_their_digits(dtype):
    x = np.resize(np.array([1e-8, -1e-8, 3e-20, -1e-30], dtype), 16)
    out = np.empty_like(x)
    over_vectors(functions.tanh, vectors.lanes(dtype))(x, out)
    np.testing.assert_allclose(out, x, rtol=1e-15)
    x = np.resize(np.array([-80, -30, -50, -87], dtype), 16)
    over_vectors(functions.sigmoid, vectors.lanes(dtype))(x, out)
    np.testing.assert_allclose(out, np.exp(x.astype(np.float64)), rtol=3e-7)


@pytest.mark.parametrize("dtype", DTYPES)
def test_power_is_the_c_librarys(dtype):
    rng = np.random.default_rng(3)
    a = rng.uniform(0.1, 3, 16).astype(dtype)
    out = np.empty_like(a)

    @compile_
    def run(a, out, lanes, exponent):
        for column in range(0, a.size, lanes):
            store(out, column, functions.power(load(a, column), exponent))

    for exponent in (1.7, -0.3, 3, 0):
        run(a, out, vectors.lanes(dtype), exponent)
        np.testing.assert_allclose(out, a ** dtype(exponent), rtol=4 * np.finfo(dtype).eps)


@pytest.mark.parametrize("kind", [np.float32, np.float64, int])
def test_numbers_give_what_vectors_give(kind):
    @compile_
    def numbers(t):
        return (
            functions.sigmoid(t),
            functions.tanh(t),
            functions.exp(t),
            functions.log(t),
            functions.softplus(t),
            functions.relu(t),
            functions.power(t, 2),
        )

    t = kind(3)
    expected = [reference(np.float64(3)) for reference in FUNCTIONS.values()]
    rtol = 4e-7 if kind is np.float32 else 1e-15
    np.testing.assert_allclose(numbers(t), [*expected, 9], rtol=rtol)


@pytest.mark.parametrize("width", [16, 32, 64], ids=["SSE and NEON", "AVX2", "AVX-512"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_any_width_of_vector(monkeypatch, name, width):
    monkeypatch.setattr(vectors, "_vector_bytes", lambda: width)
    for dtype in DTYPES:
        check(name, sample(dtype, 2000))


def test_a_processor_without_fused_multiply_add():
    """Errors are stated for every machine, so they hold on an old one."""
    work = (
        "from test_cpu_functions import *\n"
        "vectors._vector_bytes = lambda: 16\n"
        "for name in FUNCTIONS:\n"
        "    for dtype in DTYPES:\n"
        "        check(name, sample(dtype, 2000))\n"
    )
    plain = {} if platform.machine() not in ("x86_64", "AMD64") else {"NUMBA_CPU_NAME": "nehalem"}
    done = subprocess.run(
        [sys.executable, "-c", work],
        cwd=Path(__file__).parent,
        env={**os.environ, **plain, "NUMBA_CPU_FEATURES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr

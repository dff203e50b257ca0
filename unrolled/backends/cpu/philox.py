"""Random masks from a generator that counts: Philox4x32-10.

A number depends on a key and on its place alone (Salmon, Moraes, Dror and Shaw, 2011, "Parallel
random numbers: as easy as 1, 2, 3"), so numbers side by side are made side by side, in the lanes of
vectors, and no state goes from one call to the next. A mask is written where it is wanted, once.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from .. import files
from .compilation import compiled
from .inner import inner
from .shared import foundations
from .team import array_at

# Numbers of 32 bits stand in 64, for which there are products of vectors; what is above is garbage
# that no product reads.
_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)
_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_ZERO = np.uint64(0)

_GROUPS = 16  # of four numbers, made side by side
_NUMBERS = 4 * _GROUPS

_TEXT = '''"""Random masks: see unrolled/backends/cpu/philox.py."""

import numpy as np

from unrolled.backends.cpu.philox import write


def mask_float32(address, key, stream, rows, size, width, last, scale):
    write(address, key, stream, rows, size, width, last, np.float32(scale), np.float32)


def mask_float64(address, key, stream, rows, size, width, last, scale):
    write(address, key, stream, rows, size, width, last, scale, np.float64)
'''
_SIGNATURE = "void(int64, uint64, uint64, int64, int64, int64, uint32, float64)"
_CALL = ctypes.CFUNCTYPE(
    None, ctypes.c_int64, ctypes.c_uint64, ctypes.c_uint64,
    *[ctypes.c_int64] * 3, ctypes.c_uint32, ctypes.c_double,
)  # fmt: skip


def write_mask(
    address: int,
    dtype: np.dtype[Any],
    key: int,
    stream: int,
    rows: int,
    size: int,
    width: int,
    probability: float,
    scale: float,
) -> None:
    """Write a mask into memory: `scale` with a probability, zero otherwise.

    The same key, stream and number of columns give the same mask again, on any machine.

    Args:
        address: of its first number.
        dtype: float32 or float64.
        key: of 64 bits.
        stream: of 32 bits; those of one key are independent.
        rows: how many there are.
        size: its columns.
        width: columns of the matrix that it is part of: from one row to the next.
        probability: from 0 to 1, of which 32 bits count.
        scale: what is not zero.
    """
    if not rows * size:
        return
    below = round(probability * 2**32)  # a number below it, of 32 bits, is one that counts
    scale = scale if below else 0.0
    _function(dtype)(address, key, stream, rows, size, width, max(below - 1, 0), scale)


@cache
def _function(dtype: np.dtype[Any]) -> Callable[..., None]:
    """The compiled function for a dtype."""
    own = Path(__file__).read_text(encoding="utf-8")
    path = files.write("masks", _TEXT, (own, *foundations()))
    function = compiled(path, f"mask_{dtype}", "random masks", dtype, _SIGNATURE)
    return _CALL(function)


@inner(inline="always")
def _round(c, k, number):  # type: ignore[no-untyped-def]
    p0, p1 = _M0 * (c[0] & _LOW), _M1 * (c[2] & _LOW)
    k0, k1 = k[0] + np.uint64(number) * _W0, k[1] + np.uint64(number) * _W1
    return (p1 >> _HALF) ^ c[1] ^ k0, p1, (p0 >> _HALF) ^ c[3] ^ k1, p0


@inner(inline="always")
def philox(c, k):  # type: ignore[no-untyped-def]
    """Four random words, given the four of a counter and the two of a key; each as uint64."""
    c = _round(c, k, 0)
    c = _round(c, k, 1)
    c = _round(c, k, 2)
    c = _round(c, k, 3)
    c = _round(c, k, 4)  # LLVM makes no vectors of a loop in a loop
    c = _round(c, k, 5)
    c = _round(c, k, 6)
    c = _round(c, k, 7)
    c = _round(c, k, 8)
    c = _round(c, k, 9)
    return c[0] & _LOW, c[1] & _LOW, c[2] & _LOW, c[3] & _LOW


@inner
def _make(words, block, stream, k):  # type: ignore[no-untyped-def]
    """The words of some groups: the first of each, then the second of each, and so on."""
    for lane in range(_GROUPS):
        group = np.uint64(block * _GROUPS + lane)
        four = philox((group & _LOW, group >> _HALF, stream, _ZERO), k)
        words[lane] = four[0]
        words[_GROUPS + lane] = four[1]
        words[2 * _GROUPS + lane] = four[2]
        words[3 * _GROUPS + lane] = four[3]


@inner
def _choose(mask, words, last, scale):  # type: ignore[no-untyped-def]
    for place in range(mask.size):
        mask[place] = scale if words[place] <= last else mask.dtype.type(0)


@inner(_nrt=True)
def write(address, key, stream, rows, size, width, last, scale, dtype):  # type: ignore[no-untyped-def]
    """Write `scale` where a number is `last` or below it, zero elsewhere; see `write_mask`."""
    mask = array_at(address, ((rows - 1) * width + size,), dtype)
    words = np.empty(_NUMBERS, np.uint32)
    k = np.uint64(key) & _LOW, np.uint64(key) >> _HALF
    if size == width:
        rows, size = 1, rows * size
    left, place, column = rows * size, 0, 0
    for block in range((left + _NUMBERS - 1) // _NUMBERS):
        _make(words, block, np.uint64(stream), k)
        used, count = 0, min(left, _NUMBERS)
        while used < count:
            run = min(count - used, size - column)
            _choose(mask[place : place + run], words[used : used + run], last, scale)
            used, place, column = used + run, place + run, column + run
            if column == size:
                place, column = place + width - size, 0
        left -= count

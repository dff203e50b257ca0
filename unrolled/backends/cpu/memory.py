"""Memory for a kernel's arrays."""

import math
from typing import Any

import numpy as np

from ..steps import Array

_LINE = 64  # bytes of a line of the cache, and of the widest vector


def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """An array that begins with a line of the cache.

    A vector that lies across two lines takes twice as long to read: with AVX-512 each one would.
    """
    size = math.prod(shape) * dtype.itemsize
    block = np.empty(size + _LINE, np.uint8)
    start = -block.ctypes.data % _LINE
    return block[start : start + size].view(dtype).reshape(shape)


def copied(array: Array, dtype: np.dtype[Any]) -> Array:
    """A copy of an array that begins with a line of the cache."""
    copy = empty(array.shape, dtype)
    copy[...] = array
    return copy

"""Memory for a kernel's arrays.

Arrays begin with a line of the cache: a vector that lies across two lines takes twice as long to
read, and with AVX-512 each one would. Large arrays take memory that earlier ones have left: the
system hands out fresh memory page by page, at the first touch, which can take longer than the work.
"""

import ctypes
import math
import sys
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np

from ..steps import Array

LINE = 64  # bytes of a line of the cache, and of the widest vector
LARGE = 1 << 20  # bytes from which on memory is kept for later; of less, malloc keeps some
LIMIT = 1 << 28  # bytes of it that are kept at most


class _Block:
    """Memory that one array after the other uses."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._memory = np.empty(size + LINE, np.uint8)
        self.address = self._memory.ctypes.data + -self._memory.ctypes.data % LINE


# Size → blocks that no array uses any more; the size that was left last stands last.
_left: dict[int, list[_Block]] = {}


class _Lease:
    """A block while arrays use it; when the last one on it is gone, it is left."""

    block: _Block

    def __del__(self, over: Callable[[], bool] = sys.is_finalizing) -> None:
        if not over():  # when Python ends, names are gone already
            _leave(self.block)


@cache
def _lease_of(size: int) -> Any:
    """The type of leases of so many bytes.

    With an object that tells NumPy where its numbers lie, to lend takes half as long again.
    """
    return type(f"Lease of {size}", (_Lease, ctypes.c_char * size), {})


def _lent(size: int) -> Any:
    """A block of so many bytes at least, for an array to use."""
    # Sizes in steps of an eighth, so that a block fits the next array of about its size.
    step = 1 << max(0, size.bit_length() - 4)
    size = -(-size // step) * step
    try:
        block = _left[size].pop()
    except LookupError:  # none, or another thread was faster
        block = _Block(size)
    lease = _lease_of(size).from_address(block.address)
    lease.block = block
    return lease


def _leave(block: _Block) -> None:
    """No array uses a block any more. Of too much memory, what was used longest ago goes."""
    if block.size > LIMIT:
        return
    # Arrays may end in any thread, in the midst of this: at worst a block is not kept. A list is
    # never copied, or a block in it could be taken twice.
    blocks = _left.pop(block.size, [])
    blocks.append(block)
    _left[block.size] = blocks
    while sum(_sizes()) > LIMIT:
        for size in list(_left)[:1]:
            blocks = _left.pop(size, [])
            del blocks[:1]
            if blocks:
                _left[size] = blocks


def _sizes() -> Iterator[int]:
    return (size * len(blocks) for size, blocks in list(_left.items()))


def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """An array that begins with a line of the cache, of whatever is in memory there."""
    size = math.prod(shape) * dtype.itemsize
    if size >= LARGE:
        return np.ndarray(shape, dtype, _lent(size))
    block = np.empty(size + LINE, np.uint8)
    start = -block.ctypes.data % LINE
    return block[start : start + size].view(dtype).reshape(shape)

"""Packed matrices that are used again while the weights have not changed.

Nothing tells of every change of a weight: a write through `.data`, say, leaves no trace. So the
weights themselves are compared with a copy of those that were packed, bit by bit. That takes a
fraction of the time of packing, and is never wrong.
"""

from collections.abc import Callable, Hashable
from threading import Lock

import numpy as np
from numba import njit

from ..steps import Array

_BLOCK = 512  # words that are compared at once
LIMIT = 1 << 26  # bytes of copies and packed matrices that are kept at most


class Shelf:
    """Packed matrices by where their weights lie and how they are packed."""

    def __init__(self) -> None:
        self._kept: dict[Hashable, tuple[Array, Array]] = {}
        self._storing = Lock()

    def packed(
        self,
        weights: Array,
        how: Hashable,
        pack: Callable[[], Array],
        unchanged: Callable[[Array, Array], bool],
    ) -> Array:
        """The packed weights.

        Args:
            weights: two axes, one of them contiguous.
            how: what their packed form depends on beside them.
            pack: gives it.
            unchanged: the function below, compiled.
        """
        place = weights.__array_interface__["data"][0], weights.shape, weights.strides, how
        found = self._kept.get(place)
        bits = _bits(weights)
        if found is not None and unchanged(found[0], bits):
            return found[1]
        packed = pack()
        with self._storing:
            self._kept.pop(place, None)  # what is packed last is given up last
            self._kept[place] = bits.copy(), packed
            while self._size() > LIMIT and len(self._kept) > 1:
                del self._kept[next(iter(self._kept))]
        return packed

    def _size(self) -> int:
        return sum(copy.nbytes + packed.nbytes for copy, packed in self._kept.values())


def _bits(weights: Array) -> Array:
    """A matrix as words, row by row of the memory: bits tell -0 from 0, and know NaN."""
    rows = weights if weights.flags.c_contiguous else np.ascontiguousarray(weights.T)
    flat = rows.reshape(-1)
    return flat.view(np.int64 if flat.nbytes % 8 == 0 else np.int32)


@njit
def unchanged(a, b):  # type: ignore[no-untyped-def]
    """Whether two arrays of one number of words are equal; whole blocks become vectors."""
    blocks = a.size // _BLOCK
    for block in range(blocks):
        ours, theirs = a[block * _BLOCK : (block + 1) * _BLOCK], b[block * _BLOCK :]
        different = 0
        for place in range(_BLOCK):
            different |= ours[place] ^ theirs[place]
        if different:
            return False
    rest = 0
    for place in range(blocks * _BLOCK, a.size):
        rest |= a[place] ^ b[place]
    return rest == 0

"""Packed matrices that are used again while the weights have not changed.

Nothing tells of every change of a weight: a write through `.data`, say, leaves no trace. So the
weights themselves are compared with a copy of those that were packed, bit by bit. That takes a
fraction of the time of packing, and is never wrong.
"""

from collections.abc import Callable, Hashable
from threading import Lock

import numpy as np

from ..steps import Array

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
    ) -> Array:
        """The packed weights.

        Args:
            weights: two axes, one of them contiguous.
            how: what their packed form depends on beside them.
            pack: gives it.
        """
        place = weights.__array_interface__["data"][0], weights.shape, weights.strides, how
        found = self._kept.get(place)
        bits = _bits(weights)
        if found is not None and np.array_equal(found[0], bits):
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

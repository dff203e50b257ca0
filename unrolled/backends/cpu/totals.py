"""The gradients of parameters: sums over a sequence, block by block."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..blocks import stretches
from ..steps import Array
from . import memory


class Totals:
    """Totals of families of stacked blocks. A block's first summand is written where it stays.

    Args:
        shapes: family → its shape.
        wanted: names of families; all if None.
        places: block → its family and the rows that it takes there.
        dtype: of all arrays.
    """

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, ...]],
        wanted: Collection[str] | None,
        places: Mapping[str, tuple[str, slice]],
        dtype: np.dtype[Any],
    ) -> None:
        self._families = {
            family: memory.empty(shape, dtype)
            for family, shape in shapes.items()
            if wanted is None or family in wanted
        }
        self._open = {block for block, (family, _) in places.items() if family in self._families}
        self._shapes, self._places, self._dtype = shapes, places, dtype

    def want(self, blocks: Collection[str]) -> bool:
        """Whether the total of any of these blocks is wanted."""
        return any(self._places[block][0] in self._families for block in blocks)

    @contextmanager
    def adding(self, blocks: Sequence[str]) -> Iterator[Array]:
        """An array to be filled with one more summand of some blocks, one below the other."""
        parts = stretches(self._places[block] for block in blocks)
        family, rows = parts[0]
        if len(parts) == 1 and self._open.issuperset(blocks):
            yield self._families[family][rows]
        else:
            shape = sum(rows.stop - rows.start for _, rows in parts), *self._shapes[family][1:]
            summand = memory.empty(shape, self._dtype)
            yield summand
            self._add(blocks, summand)
        self._open.difference_update(blocks)

    def _add(self, blocks: Sequence[str], summand: Array) -> None:
        start = 0
        for block in blocks:
            family, rows = self._places[block]
            end = start + rows.stop - rows.start
            if block in self._open:
                self._families[family][rows] = summand[start:end]
            elif family in self._families:
                self._families[family][rows] += summand[start:end]
            start = end

    def finished(self) -> dict[str, Array]:
        """Family → its total: zero where nothing was added."""
        for block in self._open:
            family, rows = self._places[block]
            self._families[family][rows] = 0
        return self._families

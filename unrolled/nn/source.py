"""Where random masks come from: the CPU's quick generator, or torch's own."""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn

from ..backends.cpu.philox import write_mask
from . import fresh
from .choice import watched

_PLAIN = (Tensor, nn.Parameter)


class Source:
    """Draws masks that belong together, such as those of one direction of a layer.

    Masks of float32 and float64 on the CPU take one number of torch's generator, the key of all,
    so `torch.manual_seed` gives the same masks again, whatever the number of threads. torch itself
    draws other ones, and whatever must be seen as an operation of its own.

    Args:
        like: a tensor of the dtype and on the device that they get.

    Attributes:
        quick: whether torch has no part in it.
    """

    def __init__(self, like: Tensor) -> None:
        self.quick = (
            not watched() and type(like) in _PLAIN and like.is_cpu and like.dtype in fresh.DTYPES
        )
        self._like = like
        self._key = int(torch.randint(2**63 - 1, (), device="cpu")) if self.quick else 0
        self._drawn = 0  # each mask has a stream of its own

    def mask(self, p: float, scale: float, shape: Sequence[int]) -> Tensor:
        """A mask of a shape: `scale` with probability p, zero otherwise."""
        if self.quick:
            mask = fresh.empty(shape, self._like)
            self.write(mask, 0, shape[-1], p, scale)
            return mask
        # A third of the time of bernoulli_, which costs as much as the kernels of a small layer.
        ones = torch.rand(shape, device=self._like.device).lt_(p).to(self._like.dtype)
        return ones if scale == 1 else ones * scale

    def write(self, out: Tensor, column: int, size: int, p: float, scale: float) -> None:
        """Write a mask, as `mask` gives it, into some columns; for a source that is quick.

        Args:
            out: (…, width), contiguous.
            column: the first one.
            size: how many columns.
            p: from 0 to 1.
            scale: what is not zero.
        """
        width = out.shape[-1]
        write_mask(
            out.data_ptr() + column * out.itemsize, fresh.DTYPES[out.dtype], self._key,
            self._drawn, prod(out.shape[:-1]), size, width, p, scale,
        )  # fmt: skip
        self._drawn += 1

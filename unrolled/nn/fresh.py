"""New tensors. Large ones on the CPU lie in memory that earlier ones have left.

The system hands out fresh memory page by page, at the first touch, which takes longer than many a
pass.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..backends.cpu import memory

DTYPES: dict[torch.dtype, np.dtype[Any]] = {
    torch.float32: np.dtype("float32"),
    torch.float64: np.dtype("float64"),
}
_PLAIN = (Tensor, nn.Parameter)


def empty(shape: Sequence[int], like: Tensor) -> Tensor:
    """A tensor of a shape, of another one's dtype and on its device, of whatever is in memory."""
    if (
        prod(shape) * like.itemsize < memory.LARGE
        or type(like) not in _PLAIN  # others may have no numbers, as they have none for compilers
        or torch.compiler.is_compiling()
        or not like.is_cpu
        or like.dtype not in DTYPES
    ):
        return like.new_empty(shape)
    return torch.from_numpy(memory.empty(tuple(shape), DTYPES[like.dtype]))


def empty_like(like: Tensor) -> Tensor:
    """A tensor of another one's shape and dtype, and on its device, of whatever is in memory."""
    return torch.empty_like(like) if like.nbytes < memory.LARGE else empty(like.shape, like)


def zeros(shape: Sequence[int], like: Tensor) -> Tensor:
    """A tensor of zeros of a shape, of another one's dtype and on its device."""
    return empty(shape, like).zero_()

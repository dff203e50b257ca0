"""New tensors. Large ones on the CPU lie in memory that earlier ones have left.

The system hands out fresh memory page by page, at the first touch, which takes longer than many a
pass.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._C._dynamo.guards import _empty_strided_cpu  # type: ignore[attr-defined]

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


def zeros(shape: Sequence[int], like: Tensor) -> Tensor:
    """A tensor of zeros of a shape, of another one's dtype and on its device."""
    return empty(shape, like).zero_()


# How a tensor looks whose numbers lie one after the other: its shape, how many numbers the entries
# of each axis are apart, and its dtype. A plain tuple is taken apart quicker than one with names.
Form = tuple[tuple[int, ...], tuple[int, ...], torch.dtype]


def form_of(shape: Sequence[int], dtype: torch.dtype) -> Form:
    """The form of a shape and a dtype."""
    strides = (prod(max(1, size) for size in shape[axis:]) for axis in range(1, len(shape) + 1))
    return tuple(shape), tuple(strides), dtype


def nbytes_of(form: Form) -> int:
    """The memory of a tensor of a form."""
    shape, _, dtype = form
    return prod(shape) * dtype.itemsize


# A tensor of a form, of whatever is in memory, as the code that torch.compile generates makes it:
# only the allocator is asked, which takes half as long as `torch.empty_like`.
small_tensor: Callable[[tuple[int, ...], tuple[int, ...], torch.dtype], Tensor] = _empty_strided_cpu


def tensor(shape: tuple[int, ...], strides: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A tensor of a form, of whatever is in memory."""
    if nbytes_of((shape, strides, dtype)) < memory.LARGE:
        return small_tensor(shape, strides, dtype)
    return torch.from_numpy(memory.empty(shape, DTYPES[dtype]))

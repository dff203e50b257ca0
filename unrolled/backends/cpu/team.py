"""What a kernel needs to run on a team of threads that another library keeps awake.

OpenMP calls a function of one address. There lies a table of 64-bit numbers: which part of the
work is next, how many there are, and the addresses and shapes of the kernel's arrays. Whoever comes
takes the next part; a thread that never comes is missed by nobody.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from ..steps import Array

NEXT, PARTS, BATCH, REVERSE, ARRAYS = range(5)  # the table's first slots


@intrinsic  # type: ignore[untyped-decorator]
def _pointer(typing: Any, address: Any) -> Any:
    def write(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), write


@intrinsic  # type: ignore[untyped-decorator]
def _take(typing: Any, table: Any) -> Any:
    def write(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        slots = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.atomic_rmw("add", slots, ir.Constant(ir.IntType(64), 1), "seq_cst")

    return types.int64(table), write


@njit
def next_part(table):  # type: ignore[no-untyped-def]
    """The number of a part that nobody else has; the last ones are not parts any more."""
    return _take(table)


@njit
def table_at(address, slots):  # type: ignore[no-untyped-def]
    """The table at an address."""
    return carray(address, (slots,), np.int64)


@njit
def vector_at(table, slot, dtype):  # type: ignore[no-untyped-def]
    """The array of one axis that a table describes from a slot on."""
    return carray(_pointer(table[slot]), (table[slot + 1],), dtype)


@njit
def matrix_at(table, slot, dtype):  # type: ignore[no-untyped-def]
    """The array of two axes that a table describes from a slot on."""
    return carray(_pointer(table[slot]), (table[slot + 1], table[slot + 2]), dtype)


@njit
def array_at(address, shape, dtype):  # type: ignore[no-untyped-def]
    """The array of this shape at an address, both whole numbers."""
    return carray(_pointer(address), shape, dtype)


def described(arguments: list[Array | int]) -> list[int]:
    """Arrays as address and shape, numbers as they are: a table from `ARRAYS` on."""
    slots: list[int] = []
    for argument in arguments:
        if isinstance(argument, np.ndarray):
            slots += (argument.__array_interface__["data"][0], *argument.shape)
        else:
            slots.append(int(argument))
    return slots

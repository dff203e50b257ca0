"""What a kernel needs to run on a team of threads that another library may keep awake.

A thread calls a function with one address. There lies a table of 64-bit numbers: what is shared out
and how far that has gone, and the addresses and shapes of the kernel's arrays.

Rows of the batch and steps are shared out in *parts*: whoever comes takes the next part, and a
thread that never comes is missed by nobody. Where there are too few rows, threads *share* the units
of every vector and *meet* before and after each product. Nobody waits for a thread that may not
come: the first one waits a moment, then closes the door, and the units are shared by those who are
inside.

Several calls of a function can be done at once, such as both directions of a layer: a table says
where the next one lies, and threads go from the one to the other.
"""

import os
import platform
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from ..steps import Array
from .emission import intrinsic as llvm

# The table's first slots. `BEHIND` is the address of the next table, 0 if there is none; `CUTS` is
# an array, address and length: where the parts begin and end.
NEXT, PARTS, SHARES, INSIDE, MET, REVERSE, BEHIND, CUTS, _, ARRAYS = range(10)

_CLOSED = 1 << 32  # added to NEXT when the door is closed
_PATIENCE = 1_000  # pauses for others to come: some 20 µs, which is what waking a thread takes
_SPINS = 5_000  # pauses before a waiting thread sleeps
_NAP = 20 if os.name == "posix" else 1  # microseconds, or milliseconds
_sleep = types.ExternalFunction(
    *("usleep", types.int32(types.uint32))
    if os.name == "posix"
    else ("Sleep", types.void(types.uint32))
)


def _slot(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    slots = context.make_array(signature.args[0])(context, builder, arguments[0]).data
    return builder.gep(slots, [arguments[1]], inbounds=True)


@intrinsic  # type: ignore[untyped-decorator]
def _pointer(typing: Any, address: Any) -> Any:
    def write(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), write


@intrinsic  # type: ignore[untyped-decorator]
def _add(typing: Any, table: Any, slot: Any, number: Any) -> Any:
    """Add to a slot as one action; returns what it held."""

    def write(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _slot(context, builder, signature, arguments)
        return builder.atomic_rmw("add", place, arguments[2], "seq_cst")

    return types.int64(table, types.int64, types.int64), write


@intrinsic  # type: ignore[untyped-decorator]
def _read(typing: Any, table: Any, slot: Any) -> Any:
    """What a slot holds now, whoever wrote it."""

    def write(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _slot(context, builder, signature, arguments)
        return builder.load_atomic(place, "seq_cst", 8)

    return types.int64(table, types.int64), write


@intrinsic  # type: ignore[untyped-decorator]
def _pause(typing: Any) -> Any:
    """Tell the core that this is a loop that waits."""

    def write(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if platform.machine() in ("x86_64", "AMD64"):
            llvm(builder, "llvm.x86.sse2.pause", [], ir.VoidType())
        elif platform.machine() in ("aarch64", "arm64"):
            llvm(builder, "llvm.aarch64.hint", [ir.Constant(ir.IntType(32), 1)], ir.VoidType())
        return context.get_dummy_value()

    return types.none(), write


@njit
def _wait(table, slot, number):  # type: ignore[no-untyped-def]
    """Wait until a slot holds this number or a larger one."""
    spins = 0
    while _read(table, slot) < number:
        spins += 1
        if spins < _SPINS:
            _pause()
        else:
            # There may be fewer cores than threads, or two threads on one core. Those would stay
            # there for long if they took turns; one that has slept wakes up on an idle core.
            _sleep(_NAP)


@njit
def next_part(table, part):  # type: ignore[no-untyped-def]
    """The number of a part that nobody else has; of the one part whose units are shared, the next.

    The last ones are not parts any more.
    """
    return part + 1 if table[SHARES] > 1 else _add(table, NEXT, 1)


@njit
def join(table):  # type: ignore[no-untyped-def]
    """Which share a thread has, and how many there are; who comes too late has none of them.

    Nor has one who is not needed, where there are more threads than shares.
    """
    if table[SHARES] == 1:
        return 0, 1
    share = _add(table, NEXT, 1)
    if share == 0:
        pauses = 0
        while pauses < _PATIENCE and _read(table, NEXT) < table[SHARES]:
            _pause()
            pauses += 1
        _add(table, INSIDE, min(_add(table, NEXT, _CLOSED), table[SHARES]))
    elif share < table[SHARES]:
        _wait(table, INSIDE, 1)
    return share, _read(table, INSIDE)


@njit
def enter(table):  # type: ignore[no-untyped-def]
    """As `join`, where everything is shared by shares: of a single one the first has all."""
    return join(table) if table[SHARES] > 1 else (_add(table, NEXT, 1), 1)


@njit
def meet(table, shares):  # type: ignore[no-untyped-def]
    """Wait until all who share the units are here; what each has written, all see."""
    if shares > 1:
        before = _add(table, MET, 1)
        _wait(table, MET, (before // shares + 1) * shares)


@njit
def groups_of(size, share, shares, width):  # type: ignore[no-untyped-def]
    """Of one share: the first of its groups of `width` units, and the first that is not."""
    groups = (size + width - 1) // width
    return groups * share // shares, groups * (share + 1) // shares


@njit
def share_of(size, share, shares, width):  # type: ignore[no-untyped-def]
    """Of so many rows or columns, cut between multiples of `width`: one share's first and last."""
    first, last = groups_of(size, share, shares, width)
    return min(first * width, size), min(last * width, size)


@njit
def in_turn(groups, number, step):  # type: ignore[no-untyped-def]
    """A step goes through the groups onwards, the next one back, and so on.

    So each begins with weights that the one before has left in the nearest cache.
    """
    return groups[0] + groups[1] - 1 - number if step % 2 else number


@njit
def units_of(size, groups, width, lanes):  # type: ignore[no-untyped-def]
    """Of some groups: the first unit, where whole vectors end, and how many units are left."""
    first, last = groups[0] * width, min(groups[1] * width, size)
    whole = first + (last - first) // lanes * lanes
    return first, whole, last - whole


@njit
def table_at(address, slots):  # type: ignore[no-untyped-def]
    """The table at an address."""
    return carray(address, (slots,), np.int64)


@njit
def table_behind(table):  # type: ignore[no-untyped-def]
    """The next table, of as many slots; one of none if there is no other."""
    return carray(_pointer(table[BEHIND]), (table.size if table[BEHIND] else 0,), np.int64)


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
    """Arrays as address and shape, numbers as they are."""
    slots: list[int] = []
    for argument in arguments:
        if isinstance(argument, np.ndarray):
            slots += (argument.__array_interface__["data"][0], *argument.shape)
        else:
            slots.append(int(argument))
    return slots

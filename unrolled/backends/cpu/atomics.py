"""Slots of a table that several threads read and write, and waiting for what another one writes."""

import os
import platform
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .emission import intrinsic as llvm
from .inner import inner

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
def add(typing: Any, table: Any, slot: Any, number: Any) -> Any:
    """Add to a slot as one action; returns what it held."""

    def write(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _slot(context, builder, signature, arguments)
        return builder.atomic_rmw("add", place, arguments[2], "seq_cst")

    return types.int64(table, types.int64, types.int64), write


@intrinsic  # type: ignore[untyped-decorator]
def read(typing: Any, table: Any, slot: Any) -> Any:
    """What a slot holds now, whoever wrote it."""

    def write(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _slot(context, builder, signature, arguments)
        return builder.load_atomic(place, "seq_cst", 8)

    return types.int64(table, types.int64), write


@intrinsic  # type: ignore[untyped-decorator]
def held(typing: Any, table: Any, slot: Any) -> Any:
    """What a slot holds that nobody writes meanwhile.

    `table[slot]`, where it may be counted from the end, compiles two to three times as long.
    """

    def write(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_slot(context, builder, signature, arguments))

    return types.int64(table, types.int64), write


@intrinsic  # type: ignore[untyped-decorator]
def exchange(typing: Any, table: Any, slot: Any, old: Any, new: Any) -> Any:
    """Put a number into a slot if it holds the old one, as one action; returns whether it did."""

    def write(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _slot(context, builder, signature, arguments)
        found = builder.cmpxchg(place, *arguments[2:], "seq_cst", "seq_cst")
        return builder.extract_value(found, 1)

    return types.boolean(table, types.int64, types.int64, types.int64), write


@intrinsic  # type: ignore[untyped-decorator]
def pause(typing: Any) -> Any:
    """Tell the core that this is a loop that waits."""

    def write(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if platform.machine() in ("x86_64", "AMD64"):
            llvm(builder, "llvm.x86.sse2.pause", [], ir.VoidType())
        elif platform.machine() in ("aarch64", "arm64"):
            llvm(builder, "llvm.aarch64.hint", [ir.Constant(ir.IntType(32), 1)], ir.VoidType())
        return context.get_dummy_value()

    return types.none(), write


@inner
def wait_a_moment(moments):  # type: ignore[no-untyped-def]
    """Wait, for so many moments already; returns how many they are with this one."""
    if moments < _SPINS:
        pause()
    else:
        # There may be fewer cores than threads, or two threads on one core. Those would stay there
        # for long if they took turns; one that has slept wakes up on an idle core.
        _sleep(_NAP)
    return moments + 1


@inner
def wait(table, slot, number):  # type: ignore[no-untyped-def]
    """Wait until a slot holds this number or a larger one."""
    moments = 0
    while read(table, slot) < number:
        moments = wait_a_moment(moments)

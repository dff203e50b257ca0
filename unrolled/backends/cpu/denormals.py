"""Numbers too small for a float's exponent are zero inside a kernel.

The machine computes with such denormal numbers some hundred times slower, and a gradient that
vanishes is made of them. The mode is the thread's own: a kernel sets it and puts it back.
"""

from __future__ import annotations

import platform
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_FLUSH = {
    "x86_64": 0x8040,  # MXCSR: results to zero (bit 15), operands to zero (bit 6)
    "AMD64": 0x8040,
    "aarch64": 1 << 24,  # FPCR: both (bit 24)
    "arm64": 1 << 24,
}.get(platform.machine(), 0)
_INT32, _INT64 = ir.IntType(32), ir.IntType(64)


@intrinsic  # type: ignore[untyped-decorator]
def flush_denormals(typing: Any) -> Any:
    """Set the mode; returns what it was, for `restore_mode`."""

    def write(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        mode = _read(builder)
        _write(builder, builder.or_(mode, ir.Constant(_INT64, _FLUSH)))
        return mode

    return types.int64(), write


@intrinsic  # type: ignore[untyped-decorator]
def restore_mode(typing: Any, mode: Any) -> Any:
    """Put the mode back that `flush_denormals` found."""

    def write(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _write(builder, arguments[0])
        return context.get_dummy_value()

    return types.none(types.int64), write


def _read(builder: Any) -> Any:
    if _FLUSH == 0x8040:
        place = cgutils.alloca_once(builder, _INT32)
        builder.call(_x86(builder, "st"), [place])
        return builder.zext(builder.load(place), _INT64)
    if _FLUSH:
        kind = ir.FunctionType(_INT64, [])
        return builder.call(_declared(builder, "llvm.aarch64.get.fpcr", kind), [])
    return ir.Constant(_INT64, 0)


def _write(builder: Any, mode: Any) -> None:
    if _FLUSH == 0x8040:
        place = cgutils.alloca_once(builder, _INT32)
        builder.store(builder.trunc(mode, _INT32), place)
        builder.call(_x86(builder, "ld"), [place])
    elif _FLUSH:
        kind = ir.FunctionType(ir.VoidType(), [_INT64])
        builder.call(_declared(builder, "llvm.aarch64.set.fpcr", kind), [mode])


def _x86(builder: Any, verb: str) -> Any:
    kind = ir.FunctionType(ir.VoidType(), [ir.PointerType(_INT32)])
    return _declared(builder, f"llvm.x86.sse.{verb}mxcsr", kind)


def _declared(builder: Any, name: str, kind: ir.FunctionType) -> Any:
    return cgutils.get_or_insert_function(builder.module, kind, name)

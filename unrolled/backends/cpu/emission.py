"""Arithmetic on values of a kernel that is being compiled.

A `Value` is an LLVM number or vector that does not exist yet. Operators on it write instructions,
so a formula reads the same here as on paper, and costs Numba no type inference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

Builder = Any  # llvmlite and numba carry no types
Type = Any

_WIDTHS = {"float": 32, "double": 64}


def suffix(kind: Type) -> str:
    """What LLVM adds to an intrinsic's name for this type: `f32` or `v8f32`."""
    if isinstance(kind, ir.VectorType):
        return f"v{kind.count}{suffix(kind.element)}"
    return f"f{_WIDTHS[str(kind)]}"


def intrinsic(builder: Builder, name: str, arguments: Sequence[Any], result: Type) -> Any:
    """Call the LLVM intrinsic of this full name."""
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
    return builder.call(function, arguments)


def filled(kind: Type, number: float) -> Any:
    """A constant: the number, in every lane if the type is a vector."""
    if isinstance(kind, ir.VectorType):
        return ir.Constant(kind, [ir.Constant(kind.element, number)] * kind.count)
    return ir.Constant(kind, number)


def spread(builder: Builder, scalar: Any, kind: Type) -> Any:
    """A vector of the type with the scalar in every lane."""
    if isinstance(scalar, ir.Constant):
        return filled(kind, scalar.constant)
    first = ir.Constant(ir.IntType(32), 0)
    single = builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, first)
    lanes = ir.VectorType(ir.IntType(32), kind.count)
    return builder.shuffle_vector(single, single, filled(lanes, 0))


@dataclass(frozen=True)
class Matrix:
    """A matrix in memory: where it begins, and how many numbers lie from an entry to the next."""

    start: Any
    row_step: Any
    column_step: Any

    @property
    def transposed(self) -> Matrix:
        """The same numbers with rows and columns exchanged."""
        return Matrix(self.start, self.column_step, self.row_step)

    def at(self, builder: Builder, row: Any, column: Any) -> Any:
        """The address of an entry."""
        rows, columns = builder.mul(row, self.row_step), builder.mul(column, self.column_step)
        return further(builder, self.start, builder.add(rows, columns))


def further(builder: Builder, place: Any, numbers: Any) -> Any:
    """The address so many numbers after another."""
    return builder.gep(place, [numbers], source_etype=place.type.pointee, inbounds=True)


def fetch_line(builder: Builder, place: Any) -> None:
    """Ask for the line of the cache with this address, which need not be anybody's."""
    flags = [ir.Constant(ir.IntType(32), flag) for flag in (0, 3, 1)]  # to read, near, data
    place = builder.bitcast(place, ir.IntType(8).as_pointer())
    intrinsic(builder, "llvm.prefetch.p0", [place, *flags], ir.VoidType())


def shuffled(builder: Builder, pair: Sequence[Any], order: Sequence[int]) -> Any:
    """These numbers of two vectors, which stand one behind the other."""
    lanes = [ir.Constant(ir.IntType(32), number) for number in order]
    mask = ir.Constant(ir.VectorType(lanes[0].type, len(lanes)), lanes)
    return builder.shuffle_vector(*pair, mask)


def unforeseen(builder: Builder, known: Any) -> Any:
    """The same whole number or address, of which LLVM knows nothing."""
    kind = ir.FunctionType(known.type, [known.type])
    return builder.asm(kind, "", "=r,0", [known], side_effect=False)


class Value:
    """A number or a vector, floating or whole, with arithmetic that writes instructions."""

    def __init__(self, builder: Builder, ir_value: Any) -> None:
        self.builder = builder
        self.ir = ir_value

    @property
    def width(self) -> int:
        """Bits of a lane."""
        lane = getattr(self.ir.type, "element", self.ir.type)
        return lane.width if isinstance(lane, ir.IntType) else _WIDTHS[str(lane)]

    @property
    def whole(self) -> bool:
        """Whether the lanes hold whole numbers."""
        return isinstance(getattr(self.ir.type, "element", self.ir.type), ir.IntType)

    def constant(self, number: float) -> Value:
        """The number, in the type of this value."""
        return Value(self.builder, filled(self.ir.type, number))

    def _other(self, other: Value | float) -> Any:
        return other.ir if isinstance(other, Value) else filled(self.ir.type, other)

    def _write(self, name: str, left: Any, right: Any) -> Value:
        name = name if self.whole else f"f{name}"
        return Value(self.builder, getattr(self.builder, name)(left, right))

    def __add__(self, other: Value | float) -> Value:
        return self._write("add", self.ir, self._other(other))

    def __sub__(self, other: Value | float) -> Value:
        return self._write("sub", self.ir, self._other(other))

    def __mul__(self, other: Value | float) -> Value:
        return self._write("mul", self.ir, self._other(other))

    def __truediv__(self, other: Value | float) -> Value:
        return self._write("div", self.ir, self._other(other))

    def __rtruediv__(self, other: float) -> Value:
        return self._write("div", self._other(other), self.ir)

    __radd__ = __add__
    __rmul__ = __mul__

    def __neg__(self) -> Value:
        return Value(self.builder, self.builder.fneg(self.ir))

    def __lshift__(self, places: int) -> Value:
        return Value(self.builder, self.builder.shl(self.ir, self._other(places)))

    def __rshift__(self, places: int) -> Value:
        """Shift right; zeros come in from the left."""
        return Value(self.builder, self.builder.lshr(self.ir, self._other(places)))

    def shift_signed(self, places: int) -> Value:
        """Shift right; copies of the sign come in from the left."""
        return Value(self.builder, self.builder.ashr(self.ir, self._other(places)))

    def compare(self, sign: str, other: Value | float) -> Value:
        """A mask; where a lane is NaN only `!=` holds."""
        other = self._other(other)
        kind = self.builder.fcmp_unordered if sign == "!=" else self.builder.fcmp_ordered
        return Value(self.builder, kind(sign, self.ir, other))

    def choose(self, yes: Value | float, no: Value | float) -> Value:
        """As a mask: `yes` where it holds, `no` elsewhere; one of them is a value."""
        some = yes if isinstance(yes, Value) else no
        assert isinstance(some, Value)
        chosen = self.builder.select(self.ir, some._other(yes), some._other(no))
        return Value(self.builder, chosen)

    def at_least(self, low: float) -> Value:
        """No less than the bound; NaN stays NaN."""
        return self.constant(low).compare(">", self).choose(low, self)

    def at_most(self, high: float) -> Value:
        """No more than the bound; NaN stays NaN."""
        return self.constant(high).compare("<", self).choose(high, self)

    def call(self, name: str, *others: Value | float) -> Value:
        """The LLVM intrinsic of this name, whose arguments and result have one type."""
        arguments = [self.ir, *(self._other(other) for other in others)]
        name = f"llvm.{name}.{suffix(self.ir.type)}"
        return Value(self.builder, intrinsic(self.builder, name, arguments, self.ir.type))

    def times_plus(self, factor: Value | float, term: Value | float) -> Value:
        """`self * factor + term`, rounded once where the machine can do that at full speed."""
        return self.call("fmuladd", factor, term)

    def bits(self) -> Value:
        """The same bits read as whole numbers."""
        kind = ir.IntType(self.width)
        if isinstance(self.ir.type, ir.VectorType):
            kind = ir.VectorType(kind, self.ir.type.count)
        return Value(self.builder, self.builder.bitcast(self.ir, kind))

    def read_as(self, floating: Value) -> Value:
        """The same bits read as numbers of the type of `floating`."""
        return Value(self.builder, self.builder.bitcast(self.ir, floating.ir.type))

    def signed_to_float(self, floating: Value) -> Value:
        """The whole numbers as numbers of the type of `floating`."""
        return Value(self.builder, self.builder.sitofp(self.ir, floating.ir.type))

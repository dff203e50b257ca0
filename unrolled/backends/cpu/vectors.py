"""A vector type for Numba kernels: as many numbers as one machine instruction takes.

LLVM finds the vectors in a loop by itself only where it can prove that arrays do not overlap, and
a kernel has too many arrays for that. The functions here are for compiled code only. They and the
operators `+ - * /`, `-v` and `< <= > >= == !=` take vectors, or a vector and numbers, which then
stand in every lane; the functions that read no array take numbers alone as well.
"""

from __future__ import annotations

import functools
import operator
import platform
from collections.abc import Callable
from typing import Any

import llvmlite.binding
import numpy as np
from llvmlite import ir
from numba.core import errors, types
from numba.core.datamodel import models
from numba.core.imputils import lower_builtin, lower_cast
from numba.core.types.misc import VarArg
from numba.core.typing import signature
from numba.core.typing.templates import AbstractTemplate, infer_global
from numba.extending import register_model

from .emission import Value, fetch_line, filled, intrinsic, spread, suffix


@functools.cache
def _vector_bytes() -> int:
    features = llvmlite.binding.get_host_cpu_features()
    if features.get("avx512f"):
        return 64
    return 32 if features.get("avx") else 16


# Whether it is an AMD processor (a Zen), and one with vectors of 512 bits (Zen 4, Zen 5).
ZEN = llvmlite.binding.get_host_cpu_name().startswith("znver")
WIDE_ZEN = ZEN and _vector_bytes() == 64

# How many vectors the machine's registers hold.
REGISTERS = 32 if _vector_bytes() == 64 or platform.machine() in ("aarch64", "arm64") else 16


def lanes(dtype: Any) -> int:
    """How many numbers of a dtype one vector of this machine holds: 8 float32 with AVX2."""
    return _vector_bytes() // int(np.dtype(dtype).itemsize)


def lanes_of(dtype: Any) -> int:
    """How many numbers of one of Numba's types a vector of this machine holds."""
    return _vector_bytes() * 8 // int(dtype.bitwidth)


class VectorType(types.Type):
    """Numba's type of a vector: `lanes` numbers of type `dtype` (numba's float32 or float64)."""

    def __init__(self, dtype: Any, lanes: int) -> None:
        self.dtype = dtype
        self.lanes = lanes
        super().__init__(name=f"vector({dtype} x {lanes})")


class MaskType(types.Type):
    """Numba's type of what comparing two vectors gives: a truth value for each lane."""

    def __init__(self, dtype: Any, lanes: int) -> None:
        self.dtype = dtype
        self.lanes = lanes
        super().__init__(name=f"mask({dtype} x {lanes})")


def vector_of(context: Any, kind: Any) -> Any:
    """LLVM's type of a vector of the numbers of one of Numba's arrays, or pointers to them."""
    return context.get_value_type(VectorType(kind.dtype, lanes_of(kind.dtype)))


@register_model(VectorType)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, dmm: Any, fe_type: VectorType) -> None:
        lane = ir.FloatType() if fe_type.dtype == types.float32 else ir.DoubleType()
        super().__init__(dmm, fe_type, ir.VectorType(lane, fe_type.lanes))


@register_model(MaskType)
class _MaskModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, dmm: Any, fe_type: MaskType) -> None:
        super().__init__(dmm, fe_type, ir.VectorType(ir.IntType(1), fe_type.lanes))


def _number_to_vector(context: Any, builder: Any, start: Any, end: Any, value: Any) -> Any:
    scalar = context.cast(builder, value, start, end.dtype)
    return spread(builder, scalar, context.get_value_type(end))


lower_cast(types.Number, VectorType)(_number_to_vector)


# How a function is made known to Numba: what it returns, and what it writes.


def compiled(
    function: Callable[..., Any],
    result: Callable[..., Any],
    emit: Callable[..., Any],
    *accepted: tuple[Any, ...],
) -> None:
    """Give compiled code a function.

    Args:
        function: the Python function or operator that stands for it.
        result: from the arguments' types to a Numba signature, or None where it does not apply.
            Arguments are converted to the signature's types.
        emit: `(context, builder, signature, arguments)` → an LLVM value.
        accepted: the types of arguments that `emit` serves, any if not given.
    """

    class Template(AbstractTemplate):  # type: ignore[misc]
        key = function

        def generic(self, args: Any, kws: Any) -> Any:
            return None if kws else result(*args)

    infer_global(function, types.Function(Template))
    for arguments in accepted or ((VarArg(types.Any),),):
        lower_builtin(function, *arguments)(emit)


def common(*kinds: Any) -> Any:
    """The type that arguments meet in: their vector type, or for numbers alone a float."""
    vectors = {kind for kind in kinds if isinstance(kind, VectorType)}
    numbers = [kind for kind in kinds if isinstance(kind, types.Number)]
    if len(vectors) > 1:
        raise errors.TypingError(
            f"vectors of two types meet: {', '.join(sorted(map(str, vectors)))}; "
            "a kernel computes in one dtype"
        )
    if len(vectors) + len(numbers) == 0 or any(
        not isinstance(kind, VectorType | types.Number) for kind in kinds
    ):
        return None
    if vectors:
        return vectors.pop()
    floats = {kind for kind in numbers if isinstance(kind, types.Float)}
    return types.float32 if floats == {types.float32} else types.float64


def elementwise(function: Callable[..., Any], emit: Callable[..., Value]) -> None:
    """Give compiled code a function that goes lane by lane; `emit` takes and gives a `Value`."""

    def result(*kinds: Any) -> Any:
        kind = common(*kinds)
        return kind and signature(kind, *(kind,) * len(kinds))

    def write(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return emit(*(Value(builder, argument) for argument in arguments)).ir

    compiled(function, result, write)


def only_compiled(name: str) -> TypeError:
    """The error of calling a function of compiled code from Python."""
    return TypeError(f"{name} is for functions that Numba compiles; Python cannot call it")


# Memory


def _place(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    """The address of the vector that begins at a[index] in a C-contiguous array."""
    array = context.make_array(kind)(context, builder, array)
    sizes = [builder.extract_value(array.shape, axis) for axis in range(kind.ndim)]
    offset = index[0]
    for size, step in zip(sizes[1:], index[1:], strict=True):
        offset = builder.add(builder.mul(offset, size), step)
    lane = context.get_value_type(kind.dtype)
    place = builder.gep(array.data, [offset], source_etype=lane, inbounds=True)
    vector = context.get_value_type(VectorType(kind.dtype, lanes_of(kind.dtype)))
    return builder.bitcast(place, vector.as_pointer())


def _array_vector(array: Any, whole: tuple[Any, ...]) -> VectorType | None:
    """The vector type of an array that is given with so many indices, or None."""
    if not isinstance(array, types.Array) or array.dtype not in (types.float32, types.float64):
        return None
    if array.layout != "C" or array.ndim != len(whole):
        raise errors.TypingError(
            f"vectors are read from and written to C-contiguous arrays, one index for each axis; "
            f"found {array} with {len(whole)} indices"
        )
    if not all(isinstance(kind, types.Integer) for kind in whole):
        return None
    return VectorType(array.dtype, lanes_of(array.dtype))


def _fetch_result(array: Any, *index: Any) -> Any:
    vector = _array_vector(array, index)
    return vector and signature(types.none, array, *(types.intp,) * len(index))


def _fetch(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
    array, *index = arguments
    fetch_line(builder, _place(context, builder, sig.args[0], array, index))
    return context.get_dummy_value()


def _load_result(array: Any, *index: Any) -> Any:
    vector = _array_vector(array, index)
    return vector and signature(vector, array, *(types.intp,) * len(index))


def _load(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
    array, *index = arguments
    place = _place(context, builder, sig.args[0], array, index)
    return builder.load(place, align=sig.return_type.dtype.bitwidth // 8)


def _store_result(array: Any, *rest: Any) -> Any:
    *index, vector = rest
    expected = _array_vector(array, tuple(index))
    if expected is None or common(expected, vector) != expected:
        return None
    return signature(types.none, array, *(types.intp,) * len(index), expected)


def _store(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
    array, *index, vector = arguments
    place = _place(context, builder, sig.args[0], array, index)
    builder.store(vector, place, align=sig.args[0].dtype.bitwidth // 8)
    return context.get_dummy_value()


def _load_part_result(array: Any, *rest: Any) -> Any:
    *index, count = rest
    vector = _array_vector(array, tuple(index))
    if vector is None or not isinstance(count, types.Integer):
        return None
    return signature(vector, array, *(types.intp,) * len(rest))


def first_lanes(builder: Any, kind: Any, count: Any) -> Any:
    """A mask that holds in the first `count` lanes of a vector type."""
    lane = ir.IntType(32 if isinstance(kind.element, ir.FloatType) else 64)
    numbers = ir.VectorType(lane, kind.count)
    steps = ir.Constant(numbers, [ir.Constant(lane, step) for step in range(kind.count)])
    if lane.width < count.type.width:
        count = builder.trunc(count, lane)
    return builder.icmp_signed("<", steps, spread(builder, count, numbers))


def masked_load(builder: Any, place: Any, kind: Any, mask: Any) -> Any:
    """Read the lanes where the mask holds; the others are 0 and their memory is not touched."""
    size = 4 if isinstance(kind.element, ir.FloatType) else 8
    name = f"llvm.masked.load.{suffix(kind)}.p0"
    arguments = [place, ir.Constant(ir.IntType(32), size), mask, filled(kind, 0.0)]
    return intrinsic(builder, name, arguments, kind)


def masked_store(builder: Any, vector: Any, place: Any, mask: Any) -> None:
    """Write the lanes where the mask holds; other memory is not touched."""
    size = 4 if isinstance(vector.type.element, ir.FloatType) else 8
    name = f"llvm.masked.store.{suffix(vector.type)}.p0"
    arguments = [vector, place, ir.Constant(ir.IntType(32), size), mask]
    intrinsic(builder, name, arguments, ir.VoidType())


def _load_part(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
    array, *index, count = arguments
    place = _place(context, builder, sig.args[0], array, index)
    kind = context.get_value_type(sig.return_type)
    return masked_load(builder, place, kind, first_lanes(builder, kind, count))


def _store_part_result(array: Any, *rest: Any) -> Any:
    *index, count, vector = rest
    expected = _array_vector(array, tuple(index))
    if expected is None or common(expected, vector) != expected:
        return None
    if not isinstance(count, types.Integer):
        return None
    return signature(types.none, array, *(types.intp,) * (len(index) + 1), expected)


def _store_part(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
    array, *index, count, vector = arguments
    place = _place(context, builder, sig.args[0], array, index)
    masked_store(builder, vector, place, first_lanes(builder, vector.type, count))
    return context.get_dummy_value()


def load(a: Any, *index: Any) -> Any:
    """The vector `a[..., column:column + lanes]`; one index for each axis of `a`, column last."""
    raise only_compiled("load")


def store(a: Any, *index_and_vector: Any) -> None:
    """Write a vector: `store(a, row, column, vector)`, with one index for each axis of `a`."""
    raise only_compiled("store")


def load_part(a: Any, *index_and_count: Any) -> Any:
    """The first `count` lanes, `load_part(a, row, column, count)`.

    The other lanes are 0, and the memory they would come from is not touched.
    """
    raise only_compiled("load_part")


def store_part(a: Any, *index_count_and_vector: Any) -> None:
    """Write the first `count` lanes of a vector: `store_part(a, row, column, count, vector)`."""
    raise only_compiled("store_part")


def fetch(a: Any, *index: Any) -> None:
    """Ask for the vector that `load` will want soon, and do not wait for it."""
    raise only_compiled("fetch")


def splat(a: Any, value: Any) -> Any:
    """A vector of the dtype of `a`, an array or a vector, with the number in every lane."""
    raise only_compiled("splat")


def _splat_result(like: Any, value: Any) -> Any:
    if not isinstance(like, types.Array | VectorType) or not isinstance(value, types.Number):
        return None
    vector = VectorType(like.dtype, lanes_of(like.dtype))
    return signature(vector, like, vector)


compiled(fetch, _fetch_result, _fetch)
compiled(load, _load_result, _load)
compiled(store, _store_result, _store)
compiled(load_part, _load_part_result, _load_part)
compiled(store_part, _store_part_result, _store_part)
compiled(splat, _splat_result, lambda context, builder, sig, arguments: arguments[1])


# Operators


def _with_vector(*kinds: Any) -> Any:
    kind = common(*kinds)
    return kind if isinstance(kind, VectorType) else None


def _same(*kinds: Any) -> Any:
    kind = _with_vector(*kinds)
    return kind and signature(kind, *(kind,) * len(kinds))


def _mask(*kinds: Any) -> Any:
    kind = _with_vector(*kinds)
    return kind and signature(MaskType(kind.dtype, kind.lanes), kind, kind)


def _instruction(emit: Callable[..., Value]) -> Callable[..., Any]:
    def write(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        return emit(*(Value(builder, argument) for argument in arguments)).ir

    return write


def _comparison(sign: str) -> Callable[..., Any]:
    return _instruction(lambda a, b: a.compare(sign, b))


for _function, _in_place in (
    (operator.add, operator.iadd),
    (operator.sub, operator.isub),
    (operator.mul, operator.imul),
    (operator.truediv, operator.itruediv),
):
    compiled(_function, _same, _instruction(_function), (VectorType, VectorType))
    compiled(_in_place, _same, _instruction(_function), (VectorType, VectorType))
compiled(operator.neg, _same, _instruction(operator.neg), (VectorType,))
for _function, _sign in (
    (operator.lt, "<"),
    (operator.le, "<="),
    (operator.gt, ">"),
    (operator.ge, ">="),
    (operator.eq, "=="),
    (operator.ne, "!="),
):
    compiled(_function, _mask, _comparison(_sign), (VectorType, VectorType))


# Functions


def where(mask: Any, a: Any, b: Any) -> Any:
    """`a` where the mask holds, `b` elsewhere; the mask may be a truth value too."""
    raise only_compiled("where")


def maximum(a: Any, b: Any) -> Any:
    """The larger of two; NaN if one of them is NaN. A constant is best given second."""
    raise only_compiled("maximum")


def minimum(a: Any, b: Any) -> Any:
    """The smaller of two; NaN if one of them is NaN. A constant is best given second."""
    raise only_compiled("minimum")


def fma(a: Any, b: Any, c: Any) -> Any:
    """`a * b + c`, rounded once where the machine can do that at full speed."""
    raise only_compiled("fma")


def first_part(vector: Any, count: Any) -> Any:
    """The vector with 0 in all lanes but the first `count`."""
    raise only_compiled("first_part")


def added_up(vector: Any) -> Any:
    """The sum of the lanes, by halves."""
    raise only_compiled("added_up")


def absolute(a: Any) -> Any:
    """The number without its sign."""
    raise only_compiled("absolute")


def square_root(a: Any) -> Any:
    """The square root, correctly rounded; NaN below 0."""
    raise only_compiled("square_root")


def _where_result(mask: Any, a: Any, b: Any) -> Any:
    if isinstance(mask, MaskType):
        kind = common(VectorType(mask.dtype, mask.lanes), a, b)
    elif isinstance(mask, types.Boolean):
        kind = common(a, b)
    else:
        kind = None
    return kind and signature(kind, mask, kind, kind)


def _extreme(sign: str) -> Callable[[Value, Value], Value]:
    """The comparison alone gives `second` where a lane is NaN, which is one instruction."""

    def emit(a: Value, b: Value) -> Value:
        return b.compare("!=", b).choose(b, b.compare(sign, a).choose(b, a))

    return emit


def _first_part(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
    vector, count = arguments
    mask = first_lanes(builder, vector.type, count)
    return builder.select(mask, vector, filled(vector.type, 0.0))


def _added_up(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
    (vector,) = arguments
    lane = ir.IntType(32)
    count = vector.type.count
    while count > 1:
        count //= 2
        halves = (
            ir.Constant(ir.VectorType(lane, count), [ir.Constant(lane, k) for k in lanes])
            for lanes in (range(count), range(count, 2 * count))
        )
        low, high = (builder.shuffle_vector(vector, vector, half) for half in halves)
        vector = builder.fadd(low, high)
    return builder.extract_element(vector, ir.Constant(lane, 0))


def _first_part_result(vector: Any, count: Any) -> Any:
    fits = isinstance(vector, VectorType) and isinstance(count, types.Integer)
    return signature(vector, vector, types.intp) if fits else None


def _added_up_result(vector: Any) -> Any:
    return signature(vector.dtype, vector) if isinstance(vector, VectorType) else None


compiled(first_part, _first_part_result, _first_part)
compiled(added_up, _added_up_result, _added_up)
compiled(where, _where_result, lambda context, builder, sig, arguments: builder.select(*arguments))
elementwise(maximum, _extreme(">"))
elementwise(minimum, _extreme("<"))
elementwise(fma, Value.times_plus)
elementwise(absolute, lambda a: a.call("fabs"))
elementwise(square_root, lambda a: a.call("sqrt"))

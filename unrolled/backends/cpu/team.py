"""What a kernel needs to run on a team of threads that another library may keep awake.

A thread calls a function with one address. There lies a table of 64-bit numbers: what is shared out
and how far that has gone, and the addresses and shapes of the kernel's arrays.

Rows of the batch and steps are shared out in *parts*: whoever comes takes the next part, and a
thread that never comes is missed by nobody. Where there are too few rows, threads *share* the units
of every vector and *meet* before and after each product. Nobody waits for a thread that may not
come: the first one waits, as long as that is little beside the work, then closes the door, and the
units are shared by those who are inside.

Several calls of a function can be done at once, such as both directions of a layer: a table says
where the next one lies, and threads go from the one to the other.
"""

from typing import Any

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np import arrayobj

from . import emission
from .atomics import add, held, pause, read, wait
from .inner import inner

# The table's first slots. `BEHIND` is the address of the next table, 0 if there is none; `CUTS` is
# an array, address and length: where the parts begin and end. `PIPELINED` and `DONE`, a slot for
# each task, are those of `tasks`. `FILLED`: whether an earlier call has packed weights. `PATIENCE`:
# pauses until the door is closed. What changes during a call stands first, in `PROGRESS` slots.
TASKS = 4
BEHIND, NEXT, INSIDE, MET, DONE = range(5)
PROGRESS = DONE + TASKS
PARTS, SHARES, REVERSE, PIPELINED, FILLED, PATIENCE, CUTS = range(PROGRESS, PROGRESS + 7)
ARRAYS = CUTS + 2

_CLOSED = 1 << 32  # added to NEXT when the door is closed


@inner
def join(table):  # type: ignore[no-untyped-def]
    """Which share a thread has, and how many there are; who comes too late has none of them.

    Nor has one who is not needed, where there are more threads than shares.
    """
    share = add(table, NEXT, 1)
    if share == 0:
        pauses = 0
        while pauses < held(table, PATIENCE) and read(table, NEXT) < held(table, SHARES):
            pause()
            pauses += 1
        add(table, INSIDE, min(add(table, NEXT, _CLOSED), held(table, SHARES)))
    elif share < held(table, SHARES):
        wait(table, INSIDE, 1)
    return share, read(table, INSIDE)


@inner
def enter(table):  # type: ignore[no-untyped-def]
    """The number of a thread, its share and how many there are, where all is shared by shares.

    Of a single share the first thread has all. So has each thread of a pipeline.
    """
    if held(table, PIPELINED):
        thread = add(table, NEXT, 1)
        return thread, (0 if thread < held(table, SHARES) else 1), 1
    share, shares = join(table) if held(table, SHARES) > 1 else (add(table, NEXT, 1), 1)
    return share, share, shares


@inner
def meet(table, shares):  # type: ignore[no-untyped-def]
    """Wait until all who share the units are here; what each has written, all see."""
    if shares > 1:
        before = add(table, MET, 1)
        wait(table, MET, (before // shares + 1) * shares)


@inner
def groups_of(size, share, shares, width):  # type: ignore[no-untyped-def]
    """Of one share: the first of its groups of `width` units, and the first that is not."""
    groups = (size + width - 1) // width
    return groups * share // shares, groups * (share + 1) // shares


@inner
def share_of(size, share, shares, width):  # type: ignore[no-untyped-def]
    """Of so many rows or columns, cut between multiples of `width`: one share's first and last."""
    first, last = groups_of(size, share, shares, width)
    return min(first * width, size), min(last * width, size)


@inner
def in_turn(groups, number, step):  # type: ignore[no-untyped-def]
    """A step goes through the groups onwards, the next one back, and so on.

    So each begins with weights that the one before has left in the nearest cache.
    """
    return groups[0] + groups[1] - 1 - number if step % 2 else number


@inner
def units_of(size, groups, width, lanes):  # type: ignore[no-untyped-def]
    """Of some groups: the first unit, where whole vectors end, and how many units are left."""
    first, last = groups[0] * width, min(groups[1] * width, size)
    whole = first + (last - first) // lanes * lanes
    return first, whole, last - whole


@intrinsic  # type: ignore[untyped-decorator]
def unforeseen(typing: Any, number: Any) -> Any:
    """The same number, of which LLVM knows nothing.

    So it computes what follows from it, such as addresses, where that stands, and not ahead of all
    loops around, from where it would lie on the stack until it is wanted, if it ever is.
    """

    def write(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return emission.unforeseen(builder, *arguments)

    return number(number), write


@intrinsic  # type: ignore[untyped-decorator]
def array_at(typing: Any, address: Any, shape: Any, dtype: Any) -> Any:
    """The C-contiguous array of this shape at an address, both whole numbers.

    Numba's `carray` is three functions more to compile for each type of array.
    """

    def write(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address, shape, _ = arguments
        return _array(context, builder, signature.return_type, address, shape)

    array = types.Array(dtype.dtype, len(shape), "C")
    return array(types.intp, types.UniTuple(types.intp, len(shape)), dtype), write


@intrinsic  # type: ignore[untyped-decorator]
def rows_at(typing: Any, address: Any, row: Any, shape: Any, dtype: Any) -> Any:
    """The array of this shape whose rows from `row` on lie at an address; none is before."""

    def write(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address, row, shape, _ = arguments
        return _array(context, builder, signature.return_type, address, shape, row)

    array = types.Array(dtype.dtype, len(shape), "C")
    sizes = types.UniTuple(types.intp, len(shape))
    return array(types.intp, types.intp, sizes, dtype), write


def _array(context: Any, builder: Any, kind: Any, address: Any, shape: Any, row: Any = None) -> Any:
    """An array of contiguous rows; that with the given number lies at the address."""
    itemsize = context.get_constant(types.intp, kind.dtype.bitwidth // 8)
    strides = [itemsize]
    for size in reversed(cgutils.unpack_tuple(builder, shape)[1:]):
        strides.insert(0, builder.mul(size, strides[0]))
    if row is not None:
        address = builder.sub(address, builder.mul(row, strides[0]))
    array = context.make_array(kind)(context, builder)
    arrayobj.populate_array(
        array,
        data=builder.inttoptr(address, context.get_data_type(kind.dtype).as_pointer()),
        shape=shape,
        strides=cgutils.pack_array(builder, strides),
        itemsize=itemsize,
        meminfo=None,
    )
    return array._getvalue()


@intrinsic  # type: ignore[untyped-decorator]
def window(typing: Any, matrix: Any, row: Any, end_row: Any, column: Any, end_column: Any) -> Any:
    """Rows and columns of a matrix, as `matrix[row:end_row, column:end_column]` gives them.

    All lie inside of it; Numba compiles ten times as much for a slice, which may lie anywhere.
    """

    def write(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        given = context.make_array(matrix)(context, builder, arguments[0])
        strides = cgutils.unpack_tuple(builder, given.strides)
        start = (
            builder.mul(arguments[place], stride)
            for place, stride in zip((1, 3), strides, strict=True)
        )
        shape = [builder.sub(arguments[end], arguments[end - 1]) for end in (2, 4)]
        found = context.make_array(signature.return_type)(context, builder)
        arrayobj.populate_array(
            found,
            data=cgutils.pointer_add(builder, given.data, builder.add(*start)),
            shape=cgutils.pack_array(builder, shape),
            strides=given.strides,
            itemsize=given.itemsize,
            meminfo=None,
        )
        return found._getvalue()

    return types.Array(matrix.dtype, 2, "A")(matrix, *(types.intp,) * 4), write

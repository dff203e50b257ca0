"""A kernel's text run as plain Python, word by word, by threads that look after each number.

Nothing is compiled, so a cell that no one thought of takes a moment and not ten seconds. And what
compiled code would do in silence is an error here: to read a number that nobody has written, to
touch memory that is no array's, and to touch what another thread writes without having met it.

Threads take turns at random where they wait for each other. Whether one knows what another one has
written does not depend on these turns: each has a clock for every thread, which says up to when it
knows of its work (L. Lamport 1978, C. Fidge 1988, F. Mattern 1989).
"""

import ctypes
import random
import re
import threading
import weakref
from bisect import bisect_right
from contextlib import contextmanager
from functools import cache, partial
from types import FunctionType
from typing import Any, NamedTuple

import numpy as np
import pytest
import whole_passes
from conftest import forget_tables
from numba.core.registry import CPUDispatcher

from unrolled.backends.cpu import (
    atomics,
    dots,
    kernel,
    outside,
    packing,
    products,
    tasks,
    team,
    vectors,
)
from unrolled.backends.cpu.kernel import Kernel
from unrolled.backends.cpu.live import LiveKernel
from unrolled.backends.cpu.sharing import share_out
from unrolled.backends.cpu.tables import FIRST, Extent, Table
from unrolled.backends.cpu.units import parameters_of
from unrolled.backends.reference import OPERATIONS
from unrolled.backends.steps import Result
from unrolled.functions import relu, sigmoid, softplus

FOR_EVER = 100_000  # turns of threads that wait


def run(
    program, sizes, inputs, states, parameters, steps, reverse=False,
    *, seed=0, change=lambda text: text, calls=1, **options,
):  # fmt: skip
    """As `whole_passes.run`, by `threads` threads that take turns as the seed says.

    The kernel's text may be given a `change`. There may be more `calls` than one, the next of which
    find weights packed.
    """

    def run_whole(kernel, table, extent):
        table.numbers[team.PATIENCE] = (10_000, 10, 0)[seed % 3]
        for _ in range(calls):
            table.begin()
            tables = [Given(kernel.whole, table, extent)]
            Machine(tables, options.get("threads", 1), seed).run(change(kernel.text))

    kernel = _kernel(Kernel, program, inputs[0].dtype, vectors.lanes(inputs[0].dtype))
    given = program, sizes, inputs, states, parameters, steps, reverse
    return whole_passes.run(*given, kernel=kernel, run_whole=run_whole, **options)


@cache
def _kernel(kind, program, dtype, lanes):
    """A kernel for vectors of so many lanes, which this machine need not have."""
    return kind(program, dtype)


def run_live(program, sizes, inputs, states, parameters, steps, reverse=False):
    """The same by the kernel for few steps, which a forward program has."""
    kernel = _kernel(LiveKernel, program, inputs[0].dtype, vectors.lanes(inputs[0].dtype))
    function, sharing = kernel.function, share_out(steps, 0, False, 1)
    extent = Extent(sizes, steps, sharing, kernel.dtype)
    given = dict(zip(function.pointers, [*inputs, *states], strict=False))
    given |= {parameters_of(family): array for family, array in parameters.items()}
    made = {
        name: np.empty(function.shape(name, extent), kernel.dtype)
        for name in function.pointers
        if name not in given
    }
    table = Table(function, extent, reverse)
    for place, name in enumerate(function.pointers, FIRST):
        table.numbers[place] = {**given, **made}[name].ctypes.data
    Machine([Given(function, table, extent)], 1, seed=0).run(kernel.text)
    parts = kernel.layout.outputs, kernel.layout.states.values()
    outputs, last = (tuple(made[name] for name in names) for names in parts)
    return Result(outputs, last, {})


@contextmanager
def everywhere(seed=0):
    """All kernels of layers run as plain Python, too."""
    known = weakref.WeakValueDictionary()
    begin = Table.__init__

    def remember(table, function, extent, *rest):
        begin(table, function, extent, *rest)
        table.given = function, extent
        known[table.address] = table

    def call_by(text, address, threads=1):
        tables, table = [], known[address]
        while table is not None:
            tables.append(Given(table.given[0], table, table.given[1]))
            table = known[behind] if (behind := table.numbers[team.BEHIND]) else None
        Machine(tables, threads, seed).run(text)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Table, "__init__", remember)
        patch.setattr(Kernel, "address_of_whole", property(lambda kernel: kernel.text))
        patch.setattr(Kernel, "call_whole", property(lambda kernel: partial(call_by, kernel.text)))
        patch.setattr(LiveKernel, "call", property(lambda kernel: partial(call_by, kernel.text)))
        patch.setattr(kernel, "run_together", call_by)
        forget_tables()
        yield
    forget_tables()


class Array:
    """What is known of an array of a kernel: of each number who has written it, and when.

    Args:
        name: in the kernel.
        address: where it lies.
        shape: of which it is.
        dtype: of its numbers.
        known: whether the caller has written it.
        threads: how many there are.
    """

    def __init__(self, name, address, shape, dtype, known, threads):
        size = int(np.prod(shape))
        self.name, self.address, self.columns = name, address, shape[-1]
        kind = ctypes.c_float if dtype.itemsize == 4 else ctypes.c_double
        self.numbers = np.ctypeslib.as_array((kind * size).from_address(address))
        if not known:
            self.numbers[...] = np.nan
        self.written = np.full(size, known)
        self.writer = np.zeros(size, int)
        self.moment = np.zeros(size, int)  # of the writer's clock
        self.read = np.zeros((threads, size), int)  # when each thread has read it last

    def entries(self, at):
        """What a kernel calls the numbers at some positions."""
        places = np.arange(len(self.numbers))[at]
        rows, columns = places // self.columns, places % self.columns
        return np.vectorize(lambda row, column: f"{self.name}[{row}, {column}]")(rows, columns)

    def must_be_written(self, at):
        """Numbers at some positions may be read."""
        if not (written := self.written[at]).all():
            raise AssertionError(f"nobody has written {self.entries(at)[~written][0]}")


class View:
    """Some of an array's numbers, as kernels see them; nothing says that all of it is there.

    Args:
        machine: on which the kernel runs.
        address: of its first entry.
        shape: of which it is.
        strides: in bytes.
    """

    def __init__(self, machine, address, shape, strides=None):
        self.machine, self.address, self.shape = machine, address, tuple(map(int, shape))
        if strides is None:
            sizes = [machine.dtype.itemsize, *self.shape[:0:-1]]
            strides = tuple(np.cumprod(sizes)[::-1])
        self.strides = strides

    @property
    def size(self):
        return int(np.prod(self.shape))

    @property
    def T(self):
        return View(self.machine, self.address, self.shape[::-1], self.strides[::-1])

    def window(self, row, end_row, column, end_column):
        if row < end_row and column < end_column:
            assert 0 <= row <= end_row <= self.shape[0], f"rows {row} to {end_row} of {self.shape}"
            assert 0 <= column <= end_column <= self.shape[1], (
                f"columns {column} to {end_column} of {self.shape}"
            )
        address = self.address + row * self.strides[0] + column * self.strides[1]
        shape = end_row - row, end_column - column
        return View(self.machine, address, shape, self.strides)

    def along(self, index, count):
        """Where some columns lie, from an entry on."""
        for place, size in zip(index, self.shape, strict=True):
            assert 0 <= place < size + (count == 0), f"{index} of {self.shape}"
        assert count == 0 or index[-1] + count <= self.shape[-1], f"{index}, {count}: {self.shape}"
        pairs = zip(index, self.strides, strict=True)
        start = self.address + sum(int(place) * stride for place, stride in pairs)
        array = self.machine.array_at(start)
        first = (start - array.address) // self.machine.dtype.itemsize
        assert first + count <= len(array.numbers), f"beyond the end of {array.name}"
        return array, slice(first, first + count)

    def everywhere(self):
        """Where all entries lie."""
        if not self.size:
            return None, np.empty(self.shape, int)
        steps = [np.arange(n) * stride for n, stride in zip(self.shape, self.strides, strict=True)]
        addresses = self.address + np.add(*np.ix_(*steps))
        array = self.machine.array_at(addresses[0, 0])
        at = (addresses - array.address) // self.machine.dtype.itemsize
        assert at.min() >= 0, f"before the beginning of {array.name}"
        assert at.max() < len(array.numbers), f"beyond the end of {array.name}"
        return array, at

    def __getitem__(self, index):
        return self.machine.read(*self.along(index, 1))[0]

    def __setitem__(self, index, number):
        self.machine.write(*self.along(index, 1), number)


class Slots:
    """A table, by which threads know of each other."""

    def __init__(self, numbers):
        self.numbers = numbers

    def __setitem__(self, slot, number):
        self.numbers[slot] = number


class Given(NamedTuple):
    """A table, the text of the function that it is for, and its extent."""

    function: Any
    table: Table
    extent: Extent


class Machine:
    """Runs the function of some tables, one behind the other.

    Args:
        tables: what it is given.
        threads: how many come, fewer or more than the tables ask for.
        seed: of the turns that they take.
    """

    def __init__(self, tables, threads, seed):
        self.tables = {one.table.address: Slots(one.table.numbers) for one in tables}
        self.function, _, extent = tables[0]
        self.dtype, self.lanes = extent.dtype, vectors.lanes(extent.dtype)
        self.threads, self.random = threads, random.Random(seed)
        self.condition = threading.Condition()
        self.clocks, self.clock_of_slot = np.eye(threads, dtype=int), {}
        self.now, self.left, self.error = 0, [*range(threads)], None
        self.made = []  # the arrays that the caller wants
        found = {}
        for one in tables:
            for array in self._arrays(*one):
                before = found.setdefault(array.address, array)  # both directions have one input
                if len(before.numbers) < len(array.numbers):
                    found[array.address] = array
        self.arrays = sorted(found.values(), key=lambda array: array.address)
        self.addresses = [array.address for array in self.arrays]

    def _arrays(self, function, table, extent):
        """All arrays of a table."""
        places = {name: place for place, name in enumerate(function.table, FIRST)}
        given = {*function.layout.inputs}
        given |= {name for name in places if name.endswith(("_given", "_parameters"))}
        if table.numbers[team.FILLED]:
            given |= function.lasting
        for name in (*function.pointers, *function.scratch):
            shape, address = function.shape(name, extent), table.numbers[places[name]]
            if address and np.prod(shape):
                array = Array(name, address, shape, self.dtype, name in given, self.threads)
                if name in function.pointers and name not in given:
                    self.made.append(array)
                yield array

    # threads

    def run(self, text):
        """Run the function, of a kernel's text, by all threads."""
        namespace = words(self)
        exec(_code(text), namespace)
        function = namespace[self.function.function]
        together = [
            threading.Thread(target=self._come, args=(number, function), daemon=True)
            for number in range(self.threads)
        ]
        for thread in together:
            thread.start()
        for thread in together:
            thread.join()
        if self.error:
            raise self.error
        for array in self.made:
            array.must_be_written(slice(None))

    def _come(self, number, function):
        try:
            with self.condition:
                self.condition.wait_for(lambda: self.now == number)
            with np.errstate(all="ignore"):
                function(next(iter(self.tables)))
        except BaseException as error:  # it is raised again where the threads were started
            self.error = self.error or error
        with self.condition:
            self.left.remove(number)
            self.now = self.random.choice(self.left) if self.left else None
            self.condition.notify_all()

    def pass_on(self):
        """Perhaps it is another thread's turn."""
        if len(self.left) > 1:
            with self.condition:
                number = self.now
                self.now = self.random.choice(self.left)
                self.condition.notify_all()
                self.condition.wait_for(lambda: self.now == number or self.error)
        if self.error:
            raise RuntimeError("another thread has failed")

    # slots

    def learn(self, table, slot):
        """The thread knows what others knew when they changed a slot of a table."""
        if self.threads > 1 and (table, slot) in self.clock_of_slot:
            mine = self.clocks[self.now]
            np.maximum(mine, self.clock_of_slot[table, slot], out=mine)

    def tell(self, table, slot):
        """Who reads a slot from now on knows what the thread knows."""
        if self.threads > 1:
            told = self.clock_of_slot.get((table, slot), 0)
            self.clock_of_slot[table, slot] = np.maximum(told, self.clocks[self.now])
            self.clocks[self.now, self.now] += 1

    # numbers

    def array_at(self, address):
        """The array that an address lies in, or behind."""
        number = bisect_right(self.addresses, address)
        assert number, "memory before all arrays"
        return self.arrays[number - 1]

    def read(self, array, at):
        """The numbers at some positions of an array."""
        if array is None:
            return np.empty(at.shape, self.dtype)
        array.must_be_written(at)
        if self.threads > 1:
            self._must_know(array, at, array.writer[at], array.moment[at], "written")
            array.read[self.now, at] = self.clocks[self.now, self.now]
        return array.numbers[at].copy()

    def write(self, array, at, numbers):
        """Write numbers to some positions of an array."""
        if array is None:
            return
        array.numbers[at], array.written[at] = numbers, True
        if self.threads > 1:
            self._must_know(array, at, array.writer[at], array.moment[at], "written")
            for thread in range(self.threads):
                self._must_know(array, at, thread, array.read[thread, at], "read")
            array.writer[at], array.moment[at] = self.now, self.clocks[self.now, self.now]

    def _must_know(self, array, at, thread, moment, verb):
        unknown = moment > self.clocks[self.now][thread]
        if unknown.any():
            raise AssertionError(
                f"thread {self.now} does not know that another one has {verb} "
                f"{array.entries(at)[unknown][0]}"
            )


@cache
def _code(text):
    """A kernel's text without what it imports of the backend."""
    text = re.sub(
        r"^from unrolled\.backends\.cpu\.\w+ import (\([^)]*\)|.*)$", "", text, flags=re.M
    )
    return compile(text, "a kernel", "exec")


def words(machine):
    """All that a kernel's text may call, working on a machine."""
    count, dtype = machine.lanes, machine.dtype

    def array_at(address, shape, kind):
        if kind is np.int64:
            if address in machine.tables:
                return machine.tables[address]
            whole = (ctypes.c_int64 * int(np.prod(shape))).from_address(address)
            return np.ctypeslib.as_array(whole) if np.prod(shape) else np.empty(shape, kind)
        return View(machine, address, shape)

    def rows_at(address, row, shape, kind):
        found = View(machine, address, shape)
        found.address -= row * found.strides[0]
        return found

    # slots

    def held(table, slot):
        return table.numbers[slot]

    def read(table, slot):
        machine.pass_on()
        machine.learn(table, slot)
        return table.numbers[slot]

    def add(table, slot, number):
        machine.pass_on()
        machine.learn(table, slot)
        machine.tell(table, slot)
        before = table.numbers[slot]
        table.numbers[slot] += number
        return before

    def exchange(table, slot, old, new):
        machine.pass_on()
        machine.learn(table, slot)
        if table.numbers[slot] != old:
            return False
        machine.tell(table, slot)
        table.numbers[slot] = new
        return True

    def wait_a_moment(moments):
        assert moments < FOR_EVER, "threads wait for each other"
        machine.pass_on()
        return moments + 1

    # vectors

    def load(array, *index):
        return machine.read(*array.along(index, count))

    def store(array, *index_and_vector):
        *index, vector = index_and_vector
        machine.write(*array.along(index, count), vector)

    def load_part(array, *index_and_count):
        *index, some = index_and_count
        assert 0 < some < count
        return np.append(machine.read(*array.along(index, some)), np.zeros(count - some, dtype))

    def store_part(array, *index_count_and_vector):
        *index, some, vector = index_count_and_vector
        assert 0 < some < count
        machine.write(*array.along(index, some), vector[:some])

    def first_part(vector, some):
        return np.where(np.arange(count) < some, vector, 0)

    # products

    def product(a, b, out, adds, room):
        units, lies_far = b.shape[0], a.strides[1] != dtype.itemsize
        needed = outside.room_for_strip(units, dtype)
        needed += outside.room_for_block(units, dtype) if lies_far else 0
        assert room.shape[1] >= needed, f"{room.shape[1]} numbers of room where {needed} are used"
        machine.write(*room.everywhere(), np.nan)
        found = machine.read(*a.everywhere()) @ machine.read(*b.everywhere())
        assert found.shape == out.shape, f"{found.shape} goes to {out.shape}"
        if adds:
            found = found + machine.read(*out.everywhere())
        machine.write(*out.everywhere(), found)

    def some_dots(weights, first, number, operand, row, rows, out, at, column):
        if number and rows:
            left = operand.window(row, row + rows, 0, operand.shape[1]).everywhere()
            right = weights.window(first, first + number, 0, weights.shape[1]).everywhere()
            found = machine.read(*left) @ machine.read(*right).T
            there = out.window(at, at + rows, column, column + number)
            machine.write(*there.everywhere(), found)

    def tile(operand, row, rows, packed, panel, panels, out, at, column, hop, left, fewer):
        units, width = operand.shape[1], packing.PANEL * count
        given = machine.read(*operand.window(row, row + rows, 0, units).everywhere())
        for number in range(panels):
            here = packed.window(panel + number, panel + number + 1, 0, units * width)
            weights = machine.read(*here.everywhere()).reshape(units, width)
            some = min(width, left - number * fewer)
            start = column + number * hop
            there = out.window(at, at + rows, start, start + max(0, some))
            if some > 0:
                machine.write(*there.everywhere(), (given @ weights)[:, :some])

    def fill(weights, blocks, vectors, packed, first, last):
        units, size = weights.shape[0], weights.shape[1] // blocks
        each, width = blocks * vectors, packing.PANEL * count
        for strip in range(first * each, last * each):
            column, some = packing._columns_of.py_func(strip, each, vectors, count, size)
            lines = np.zeros((units, count), dtype)
            given = weights.window(0, units, column, column + some)
            lines[:, :some] = machine.read(*given.everywhere())
            panel, start = divmod(strip, packing.PANEL)
            for unit in range(units):
                place = packed.along((panel, unit * width + start * count), count)
                machine.write(*place, lines[unit])

    def fill_changed(weights, blocks, vectors, packed, first, last, used, filled):
        size, wide = weights.shape[1] // blocks, vectors * count
        for group in range(first, last):
            rows = [
                (block * size + group * wide, block * size + min(size, (group + 1) * wide), 0)
                for block in range(blocks)
            ]
            kept = [used.window(*some, weights.shape[0]).everywhere() for some in rows]
            now = [weights.T.window(*some, weights.shape[0]).everywhere() for some in rows]
            pairs = [*zip(kept, (machine.read(*some) for some in now), strict=True)]
            if filled and all(np.array_equal(machine.read(*place), new) for place, new in pairs):
                continue
            for place, new in pairs:
                machine.write(*place, new)
            fill(weights, blocks, vectors, packed, group, group + 1)

    def copy_row(given, out, row, begin, end):
        here = machine.read(*given.along((row, begin), end - begin))
        machine.write(*out.along((row, begin), end - begin), here)

    found = {
        "array_at": array_at,
        "rows_at": rows_at,
        "window": View.window,
        "held": held,
        "read": read,
        "add": add,
        "exchange": exchange,
        "pause": machine.pass_on,
        "wait_a_moment": wait_a_moment,
        "load": load,
        "store": store,
        "load_part": load_part,
        "store_part": store_part,
        "first_part": first_part,
        "splat": lambda _, number: np.full(count, number, dtype),
        "added_up": np.sum,
        "fetch": lambda *_: None,
        "product": product,
        "dots": some_dots,
        "_tile": tile,
        "fill": fill,
        "fill_changed": fill_changed,
        "copy_row": copy_row,
        "unforeseen": lambda number: number,
        "know": lambda _: None,
        "flush_denormals": lambda: None,
        "restore_mode": lambda _: None,
        "inner": lambda **_: lambda function: function,
        "absolute": np.abs,
        "square_root": np.sqrt,
        "power": np.power,
        "relu": relu,
        "sigmoid": sigmoid,
        "softplus": softplus,
        **{name: OPERATIONS[name] for name in ("exp", "log", "tanh")},
        **{name: OPERATIONS[name] for name in ("where", "maximum", "minimum")},
    }
    namespaces = []
    for module in (atomics, team, tasks, products, dots, outside):
        names = {**vars(module)}
        for name, function in vars(module).items():
            if isinstance(function, CPUDispatcher) and function.__module__ == module.__name__:
                found.setdefault(name, FunctionType(function.py_func.__code__, names, name))
        namespaces.append(names)
    for names in namespaces:
        names |= found
    return {**found, "GROUP_ROWS": products.GROUP_ROWS, "np": np}

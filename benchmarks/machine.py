"""The machine: what it is, what it reaches, and the least time that a layer could take on it."""

import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numba
import numpy as np
import torch
from torch.utils import mkldnn

from unrolled.backends.cpu import memory
from unrolled.backends.cpu.caches import cache_sizes
from unrolled.backends.cpu.functions import sigmoid
from unrolled.backends.cpu.vectors import lanes, load, store

BARRIER = 0.2e-6  # seconds in which two spinning threads meet
_PACKAGES = ("torch", "numpy", "numba", "onnxruntime", "jax")
_LARGEST = 1 << 30  # bytes of an array that is read
_SIDE = 1024  # of the matrices of a large product
# What names of probes begin with: products, sigmoids of many numbers, and one after the other.
_PRODUCT, _MANY, _ONE = "product", "sigmoids", "a sigmoid of a sigmoid"
_NUMBERS = 1 << 14  # whose sigmoids are taken; more would be too many for one of torch's threads
_LANES = lanes(np.float32)


class Work(NamedTuple):
    """What a step of a layer has to do.

    Attributes:
        blocks: of W and of U.
        functions: sigmoids and tanhs of each unit; to the machine they are alike.
        in_a_row: how many of them wait for one another.
    """

    blocks: int
    functions: int
    in_a_row: int


@dataclass(frozen=True)
class Level:
    """A cache, or the memory behind them all.

    Attributes:
        name: L1, L2, L3 or memory.
        size: bytes of it that a core can fill.
        bandwidth: bytes a second that a core reads from it.
    """

    name: str
    size: int
    bandwidth: float


@dataclass(frozen=True)
class Machine:
    """What the machine reaches.

    Attributes:
        threads: cores that run the layers.
        flops: operations a second of a core, in a large product by the quickest library.
        sigmoid: seconds of a core for the sigmoid of a number, of many, by torch or by ours.
        waiting: seconds until the sigmoid of a vector is there.
        levels: the caches and the memory, the nearest first.
    """

    threads: int
    flops: float
    sigmoid: float
    waiting: float
    levels: tuple[Level, ...]

    @classmethod
    def measured(cls, repeat: int = 20) -> "Machine":
        """The machine at hand, each figure the best of `repeat` runs."""
        threads = torch.get_num_threads()
        size = _SIDE if repeat > 1 else 128
        seconds = min(_best(run, repeat) for run in _products(size).values())
        functions = {name: _best(run, repeat) for name, run in _functions().items()}
        return cls(
            threads,
            2 * size**3 / seconds / threads,
            _quickest(functions, _MANY) / _NUMBERS,
            functions[_ONE] / _NUMBERS,
            tuple(_levels(threads, repeat)),
        )

    def probes(self) -> dict[str, Callable[[], object]]:
        """What a virtual machine reaches changes from minute to minute; these tell, run in turn.

        Products of large matrices, sigmoids, and reading an array that fills half of each cache.
        """
        caches = (level for level in self.levels if level.size < _LARGEST)
        reading = {one.name: _reading(one.size // 2) for one in caches}
        return {**_products(_SIDE), **_functions(), **reading}

    def at_the_time(self, seconds: Mapping[str, float]) -> "Machine":
        """The machine as the probes, name → seconds, have found it."""
        flops = 2 * _SIDE**3 / _quickest(seconds, _PRODUCT) / self.threads
        levels = (
            replace(one, bandwidth=_bytes_read(one.size // 2) / seconds[one.name])
            if one.name in seconds
            else one
            for one in self.levels
        )
        return replace(
            self,
            flops=flops,
            sigmoid=_quickest(seconds, _MANY) / _NUMBERS,
            waiting=seconds[_ONE] / _NUMBERS,
            levels=tuple(levels),
        )

    def products(self, multiplications: float) -> float:
        """The least seconds of large products."""
        return 2 * multiplications / (self.threads * self.flops)

    def step(self, batch: int, work: Work, hidden: int, forward: bool = True) -> float:
        """The least seconds of what a step must wait for.

        That is the product of U and the state and, forward, the sigmoids and tanhs: their
        arithmetic, or each core's reading of its part of U. Where there are fewer rows than cores
        they meet after each step, or one of them does it all; and where a core has one row, nothing
        else is left to do while it waits for a function.
        """
        matrix = 4 * work.blocks * hidden * hidden
        functions = work.functions * batch * hidden * self.sigmoid if forward else 0.0
        waiting = work.in_a_row * self.waiting if forward and batch <= self.threads else 0.0

        def on(cores: int) -> float:
            part = matrix / cores
            arithmetic = (batch * matrix / 2 / self.flops + functions) / cores
            return max(arithmetic, self.reading(part)) + (BARRIER if batch < cores else 0)

        return waiting + min(map(on, range(1, self.threads + 1)))

    def reading(self, size: float) -> float:
        """The least seconds in which a core reads so many bytes once more.

        What it has read last it finds in the nearest caches, if it goes back the way it came.
        """
        seconds = nearer = 0.0
        for level in self.levels:
            found = min(size, level.size)
            seconds += max(0.0, found - nearer) / level.bandwidth
            nearer = max(nearer, found)
        return seconds

    def layer(
        self, batches: Iterable[int], work: Work, inputs: int, hidden: int, training: bool
    ) -> float:
        """The least seconds of one direction of one layer over a sequence.

        Args:
            batches: the rows that take part at each step.
            work: of a step.
            inputs: I.
            hidden: H.
            training: whether the backward pass is counted too: its steps wait for the product of
                Uᵀ, and dx, dW and dU are large products.
        """
        counts = list(batches)
        steps = sum(self.step(batch, work, hidden) for batch in counts)
        outside = self.products(sum(counts) * work.blocks * hidden * inputs)
        if not training:
            return steps + outside
        back = sum(self.step(batch, work, hidden, forward=False) for batch in counts)
        totals = self.products(sum(counts) * work.blocks * hidden * hidden)
        return steps + back + 3 * outside + totals


def description(machine: Machine) -> dict[str, Any]:
    """What results must name: processor, versions, settings and measured ceilings."""
    return {
        "processor": _processor(),
        "vectors": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": {name: version for name in _PACKAGES if (version := _version(name))},
        "environment": {
            name: value
            for name, value in sorted(os.environ.items())
            if name.startswith(("OMP_", "GOMP_", "KMP_", "MKL_", "NUMBA_", "UNROLLED_"))
        },
        "barrier": BARRIER,
        **asdict(machine),
    }


def sentences(about: dict[str, Any]) -> str:
    """A description as a paragraph."""
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    reads = ", ".join(
        f"{level['name']} {level['bandwidth'] / 1e9:.0f}" for level in about["levels"]
    )
    return (
        f"{about['processor']} ({about['vectors']}), {about['threads']} threads on "
        f"{about['cores']} cores, {about['system']}, Python {about['python']}, {versions}; "
        f"float32. "
        f"A core multiplies at {about['flops'] / 1e9:.0f} GF/s, takes {about['sigmoid'] * 1e9:.2f} "
        f"ns for a sigmoid, {about['waiting'] * 1e9:.0f} until one is there, and reads, in GB/s: "
        f"{reads}."
    )


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _levels(threads: int, repeat: int) -> Iterable[Level]:
    """The caches and the memory: of each, reading an array that fills half of it."""
    for name, size in cache_sizes().items():
        size //= threads if name == "L3" else 1
        yield Level(name, size, _bandwidth(size // 2, repeat))
    beyond = min(4 * threads * size, _LARGEST) if repeat > 1 else size
    yield Level("memory", 1 << 62, _bandwidth(beyond, min(repeat, 5)))


def _products(size: int) -> dict[str, Callable[[], object]]:
    """A product of square matrices by torch's BLAS, and by oneDNN if torch has it.

    MKL takes its widest vectors on Intel's processors only; oneDNN, which torch.nn runs an LSTM in,
    wherever they are.
    """
    a, b = torch.randn(2, size, size)
    found: dict[str, Callable[[], object]] = {f"{_PRODUCT} by BLAS": lambda: torch.mm(a, b)}
    if torch.backends.mkldnn.is_available():
        dense = torch.nn.Linear(size, size, bias=False).requires_grad_(False)
        layer, operand = mkldnn.to_mkldnn(dense), a.to_mkldnn()
        found[f"{_PRODUCT} by oneDNN"] = lambda: layer(operand)
    return found


def _functions() -> dict[str, Callable[[], object]]:
    """Sigmoids of many numbers, by torch and by ours, and of one vector, one after the other."""
    given, out = torch.zeros(2, _NUMBERS)
    ours, taken = memory.empty((2, _NUMBERS), np.dtype(np.float32))
    ours[:] = 0
    return {
        f"{_MANY} by torch": lambda: torch.sigmoid(given, out=out),
        f"{_MANY} by ours": lambda: _sigmoids(ours, taken),
        _ONE: lambda: _in_a_row(ours, taken, _NUMBERS),
    }


def _quickest(seconds: Mapping[str, float], name: str) -> float:
    """Of the probes whose names begin so."""
    return min(found for probe, found in seconds.items() if probe.startswith(name))


def _bandwidth(size: int, repeat: int) -> float:
    """Bytes a second that a core reads from an array of `size` bytes."""
    run = _reading(size)
    run()
    return _bytes_read(size) / _best(run, repeat)


def _reading(size: int) -> Callable[[], object]:
    # Vectors that lie across two lines of the first cache would take twice as long to read.
    array = memory.empty((2, size // 128 * 16), np.dtype(np.float32))
    array[:] = 1
    return lambda: _read(array, _times(size))


def _times(size: int) -> int:
    return max(1, (8 << 20) // size)


def _bytes_read(size: int) -> int:
    return _times(size) * (size // 128 * 128)


# Two sums, because one waits for its additions and not for what it reads.
@numba.njit(fastmath=True, nogil=True)
def _read(array, times):  # type: ignore[no-untyped-def]
    total = np.float32(0)
    for time_ in range(times):
        first, second = np.float32(time_), np.float32(0)
        for place in range(array.shape[1]):
            first += array[0, place]
            second += array[1, place]
        total += first * second
    return total


_COMPILED: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}


@numba.njit(**_COMPILED)
def _sigmoids(given, out):  # type: ignore[no-untyped-def]
    for place in range(0, given.size, _LANES):
        store(out, place, sigmoid(load(given, place)))


@numba.njit(**_COMPILED)
def _in_a_row(given, out, times):  # type: ignore[no-untyped-def]
    vector = load(given, 0)
    for _ in range(times):
        vector = sigmoid(vector)
    store(out, 0, vector)


def _best(run: Callable[[], object], repeat: int) -> float:
    found = []
    for _ in range(repeat):
        start = time.perf_counter()
        run()
        found.append(time.perf_counter() - start)
    return min(found)

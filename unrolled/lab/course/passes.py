"""Running a cell in the course's layout: forward by `Network`, backward by the adjoint program.

Backward starts from caches, whoever made them: the derivative is the cell's, the values are theirs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from ...backends import reference
from ...backends.blocks import split_blocks, stack_blocks
from ...backends.steps import Array, Steps
from ...derivative import kept_values
from ...errors import InputError
from ...network import Network
from ...program import Program
from .arrays import Parameters, Sizes
from .layout import Cache, CourseCell


@dataclass(frozen=True, eq=False)
class Back:
    """The gradients that backpropagation through time gives.

    Attributes:
        x: (n_x, m, T_x) with respect to the input.
        states: for each state (n_a, m), with respect to what it was before the first step.
        parameters: `d` + key → with respect to the course's parameters.
    """

    x: Array
    states: tuple[Array, ...]
    parameters: dict[str, Array]


def step(
    course: CourseCell,
    xt: npt.ArrayLike,
    states: Sequence[npt.ArrayLike],
    parameters: Parameters,
) -> Cache:
    """One step forward: what it keeps.

    Args:
        course: the cell.
        xt: (n_x, m).
        states: each state before the step (n_a, m).
        parameters: the course's.
    """
    sizes = Sizes()
    x = sizes.array("xt", xt, "n_x", "m")[:, :, None]
    before = [
        sizes.array(f"{letter}_prev", state, "n_a", "m")
        for letter, state in zip(course.states, states, strict=True)
    ]
    return forward(course, x, before, [course.blocks(parameters, sizes)], [parameters])[0][0]


def sequence(
    course: CourseCell,
    x: npt.ArrayLike,
    first: npt.ArrayLike,
    parameters: Parameters,
    where: str = "",
) -> list[Cache]:
    """All steps forward: what each of them keeps.

    Args:
        course: the cell.
        x: (n_x, m, T_x).
        first: the first state before the first step (n_a, m); others begin with zeros.
        parameters: the course's.
        where: what stands behind the names in messages.
    """
    sizes = Sizes(where)
    x = sizes.array("x", x, "n_x", "m", "T_x")
    first = sizes.array(f"{course.states[0]}0", first, "n_a", "m")
    return forward(course, x, [first], [course.blocks(parameters, sizes)], [parameters])[0]


def forward(
    course: CourseCell,
    x: Array,
    initial: Sequence[Array],
    blocks: Sequence[Mapping[str, Array]],
    parameters: Sequence[Parameters],
) -> list[list[Cache]]:
    """Run a cell over a sequence, in one direction or in both.

    Args:
        course: the cell.
        x: (n_x, m, T_x).
        initial: for each state (directions · n_a, m); states left out begin with zeros.
        blocks: the catalogue's parameters of each direction; the second reads from the end.
        parameters: the course's, which the caches hold too.

    Returns:
        For each direction what each step keeps.
    """
    if not x.shape[2]:
        raise InputError("x has no steps; its shape is (n_x, m, T_x) with T_x of 1 or more.")
    states = [np.stack(np.split(array, len(blocks))).transpose(0, 2, 1) for array in initial]
    states += [np.zeros_like(states[0]) for _ in course.states[len(states) :]]
    network = Network(course.cell, (tuple(blocks),))
    trace = network.trace(x.transpose(2, 1, 0), tuple(states))
    found = []
    for direction, theirs in enumerate(parameters):
        values = [
            course.turned(ours, trace[ours, 0, direction]).transpose(0, 2, 1)
            for ours in course.cache.values()
        ]
        found.append([(*kept, theirs) for kept in zip(*values, strict=True)])
    return found


def step_back(course: CourseCell, gradients: Sequence[npt.ArrayLike], cache: Cache) -> Back:
    """One step of backpropagation through time.

    Args:
        course: the cell.
        gradients: with respect to each state after the step (n_a, m).
        cache: what the step kept.
    """
    opened = _open(course, [cache])
    after = [
        opened.sizes.array(f"d{letter}_next", gradient, "n_a", "m")
        for letter, gradient in zip(course.states, gradients, strict=True)
    ]
    return _backward(course, np.zeros_like(after[0])[:, :, None], after, opened)


def sequence_back(
    course: CourseCell, name: str, gradient: npt.ArrayLike, caches: Any, reverse: bool = False
) -> Back:
    """Backpropagation through time, where nothing but the output leaves the sequence.

    Args:
        course: the cell.
        name: what messages call the gradient.
        gradient: with respect to the output of each step (n_a, m, T). If that is fewer steps than
            were kept, the first T of these count, as in the course.
        caches: (list of what each step kept, x).
        reverse: whether the sequence was read from its end.
    """
    if not isinstance(caches, tuple | list) or len(caches) != 2 or isinstance(caches[0], Mapping):
        raise InputError(
            f"caches are what {course.name}_forward gives last: (list of each step's cache, x)."
        )
    dy = Sizes().array(name, gradient, "n_a", "m", "T_x")
    length = dy.shape[2]
    if not 0 < length <= len(caches[0]):
        raise InputError(
            f"{name} has {length} steps, and the caches hold {len(caches[0])}; it may have from 1 "
            "to as many as they hold."
        )
    opened = _open(course, caches[0][:length])
    opened.sizes.array(name, dy, "n_a", "m", "T_x")
    nothing = [np.zeros_like(dy[:, :, 0]) for _ in course.states]
    return _backward(course, dy, nothing, opened, reverse)


@dataclass(frozen=True, eq=False)
class _Opened:
    """What steps kept: our names → (T_x, n, m), the course's parameters, and the sizes."""

    values: Mapping[str, Array]
    parameters: Parameters
    sizes: Sizes


def _open(course: CourseCell, caches: Sequence[Cache]) -> _Opened:
    sizes = Sizes()
    columns: dict[str, list[Array]] = {ours: [] for ours in course.cache.values()}
    for cache in caches:
        course.check(cache)
        for (name, ours), entry in zip(course.cache.items(), cache, strict=False):
            array = sizes.array(f"{name} in a cache", entry, "n_x" if ours == "x" else "n_a", "m")
            columns[ours].append(course.turned(ours, array))
    values = {ours: np.stack(arrays) for ours, arrays in columns.items()}
    return _Opened(values, caches[0][-1], sizes)


def _backward(
    course: CourseCell,
    dy: Array,
    dlast: Sequence[Array],
    opened: _Opened,
    reverse: bool = False,
) -> Back:
    """Run the adjoint program over what the steps kept.

    Args:
        course: the cell.
        dy: (n_a, m, T_x) the gradient with respect to each step's output.
        dlast: for each state (n_a, m) its gradient after the step that was read last.
        opened: what the steps kept.
        reverse: whether the sequence was read from its end.
    """
    adjoint, sizes = _adjoint(course), opened.sizes
    batch, length = dy.shape[1:]
    numbers = {"I": sizes["n_x"], "H": sizes["n_a"]}
    read, kept, _ = adjoint.inputs
    groups = [np.concatenate([opened.values[n] for n in names], 1) for names in (read, kept)]
    result = reference.run(
        adjoint,
        numbers,
        [_rows(array) for array in (*groups, dy.transpose(2, 0, 1))],
        [array.T for array in dlast],
        stack_blocks(adjoint, course.blocks(opened.parameters, sizes)),
        Steps.dense(length, batch),
        reverse,
    )
    return Back(
        result.outputs[0].reshape(length, batch, -1).transpose(2, 1, 0),
        tuple(state.T for state in result.states),
        course.gradients(split_blocks(adjoint, numbers, result.totals)),
    )


def _rows(array: Array) -> Array:
    """(T, n, m) as rows of all steps (T · m, n)."""
    return array.transpose(0, 2, 1).reshape(-1, array.shape[1])


@lru_cache
def _adjoint(course: CourseCell) -> Program:
    """The cell's adjoint, given what the course's caches hold.

    What it needs beside, such as tanh(c), its first instructions compute: the forward program's.
    """
    forward, adjoint = course.cell.forward, course.cell.backward
    read, _, gradients = adjoint.inputs
    cached = tuple(ours for ours in course.cache.values() if ours not in read)
    missing: set[str] = set()
    needed = list(kept_values(adjoint))
    while needed:
        name = needed.pop()
        if name not in cached and name in forward.by_name:
            missing.add(name)
            needed.extend(forward.by_name[name].operands)
    again = (instruction for instruction in forward.instructions if instruction.name in missing)
    return replace(
        adjoint,
        inputs=(read, cached, gradients),
        instructions=(*again, *adjoint.instructions),
        sizes={**forward.sizes, **adjoint.sizes},
    )

"""Bidirectional and deep networks in the course's notation, of any cell of the lab.

Their parameters are those of the cell's own functions, with the direction or the number of the
layer behind each key: `Waa_forward Wax_forward ba_forward` … `Wy by`, or `Wa1 ba1 Wa2 ba2` … `Wy
by`. Which cell it is, the keys tell.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import count, takewhile
from typing import Any

import numpy as np
import numpy.typing as npt

from ...backends.steps import Array
from ...errors import InputError
from .arrays import Parameters, Sizes, predictions
from .layout import GRU, GRU_SIMPLIFIED, LSTM, RNN, RNN_TOGETHER, Cache, Caches, CourseCell
from .passes import Back, forward, sequence, sequence_back

CELLS = (RNN, RNN_TOGETHER, LSTM, GRU, GRU_SIMPLIFIED)
DIRECTIONS = ("_forward", "_backward")


def bidirectional_forward(
    x: npt.ArrayLike, a0: npt.ArrayLike, parameters: Parameters
) -> tuple[Array, Array, tuple[Caches, Caches]]:
    """One layer that reads a sequence in both directions (Schuster & Paliwal 1997).

    y<t> = softmax(Wy [a→<t>; a←<t>] + by), where a← at step t has read the steps from the last
    one back to t.

    Args:
        x: (n_x, m, T_x) the input.
        a0: (2 · n_a, m) the initial states [a→<0>; a←<T_x + 1>]; an LSTM's cell state begins
            with zeros.
        parameters: Wax_forward, Waa_forward, ba_forward, Wax_backward, Waa_backward, ba_backward,
            Wy (n_y, 2 · n_a), by (n_y, 1); or the keys of an LSTM or GRU (Wf_forward …), whose
            output is called a here too.

    Returns:
        a (2 · n_a, m, T_x), y_pred (n_y, m, T_x), and the caches of the two directions, each
        (list of each step's cache, x) by step of the sequence, as the cell's own function gives.

    Raises:
        InputError: if a parameter is missing, or an array does not fit.
    """
    parts = [_part(parameters, suffix) for suffix in DIRECTIONS]
    course = _course(parts[0], DIRECTIONS[0])
    known = _halves(a0)
    blocks = []
    for part, half, suffix in zip(parts, known, DIRECTIONS, strict=True):
        sizes = Sizes(f" ({suffix[1:]})")
        array = sizes.array("x", x, "n_x", "m", "T_x")
        sizes.array("a0", half, "n_a", "m")
        blocks.append(course.blocks(part, sizes))
    directions = forward(course, array, [np.concatenate(known)], blocks, parts)
    a = np.concatenate([_outputs(steps) for steps in directions])
    given = np.asarray(x)
    caches = ((directions[0], given), (directions[1], given))
    return a, predictions(parameters, "Wy", a, "2 · n_a"), caches


def bidirectional_backward(da: npt.ArrayLike, caches: Sequence[Caches]) -> dict[str, Array]:
    """Backpropagation through time, from the end for a→ and from the beginning for a←.

    Args:
        da: (2 · n_a, m, T_x) the gradient with respect to a, without what comes through other
            steps.
        caches: those of `bidirectional_forward`.

    Returns:
        dx (n_x, m, T_x), da0 (2 · n_a, m), and of each parameter of the two directions the
        gradient, `d` before its key: dWax_forward …

    Raises:
        InputError: if an array or the caches do not fit.
    """
    if not isinstance(caches, tuple | list) or len(caches) != 2:
        raise InputError("caches are what bidirectional_forward gives: those of two directions.")
    backs = []
    for half, part, suffix in zip(_halves(da, "da", 3), caches, DIRECTIONS, strict=True):
        course, steps = _of(part, suffix)
        if half.shape[2] != steps:
            raise InputError(
                f"da has {half.shape[2]} steps, and the caches hold {steps}; a bidirectional "
                "network begins at both ends, so it needs the gradient of every step."
            )
        backs.append(sequence_back(course, "da", half, part, suffix == DIRECTIONS[1]))
    return {
        "dx": backs[0].x + backs[1].x,
        "da0": np.concatenate([back.states[0] for back in backs]),
        **_gradients(backs, DIRECTIONS),
    }


def deep_forward(
    x: npt.ArrayLike, a0: Sequence[npt.ArrayLike], parameters: Parameters
) -> tuple[Array, Array, list[Caches]]:
    """Layers one above the other, each reading what the one below gives.

    a^[l]<t> = g(Wa^[l] [a^[l]<t−1>; a^[l−1]<t>] + ba^[l]), where a^[0] is x, and
    y<t> = softmax(Wy a^[L]<t> + by).

    Args:
        x: (n_x, m, T_x) the input.
        a0: for each layer (n_a, m) the initial state; layers may differ in n_a. An LSTM's cell
            state begins with zeros.
        parameters: Wa1 (n_a, n_a + n_x), ba1 (n_a, 1), Wa2, ba2 …, Wy (n_y, n_a of the last),
            by (n_y, 1); or the keys of another cell (Wf1 …), whose output is called a here too.

    Returns:
        a (n_a, m, T_x) of the last layer, y_pred (n_y, m, T_x), and for each layer the caches
        (list of each step's cache, what it read), as the cell's own function gives them.

    Raises:
        InputError: if a parameter is missing, or an array does not fit.
    """
    numbers = [*takewhile(lambda number: _part(parameters, number), map(str, count(1)))]
    if not numbers:
        raise InputError("no parameters end in 1; give those of each layer: Wa1, ba1, Wa2, ba2 …")
    if not isinstance(a0, list | tuple | np.ndarray) or len(a0) != len(numbers):
        raise InputError(
            f"a0 has an array (n_a, m) for each layer, of which the parameters have "
            f"{len(numbers)}; found {len(a0) if hasattr(a0, '__len__') else type(a0).__name__}."
        )
    below = Sizes().array("x", x, "n_x", "m", "T_x")
    caches: list[Caches] = []
    for number, first in zip(numbers, a0, strict=True):
        part = _part(parameters, number)
        steps = sequence(_course(part, number), below, first, part, f" of layer {number}")
        caches.append((steps, below))
        below = _outputs(steps)
    return below, predictions(parameters, "Wy", below), caches


def deep_backward(da: npt.ArrayLike, caches: Sequence[Caches]) -> dict[str, Any]:
    """Backpropagation through time and through the layers.

    Args:
        da: (n_a, m, T) the gradient with respect to a of the last layer, without what comes
            through later steps. If it has fewer steps than the caches, the first T count.
        caches: those of `deep_forward`.

    Returns:
        dx (n_x, m, T), da0 (for each layer (n_a, m)), and of each layer's parameters the gradient,
        `d` before its key: dWa1, dba1 …

    Raises:
        InputError: if an array or the caches do not fit.
    """
    if not isinstance(caches, tuple | list) or not caches:
        raise InputError("caches are what deep_forward gives: a list of each layer's caches.")
    numbers = [str(number) for number in range(1, len(caches) + 1)]
    backs: list[Back] = []
    above = da
    for part, number in zip(reversed(caches), reversed(numbers), strict=True):
        course, _ = _of(part, number)
        backs.insert(0, sequence_back(course, "da", above, part))
        above = backs[0].x
    return {
        "dx": above,
        "da0": [back.states[0] for back in backs],
        **_gradients(backs, numbers),
    }


def _part(parameters: Parameters, suffix: str) -> dict[str, npt.ArrayLike]:
    """The parameters whose keys end in a suffix, without it."""
    if not isinstance(parameters, Mapping):
        raise InputError(
            f"parameters are a dictionary of arrays by name; found a {type(parameters).__name__}."
        )
    keys = dict.fromkeys(key for course in CELLS for key in course.keys)
    return {key: parameters[key + suffix] for key in keys if key + suffix in parameters}


def _course(part: Parameters, suffix: str) -> CourseCell:
    """The cell to which the keys belong: the one that misses the smallest share of its own."""

    def fit(course: CourseCell) -> tuple[float, int]:
        present = len(set(course.keys) & {*part})
        return present / len(course.keys), present

    found = max(CELLS, key=fit)
    if not fit(found)[1]:
        raise InputError(
            f"no parameters end in {suffix}; give those of one cell: "
            + "; or ".join(", ".join(key + suffix for key in course.keys) for course in CELLS)
            + "."
        )
    return found


def _of(caches: Any, suffix: str) -> tuple[CourseCell, int]:
    """Whose caches these are, and of how many steps."""
    try:
        return _course(caches[0][0][-1], suffix), len(caches[0])
    except (TypeError, IndexError, KeyError):
        raise InputError(
            "the caches of a direction or a layer are (list of each step's cache, x), as "
            "bidirectional_forward and deep_forward give them."
        ) from None


def _halves(given: npt.ArrayLike, name: str = "a0", axes: int = 2) -> list[Array]:
    array = Sizes().array(name, given, *("2 · n_a", "m", "T_x")[:axes])
    if len(array) % 2:
        raise InputError(f"{name} has {len(array)} rows; it has 2 · n_a: a→ above, a← below it.")
    return np.split(array, 2)


def _outputs(steps: Sequence[Cache]) -> Array:
    return np.stack([cache[0] for cache in steps], axis=2)


def _gradients(backs: Iterable[Back], suffixes: Iterable[str]) -> dict[str, Array]:
    return {
        key + suffix: gradient
        for back, suffix in zip(backs, suffixes, strict=True)
        for key, gradient in back.parameters.items()
    }

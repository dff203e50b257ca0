"""The standard draws of the course lab: what each function is asked, with exact numbers to hit.

Arrays come one after another from the legacy generator of a fixed seed, in the order in which they
stand here. The course tests its RNN and LSTM so (2021); the same is done for the GRU.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from string import ascii_lowercase
from typing import Any

import numpy as np

from ...backends.steps import Array
from ..course import characters, gru, lstm, rnn
from ..course.layout import GRU, GRU_SIMPLIFIED, LSTM, RNN, CourseCell

M = 10  # examples
N_X, N_A, N_Y = 3, 5, 2
STEPS, LSTM_STEPS = 4, 7
SYMBOLS = 27  # of the character lab: the newline and a to z

_CELL, _GATE, _BIAS = (N_A, N_A), (N_A, N_A + N_X), (N_A, 1)
_X, _A = (N_X, M), (N_A, M)
_OUTPUT = {"Wy": (N_Y, N_A), "by": (N_Y, 1)}
_RNN = {"Waa": _CELL, "Wax": (N_A, N_X), "Wya": (N_Y, N_A), "ba": _BIAS, "by": (N_Y, 1)}
_GRU = {"Wu": _GATE, "bu": _BIAS, "Wr": _GATE, "br": _BIAS, "Wc": _GATE, "bc": _BIAS}
_LSTM_GATES = {f"{kind}{gate}": _GATE if kind == "W" else _BIAS for gate in "fioc" for kind in "Wb"}

# The order in which the parameters are drawn. For the way back the course draws Wax before Waa,
# and lstm_backward has no output layer.
_PARAMETERS = {
    "rnn": _RNN,
    "rnn back": {key: _RNN[key] for key in ("Wax", "Waa", "Wya", "ba", "by")},
    "lstm": _LSTM_GATES | _OUTPUT,
    "lstm gates": _LSTM_GATES,
    "gru": _GRU | _OUTPUT,
}

_NOTE_LSTM_BACKWARD = (
    f"Here da has {STEPS} steps and the caches hold {LSTM_STEPS}, as in the course: only the first "
    f"{STEPS} caches count, so the number of steps is da.shape[2]."
)


@dataclass(frozen=True, eq=False)
class Task:
    """What one function of the lab is asked, and what it gives.

    Attributes:
        name: of the function.
        function: ours.
        arguments: name → what it is called with, in order.
        results: the names of what it returns; none if that is a dictionary of arrays.
        course: the cell; None for the character lab.
        changes: the arguments that it changes in place.
        note: what is unusual about the draws; "" if nothing.
    """

    name: str
    function: Callable[..., Any]
    arguments: Mapping[str, Any]
    results: tuple[str, ...] = ()
    course: CourseCell | None = None
    changes: tuple[str, ...] = ()
    note: str = ""


class Draws:
    """Successive arrays of normal numbers, from the legacy generator of a seed."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.RandomState(seed)

    def __call__(self, *shape: int) -> Array:
        """The next array."""
        return self._random.randn(*shape)

    def all(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
        """Name → array, drawn in the order of the names."""
        return {name: self(*shape) for name, shape in shapes.items()}


@dataclass(frozen=True)
class _Family:
    """The four functions of one cell.

    Attributes:
        course: the cell.
        module: where its functions are.
        y: what the predictions are called, of one step and of all.
        steps: how many steps a sequence has.
        orders: in which order parameters are drawn for cell_forward, forward, cell_backward and
            backward.
    """

    course: CourseCell
    module: Any
    y: tuple[str, str]
    steps: int
    orders: tuple[str, str, str, str]

    def task(self, kind: str) -> Task:
        """The task of the function of a kind: cell_forward, forward, cell_backward, backward."""
        name = f"{self.course.name}_{kind}"
        draw = Draws(1)
        arguments = self._asked(kind, draw)
        if "backward" in kind:
            *_, kept = self._function(kind.replace("backward", "forward"))(*arguments.values())
            arguments = self._gradients(kind, draw) | {_KEPT[kind]: kept}
        note = _NOTE_LSTM_BACKWARD if name == "lstm_backward" else ""
        results = self._results(kind) if "forward" in kind else ()
        return Task(name, self._function(kind), arguments, results, self.course, note=note)

    def _function(self, kind: str) -> Callable[..., Any]:
        function: Callable[..., Any] = getattr(self.module, f"{self.course.name}_{kind}")
        return function

    def _asked(self, kind: str, draw: Draws) -> dict[str, Any]:
        """What the forward function is called with."""
        asked: dict[str, Any] = {}
        if "cell" in kind:
            asked["xt"] = draw(*_X)
            asked |= {f"{state}_prev": draw(*_A) for state in self.course.states}
        else:
            asked = {"x": draw(N_X, M, self.steps), f"{self.course.states[0]}0": draw(*_A)}
        drawn = draw.all(_PARAMETERS[self.orders[[*_KEPT].index(kind)]])
        keys = {*self.course.keys, "by", "Wya" if self.course is RNN else "Wy"}
        missing = {key: np.zeros(_OUTPUT[key]) for key in keys - {*drawn}}
        parameters = {key: array for key, array in (drawn | missing).items() if key in keys}
        return asked | {"parameters": parameters}

    def _gradients(self, kind: str, draw: Draws) -> dict[str, Any]:
        if "cell" in kind:
            return {f"d{state}_next": draw(*_A) for state in self.course.states}
        return {f"d{self.course.states[0]}": draw(N_A, M, STEPS)}

    def _results(self, kind: str) -> tuple[str, ...]:
        first, *others = self.course.states
        if "cell" in kind:
            return (*(f"{state}_next" for state in self.course.states), self.y[0], _KEPT[kind])
        return (first, self.y[1], *others, _KEPT[kind])


# What a function keeps, or is given of what was kept.
_KEPT = {
    "cell_forward": "cache",
    "forward": "caches",
    "cell_backward": "cache",
    "backward": "caches",
}

_FAMILIES = (
    _Family(RNN, rnn, ("yt_pred", "y_pred"), STEPS, ("rnn", "rnn", "rnn back", "rnn back")),
    _Family(LSTM, lstm, ("yt_pred", "y"), LSTM_STEPS, ("lstm", "lstm", "lstm", "lstm gates")),
    _Family(GRU, gru, ("yt_pred", "y_pred"), STEPS, ("gru",) * 4),
    _Family(GRU_SIMPLIFIED, gru, ("yt_pred", "y_pred"), STEPS, ("gru",) * 4),
)


def _characters(draw: Draws, n_a: int) -> dict[str, Array]:
    """The parameters of the character lab, in the order of drawing."""
    return draw.all(
        {
            "Wax": (n_a, SYMBOLS),
            "Waa": (n_a, n_a),
            "Wya": (SYMBOLS, n_a),
            "b": (n_a, 1),
            "by": (SYMBOLS, 1),
        }
    )


def _clip() -> Task:
    shapes = {"dWax": (5, 3), "dWaa": (5, 5), "dWya": (2, 5), "db": (5, 1), "dby": (2, 1)}
    gradients = {name: 10 * array for name, array in Draws(3).all(shapes).items()}
    return Task("clip", characters.clip, {"gradients": gradients, "maxValue": 10})


def _sample() -> Task:
    char_to_ix = {character: ix for ix, character in enumerate("\n" + ascii_lowercase)}
    asked = {"parameters": _characters(Draws(24), 100), "char_to_ix": char_to_ix, "seed": 0}
    return Task("sample", characters.sample, asked, ("indices",))


def _optimize() -> Task:
    draw = Draws(1)
    asked: dict[str, Any] = {
        "X": [12, 3, 5, 11, 22, 3],
        "Y": [4, 14, 11, 22, 25, 26],
        "a_prev": draw(100, 1),
        "parameters": _characters(draw, 100),
        "learning_rate": 0.01,
    }
    results = ("loss", "gradients", "a_last")
    return Task("optimize", characters.optimize, asked, results, changes=("parameters",))


_TASKS: dict[str, Callable[[], Task]] = {
    f"{family.course.name}_{kind}": partial(family.task, kind)
    for family in _FAMILIES
    for kind in _KEPT
} | {"clip": _clip, "sample": _sample, "optimize": _optimize}

NAMES = tuple(_TASKS)


@cache
def task(name: str) -> Task:
    """The task of one of `NAMES`. Its arrays are shared: copy what may be changed."""
    return _TASKS[name]()

"""Where the course keeps the parts of a cell: which of its keys is which block of the catalogue's.

The course is "Building a recurrent neural network, step by step" (Ng, Katanforoosh & Mourri 2018).
Its gates' matrices multiply [a_prev; x_t], and what a step keeps is a tuple.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ... import cells
from ...backends.steps import Array
from ...cell import Cell
from ...errors import InputError
from .arrays import Parameters, Sizes

Cache = tuple[Any, ...]
Caches = tuple[list[Cache], Array]


@dataclass(frozen=True)
class Gate:
    """The keys of a gate's parameters.

    Attributes:
        weights: the key of one matrix that multiplies [a_prev; x_t], or the keys of two, for
            a_prev and for x_t.
        bias: the key of its bias.
        replaces: whether the gate replaces where the catalogue's keeps: it is 1 − ours, so what
            stands inside its sigmoid has the other sign.
    """

    weights: tuple[str] | tuple[str, str]
    bias: str
    replaces: bool = False

    def blocks(self, parameters: Parameters, sizes: Sizes) -> tuple[Array, Array, Array]:
        """The catalogue's U (n_a, n_a), W (n_a, n_x) and b (n_a,)."""
        if len(self.weights) == 2:
            U = sizes.parameter(parameters, self.weights[0], "n_a", "n_a")
            W = sizes.parameter(parameters, self.weights[1], "n_a", "n_x")
        else:
            both = sizes.parameter(parameters, self.weights[0], "n_a", "n_a + n_x")
            U, W = np.split(both, [sizes["n_a"]], axis=1)
        b = sizes.parameter(parameters, self.bias, "n_a", "1")[:, 0]
        return (-U, -W, -b) if self.replaces else (U, W, b)

    def gradients(self, dU: Array, dW: Array, db: Array) -> dict[str, Array]:
        """`d` + key → gradient, given those of the catalogue's blocks."""
        if self.replaces:
            dU, dW, db = -dU, -dW, -db
        if len(self.weights) == 2:
            found = {f"d{self.weights[1]}": dW, f"d{self.weights[0]}": dU}
        else:
            found = {f"d{self.weights[0]}": np.hstack([dU, dW])}
        return {**found, f"d{self.bias}": db[:, None]}


@dataclass(frozen=True, eq=False)
class CourseCell:
    """A cell of the catalogue in the course's layout.

    Attributes:
        name: what the course's functions of this cell begin with.
        cell: the equations.
        gates: the cell's blocks → their keys, in the order of the course's gradients.
        cache: what a step keeps, in order, the parameters aside: the course's name → ours. The
            new states come first.
    """

    name: str
    cell: Cell
    gates: Mapping[str, Gate]
    cache: Mapping[str, str]

    @property
    def states(self) -> tuple[str, ...]:
        """The course's letters of the states, the output first."""
        return tuple(name[0] for name in [*self.cache][: len(self.cell.states)])

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of the cell's parameters."""
        return tuple(key for gate in self.gates.values() for key in (*gate.weights, gate.bias))

    def blocks(self, parameters: Parameters, sizes: Sizes) -> dict[str, Array]:
        """The catalogue's parameters, given the course's; n_a and n_x are known."""
        found: dict[str, Array] = {}
        for block, gate in self.gates.items():
            U, W, b = gate.blocks(parameters, sizes)
            found |= {f"U.{block}": U, f"W.{block}": W, f"b.{block}": b}
        return found

    def gradients(self, blocks: Mapping[str, Array]) -> dict[str, Array]:
        """`d` + key → gradient, given those of the catalogue's parameters."""
        found: dict[str, Array] = {}
        for block, gate in self.gates.items():
            found |= gate.gradients(*(blocks[f"{family}.{block}"] for family in "UWb"))
        return found

    def turned(self, ours: str, values: Array) -> Array:
        """Values of the catalogue as the course counts them, or the course's as we do."""
        return 1 - values if ours in self.gates and self.gates[ours].replaces else values

    def check(self, cache: Any) -> None:
        """Raise an InputError unless this has the entries that a step of this cell keeps."""
        expected = (*self.cache, "parameters")
        if isinstance(cache, tuple | list) and len(cache) == len(expected):
            return
        found = f"{len(cache)} entries" if isinstance(cache, tuple | list) else type(cache).__name__
        others = [
            f"{other.name}_cell_forward"
            for other in (RNN, LSTM, GRU, GRU_SIMPLIFIED)
            if isinstance(cache, tuple | list) and len(other.cache) + 1 == len(cache)
        ]
        hint = f", as many as a cache of {others[0]} has" if others else ""
        raise InputError(
            f"a cache of {self.name}_cell_forward is ({', '.join(expected)}), {len(expected)} "
            f"entries; found {found}{hint}."
        )


_RNN_CACHE = {"a_next": "h", "a_prev": "h_prev", "xt": "x"}

RNN = CourseCell("rnn", cells.simple, {"h": Gate(("Waa", "Wax"), "ba")}, _RNN_CACHE)

# The deep networks of the course write the same cell with one matrix for [a_prev; x_t].
RNN_TOGETHER = CourseCell("rnn", cells.simple, {"h": Gate(("Wa",), "ba")}, _RNN_CACHE)

# Those of the character-level lab call the bias b.
RNN_CHARACTERS = CourseCell("rnn", cells.simple, {"h": Gate(("Waa", "Wax"), "b")}, _RNN_CACHE)

LSTM = CourseCell(
    "lstm",
    cells.lstm,
    {
        "f": Gate(("Wf",), "bf"),
        "i": Gate(("Wi",), "bi"),
        "g": Gate(("Wc",), "bc"),
        "o": Gate(("Wo",), "bo"),
    },
    {
        "a_next": "h",
        "c_next": "c",
        "a_prev": "h_prev",
        "c_prev": "c_prev",
        "ft": "f",
        "it": "i",
        "cct": "g",
        "ot": "o",
        "xt": "x",
    },
)

GRU = CourseCell(
    "gru",
    cells.gru_original,
    {
        "z": Gate(("Wu",), "bu", replaces=True),
        "r": Gate(("Wr",), "br"),
        "n": Gate(("Wc",), "bc"),
    },
    {"c_next": "h", "c_prev": "h_prev", "ut": "z", "rt": "r", "cct": "n", "xt": "x"},
)

GRU_SIMPLIFIED = CourseCell(
    "gru_simplified",
    cells.gru_simplified,
    {"z": Gate(("Wu",), "bu", replaces=True), "n": Gate(("Wc",), "bc")},
    {"c_next": "h", "c_prev": "h_prev", "ut": "z", "cct": "n", "xt": "x"},
)

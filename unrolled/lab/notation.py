"""The field's notation for one number of a run: a_5^(2)[3]<4>.

Unit 5, example 2, layer 3, step 4, all counted from one; step 0 of a state is the initial state.
An arrow names the direction of a bidirectional network, a leading d a gradient.
"""

import difflib
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from ..backends.steps import Array
from ..cell import Cell
from ..errors import InputError
from ..network import Gradients, Trace
from ..views.latex import FIELD, symbol_of

ARROWS = ("→", "←")
_OVER = (r"\overrightarrow", r"\overleftarrow")
_EXAMPLE = "a_5^(2)[3]<4>: unit 5, example 2, layer 3, step 4, counted from one"

# The course's words for values (Ng 2018) → the values that they can mean, the first that is there.
# Its update gate Γ_u replaces the state; where a cell has z instead, `_update_gate` says so.
_COURSE = {
    "Γ_i": ("i",),
    "Γ_u": ("u", "i"),
    "Γ_f": ("f",),
    "Γ_o": ("o",),
    "Γ_r": ("r",),
    "c~": ("g", "n"),
    "h~": ("n",),
}


@dataclass(frozen=True)
class Place:
    """Where one number of a run stands; everything is counted from one.

    Attributes:
        name: a value of the cell, that of the network's output (`output_name`), or a block.
        index: (unit,) of a value, () for all its units; (unit,) or (row, column) of a block.
        example: row of the batch; None for a parameter.
        layer: None for the network's input and output.
        step: None for a parameter; 0 for the state before the first step.
        direction: 0, or 1 for the one that reads from the end; None where there is one only, and
            for what both share.
        gradient: whether it is the gradient with respect to the number, not the number.
        several: whether the network has several layers, so that a parameter must say which.
    """

    name: str
    index: tuple[int, ...]
    example: int | None = None
    layer: int | None = None
    step: int | None = None
    direction: int | None = None
    gradient: bool = False
    several: bool = False

    @property
    def parameter(self) -> bool:
        """Whether it is an entry of a block of parameters."""
        return "." in self.name

    @property
    def unit(self) -> int:
        """The unit of a value."""
        return self.index[0]

    @property
    def key(self) -> tuple[str, int, int]:
        """What a trace is asked for: name, layer and direction, counted from zero."""
        return self.name, (self.layer or 1) - 1, self.direction or 0

    @property
    def where(self) -> tuple[int, int]:
        """Step and example, counted from zero: where to look in an array (T, B, …)."""
        return (self.step or 1) - 1, (self.example or 1) - 1

    def __str__(self) -> str:
        before = "d" * self.gradient + ("" if self.direction is None else ARROWS[self.direction])
        if self.parameter:
            layer = f"[{self.layer}]" if self.several else ""
            return f"{before}{self.name}[{','.join(map(str, self.index))}]{layer}"
        layer = "" if self.layer is None else f"[{self.layer}]"
        unit = f"_{self.unit}" if self.index else ""
        return f"{before}{self.name}{unit}^({self.example}){layer}<{self.step}>"

    @property
    def latex(self) -> str:
        """The name in LaTeX."""
        index = ",".join(map(str, self.index))
        if self.parameter:
            block = FIELD.block(self.name)
            text = pointed(f"{{{block}}}" if "^" in block else block, self.direction)
            text += f"^{{[{self.layer}]}}" if self.several else ""
            return (FIELD.gradient.format(text) if self.gradient else text) + f"[{index}]"
        letter, _, mark = self.name.partition("_")
        layer = "" if self.layer is None else f"[{self.layer}]"
        raised = rf"({self.example}){layer}\langle {self.step}\rangle"
        raised = rf"\mathrm{{{mark.replace('_', ',')}}}{raised}" if mark else raised
        text = rf"{pointed(symbol_of(letter), self.direction)}_{{{index}}}^{{{raised}}}"
        return FIELD.gradient.format(text) if self.gradient else text


def pointed(text: str, direction: int | None) -> str:
    """LaTeX with the arrow of a direction above it, or as it is if there is none."""
    return text if direction is None else f"{_OVER[direction]}{{{text}}}"


def place_of(source: Trace | Gradients, text: str) -> Place:
    """Find the number that a text names.

    Args:
        source: a trace, or gradients, of which `dh_5<4>` names the gradient and `h_5<4>` the value.
        text: in the notation of this page, its parts in any order, those left out of which there
            is one only; LaTeX is read too.

    Raises:
        InputError: if the text names nothing, several numbers, or one that is not there.
    """
    return _Reader(source, text).place()


def output_name(cell: Cell) -> str:
    """What the network's output is called: y, or y_out if the cell has a value y of its own."""
    return "y_out" if "y" in cell.names else "y"


def known_names(cell: Cell) -> tuple[str, ...]:
    """The names of a cell's values and blocks, and the words that stand for some of them."""
    out = output_name(cell)
    words = [word for word, meanings in _COURSE.items() if set(meanings) & set(cell.names)]
    blocks = cell.sizes.shapes
    return tuple(dict.fromkeys([*cell.names, "a", "a_prev", out, *words, *blocks]))


def value_at(source: Trace | Gradients, place: Place) -> float:
    """The number at a place.

    Raises:
        InputError: if the trace did not keep it.
    """
    return float(vector_at(source, place)[tuple(i - 1 for i in place.index)])


def vector_at(source: Trace | Gradients, place: Place) -> Array:
    """All units of the value that a place is in, or the whole block of a parameter."""
    gradients = source if isinstance(source, Gradients) and place.gradient else None
    trace = source.trace if isinstance(source, Gradients) else source
    cell = trace.network.cell
    name, layer, direction = place.key
    if place.parameter:
        return np.asarray((gradients or trace.network).params[layer][direction][name])
    if name not in cell.names:
        return np.asarray((gradients or trace).y[place.where])
    if name == cell.equations.inputs[0]:
        if gradients is None:
            return np.asarray(_read_by(trace, layer)[place.where])
        backs = gradients.layers[layer]
        backs = backs if place.direction is None else (backs[direction],)
        return np.asarray(sum(one.x[place.where] for one in backs))
    if place.step == 0:
        place = replace(place, name=f"{name}_prev", step=step_after(trace, place))
    try:
        return np.asarray((gradients or trace)[place.key][place.where])
    except KeyError:
        raise InputError(
            f"{place.name} was not kept: this trace was made with names="
            f"{', '.join(trace.layers[layer][direction].names) or '()'}. "
            "network.trace(x) without names= keeps every value."
        ) from None


def _read_by(trace: Trace, layer: int) -> Array:
    """(T, B, I) what a layer reads."""
    if layer == 0:
        return trace.x
    return np.concatenate([one.y for one in trace.layers[layer - 1]], axis=2)


def stretch_of(trace: Trace, place: Place) -> tuple[int, int]:
    """First and last step of what is read without a reset around a place; step 0 has the first."""
    ragged = trace.ragged
    count, step = ragged.steps.active[0], place.step or 0
    starts = ragged.places[:count] // trace.x.shape[1] + 1
    ends = starts + ragged.steps.lengths[:count] - 1
    mine = ragged.rows[:count] == (place.example or 1) - 1
    if step == 0:
        step = int(ends[mine].max() if place.direction == 1 else 1)
    mine &= (starts <= step) & (step <= ends)
    return int(starts[mine][0]), int(ends[mine][0])


def step_before(trace: Trace, place: Place) -> int:
    """The step that a direction read before this one; 0 if it began with this one."""
    first, last = stretch_of(trace, place)
    if place.step == (last if place.direction == 1 else first):
        return 0
    return (place.step or 0) + (1 if place.direction == 1 else -1)


def step_after(trace: Trace, place: Place) -> int | None:
    """The step that a direction reads after this one; None if this was the last."""
    first, last = stretch_of(trace, place)
    if place.step == 0:
        return last if place.direction == 1 else first
    if place.step == (first if place.direction == 1 else last):
        return None
    return (place.step or 0) + (-1 if place.direction == 1 else 1)


def unit_below(trace: Trace, place: Place) -> Place:
    """Where a unit comes from that a layer reads, or the network gives: the state of a layer."""
    network = trace.network
    layer = network.num_layers if place.layer is None else place.layer - 1
    state = network.cell.states[0]
    size = trace.layers[layer - 1][0].y.shape[2]
    direction, unit = divmod(place.unit - 1, size)
    return replace(
        place,
        name=state,
        index=(unit + 1,),
        layer=layer,
        direction=direction if network.directions == 2 else None,
    )


@dataclass(frozen=True)
class _Written:
    """The parts of a text, as they were found; None for one that is missing."""

    text: str
    head: str  # what is left: letter and unit
    surely_gradient: bool
    example: int | None
    layer: int | None
    step: int | None
    direction: int | None
    entry: tuple[int, ...] | None  # [2,3] behind a block

    @classmethod
    def read(cls, text: str) -> "_Written":
        plain, directions = _plain(text)
        if len(directions) > 1:
            raise InputError(f"'{text}' names both directions; one number has one.")
        found: dict[str, tuple[int, ...] | None] = {}
        for part, pattern in (
            ("entry", r"(?<=\w)\[(\d+(?:,\d+)+)\]" if "." not in plain else r"\[(\d+(?:,\d+)*)\]"),
            ("example", r"\((\d+)\)"),
            ("layer", r"\[(\d+)\]"),
            ("step", r"<(\d+)>"),
        ):
            match = re.search(pattern, plain)
            found[part] = tuple(map(int, match[1].split(","))) if match else None
            plain = plain.replace(match[0], "", 1) if match else plain
        head = plain.replace("^", "").removesuffix("_")
        if not re.fullmatch(r"∂?[^\W\d]\w*~?(\.\w+|~?_\w+)?", head):
            raise InputError(f"'{text}' names no number. Write one like {_EXAMPLE}.")
        example, layer, step = ((found[p] or (None,))[0] for p in ("example", "layer", "step"))
        return cls(
            text, head.removeprefix("∂"), head.startswith("∂"), example, layer, step,
            next(iter(directions), None), found["entry"],
        )  # fmt: skip


# What people write → what is read.
_SPELLINGS = (
    (r"\\(left|right)(?![a-z])|\\[,;:! ]|\$", ""),
    (r"\\langle|[⟨‹〈]", "<"),
    (r"\\rangle|[⟩›〉]", ">"),
    (r"\\(overrightarrow|vec|rightarrow|to)(?![a-z])|\u20d7|\bforward\b", "→"),
    (r"\\(overleftarrow|leftarrow)(?![a-z])|\u20d6|\bbackward\b", "←"),
    (r"\\(mathrm|mathit|text|operatorname)\{d\}|\\partial|∂", "∂"),
    (r"((?:_\{?\d+\}?)?)\^\{?(?:\\mathrm\{)?([A-Za-z]\w*)", r"_\2\1^"),  # h_{2}^{prev}
    (r"\\(mathrm|mathit|mathbf|text|operatorname|boldsymbol)(?![a-z])", ""),
    (r"\\(?:wide)?tilde\s*\{?(\w)\}?|(\w)\u0303", r"\1\2~"),
    (r"\\?Gamma", "Γ"),
    (r"\\(?=[a-zA-Z_])|[{}\s]", ""),
)


def _plain(text: str) -> tuple[str, set[int]]:
    """The text in one spelling, and the directions that it names."""
    plain = unicodedata.normalize("NFD", str(text))
    for pattern, meaning in _SPELLINGS:
        plain = re.sub(pattern, meaning, plain)
    directions = {number for number, arrow in enumerate(ARROWS) if arrow in plain}
    plain = plain.replace("→", "").replace("←", "")
    return unicodedata.normalize("NFC", plain), directions


class _Reader:
    """Finds what a text means for a run."""

    def __init__(self, source: Trace | Gradients, text: str) -> None:
        self.written = _Written.read(text)
        self.gradients = isinstance(source, Gradients)
        self.trace = source.trace if isinstance(source, Gradients) else source
        self.network = self.trace.network
        self.cell = self.network.cell
        self.input = self.cell.equations.inputs[0]

    def place(self) -> Place:
        name, unit, gradient = self._name()
        if gradient and not self.gradients:
            raise InputError(
                f"'{self.written.text}' is a gradient, and a trace has none. "
                "gradients = trace.backward(dy) has: lab.at(gradients, …)."
            )
        if "." in name:
            return self._parameter(name, gradient)
        if self.written.entry is not None:
            raise self._error(f"{name} is a value; write its unit as {name}_{unit or 1}")
        example = self._one("example", self.written.example, self.trace.y.shape[1])
        place = Place(name, (0,), example, self._layer(name), self._step(name, example))
        place = replace(place, direction=self._direction(name, gradient), gradient=gradient)
        size = len(vector_at(self.trace, replace(place, gradient=False)))
        return replace(place, index=(self._one("unit", unit, size, name),))

    def _name(self) -> tuple[str, int | None, bool]:
        """The name of a value or block, its unit if it has one, and whether d stands before it."""
        head = self.written.head
        base, _, digits = head.rpartition("_")
        splits = [(base, int(digits))] if base and digits.isdecimal() else []
        for name, unit in [*splits, (head, None)]:
            if not self.written.surely_gradient and (found := self._meaning(name)):
                return found, unit, False
            bare = name if self.written.surely_gradient else name.removeprefix("d")
            gradient = self.written.surely_gradient or bare != name
            if gradient and (found := self._meaning(bare)):
                return found, unit, True
        raise self._unknown(splits[0][0] if splits else head)

    def _meaning(self, name: str) -> str | None:
        if name in (*self.cell.names, *self.cell.sizes.shapes):
            return name
        if name == output_name(self.cell):
            return name
        if name in ("a", "a_prev"):
            return self.cell.states[0] + name[1:]
        if name == "x":
            return self.input
        for meaning in _COURSE.get(name, ()):
            if meaning in self.cell.names:
                return meaning
        if name == "Γ_u" and "z" in self.cell.names:
            raise self._update_gate()
        return None

    def _update_gate(self) -> InputError:
        state = self.cell.states[0]
        rule = next(str(e) for e in self.cell.equations.equations if e.name == state)
        return InputError(
            f"Γ_u, the course's update gate, is the part of the state that is replaced; cell "
            f"'{self.cell.name}' has z instead: {rule}. Ask for z: where z keeps the old state, "
            "Γ_u is 1 − z."
        )

    def _unknown(self, name: str) -> InputError:
        known = known_names(self.cell)
        near = difflib.get_close_matches(name, known, 1) or difflib.get_close_matches(
            name.removeprefix("d"), known, 1
        )
        hint = f" Did you mean {near[0]}?" if near else ""
        return InputError(
            f"'{self.written.text}': cell '{self.cell.name}' has no value {name}; it has "
            f"{_listed(self.cell.names)}, and the words {_listed(known[len(self.cell.names) :])} "
            f"are understood.{hint}"
        )

    def _parameter(self, name: str, gradient: bool) -> Place:
        written = self.written
        if written.step is not None or written.example is not None:
            raise self._error(f"{name} is a parameter, the same for every step and example")
        shape = self.network.params[0][0][name].shape
        layer = self._one("layer", written.layer, self.network.num_layers)
        direction = self._direction(name, gradient)
        shape = self.network.params[layer - 1][direction or 0][name].shape
        if written.entry is None or len(written.entry) != len(shape):
            letters = "[2,3]" if len(shape) == 2 else "[2]"
            raise self._error(f"an entry of {name}, of shape {shape}, is written {name}{letters}")
        for what, number, size in zip(("row", "column"), written.entry, shape, strict=False):
            self._one(what, number, size)
        several = self.network.num_layers > 1
        return Place(name, written.entry, None, layer, None, direction, gradient, several)

    def _layer(self, name: str) -> int | None:
        written, count = self.written.layer, self.network.num_layers
        if name == self.input:
            layer = self._one("layer", 1 if written is None else written, count)
            return None if layer == 1 else layer
        if name not in self.cell.names:
            if written not in (None, count):
                raise self._error(f"y is the output of the last layer, {count}; ask for h")
            return None
        return self._one("layer", written, count)

    def _step(self, name: str, example: int) -> int:
        length = int(self.trace.lengths[example - 1])
        step = self.written.step
        if length == 0:
            raise self._error(f"example {example} has no steps")
        if step == 0 and name in self.cell.states:
            return 0
        if step == 0:
            raise self._error("steps are counted from 1; only states have a step 0, the initial")
        if step is not None and length < step <= len(self.trace.y):
            raise self._error(f"example {example} ends with step {length}")
        return self._one("step", step, length)

    def _direction(self, name: str, gradient: bool) -> int | None:
        given = self.written.direction
        if self.network.directions == 1:
            if given == 1:
                raise self._error("this network reads forward only")
            return None
        if name == self.input and (given is None or not gradient):
            return None
        if name == output_name(self.cell):
            if given is not None:
                raise self._error("y is the output of both directions; ask for h")
            return None
        if given is None:
            raise self._error(
                f"this network reads in both directions: say →{name} or ←{name}, or put the word "
                "forward or backward behind"
            )
        return given

    def _one(self, what: str, number: int | None, count: int, name: str | None = None) -> int:
        """A number from 1 to `count`, which may be left out if there is one only."""
        if number is None and count == 1:
            return 1
        if number is None:
            parts = {"example": "(2)", "layer": "[2]", "step": "<2>"}
            raise self._error(
                f"say which {what}: there are {count}, so add {parts.get(what, f'it to {name}_')}"
            )
        if not 1 <= number <= count:
            known = f"they are counted from 1 to {count}" if count > 1 else "there is one, 1"
            raise self._error(f"there is no {what} {number}; {known}")
        return number

    def _error(self, problem: str) -> InputError:
        return InputError(f"'{self.written.text}': {problem}.")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)

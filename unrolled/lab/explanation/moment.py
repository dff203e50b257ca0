"""One step of one direction for one example: every vector that it knows, on the way back too."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property

import numpy as np

from ...backends.steps import Array
from ...cell import Cell
from ...derivative import differentiate
from ...language.expressions import Expression, Name, walk
from ...language.sizes import ONE
from ...listing import unnamed
from ...network import Gradients, Trace
from ...program import STEP_NUMBER, Program, count_of, is_count
from ...views.latex import FIELD, symbol_of
from ..notation import ARROWS, Place, pointed, step_after, step_before, stretch_of, vector_at
from .formula import Filling, evaluate


@dataclass(frozen=True)
class Adjoint:
    """The adjoint of a cell in which every named value's gradient has its equation.

    Attributes:
        program: the adjoint program.
        gradients: value → the name of its gradient.
        given: name of a gradient that comes from the output → the value.
        received: name of a gradient that the step after hands back → the state.
        meaning: name → its equation, in which only named values and their gradients occur, and
            what goes into a function (`i_pre`).
    """

    program: Program
    gradients: Mapping[str, str]
    given: Mapping[str, str]
    received: Mapping[str, str]
    meaning: Mapping[str, Expression]

    def expanded(self, name: str) -> Expression:
        """What to write for a name: itself, or its equation if nobody gave it its name."""
        made_up = name.startswith(("_", "d_"))
        return self.meaning[name] if made_up and name not in self.owner else Name(name)

    @cached_property
    def owner(self) -> dict[str, str]:
        """Name of a gradient → the equation that it has come through."""
        owners = {gradient: value for value, gradient in self.gradients.items()}
        for name in self.meaning:
            value = name.removeprefix("d").removesuffix("_pre")
            if name.startswith("d") and name.endswith("_pre") and value in self.gradients:
                owners.setdefault(name, value)
        return owners


@cache
def adjoint_of(cell: Cell) -> Adjoint:
    """The adjoint program of a cell, with its equations."""
    program = differentiate(cell.program, traced=cell.names)
    gradients = dict(zip(cell.names, program.outputs[1], strict=True))
    states = zip(program.carried, cell.states, strict=True)
    told = {*gradients.values()}
    meaning: dict[str, Expression] = dict(unnamed(cell.program))
    inside = dict(meaning)
    for instruction in cell.program.instructions:
        if instruction.name not in cell.names:
            meaning[instruction.name] = instruction.expression(inside)
    for instruction in program.instructions:
        name = instruction.name
        if name in meaning and name in cell.program.by_name:
            continue
        meaning[name] = instruction.expression(inside)
        if name not in told and not name.endswith("_pre"):
            inside[name] = meaning[name]
    return Adjoint(
        program,
        gradients,
        dict(zip(program.inputs[-1], cell.program.outputs[0], strict=True)),
        {received: state for (received, _), state in states},
        meaning,
    )


@dataclass(frozen=True, eq=False)
class Moment:
    """One step of one direction of one layer, for one example.

    Attributes:
        source: the run; its gradients where gradients are asked for.
        place: any place in this step.
    """

    source: Trace | Gradients
    place: Place

    @property
    def trace(self) -> Trace:
        """The run."""
        return self.source.trace if isinstance(self.source, Gradients) else self.source

    @property
    def cell(self) -> Cell:
        """The cell of the network."""
        return self.trace.network.cell

    @cached_property
    def _known(self) -> dict[str, Array]:
        return {}

    def value(self, name: str) -> Array | float:
        """A vector of this step, a block, or a number, by its name in a program or an equation."""
        if name not in self._known:
            self._known[name] = np.asarray(self._found(name))
        return self._known[name]

    def _found(self, name: str) -> Array | float:
        place = self.place
        _, layer, direction = place.key
        if name == STEP_NUMBER:
            begin = stretch_of(self.trace, place)[direction]
            return abs((place.step or 1) - begin) + 1
        if is_count(name):
            return self._units(name)
        if name in self.cell.constants:
            return self.cell.constants[name]
        if self.is_block(name):
            return np.asarray(self.trace.network.params[layer][direction][name])
        here = replace(place, name=name, layer=layer + 1, gradient=False)
        if name in self.cell.names:
            return vector_at(self.trace, here)
        adjoint = adjoint_of(self.cell)
        values = {gradient: value for value, gradient in adjoint.gradients.items()}
        if name in values:
            back = replace(here, name=values[name], direction=direction, gradient=True)
            return vector_at(self.source, back)
        return evaluate(adjoint.meaning[name], self.value)

    def _units(self, count: str) -> float:
        """How many units the vectors of a size have."""
        for name in (*self.cell.names, *self.cell.sizes.shapes):
            if count_of(self.cell.program.size_of(name)) == count:
                return float(len(np.asarray(self.value(name))))
        raise AssertionError(f"no vector has the size {count}")

    def is_block(self, name: str) -> bool:
        """Whether a name is that of a block of parameters."""
        return name in self.cell.sizes.shapes

    def next(self) -> "Moment | None":
        """The step that this direction reads after this one; None after the last."""
        step = step_after(self.trace, self.place)
        return None if step is None else Moment(self.source, replace(self.place, step=step))

    def filling(self, digits: int, full: bool, seen_from: Place | None = None) -> Filling:
        """How formulas of this step are filled.

        Args:
            digits: significant digits.
            full: whether long sums are shown in full.
            seen_from: where the formula stands, this step if None; from another step, or from a
                parameter, which has none, names show where they are.
        """
        home = seen_from or self.place
        stamp = f"^({self.place.example})" if home.example is None else ""
        stamp += f"<{self.place.step}>" if home.step != self.place.step else ""
        arrow = None if home.direction == self.place.direction else self.place.direction

        def typeset(name: str, unit: int | str | None) -> tuple[str, str]:
            step, before = self.place.step, step_before(self.trace, self.place)
            return self._typeset(name, unit, stamp, (str(step), str(before)), arrow)

        return Filling(self.value, typeset, digits, full)

    def any_unit(self) -> Filling:
        """How formulas are written that hold for every unit and step."""
        before = "t+1" if self.place.direction == 1 else "t-1"

        def typeset(name: str, unit: int | str | None) -> tuple[str, str]:
            return self._typeset(name, unit, "", ("t", before), None)

        return Filling(self.value, typeset, 0, False)

    def _typeset(
        self,
        name: str,
        unit: int | str | None,
        stamp: str,
        steps: tuple[str, str],
        arrow: int | None,
    ) -> tuple[str, str]:
        """A name as text and as LaTeX, at the first of two steps, the second read before it."""
        if name in self.cell.constants or name == STEP_NUMBER or is_count(name):
            return name, symbol_of(name.strip("|"))
        way = "" if arrow is None else ARROWS[arrow]
        if self.is_block(name):
            index = "" if unit is None else f"[{unit}]"
            return way + name + index, pointed(FIELD.block(name), arrow) + index
        value = name
        if name not in self.cell.program.sizes:
            value = name.removeprefix("d")
        one = self.cell.program.sizes.get(value) == ONE
        below = "" if unit is None or one else str(unit)
        text = "d" * (value != name) + way + value + (f"_{below}" if below else "") + stamp
        step = steps[1] if value.endswith("_prev") else steps[0]
        letter, _, mark = value.removesuffix("_prev").partition("_")
        raised = rf"\mathrm{{{mark.replace('_', ',')}}}" if mark else ""
        raised += f"({self.place.example})" if "(" in stamp else ""
        lowered = f"_{{{below}}}" if below else ""
        latex = rf"{pointed(symbol_of(letter), arrow)}{lowered}^{{{raised}\langle {step}\rangle}}"
        return text, latex if value == name else FIELD.gradient.format(latex)


def names_in(expression: Expression) -> list[str]:
    """The names that an expression needs, in the order in which they stand."""
    return list(dict.fromkeys(part.id for part in walk(expression) if isinstance(part, Name)))

"""The chain rule with its numbers: which arrows bring gradient into one number of a run."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ...errors import InputError
from ...language.expressions import Expression, Name, Number
from ...network import Gradients
from ...views.latex import FIELD, symbol_of
from ..notation import Place, output_name, place_of, value_at
from .formula import Formula, evaluate, product_of, shown, signed_terms, unit_of
from .moment import Moment, adjoint_of, names_in


@dataclass(frozen=True)
class Arrow:
    """One term of a gradient.

    Attributes:
        source: where it comes from, in words.
        name: the gradient that it brings, in the notation of `lab.at`; without a unit if it brings
            those of all units, "" if it is that of the last state.
        step: the step in which that gradient stands.
        letters: the term in letters; `letters.latex` is its LaTeX.
        numbers: the term with its numbers filled in.
        value: what it adds.
        digits: significant digits of the value where it is shown.
    """

    source: str
    name: str
    step: int | None
    letters: Formula
    numbers: Formula
    value: float
    digits: int = 4

    def __str__(self) -> str:
        sides = dict.fromkeys(map(str, (self.letters, self.numbers, self._result)))
        return f"{self.source}: {' = '.join(sides)}"

    @property
    def latex(self) -> str:
        """The term as an equation: letters, numbers, value."""
        sides = (side.latex for side in (self.letters, self.numbers, self._result))
        return " = ".join(dict.fromkeys(sides))

    @property
    def _result(self) -> Formula:
        return shown(self.value, self.digits)


def arrows(
    gradients: Gradients, where: str | Place, *, digits: int = 4, full: bool = False
) -> tuple[Arrow, ...]:
    """Every arrow that brings gradient into one number; their values add up to its gradient.

    The terms are those of the cell's adjoint program (`differentiate`). A state's gradient comes
    from the output at the same step, from every equation of the step that uses the state, and from
    every equation of the next step that uses it as `<state>_prev`.

    Args:
        gradients: what `trace.backward(dy)` gives.
        where: the number in the notation of `lab.at`, with or without its d: `"h_2^(1)<3>"`.
        digits: significant digits of the numbers that are filled in.
        full: whether long sums are shown in full.

    Returns:
        One arrow for each term; none for what is given (`y`) or what moves nothing.

    Raises:
        InputError: if the text names no number of the run, or `gradients` are none.
    """
    if not isinstance(gradients, Gradients):
        raise InputError("arrows are those of gradients; give what trace.backward(dy) returns.")
    place = where if isinstance(where, Place) else place_of(gradients, where)
    return tuple(_Terms(gradients, replace(place, gradient=True), digits, full).arrows())


_WAYS: dict[int | None, str] = {0: " forward", 1: " backward"}


class _Terms:
    def __init__(self, gradients: Gradients, place: Place, digits: int, full: bool) -> None:
        self.gradients = gradients
        self.trace = gradients.trace
        self.place = place
        self.digits = digits
        self.full = full
        self.network = gradients.trace.network
        self.adjoint = adjoint_of(self.network.cell)
        self.input = self.network.cell.equations.inputs[0]

    def arrows(self) -> Iterator[Arrow]:
        place, cell = self.place, self.network.cell
        if place.parameter:
            yield from self._of_parameter()
        elif place.name == self.input and place.direction is None:
            for direction in self._directions():
                yield from self._of_value(replace(place, direction=direction))
        elif place.name not in cell.names:
            return
        elif place.step == 0:
            first = Moment(self.gradients, place).next()
            if first is not None:
                yield from self._of_value(replace(first.place, name=f"{place.name}_prev"))
        else:
            yield from self._of_value(place)

    def _of_value(self, place: Place) -> Iterator[Arrow]:
        """The terms of a value's equation in the adjoint."""
        moment = Moment(self.gradients, place)
        adjoint = self.adjoint
        terms = signed_terms(adjoint.meaning[adjoint.gradients[place.name]])
        names = {term.id for term in terms if isinstance(term, Name)}
        if names & {*adjoint.given}:
            yield from self._from_above(place)
        for term in terms:
            incoming = isinstance(term, Name) and term.id in (*adjoint.given, *adjoint.received)
            if not incoming and term != Number(0.0):
                yield self._term(moment, term, place.unit)
        for name, state in adjoint.received.items():
            if name in names:
                yield from self._from_next(moment, state)

    def _from_above(self, place: Place) -> Iterator[Arrow]:
        """What arrives from the output: given to the last layer, else from the layer above."""
        network, layer = self.network, place.layer or 1
        unit = place.unit + (place.direction or 0) * len(self._output(place))
        if layer == network.num_layers:
            output = replace(place, name=output_name(network.cell), index=(unit,), layer=None)
            yield self._given("the output", replace(output, direction=None))
            return
        for direction in self._directions():
            reader = replace(place, name=self.input, index=(unit,), layer=layer + 1)
            source = f"layer {layer + 1}, which reads it" + _WAYS.get(direction, "")
            yield self._given(source, replace(reader, direction=direction))

    def _directions(self) -> tuple[int | None, ...]:
        return (0, 1) if self.network.directions == 2 else (None,)

    def _output(self, place: Place) -> list[float]:
        _, layer, direction = place.key
        return list(self.trace.layers[layer][direction].y[place.where])

    def _given(self, source: str, place: Place) -> Arrow:
        """An arrow that brings another number as it is."""
        value = value_at(self.gradients, place)
        letters = Formula(Name(str(place)), {str(place): place.latex})
        return Arrow(
            source, str(place), place.step, letters, shown(value, self.digits), value, self.digits
        )

    def _from_next(self, moment: Moment, state: str) -> Iterator[Arrow]:
        """What the next step hands back: the terms of `<state>_prev` there."""
        following = moment.next()
        if following is not None:
            yield from self._of_value(replace(following.place, name=f"{state}_prev"))
            return
        _, layer, direction = moment.place.key
        ends = 1 if direction == 1 else self.trace.lengths[moment.place.where[1]]
        if moment.place.step != ends:  # another stretch follows, which starts anew
            return
        position = self.network.cell.states.index(state)
        last = self.gradients.layers[layer][direction].last[position]
        value = float(last[moment.place.where[1], self.place.unit - 1])
        if value:
            text = f"d{state}_{self.place.unit}_last"
            typeset = rf"{symbol_of(state)}_{{{self.place.unit}}}^{{\mathrm{{last}}}}"
            typeset = FIELD.gradient.format(typeset)
            letters = Formula(Name(text), {text: typeset})
            source = "the last state, given"
            yield Arrow(source, "", None, letters, shown(value, self.digits), value, self.digits)

    def _term(self, moment: Moment, term: Expression, unit: int) -> Arrow:
        filling = moment.filling(self.digits, self.full, self.place)
        letters, numbers = filling.letters(term, unit), filling.numbers(term, unit)
        source, name = self._source(moment, term, unit)
        value = unit_of(evaluate(term, moment.value), unit)
        return Arrow(source, name, moment.place.step, letters, numbers, value, self.digits)

    def _source(self, moment: Moment, term: Expression, unit: int | None) -> tuple[str, str]:
        """The equations that a term has come through, in words, and the gradient that it brings."""
        names = names_in(term)
        owners = [self.adjoint.owner[name] for name in names if name in self.adjoint.owner]
        owners = list(dict.fromkeys(owners))
        source = " and ".join(owners)
        if moment.place.direction != self.place.direction:
            source += _WAYS.get(moment.place.direction, "")
        if moment.place.step != self.place.step:
            source += f" at step {moment.place.step}"
        of_all = unit is None or any("." in name for name in names)  # a product takes all units
        index = () if of_all or unit is None else (unit,)
        layer = moment.place.key[1] + 1
        brought = replace(moment.place, index=index, layer=layer, gradient=True)
        return source, ", ".join(str(replace(brought, name=owner)) for owner in owners)

    def _of_parameter(self) -> Iterator[Arrow]:
        """The terms of a sum over the examples and over the steps."""
        place = self.place
        totals = [t for t in self.adjoint.program.totals if t.parameter == place.name]
        for example, length in enumerate(self.trace.lengths, 1):
            for step in range(1, int(length) + 1):
                moment = Moment(self.gradients, replace(place, example=example, step=step))
                for total in totals:
                    yield self._of_total(moment, total.factors)

    def _of_total(self, moment: Moment, factors: tuple[str, ...]) -> Arrow:
        filling = moment.filling(self.digits, self.full, self.place)
        parts = [self.adjoint.expanded(factor) for factor in factors]
        pairs = list(zip(parts, self.place.index, strict=True))
        letters = product_of([filling.letters(part, unit) for part, unit in pairs])
        numbers = product_of([filling.numbers(part, unit) for part, unit in pairs])
        value = 1.0
        for part, unit in pairs:
            value *= unit_of(evaluate(part, moment.value), unit)
        source, name = self._source(moment, parts[0], self.place.index[0])
        source += f" of example {moment.place.example}"
        return Arrow(source, name, moment.place.step, letters, numbers, value, self.digits)

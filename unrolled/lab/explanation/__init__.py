"""`lab.at`: numbers of a run that say their name and where they come from."""

from dataclasses import dataclass, replace
from typing import Any, NoReturn

from ...errors import InputError
from ...language.expressions import Expression, Name
from ...network import Gradients, Trace
from ..notation import Place, place_of, step_after, step_before, unit_below, value_at
from .arrows import Arrow, arrows
from .formula import MORE, Formula, broken, shown, sum_of
from .moment import Moment, adjoint_of

__all__ = ["Arrow", "Explanation", "Formula", "NamedNumber", "arrows", "at"]


def at(source: Trace | Gradients, number: str) -> "NamedNumber":
    r"""Read one number out of a run, in the field's notation.

    `at(trace, "a_5^(2)[3]<4>")` is unit 5 of the output, of example 2, in layer 3, at step 4. The
    parts may stand in any order, and what there is only one of may be left out; LaTeX
    (`a_5^{(2)[3]\langle 4\rangle}`) is read too. Step 0 of a state is the initial state. Names:

    - every value of the cell (`x`, `h`, `c`, `i`, `h_prev` …); entries of parameters, `W.i[2,3]`;
    - `y`, the output of the network (`y_out` if the cell has a y of its own); `a`, the output of
      the cell, which is its first state;
    - the course's `Γ_i Γ_u Γ_f Γ_o Γ_r`, and `c~` for the candidate (Ng 2018), where the cell has a
      value that they mean. Γ_u of a GRU is no value of a cell that has z, and raises;
    - in a bidirectional network an arrow, `→h_5^(2)<4>` or `←h_5^(2)<4>`, or one of the words
      forward and backward behind.

    Args:
        source: a trace; or gradients, of which a leading d (or ∂) asks for the gradient,
            `at(gradients, "dc_1^(2)<3>")`, and a name without it for the value. A cell's own name
            comes first, should it begin with d.
        number: the name.

    Returns:
        A float with `name`, `latex`, `origin` and `explain()`.

    Raises:
        InputError: if the text names nothing, several numbers, or one that is not there.
    """
    if not isinstance(source, Trace | Gradients):
        raise InputError(
            "lab.at reads a Trace (network.trace(x)) or Gradients (trace.backward(dy)); "
            f"found {type(source).__name__}."
        )
    place = place_of(source, number)
    return NamedNumber(value_at(source, place), place, source)


class NamedNumber(float):
    """A number of a run: a float that says its own name and where it comes from.

    Attributes:
        place: where it stands.
        source: the run that it was read from.
    """

    __slots__ = ("place", "source")

    place: Place
    source: Trace | Gradients

    def __new__(cls, value: float, place: Place, source: Trace | Gradients) -> "NamedNumber":
        """Give a number its place."""
        number = super().__new__(cls, value)
        object.__setattr__(number, "place", place)
        object.__setattr__(number, "source", source)
        return number

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{self.name} is a number and cannot be changed.")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (float(self), self.place, self.source)

    @property
    def name(self) -> str:
        """Its name: `h_5^(2)[3]<4>`."""
        return str(self.place)

    @property
    def latex(self) -> str:
        """Its name in LaTeX."""
        return self.place.latex

    @property
    def origin(self) -> "Explanation":
        """Where it comes from, as `explain()` tells it."""
        return self.explain()

    def explain(self, *, digits: int = 4, full: bool = False) -> "Explanation":
        """Its equation in letters, with the numbers filled in, and worked out.

        Of a gradient: the chain rule, term by term.

        Args:
            digits: significant digits of the numbers shown.
            full: whether long sums are shown in full, not shortened with "…".

        Raises:
            InputError: if the trace did not keep what the equation needs.
        """
        return _explained(self, digits, full)

    def __repr__(self) -> str:
        return f"{self.name} = {float(self):.8g}"

    def __str__(self) -> str:
        return float.__repr__(self)

    def _repr_markdown_(self) -> str:
        return self.origin._repr_markdown_()


@dataclass(frozen=True)
class Explanation:
    """Where a number comes from; it prints, and notebooks show it as formulas.

    Attributes:
        number: the number.
        sides: right sides of `name = …`: in letters, with numbers, worked out.
        note: what is to be said in words; "" if nothing.
        arrows: of a gradient, its terms.
        where: (name, equation) of what the letters use and nobody has named.
        digits: significant digits of the result.
    """

    number: NamedNumber
    sides: tuple[Formula, ...] = ()
    note: str = ""
    arrows: tuple[Arrow, ...] = ()
    where: tuple[tuple[Formula, Formula], ...] = ()
    digits: int = 4

    @property
    def result(self) -> Formula:
        """The number, rounded as it is shown."""
        return shown(float(self.number), self.digits)

    def __str__(self) -> str:
        first, *rest = dict.fromkeys(map(str, self._shown()))
        margin = " " * len(self.number.name)
        lines = [f"{self.number.name} = {first}", *(f"{margin} = {side}" for side in rest)]
        lines[-1] += f"   ({self.note})" if self.note else ""
        if len(self.arrows) > 1:
            lines += [f"  from {arrow}" for arrow in self.arrows[:_LISTED]]
            more = len(self.arrows) - _LISTED
            lines += [f"  … and {more} more terms"] if more > 0 else []
        lines += [f"  where {name} = {equation}" for name, equation in self.where]
        return "\n".join(lines)

    @property
    def latex(self) -> str:
        """The equations as one `aligned` environment."""
        sides = [*dict.fromkeys(side.latex for side in self._shown())]
        several = len(self.arrows) > 1
        lines = [f"{self.number.latex} &= {sides[0]}", *(f"&= {side}" for side in sides[1:])]
        lines[-1] += rf" \quad \text{{({self.note})}}" if self.note else ""
        if several:
            for arrow in self.arrows[:_LISTED]:
                source = arrow.source.replace("_", r"\_")
                lines.append(rf"\text{{from {source}: }} & {arrow.latex}")
        lines = [part for line in lines for part in broken(line, _NARROW if several else _WIDE)]
        lines += [rf"\text{{where }} {name.latex} &= {right.latex}" for name, right in self.where]
        body = " \\\\\n".join(f"    {line}" for line in lines)
        return "\n".join([r"\begin{aligned}", body, r"\end{aligned}"])

    def _shown(self) -> list[Formula]:
        """The right sides; the terms of a long sum have their numbers in lines of their own."""
        sides = self.sides if len(self.arrows) < 2 else (self.sides[0], self.sides[-1])
        return [*sides, self.result]

    def _repr_latex_(self) -> str:
        return f"$$\n{self.latex}\n$$"

    def _repr_markdown_(self) -> str:
        return self._repr_latex_()


_LISTED = 8  # arrows that an explanation lists
_WIDE, _NARROW = 60, 56  # signs of a line on a page; beside words there is less room


def _explained(number: NamedNumber, digits: int, full: bool) -> Explanation:
    place, source = number.place, number.source
    trace = source.trace if isinstance(source, Gradients) else source
    cell = trace.network.cell
    if place.gradient:
        return _gradient(number, digits, full)
    if place.parameter:
        return Explanation(number, note="given: a parameter", digits=digits)
    if place.step == 0:
        return Explanation(number, note="given: the initial state", digits=digits)
    if place.name == cell.equations.inputs[0]:
        if place.layer is None:
            return Explanation(number, note="given: the input", digits=digits)
        note = f"layer {place.layer} reads the output of layer {place.layer - 1}"
        return _link(number, unit_below(trace, place), note, digits)
    if place.layer is None:
        return _link(number, unit_below(trace, place), "the output of the last layer", digits)
    if place.name.removesuffix("_prev") in cell.states and place.name.endswith("_prev"):
        state, step = place.name.removesuffix("_prev"), step_before(trace, place)
        begin = step_after(trace, replace(place, step=0))
        if step == 0 and place.step != begin:
            return Explanation(number, note="given: the example starts anew here", digits=digits)
        note = "the initial state, given" if step == 0 else f"the state of step {step}"
        return _link(number, replace(place, name=state, step=step), note, digits)
    return _equation(number, digits, full)


def _link(number: NamedNumber, place: Place, note: str, digits: int) -> Explanation:
    """A number that is another one."""
    side = Formula(Name(str(place)), {str(place): place.latex})
    return Explanation(number, (side,), note, digits=digits)


def _equation(number: NamedNumber, digits: int, full: bool) -> Explanation:
    place, moment = number.place, Moment(number.source, number.place)
    expression: Expression = next(
        equation.expression
        for equation in moment.cell.equations.equations
        if equation.name == place.name
    )
    filling = moment.filling(digits, full)
    worked_out = filling.worked_out(expression, place.unit)
    sides = (
        filling.letters(expression, place.unit),
        filling.numbers(expression, place.unit),
        *([worked_out] if worked_out else []),
    )
    return Explanation(number, sides, digits=digits)


def _gradient(number: NamedNumber, digits: int, full: bool) -> Explanation:
    assert isinstance(number.source, Gradients)
    place = number.place
    found = arrows(number.source, place, digits=digits, full=full)
    cell = number.source.trace.network.cell
    if not found:
        given = place.name not in cell.names
        note = "given: what backward was called with" if given else "no arrow leads here"
        return Explanation(number, note=note, digits=digits)
    short = found if full or not place.parameter or len(found) <= 4 else (*found[:2], found[-1])
    more = [Formula(MORE)] if len(short) < len(found) else []

    def side(formulas: list[Formula]) -> Formula:
        return sum_of([*formulas[:-1], *more, formulas[-1]])

    values = [shown(arrow.value, digits) for arrow in short]
    sides = (
        side([arrow.letters for arrow in short]),
        side([arrow.numbers for arrow in short]),
        side(values),
    )
    return Explanation(number, sides, "", found, tuple(_where(number, short)), digits)


def _where(number: NamedNumber, found: tuple[Arrow, ...]) -> list[tuple[Formula, Formula]]:
    """The equations, of any unit k, of what the terms use and no value of the cell names."""
    moment = Moment(number.source, number.place)
    names = dict.fromkeys(name for arrow in found for name in arrow.letters.names)
    filling = moment.any_unit()
    meaning = adjoint_of(moment.cell).meaning
    told = [name for name in names if name in meaning and name.endswith("_pre")]
    told = [name for name in told if name not in moment.cell.names]
    return [
        (filling.letters(Name(name), "k"), filling.letters(meaning[name], "k")) for name in told
    ]

"""The equations of one step as data: what reading a cell's text gives."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Literal

from ..errors import EquationError, SizeError
from .expressions import Apply, Block, Expression, Number, Place, walk, written

FamilyKind = Literal["matrix", "diagonal", "vector"]
Distribution = Literal["bernoulli", "dropout"]
Every = Literal["sequence", "step"]


@dataclass(frozen=True)
class Source:
    """The text that equations were read from, for errors that point at their place."""

    cell: str
    lines: tuple[str, ...]

    def pointing_at(self, place: Place, problem: str) -> str:
        """The line at `place`, a caret below it, and the problem in words."""
        where = f"cell '{self.cell}'" if self.cell else "a cell"
        if not 0 < place.line <= len(self.lines):
            return f"{where}: {problem}"
        line = self.lines[place.line - 1]
        indent = len(line) - len(line.lstrip())
        before = "".join("\t" if letter == "\t" else " " for letter in line[indent : place.start])
        carets = before + "^" * max(1, place.end - place.start)
        return f"{where}, line {place.line}:\n    {line.strip()}\n    {carets}\n{problem}"

    def equation_error(self, place: Place, problem: str) -> EquationError:
        """An `EquationError` that points at `place`."""
        return EquationError(self.pointing_at(place, problem))

    def size_error(self, place: Place, problem: str) -> SizeError:
        """A `SizeError` that points at `place`."""
        return SizeError(self.pointing_at(place, problem))


@dataclass(frozen=True)
class Equation:
    """`name = expression`."""

    name: str
    expression: Expression
    place: Place = field(default=Place(0, 0, 0), compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.name} = {written(self.expression)}"


@dataclass(frozen=True)
class Draw:
    """A random value: `m=dropout(0.3)`, `d=bernoulli(0.1, every="step")`.

    Attributes:
        distribution: `"bernoulli"`, which is 1 with probability p and else 0; or `"dropout"`, which
            is 0 with probability p and else 1 / (1 − p), so that its mean is 1.
        p: the probability, from 0 to below 1.
        every: `"sequence"`, drawn once and the same at all steps, or `"step"`.
    """

    distribution: Distribution
    p: float
    every: Every = "sequence"

    @property
    def mean(self) -> float:
        """What stands for it in evaluation."""
        return self.p if self.distribution == "bernoulli" else 1.0

    def __str__(self) -> str:
        every = "" if self.every == "sequence" else f', every="{self.every}"'
        return f"{self.distribution}({written(Number(self.p))}{every})"


@dataclass(frozen=True)
class Head:
    """The first line of a definition: `def lstm(x, h_prev, c_prev, *, W, U, b, dt=0.1):`.

    Attributes:
        name: the cell's name.
        inputs: what comes from outside at each step.
        remembered: `h` and `c` of the example.
        families: names of the families of parameters.
        constants: named numbers and their values.
        places: where each argument stands.
        draws: named random values.
        initial: family → the number that all its parameters begin at, where it says so.
    """

    name: str
    inputs: tuple[str, ...]
    remembered: tuple[str, ...]
    families: tuple[str, ...]
    constants: Mapping[str, float]
    places: Mapping[str, Place] = field(default_factory=dict, compare=False, repr=False)
    draws: Mapping[str, Draw] = field(default_factory=dict)
    initial: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        prev = [f"{state}_prev" for state in self.remembered]
        constants = [f"{name}={written(Number(value))}" for name, value in self.constants.items()]
        draws = [f"{name}={draw}" for name, draw in self.draws.items()]
        families = [
            f"{family}=initial({written(Number(self.initial[family]))})"
            if family in self.initial
            else family
            for family in self.families
        ]
        keywords = [*families, *constants, *draws]
        arguments = [*self.inputs, *prev, *(["*", *keywords] if keywords else [])]
        return f"def {self.name}({', '.join(arguments)}):"


@dataclass(frozen=True)
class Equations:
    """One step of a recurrence, checked, its equations sorted so that each uses earlier ones.

    Attributes:
        name: the cell's name.
        doc: its docstring, or "".
        inputs: names of what comes from outside at each step; the first is the input `x`.
        remembered: the states whose value of the step before is used or declared.
        states: names returned, in that order; the first is the output.
        families: names of the families of parameters.
        constants: named numbers and their values.
        draws: named random values.
        initial: family → the number that all its parameters begin at, where it says so.
        equations: one for each name, in an order in which they can be computed.
        text: the text that they were read from; `read(text)` gives an equal value.
    """

    name: str
    doc: str
    inputs: tuple[str, ...]
    remembered: tuple[str, ...]
    states: tuple[str, ...]
    families: tuple[str, ...]
    constants: Mapping[str, float]
    draws: Mapping[str, Draw]
    initial: Mapping[str, float]
    equations: tuple[Equation, ...]
    written_order: tuple[str, ...]
    source: Source = field(compare=False, repr=False)

    def __hash__(self) -> int:
        values = (*self.constants.items(), *self.draws.items(), *self.initial.items())
        return hash((self.name, self.equations, values))

    def expressions(self) -> Iterator[Expression]:
        """Every expression and part of one, in the order in which they were written."""
        by_name = {equation.name: equation for equation in self.equations}
        for name in self.written_order:
            yield from walk(by_name[name].expression)

    @property
    def blocks(self) -> dict[str, tuple[str, ...]]:
        """Family → names of its blocks, in order of first appearance."""
        found: dict[str, dict[str, None]] = {family: {} for family in self.families}
        for part in self.expressions():
            if isinstance(part, Block):
                found[part.family][part.block] = None
        return {family: tuple(names) for family, names in found.items()}

    @property
    def kinds(self) -> dict[str, FamilyKind]:
        """Family → matrix (`W.i @ x`), diagonal (`P.i * c_prev`) or vector (`b.i`).

        A diagonal is a vector whose every use is as a factor of a product unit by unit.
        """
        matrices = {block.family for block in self._left_of("matmul")}
        uses = [part for part in self.expressions() if isinstance(part, Block)]
        factors = self._left_of("mul") + self._right_of("mul")
        kinds: dict[str, FamilyKind] = {}
        for family in self.families:
            used = sum(block.family == family for block in uses)
            multiplied = sum(block.family == family for block in factors)
            kinds[family] = "diagonal" if used and used == multiplied else "vector"
            if family in matrices:
                kinds[family] = "matrix"
        return kinds

    def _left_of(self, operation: str) -> list[Block]:
        return self._argument_of(operation, 0)

    def _right_of(self, operation: str) -> list[Block]:
        return self._argument_of(operation, 1)

    def _argument_of(self, operation: str, position: int) -> list[Block]:
        found = []
        for part in self.expressions():
            if isinstance(part, Apply) and part.operation == operation:
                argument = part.arguments[position]
                if isinstance(argument, Block):
                    found.append(argument)
        return found

    @property
    def text(self) -> str:
        """The equations in their language; reading it gives an equal value."""
        head = Head(
            self.name,
            self.inputs,
            self.remembered,
            self.families,
            self.constants,
            draws=self.draws,
            initial=self.initial,
        )
        by_name = {equation.name: equation for equation in self.equations}
        body = [
            *_docstring(self.doc),
            *(str(by_name[name]) for name in self.written_order),
            f"return {', '.join(self.states)}",
        ]
        return "\n".join([str(head), *(f"    {line}" if line else "" for line in body)]) + "\n"

    def with_constants(self, values: Mapping[str, float]) -> "Equations":
        """The same equations with other values for some constants.

        Raises:
            EquationError: if a name is not one of the constants, or a value is no finite number.
        """
        for name, value in values.items():
            if name not in self.constants:
                known = ", ".join(self.constants) or "none"
                raise EquationError(
                    f"cell '{self.name}' has no constant '{name}'; its constants are: {known}."
                )
            if not _is_finite_number(value):
                raise EquationError(
                    f"the constant {name} of cell '{self.name}' is a finite number, as in "
                    f"{name}=0.1; found {value!r}."
                )
        floats = {name: float(value) for name, value in values.items()}
        return replace(self, constants={**self.constants, **floats})

    def expected(self) -> "Equations":
        """The same equations with each random value's mean in its place, a constant."""
        means = {name: draw.mean for name, draw in self.draws.items()}
        return replace(self, constants={**self.constants, **means}, draws={})


def _is_finite_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond the largest float
        return False


def _docstring(doc: str) -> list[str]:
    """The lines of a docstring; what Python would not read back as it stands is escaped."""
    if not doc:
        return []
    text = "".join(
        letter if letter == "\n" or (letter.isprintable() and letter != "\\") else
        letter.encode("unicode_escape").decode()
        for letter in doc
    ).replace('"""', '\\"\\"\\"')  # fmt: skip
    if "\n" in text:
        return [*f'"""{text}'.split("\n"), '"""']
    if text.endswith('"'):
        text = text[:-1] + '\\"'
    return [f'"""{text}"""']

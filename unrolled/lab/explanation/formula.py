"""Formulas of one unit: in letters, and the same with its numbers filled in."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce

import numpy as np

from ...backends.reference import OPERATIONS
from ...backends.steps import Array
from ...language.expressions import Apply, Block, Expression, Name, Number, written
from ...language.operations import OPERATIONS as LANGUAGE, PRODUCTS, REDUCTIONS
from ...views.latex import TYPESET, Writer

MORE = Name("…")  # stands for the terms of a long sum that are not shown
_SHOWN = 4  # terms of a sum that are shown before it is shortened
_TABLE = {**TYPESET, **dict.fromkeys(["mul", "matmul"], r"{0} \cdot {1}")}  # units are numbers


@dataclass(frozen=True)
class Formula:
    """One side of an equation; it prints as text, and as LaTeX.

    Attributes:
        expression: the tree.
        typeset: name in the tree → its LaTeX.
        names: the names of values that stand behind those of the tree.
    """

    expression: Expression
    typeset: Mapping[str, str] = field(default_factory=dict)
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        text = written(self.expression).replace(" * ", "·").replace(" @ ", " · ")
        return text.replace("-", "−")

    @property
    def latex(self) -> str:
        """The formula in LaTeX."""
        names = {"…": r"\dots", **self.typeset}
        return Writer(lambda name: names[name], table=_TABLE).expression(self.expression)

    def _repr_latex_(self) -> str:
        return f"$\\displaystyle {self.latex}$"


def sum_of(formulas: Sequence[Formula]) -> Formula:
    """Formulas added up."""
    return _joined(formulas, added_up([formula.expression for formula in formulas]))


def product_of(formulas: Sequence[Formula]) -> Formula:
    """Formulas multiplied."""
    first, *others = (formula.expression for formula in formulas)
    parts = [first, *map(_factor, others)]
    return _joined(formulas, added_up([reduce(lambda a, b: Apply("mul", (a, b)), parts)]))


def _factor(expression: Expression) -> Expression:
    """What follows a multiplication sign: a number below zero, so that it has brackets."""
    match expression:
        case Apply(operation="neg", arguments=(Number(value=value),)):
            return Number(-value)
    return expression


def broken(line: str, width: int) -> list[str]:
    """A line of an `aligned` environment as several, broken before a plus, a minus or an equals.

    Args:
        line: in LaTeX.
        width: how many signs each line has at most, where it can be broken.
    """
    before, mark, _ = line.partition("&")
    lines: list[str] = []
    now = before + mark
    for part in _SIGN.split(line.removeprefix(now)):
        if _seen(now + part) - _seen(before) > width and _closed("".join([*lines, now])):
            lines.append(now.rstrip())
            now, before = r"& \qquad ", ""
        now += part
    return [*lines, now]


_SIGN = re.compile(r"(?<= )(?=[-+=] )")


def _seen(latex: str) -> int:
    """About how many signs are seen of LaTeX."""
    return len(re.sub(r"[{}_^&\s]", "", re.sub(r"\\[a-zA-Z]+", "•", latex)))


def _closed(latex: str) -> bool:
    """Whether a line can end here, outside of braces and environments."""
    return all(latex.count(a) == latex.count(b) for a, b in (("{", "}"), (r"\begin", r"\end")))


def _joined(formulas: Sequence[Formula], expression: Expression) -> Formula:
    typeset = {text: latex for one in formulas for text, latex in one.typeset.items()}
    return Formula(expression, typeset, tuple(name for one in formulas for name in one.names))


def added_up(terms: list[Expression]) -> Expression:
    """A sum without needless brackets, with a minus for what is below zero."""
    if not terms:
        return Number(0.0)
    first, *rest = [part for term in terms for part in signed_terms(term)]
    positive = _without_minus(first)
    total = first if positive is None else _with_minus(positive)
    for term in rest:
        positive = _without_minus(term)
        operation, right = ("add", term) if positive is None else ("sub", positive)
        total = Apply(operation, (total, right))
    return total


def signed_terms(expression: Expression) -> list[Expression]:
    """What a sum adds up; a term that it takes away has a minus in front."""
    match expression:
        case Apply(operation="add", arguments=(left, right)):
            return [*signed_terms(left), *signed_terms(right)]
        case Apply(operation="sub", arguments=(left, right)):
            return [*signed_terms(left), *map(negative, signed_terms(right))]
        case Apply(operation="neg", arguments=(inside,)):
            return [*map(negative, signed_terms(inside))]
    return [expression]


def negative(expression: Expression) -> Expression:
    """The same with the other sign, which stands at the first factor."""
    positive = _without_minus(expression)
    if positive is not None:
        return positive
    match expression:
        case Number(value=value):
            return Number(-value)
        case Apply(operation="mul" | "div" as operation, arguments=(left, right)):
            return Apply(operation, (negative(left), right))
    return Apply("neg", (expression,))


def _with_minus(positive: Expression) -> Expression:
    """A minus in front of the first factor, which then needs no brackets."""
    match positive:
        case Apply(operation="mul" | "div" as operation, arguments=(left, right)):
            return Apply(operation, (_with_minus(left), right))
    return Apply("neg", (positive,))


def _without_minus(expression: Expression) -> Expression | None:
    """What stands behind a leading minus; None if there is none."""
    match expression:
        case Number(value=value):
            return Number(-value) if value < 0 else None
        case Apply(operation="neg", arguments=(inside,)):
            return inside
        case Apply(operation="mul" | "div" as operation, arguments=(left, right)):
            positive = _without_minus(left)
            return None if positive is None else Apply(operation, (positive, right))
    return None


def rounded(value: float, digits: int) -> float:
    """A number with so many significant digits, and no zero below zero."""
    return float(f"{value:.{digits}g}") + 0.0


def shown(value: float, digits: int) -> Formula:
    """A number as it is shown."""
    return Formula(Number(rounded(value, digits)))


def evaluate(expression: Expression, value: Callable[[str], Array | float]) -> Array:
    """The value of an expression of vectors, by the reference's table."""
    match expression:
        case Number(value=number):
            return np.asarray(number)
        case Name(id=name):
            return np.asarray(value(name))
        case Block():
            return np.asarray(value(expression.name))
        case Apply(operation=operation, arguments=arguments):
            parts = [evaluate(argument, value) for argument in arguments]
            if operation in PRODUCTS:
                matrix = parts[0] if operation == "matmul" else parts[0].T
                return np.asarray(matrix @ parts[1])
            if operation in REDUCTIONS:
                return np.asarray(OPERATIONS[operation](*parts)).squeeze(-1)
            return np.asarray(OPERATIONS[operation](*parts))


@dataclass(frozen=True)
class Filling:
    """How the formula of one unit is made from an expression of whole vectors.

    Attributes:
        value: name → its vector or matrix.
        typeset: name and unit (None: all of them) → text and LaTeX.
        digits: significant digits of the numbers.
        full: whether long sums are shown in full.
    """

    value: Callable[[str], Array | float]
    typeset: Callable[[str, int | str | None], tuple[str, str]]
    digits: int
    full: bool

    def letters(self, expression: Expression, unit: int | str | None) -> Formula:
        """The formula in letters, of one unit or, if None, of all."""
        typeset: dict[str, str] = {}
        names: list[str] = []

        def leaf(name: str, unit: int | str | None, cut: str = "") -> Expression:
            text, latex = self.typeset(name, unit)
            typeset[text + cut] = latex + cut
            names.append(name)
            return Name(text + cut)

        def of(part: Expression, unit: int | str | None) -> Expression:
            match part:
                case Number():
                    return part
                case Name(id=name):
                    return leaf(name, unit)
                case Block():
                    return leaf(part.name, unit)
                case Apply(operation=operation, arguments=(matrix, vector)) if (
                    operation in PRODUCTS
                ):
                    if unit is None:
                        return Apply(operation, (leaf(_name(matrix), None), of(vector, None)))
                    cut = f"[{unit},:]" if operation == "matmul" else f"[:,{unit}]"
                    return Apply("matmul", (leaf(_name(matrix), None, cut), of(vector, None)))
                case Apply(operation=operation, arguments=(vector,)) if operation in REDUCTIONS:
                    return Apply(operation, (of(vector, None),))
                case Apply(operation=operation, arguments=arguments):
                    return Apply(operation, tuple(of(argument, unit) for argument in arguments))

        tree = of(expression, unit)
        if isinstance(tree, Apply) and tree.operation in ("add", "sub", "neg"):
            tree = added_up(signed_terms(tree))
        return Formula(tree, typeset, tuple(names))

    def numbers(self, expression: Expression, unit: int) -> Formula:
        """The formula with the numbers of one unit in the place of its letters."""

        def of(part: Expression) -> Expression:
            match part:
                case Number():
                    return part
                case Name(id=name):
                    return self._rounded(unit_of(self.value(name), unit))
                case Block():
                    return self._rounded(unit_of(self.value(part.name), unit))
                case Apply(operation=operation, arguments=(matrix, vector)) if (
                    operation in PRODUCTS
                ):
                    weights = np.asarray(self.value(_name(matrix)))
                    row = weights[unit - 1] if operation == "matmul" else weights[:, unit - 1]
                    return self.dot(row, evaluate(vector, self.value))
                case Apply(operation="sum", arguments=(vector,)):
                    return self.total(vector)
                case Apply(operation="mean", arguments=(vector,)):
                    units = float(evaluate(vector, self.value).size)
                    return Apply("div", (self.total(vector), Number(units)))
                case Apply(operation="add" | "sub" | "neg" as operation, arguments=arguments):
                    return added_up([Apply(operation, tuple(map(of, arguments)))])
                case Apply(operation=operation, arguments=arguments):
                    return Apply(operation, tuple(map(of, arguments)))

        return Formula(added_up([of(expression)]))

    def dot(self, left: Array, right: Array) -> Expression:
        """A product of two vectors as a sum of products."""
        return self._shortened(
            [
                Apply("mul", (self._rounded(a), self._rounded(b)))
                for a, b in zip(left, np.broadcast_to(right, left.shape), strict=True)
            ]
        )

    def total(self, vector: Expression) -> Expression:
        """The units of a vector, added up."""
        units = np.atleast_1d(evaluate(vector, self.value))
        return self._shortened([self._rounded(float(unit)) for unit in units])

    def _shortened(self, terms: list[Expression]) -> Expression:
        if len(terms) > _SHOWN and not self.full:
            terms = [*terms[: _SHOWN - 2], MORE, terms[-1]]
        return added_up(terms)

    def worked_out(self, expression: Expression, unit: int) -> Formula | None:
        """The formula with one step of reckoning done: the arguments, or the terms of a sum."""

        def result(part: Expression) -> Expression:
            if isinstance(part, Apply) and LANGUAGE[part.operation].truth:
                return Apply(part.operation, tuple(map(result, part.arguments)))
            return self._rounded(unit_of(evaluate(part, self.value), unit))

        if not isinstance(expression, Apply) or expression.operation in PRODUCTS | REDUCTIONS:
            return None
        terms = signed_terms(expression)
        if len(terms) > 1 or terms[0] != expression:
            return Formula(added_up([result(term) for term in terms]))
        return Formula(Apply(expression.operation, tuple(map(result, expression.arguments))))

    def _rounded(self, value: float) -> Number:
        return Number(rounded(value, self.digits))


def unit_of(value: Array | float, unit: int) -> float:
    """One unit of a vector, counted from one; a number is the same for every unit."""
    vector = np.atleast_1d(np.asarray(value))
    return float(vector[unit - 1] if len(vector) > 1 else vector[0])


def _name(matrix: Expression) -> str:
    assert isinstance(matrix, Name | Block)
    return matrix.id if isinstance(matrix, Name) else matrix.name

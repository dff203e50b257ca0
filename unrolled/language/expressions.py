"""Expressions: what stands to the right of an equation's sign, as a tree with places."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from .operations import OPERATIONS


@dataclass(frozen=True)
class Place:
    """Where something stands in the text: line from 1, columns from 0, `end` exclusive."""

    line: int
    start: int
    end: int


NOWHERE = Place(0, 0, 0)


@dataclass(frozen=True)
class Number:
    """A number that stands in an equation, such as the 1 of `1 - z`."""

    value: float
    place: Place = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True)
class Name:
    """A value at this step (`i`), at the step before (`h_prev`), a constant, or `t`."""

    id: str
    place: Place = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True)
class Block:
    """One block of a family of parameters: `W.i`."""

    family: str
    block: str
    place: Place = field(default=NOWHERE, compare=False, repr=False)

    @property
    def name(self) -> str:
        """The block's name as parameters are keyed: `"W.i"`."""
        return f"{self.family}.{self.block}"


@dataclass(frozen=True)
class Apply:
    """An operation applied to arguments."""

    operation: str
    arguments: tuple["Expression", ...]
    place: Place = field(default=NOWHERE, compare=False, repr=False)


Expression = Number | Name | Block | Apply


def walk(expression: Expression) -> Iterator[Expression]:
    """Yield the expression and all its parts, in the order in which they are written."""
    yield expression
    if isinstance(expression, Apply):
        for argument in expression.arguments:
            yield from walk(argument)


def written(expression: Expression, binding: int = 0) -> str:
    """The expression as text, with the brackets that a context of strength `binding` needs."""
    match expression:
        case Number(value):
            whole = math.isfinite(value) and value == int(value) and abs(value) < 1e15
            text = f"{value:.0f}" if whole else repr(value)
            return f"({text})" if value < 0 and binding > 4 else text
        case Name(id=text):
            return text
        case Block():
            return expression.name
        case Apply(operation=name, arguments=arguments):
            return _written_application(name, arguments, binding)


def _written_application(name: str, arguments: tuple[Expression, ...], binding: int) -> str:
    operation = OPERATIONS[name]
    strength = operation.precedence
    if strength == 9:
        parts = [written(argument) for argument in arguments]
    elif name == "pow":  # groups to the right, and binds tighter than a minus on its left
        parts = [written(arguments[0], strength + 1), written(arguments[1], strength - 1)]
    elif len(arguments) == 1:
        parts = [written(arguments[0], strength)]
    else:  # groups to the left
        tighter = strength + 1 if operation.truth else strength
        parts = [written(arguments[0], tighter), written(arguments[1], strength + 1)]
    text = operation.written.format(*parts)
    return f"({text})" if strength < binding else text

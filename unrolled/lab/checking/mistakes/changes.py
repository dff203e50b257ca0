"""What a mistake is, and the ways to make one out of what is right.

A mistake changes what a question asks (its parameters, its cell, what the cache holds …), or what
it is answered. A mistaken cell is just a cell, whose text has another equation.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from ....backends.steps import Array
from ....cell import Cell
from ....language.expressions import Apply, written
from ...course.layout import CourseCell
from ..steps import Answer, through_time

Made = Callable[[Any], Answer]
Change = Callable[[Any, Answer], Answer]
Lines = tuple[tuple[str, str], ...]  # name, and what stands on the right side of its equation


@dataclass(frozen=True, eq=False)
class Mistake:
    """A known mistake.

    Attributes:
        name: the mistake, in a clause.
        equation: what to look at, in the course's notation, an equation a line.
        made: what a function with the mistake answers to a question.
        lines: the equations to look at in the cell, or in its adjoint on the way back, by name.
    """

    name: str
    equation: str
    made: Made
    lines: tuple[str, ...] = ()

    def in_every_step(self) -> "Mistake":
        """The mistake of one step, made in each step of a sequence."""
        return replace(self, made=lambda question: through_time(question, self.made))


def asked(**changes: Callable[[Any], Any]) -> Made:
    """Another question: name of its part → what the part becomes, given the question."""
    return lambda question: replace(
        question, **{name: change(question) for name, change in changes.items()}
    ).answer()


def told(change: Change) -> Made:
    """Another answer: what changes in it, given the question and the answer."""

    def made(question: Any) -> Answer:
        answer: Answer = question.answer()
        return {**answer, **change(question, answer)}

    return made


def parameters(change: Callable[[dict[str, Array]], Mapping[str, Array]]) -> Made:
    """Other parameters: those that change, given all of them."""
    return asked(
        parameters=lambda question: {
            **question.parameters,
            **change(dict(question.parameters)),
        }
    )


def kept(change: Callable[[Mapping[str, Array]], Mapping[str, Array]]) -> Made:
    """Another cache: those of its entries that change, given all of them."""
    return asked(cache=lambda question: {**question.cache, **change(question.cache)})


def without(*keys: str) -> Made:
    """Parameters that are zero."""
    return parameters(lambda given: {key: np.zeros_like(given[key]) for key in keys})


def exchanged(one: Mapping[str, Array], pairs: Mapping[str, str]) -> dict[str, Array]:
    """What stands under pairs of names, exchanged."""
    return {**{a: one[b] for a, b in pairs.items()}, **{b: one[a] for a, b in pairs.items()}}


def equations(**lines: str) -> Made:
    """Another cell: name → what stands on the right side of its equation."""
    return asked(course=lambda question: _mistaken(question.course, tuple(lines.items())))


def squashed(by: str, *names: str) -> Made:
    """A cell in which gates or states have another nonlinearity, or none if `by` is empty."""

    def lines(course: CourseCell) -> Lines:
        return tuple((name, f"{by}({_inside(course.cell, name)})") for name in names)

    return asked(course=lambda question: _mistaken(question.course, lines(question.course)))


def in_the_place_of(names: Mapping[str, str], lines: tuple[str, ...]) -> Made:
    """A cell in some equations of which names stand for one another: name → what replaces it."""

    def renamed(course: CourseCell) -> Lines:
        texts = {one.name: written(one.expression) for one in course.cell.equations.equations}
        word = re.compile(r"(?<![\w.])[a-z_]\w*\b")
        return tuple(
            (line, word.sub(lambda found: names.get(found[0], found[0]), texts[line]))
            for line in lines
        )

    return asked(course=lambda question: _mistaken(question.course, renamed(question.course)))


@cache
def _mistaken(course: CourseCell, lines: Lines) -> CourseCell:
    """The cell with other equations, in the same layout."""
    text = course.cell.text
    for name, right in lines:
        text, found = re.subn(rf"(?m)^( +{name} = ).*$", lambda m, r=right: m[1] + r, text)  # type: ignore[misc]
        if not found:
            raise KeyError(f"cell '{course.cell.name}' has no equation {name} = …")
    return replace(course, cell=Cell.parse(text))


def _inside(cell: Cell, name: str) -> str:
    """What stands inside the nonlinearity of a gate."""
    for equation in cell.equations.equations:
        if equation.name == name and isinstance(equation.expression, Apply):
            return written(equation.expression.arguments[0])
    raise KeyError(f"cell '{cell.name}' has no gate {name}")

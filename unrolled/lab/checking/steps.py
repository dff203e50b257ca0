"""The questions that mistakes are put into: one step, or all steps, forward or back.

Each is asked of a cell in the course's layout and answers with arrays by name. A mistake changes
what is asked, or what is answered, and is carried through time by the loops of this page.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...backends.steps import Array
from ..course.arrays import predictions
from ..course.layout import RNN, CourseCell
from ..course.passes import step, step_back
from .draws import Task

Answer = dict[str, Array]


@dataclass(frozen=True, eq=False)
class Forward:
    """One step forward.

    Attributes:
        course: the cell.
        xt: (n_x, m).
        states: (n_a, m) each, before the step.
        parameters: the course's.
    """

    course: CourseCell
    xt: Array
    states: tuple[Array, ...]
    parameters: Mapping[str, Array]

    @property
    def output(self) -> str:
        """The key of the output layer's matrix."""
        return "Wya" if self.course.gates is RNN.gates else "Wy"

    def answer(self) -> Answer:
        """What the step keeps, and its prediction y."""
        kept = step(self.course, self.xt, self.states, self.parameters)
        found = dict(zip(self.course.cache, kept[:-1], strict=True))
        return {**found, "y": predictions(self.parameters, self.output, kept[0])}


@dataclass(frozen=True, eq=False)
class Backward:
    """One step back.

    Attributes:
        course: the cell.
        gradients: (n_a, m) each, with respect to the states after the step.
        cache: what the step kept, by name, without the parameters.
        parameters: the course's.
    """

    course: CourseCell
    gradients: tuple[Array, ...]
    cache: Mapping[str, Array]
    parameters: Mapping[str, Array]

    def answer(self) -> Answer:
        """The gradients, by the names that the course's function gives them."""
        kept = tuple(self.cache[name] for name in self.course.cache)
        back = step_back(self.course, self.gradients, (*kept, self.parameters))
        states = (f"d{state}_prev" for state in self.course.states)
        return {
            "dxt": back.x[:, :, 0],
            **dict(zip(states, back.states, strict=True)),
            **back.parameters,
        }


@dataclass(frozen=True, eq=False)
class ForwardThroughTime:
    """All steps forward.

    Attributes:
        course: the cell.
        x: (n_x, m, T_x).
        states: (n_a, m) each, before the first step.
        parameters: the course's.
        step: how one step is answered.
        carried: for each state, whether a step begins with what the step before left, and not
            with what the first began with.
    """

    course: CourseCell
    x: Array
    states: tuple[Array, ...]
    parameters: Mapping[str, Array]
    step: Callable[[Forward], Answer] = Forward.answer
    carried: tuple[bool, ...] = (True, True)

    def answer(self) -> Answer:
        """What the steps keep, the states and the predictions y, stacked along the last axis."""
        states, answers = self.states, []
        for xt in np.moveaxis(self.x, 2, 0):
            answers.append(self.step(Forward(self.course, xt, states, self.parameters)))
            after = [answers[-1][f"{state}_next"] for state in self.course.states]
            states = tuple(
                new if carried else first
                for new, first, carried in zip(after, self.states, self.carried, strict=False)
            )
        kept = {name: np.stack([one[name] for one in answers], axis=2) for name in answers[0]}
        return {**kept, **{state: kept[f"{state}_next"] for state in self.course.states}}


def _sum(steps: Sequence[Array]) -> Array:
    return np.sum(steps, axis=0)  # type: ignore[no-any-return]


@dataclass(frozen=True, eq=False)
class BackwardThroughTime:
    """All steps back.

    Attributes:
        course: the cell.
        da: (n_a, m, T) the gradient with respect to each step's output.
        caches: what each step kept, by name, without the parameters.
        parameters: the course's.
        step: how one step is answered.
        carried: for each state, whether its gradient is handed to the step before.
        order: whether the steps are gone through from the last to the first.
        summed: how the gradients of the parameters are made of those of the steps, which come in
            the order in which they were gone through.
    """

    course: CourseCell
    da: Array
    caches: Sequence[Mapping[str, Array]]
    parameters: Mapping[str, Array]
    step: Callable[[Backward], Answer] = Backward.answer
    carried: tuple[bool, ...] = (True, True)
    from_the_end: bool = True
    summed: Callable[[list[Array]], Array] = _sum

    def answer(self) -> Answer:
        """The gradients, by the names that the course's function gives them."""
        first, *_ = states = [f"d{state}_prev" for state in self.course.states]
        steps = range(self.da.shape[2])
        carried = [np.zeros_like(self.da[:, :, 0]) for _ in states]
        answers: dict[int, Answer] = {}
        for t in reversed(steps) if self.from_the_end else steps:
            gradients = (self.da[:, :, t] + carried[0], *carried[1:])
            asked = Backward(self.course, gradients, self.caches[t], self.parameters)
            answers[t] = self.step(asked)
            carried = [
                answers[t][state] * kept for state, kept in zip(states, self.carried, strict=False)
            ]
        last = [*answers][-1]
        return {
            "dx": np.stack([answers[t]["dxt"] for t in steps], axis=2),
            f"d{self.course.states[0]}0": answers[last][first],
            **{
                name: self.summed([answer[name] for answer in answers.values()])
                for name in answers[last]
                if name not in (*states, "dxt")
            },
        }


Question = Forward | Backward | ForwardThroughTime | BackwardThroughTime


def question(task: Task) -> Question:
    """What the function of a task is asked, in the form that mistakes are put into."""
    course, asked = task.course, task.arguments
    assert course is not None  # the character lab has its own mistakes
    if task.name.endswith("forward"):
        given, *states, parameters = asked.values()
        if "cell" in task.name:
            return Forward(course, given, tuple(states), parameters)
        zeros = [np.zeros_like(states[0]) for _ in course.states[1:]]
        return ForwardThroughTime(course, given, (*states, *zeros), parameters)
    *gradients, kept = asked.values()
    if "cell" in task.name:
        return Backward(course, tuple(gradients), _named(course, kept), kept[-1])
    caches = [_named(course, one) for one in kept[0]]
    return BackwardThroughTime(course, gradients[0], caches, kept[0][0][-1])


def as_returned(task: Task, answer: Answer) -> Answer:
    """An answer by the names of what the task's function returns, as `reading.read` gives them."""
    if not task.results:
        return answer
    course: Any = task.course
    *names, kept = task.results
    found = {name: answer["y" if name.startswith("y") else name] for name in names}
    if kept == "caches":
        found["caches: x"] = task.arguments["x"]
    return found | {f"{kept}: {name}": answer[name] for name in course.cache}


def through_time(question: Question, step: Callable[[Any], Answer]) -> Answer:
    """All steps, each answered in a way of its own."""
    assert isinstance(question, ForwardThroughTime | BackwardThroughTime)
    return replace(question, step=step).answer()


def _named(course: CourseCell, kept: Sequence[Any]) -> dict[str, Array]:
    return dict(zip(course.cache, kept[:-1], strict=True))

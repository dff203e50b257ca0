"""The known mistakes: a table, one short entry each, and what each answers to the standard draws.

An entry names the mistake and the equation to look at, and says how the mistaken answer is made of
the right functions (`changes.py`); so a new mistake is one entry more.
"""

from functools import cache

from ..draws import Task, task
from ..steps import Answer, as_returned, question
from .backward import sequences_backward, steps_backward
from .changes import Mistake
from .characters import of_clip, of_optimize, of_sample
from .forward import sequences_forward, steps_forward

__all__ = ["Mistake", "mistaken_answers", "mistakes_in"]

_CHARACTERS = {"clip": of_clip, "sample": of_sample, "optimize": of_optimize}


def mistakes_in(task: Task) -> list[Mistake]:
    """The known mistakes in a function; those of the way through time stand before a step's."""
    if task.course is None:
        return _CHARACTERS[task.name]()
    forward = task.name.endswith("forward")
    of_step = (steps_forward if forward else steps_backward)(task.course)
    if "cell" in task.name:
        return of_step
    through_time = (sequences_forward if forward else sequences_backward)(task.course)
    return [*through_time, *(mistake.in_every_step() for mistake in of_step)]


@cache
def mistaken_answers(name: str) -> tuple[tuple[Mistake, Answer], ...]:
    """Each known mistake in a function, and what the standard draws are answered with it."""
    asked = task(name)
    mistakes = mistakes_in(asked)
    if asked.course is None:
        return tuple((mistake, mistake.made(asked.arguments)) for mistake in mistakes)
    put = question(asked)
    return tuple((mistake, as_returned(asked, mistake.made(put))) for mistake in mistakes)

"""`check`: a learner's own function against ours, and which mistake was made."""

import copy
import difflib
import inspect
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from typing import Any

import numpy as np

from ...backends.steps import Array
from ...errors import InputError
from .draws import NAMES, STEPS, M, Task, task
from .mistakes import Mistake, mistaken_answers
from .reading import Reading, Verdict, alike, compare, described, read
from .report import Finding, Report
from .steps import Answer

# What can happen to any array: a clause, and what becomes of the right array.
_RELATIONS: tuple[tuple[str, Callable[[Array], Array]], ...] = (
    ("nothing is written: every entry is zero", np.zeros_like),
    ("every entry has the wrong sign", np.negative),
    (f"every entry is {M} times too small: a mean over the examples?", lambda right: right / M),
    (f"every entry is {M} times too large: a sum over the examples?", lambda right: right * M),
    (
        f"every entry is {STEPS} times too small: a mean over the steps?",
        lambda right: right / STEPS,
    ),
    ("every entry is doubled: counted twice?", lambda right: right * 2),
    ("every entry is halved: a term left out?", lambda right: right / 2),
    ("it is transposed", np.transpose),
    ("its steps stand in reversed order", lambda right: right[..., ::-1]),
)


def check(function: Callable[..., Any], of: str | None = None) -> Report:
    """Run a function of one's own on the course's standard draws, and say what is right.

        def my_lstm_backward(da, caches): ...
        lab.check(my_lstm_backward)
        lab.check(my_solution, of="lstm_backward")

    Shapes are judged first, then numbers, array by array. Where the numbers are those of a known
    mistake, the report names it and the equation to look at. The function is given copies; what it
    raises, or returns in place of arrays, is answered with a sentence.

    Args:
        function: takes and returns what the lab's function of that name does.
        of: which function of the lab it should be, if its name does not end in that.

    Returns:
        The report, which prints, and shows in notebooks; `report.right` and `report.mistake` tell.

    Raises:
        InputError: if it is no function, or it is not clear which one it should be.
    """
    asked = task(_meant(function, of))
    name = getattr(function, "__name__", type(function).__name__)
    given = copy.deepcopy(dict(asked.arguments))
    returned, problem, remarks = _called(function, name, asked, given)
    if problem:
        return Report(name, asked.name, problem=problem, remarks=remarks)
    reading = read(asked, returned, given)
    if "" in reading.problems:
        return Report(name, asked.name, problem=f"{name} {reading.problems['']}.", remarks=remarks)
    verdicts = compare(_answered(asked.name), reading)
    findings = _recognised(asked, reading, verdicts)
    remarks += tuple(reading.remarks)
    if asked.note and any(verdict.problem for verdict in verdicts):
        remarks += (asked.note,)
    return Report(name, asked.name, verdicts, findings, "", remarks, asked.course)


def _meant(function: Any, of: str | None) -> str:
    """Which of our functions is meant."""
    if not callable(function):
        raise InputError(
            f"check takes a function of yours, such as my_lstm_backward; found "
            f"{described(function)}."
        )
    if of in NAMES:
        return str(of)
    name = str(getattr(function, "__name__", "")) if of is None else str(of)
    fits = [known for known in NAMES if name.endswith(known)] if of is None else []
    if fits:
        return max(fits, key=len)
    near = difflib.get_close_matches(name, NAMES, 1, 0.5)
    hint = f" Did you mean of={near[0]!r}?" if near else ""
    what = f"the name {name!r} ends in none of" if of is None else f"of={of!r} is none of"
    raise InputError(f"{what} the functions that check knows: {', '.join(NAMES)}.{hint}")


def _called(
    function: Callable[..., Any], name: str, asked: Task, given: dict[str, Any]
) -> tuple[Any, str, tuple[str, ...]]:
    """What the function returned, why it did not, and what was noticed."""
    try:
        inspect.signature(function).bind(*given.values())
    except TypeError:
        shown = f"{name}({', '.join(given)})"
        return None, f"It is called as {shown}; found {name}{inspect.signature(function)}.", ()
    except ValueError:
        pass  # a function of C, which does not tell
    state = np.random.get_state()
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            returned = function(*given.values())
    except Exception as error:  # whatever a learner's function raises
        return None, _about(error, name), (asked.note,) if asked.note else ()
    finally:
        np.random.set_state(state)
    remarks = [f"It warned: {text}." for text in dict.fromkeys(str(one.message) for one in warned)]
    changed = [
        argument
        for argument, value in asked.arguments.items()
        if argument not in asked.changes and not _same(value, given[argument])
    ]
    if changed:
        remarks.append(
            f"It changed {', '.join(changed)} in place: whoever gave it may need it as it was."
        )
    return returned, "", tuple(remarks)


def _about(error: Exception, name: str) -> str:
    """What was raised, and in which line of the learner's file."""
    frames = traceback.extract_tb(error.__traceback__)[1:]
    text = f"{name} raised {type(error).__name__}: {error}".rstrip(": ")
    own = [frame for frame in frames if frame.filename == frames[0].filename]
    if not own:
        return f"{text}."
    line = f": {own[-1].line}" if own[-1].line else ""
    return f"{text}\n  in {own[-1].name}, line {own[-1].lineno}{line}"


def _same(one: Any, other: Any) -> bool:
    """Whether nested arguments are equal."""
    if isinstance(one, Mapping):
        return (
            isinstance(other, Mapping)
            and [*one] == [*other]
            and all(_same(one[key], other[key]) for key in one)
        )
    if isinstance(one, tuple | list):
        return (
            isinstance(other, tuple | list)
            and len(one) == len(other)
            and all(map(_same, one, other))
        )
    return np.array_equal(one, other)


@cache
def _answered(name: str) -> Answer:
    """What our function answers, by name."""
    asked = task(name)
    given = copy.deepcopy(dict(asked.arguments))
    return read(asked, asked.function(*given.values()), given).arrays


def _recognised(
    asked: Task, reading: Reading, verdicts: tuple[Verdict, ...]
) -> tuple[Finding, ...]:
    """The mistakes whose numbers were found: one that explains everything, or several in turn."""
    right = _answered(asked.name)
    wrong = [v.name for v in verdicts if not v.right and v.name in reading.arrays]
    whole = len(wrong) == sum(not verdict.right for verdict in verdicts)
    untouched = [verdict.name for verdict in verdicts if verdict.right]
    found: list[Finding] = []
    while wrong:
        fits = []
        for mistake, answer in mistaken_answers(asked.name):
            same = tuple(name for name in wrong if alike(reading.arrays[name], answer[name]))
            against = sum(not alike(answer[name], right[name]) for name in untouched)
            if same:
                fits.append((len(same), -against, same, mistake))
        if not fits:
            break
        best = max(fits, key=lambda fit: fit[:2])
        first, *also = [mistake for *fit, mistake in fits if fit == [*best[:3]]]
        alone = whole and not found and not best[1] and best[0] == len(wrong)
        found.append(Finding(first, best[2], alone, tuple(also)))
        wrong = [name for name in wrong if name not in best[2]]
    return (*found, *_related(reading, right, wrong, whole and not found))


def _related(
    reading: Reading, right: Mapping[str, Array], wrong: list[str], whole: bool
) -> Iterator[Finding]:
    """What happened to arrays that no mistake in the table explains."""
    for clause, relation in _RELATIONS:
        names = tuple(
            name
            for name in wrong
            if right[name].ndim > 1 and alike(reading.arrays[name], relation(right[name]))
        )
        if names:
            mistake = Mistake(clause, "", partial(_all_related, relation))
            yield Finding(mistake, names, whole and len(names) == len(wrong))
            wrong = [name for name in wrong if name not in names]
            whole = False


def _all_related(relation: Callable[[Array], Array], right: Answer) -> Answer:
    """The right answer with every array changed alike."""
    return {name: relation(array) for name, array in right.items()}

"""What a function returned, as arrays by name, and their comparison with the right ones.

A learner's function may return anything: what cannot be read is answered with a sentence.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...backends.steps import Array
from .draws import Task

# Numbers are equal that differ by less than this part of the number, or of the largest of the
# array: far more than rounding, float32's included, and far less than any mistake makes.
_RELATIVE, _OF_LARGEST = 1e-5, 1e-6


@dataclass
class Reading:
    """What was found in what a function returned.

    Attributes:
        arrays: name → array.
        problems: name, or group of names, → why it could not be read.
        remarks: what was noticed beside.
    """

    arrays: dict[str, Array] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def add(self, name: str, given: Any) -> None:
        """Take in an array."""
        try:
            array = np.asarray(given)
        except Exception:  # whatever a foreign object does when it is asked for its numbers
            array = np.asarray(None)
        if array.dtype.kind in "fiub":
            self.arrays[name] = array.astype(np.float64)
        elif array.dtype.kind == "c":
            self.problems[name] = "holds complex numbers; expected real ones"
        else:
            self.problems[name] = f"is no array of numbers: it is {described(given)}"


@dataclass(frozen=True)
class Verdict:
    """Whether one array is right.

    Attributes:
        name: of the array.
        shape: that it should have.
        right: whether it is right.
        problem: why its numbers could not be compared; "" if they were.
        worst: the name of the worst entry, indices counted from one: `dWi[2,3]`; "" if all are
            right, or could not be compared.
        found: the number at the worst entry.
        expected: the number that should stand there.
    """

    name: str
    shape: tuple[int, ...]
    right: bool
    problem: str = ""
    worst: str = ""
    found: float = np.nan
    expected: float = np.nan

    @property
    def text(self) -> str:
        """What is wrong, in a few words; "" if nothing."""
        if not self.worst:
            return self.problem
        found, expected = _apart(self.found, self.expected)
        return f"{self.worst}: found {found}, expected {expected}"


def read(task: Task, returned: Any, given: Mapping[str, Any]) -> Reading:
    """Name the arrays in what a function returned, and in the arguments that it changes.

    Args:
        task: what it was asked.
        returned: what it returned.
        given: its arguments, after the call.
    """
    reading = Reading()
    _read_returned(reading, task, returned)
    for name in task.changes:
        for key in task.arguments[name]:
            reading.add(f"{name}: {key}", given[name].get(key))
    return reading


def _read_returned(reading: Reading, task: Task, returned: Any) -> None:
    if not task.results:
        _read_dictionary(reading, "", returned)
    elif len(task.results) == 1:
        reading.add(task.results[0], returned)
    elif not isinstance(returned, tuple | list):
        reading.problems[""] = (
            f"returned {described(returned)}; expected {len(task.results)} values: "
            f"{', '.join(task.results)}"
        )
    else:
        if len(returned) != len(task.results):
            reading.remarks.append(
                f"It returned {len(returned)} values; expected are {len(task.results)}: "
                f"{', '.join(task.results)}."
            )
        for name, given in zip(task.results, returned, strict=False):
            _read_result(reading, task, name, given)


def _read_result(reading: Reading, task: Task, name: str, given: Any) -> None:
    if name == "cache":
        _read_caches(reading, task, name, [given])
    elif name == "caches":
        if not isinstance(given, tuple | list) or len(given) != 2:
            found = f"{len(given)} entries" if isinstance(given, tuple | list) else described(given)
            reading.problems[name] = f"found {found}; expected (list of each step's cache, x)"
            return
        reading.add("caches: x", given[1])
        _read_caches(reading, task, name, given[0])
    elif name == "gradients":
        _read_dictionary(reading, name, given)
    else:
        reading.add(name, given)


def _read_dictionary(reading: Reading, name: str, given: Any) -> None:
    if not isinstance(given, Mapping):
        found = f"{'is' if name else 'returned'} {described(given)}"
        reading.problems[name] = f"{found}; expected a dictionary, name → array"
        return
    for key, array in given.items():
        reading.add(f"{name}: {key}" if name else str(key), array)


def _read_caches(reading: Reading, task: Task, name: str, caches: Any) -> None:
    """What each step kept; of one step as it is, of several stacked along the last axis."""
    assert task.course is not None  # other tasks keep nothing
    expected = (*task.course.cache, "parameters")
    steps = task.arguments["x"].shape[2] if name == "caches" else 1
    if not isinstance(caches, Sequence) or len(caches) != steps:
        found = len(caches) if isinstance(caches, Sequence) else described(caches)
        reading.problems[name] = f"the list holds {found}; expected {steps} caches, one a step"
        return
    for cache in caches:
        if not isinstance(cache, tuple | list) or len(cache) != len(expected):
            found = f"{len(cache)} entries" if isinstance(cache, tuple | list) else described(cache)
            reading.problems[name] = (
                f"a step keeps {found}; expected {len(expected)}: ({', '.join(expected)})"
            )
            return
    for entry, values in zip(expected, zip(*caches, strict=True), strict=True):
        if entry == "parameters":
            if not all(isinstance(value, Mapping) for value in values):
                reading.problems[f"{name}: {entry}"] = (
                    f"the last entry is {described(values[0])}; expected the parameters"
                )
            continue
        try:
            stacked = values[0] if name == "cache" else np.stack([*values], axis=-1)
        except ValueError:
            stacked = values[0]  # shapes differ from step to step, and one of them is wrong
        reading.add(f"{name}: {entry}", stacked)


def compare(expected: Mapping[str, Array], reading: Reading) -> tuple[Verdict, ...]:
    """Judge each array: shapes first, then numbers."""
    verdicts: dict[str, Verdict] = {}
    for name, array in expected.items():
        group = name.partition(":")[0]
        if group in reading.problems:
            verdicts[group] = Verdict(group, (), False, reading.problems[group])
        elif group != name and not any(found.startswith(group) for found in reading.arrays):
            verdicts[group] = Verdict(group, (), False, "is missing")
        elif name in reading.problems:
            verdicts[name] = Verdict(name, array.shape, False, reading.problems[name])
        elif name in reading.arrays:
            verdicts[name] = _judged(name, reading.arrays[name], array)
        else:
            verdicts[name] = Verdict(name, array.shape, False, _missing(name, expected, reading))
    for name, problem in reading.problems.items():
        if name and name not in verdicts:
            verdicts[name] = Verdict(name, (), False, problem)
    if unknown := [name for name in reading.arrays if name not in expected]:
        reading.remarks.append(f"Not looked at: {', '.join(unknown)}.")
    return tuple(verdicts.values())


def alike(found: Array, expected: Array) -> bool:
    """Whether two arrays have one shape and equal numbers."""
    return found.shape == expected.shape and bool(np.all(_close(found, expected)))


def described(thing: Any) -> str:
    """What something is, in words."""
    if thing is None:
        return "None"
    if isinstance(thing, np.ndarray):
        return f"one array of shape {thing.shape}"
    if isinstance(thing, tuple | list):
        return f"a {type(thing).__name__} of {len(thing)}"
    name = type(thing).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _close(found: Array, expected: Array) -> Array:
    largest = float(np.abs(expected).max(initial=0.0))
    tolerance = np.maximum(_RELATIVE * np.abs(expected), _OF_LARGEST * largest + 1e-12)
    with np.errstate(invalid="ignore"):  # infinities
        return np.asarray(np.abs(found - expected) <= tolerance)


def _judged(name: str, found: Array, expected: Array) -> Verdict:
    shape = expected.shape
    if shape == () and found.size == 1:
        found = found.reshape(())
    if found.shape != shape:
        return Verdict(name, shape, False, _about_shape(found, expected))
    if not np.isfinite(found).all():
        bad = ~np.isfinite(found)
        kind = "NaN" if np.isnan(found).any() else "infinity"
        first = _entry(name, tuple(int(index) for index in np.argwhere(bad)[0]))
        return Verdict(
            name, shape, False, f"holds {kind}: {bad.sum()} of {bad.size} entries; first {first}"
        )
    if np.all(_close(found, expected)):
        return Verdict(name, shape, True)
    if len(shape) == 1:  # symbols in a row: the first that is wrong leads to the others
        place: tuple[int, ...] = (int(np.argmin(_close(found, expected))),)
    else:
        worst = np.argmax(np.abs(found - expected))
        place = tuple(int(index) for index in np.unravel_index(worst, shape))
    return Verdict(
        name, shape, False, "", _entry(name, place), float(found[place]), float(expected[place])
    )


def _about_shape(found: Array, expected: Array) -> str:
    if found.ndim == expected.ndim == 1:
        return f"has {len(found)} entries; expected {len(expected)}"
    text = f"has shape {found.shape}; expected {expected.shape}"
    if found.ndim == 2 and found.T.shape == expected.shape:
        right = ", and its numbers are right" if alike(found.T, expected) else ""
        return f"{text}: it is transposed{right}"
    if found.size == expected.size and found.shape == tuple(n for n in expected.shape if n != 1):
        right = "" if alike(found.reshape(expected.shape), expected) else "; its numbers differ too"
        return f"{text}: an axis of length 1 is missing (keepdims=True){right}"
    return text


def _missing(name: str, expected: Mapping[str, Array], reading: Reading) -> str:
    unknown = [found for found in reading.arrays if found not in expected]
    near = [found for found in unknown if found[:2].lower() == name[:2].lower()]
    return f"is missing; found is {', '.join(near)}" if near else "is missing"


def _entry(name: str, index: tuple[int, ...]) -> str:
    """The name of an entry, counted from one; the third index is the step."""
    one = [str(number + 1) for number in index]
    step = f"<{one[2]}>" if len(one) > 2 else ""
    return f"{name}[{','.join(one[:2])}]{step}" if one else name


def _apart(found: float, expected: float) -> tuple[str, str]:
    """Two numbers in as many digits as show that they differ, at least eight decimals."""
    found, expected = found + 0.0, expected + 0.0  # no minus before a zero
    if found == int(found) and expected == int(expected):
        return f"{found:.0f}", f"{expected:.0f}"
    for digits in range(8, 17):
        texts = f"{found:.{digits}f}", f"{expected:.{digits}f}"
        if texts[0] != texts[1] and float(texts[1]) != 0:
            return texts
    return f"{found:.8g}", f"{expected:.8g}"

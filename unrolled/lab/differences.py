"""Gradient checking: exact gradients against central differences, array by array."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..backends.steps import Array
from ..cell import Cell
from ..errors import GradientError, InputError, SizeError
from ..network import Network, State
from .notation import Place

_STEP = 1e-5  # where the error of the formula, ~step², meets that of rounding, ~ε/step
_SMALL = 1e-3  # errors are relative to the entry, or to this part of the largest of its array
_ALIKE = 1e-2  # how near ratios must be to be called equal

Function = Callable[..., npt.ArrayLike]
Derivative = Callable[..., Mapping[str, npt.ArrayLike]]


@dataclass(frozen=True)
class CheckedArray:
    """What was found of one array.

    Attributes:
        name: of the gradient: `dW.i`.
        shape: its shape.
        error: the worst relative error.
        worst: the entry where it is: `dW.i[2,3]`.
        exact: the gradient that was checked, there.
        numeric: the central difference there.
        guess: what the numbers tell of a mistake; "" if nothing, or if there is none.
    """

    name: str
    shape: tuple[int, ...]
    error: float
    worst: str
    exact: float
    numeric: float
    guess: str

    @property
    def ratio(self) -> float:
        """The gradient that was checked, divided by the central difference, at the worst entry."""
        return self.exact / self.numeric if self.numeric else np.inf * np.sign(self.exact)


@dataclass(frozen=True)
class GradientCheck:
    """The result of a gradient check; it prints as a table.

    Attributes:
        title: what was checked.
        arrays: what was found of each array.
        tolerance: the relative error that is let pass.
    """

    title: str
    arrays: tuple[CheckedArray, ...]
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether every array is right."""
        return self.worst.error <= self.tolerance

    @property
    def worst(self) -> CheckedArray:
        """The array with the worst entry."""
        return max(self.arrays, key=lambda array: array.error)

    def check(self) -> "GradientCheck":
        """Give the result back if all is right: `gradient_check(cell).check()` is a test.

        Raises:
            GradientError: if a gradient is wrong; the text is `verdict`.
        """
        if not self.passed:
            raise GradientError(self.verdict)
        return self

    @property
    def verdict(self) -> str:
        """In a sentence or two, whether all is right, and what is not."""
        worst = self.worst
        if self.passed:
            return (
                f"All gradients are right: the worst entry, {worst.worst}, is off by "
                f"{worst.error:.1e} of itself."
            )
        wrong = [array for array in self.arrays if array.error > self.tolerance]
        sentences = [f"{self.title}: {', '.join(array.name for array in wrong)} wrong."]
        if np.isfinite(worst.exact):
            sentences.append(
                f"The worst entry is {worst.worst}: the gradient says {worst.exact:.8g}, the "
                f"central difference {worst.numeric:.8g}; their ratio is {worst.ratio:.4g}."
            )
        elif not worst.guess:
            sentences.append(
                f"At {worst.worst} the gradient is {worst.exact:g} and the central difference "
                f"{worst.numeric:g}: is a number too large on the way, or divided by zero?"
            )
        for guess in dict.fromkeys(array.guess for array in wrong if array.guess):
            names = ", ".join(array.name for array in wrong if array.guess == guess)
            sentences.append(f"Of {names}, {guess}.")
        return " ".join(sentences)

    def __str__(self) -> str:
        head = ("array", "shape", "worst error", "at", "gradient", "difference", "")
        rows = [head]
        for array in self.arrays:
            right = array.error <= self.tolerance
            rows.append(
                (
                    array.name, str(array.shape), f"{array.error:.1e}", array.worst,
                    f"{array.exact:.8g}", f"{array.numeric:.8g}", "" if right else "wrong",
                )
            )  # fmt: skip
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        return "\n".join([f"Gradient check of {self.title}", "", *lines, "", self.verdict])

    def __repr__(self) -> str:
        found = "right" if self.passed else "wrong"
        return (
            f"<gradient check of {self.title}: {found}, {self.worst.worst} {self.worst.error:.1e}>"
        )


def gradient_check(
    what: Cell | Network | Function,
    derivative: Derivative | None = None,
    arrays: Mapping[str, npt.ArrayLike] | None = None,
    *,
    x: npt.ArrayLike | None = None,
    state: State | None = None,
    lengths: npt.ArrayLike | None = None,
    seed: int = 0,
    tolerance: float = 1e-6,
    entries: int = 200,
) -> GradientCheck:
    """Compare gradients with central differences in float64, print a table, and return it.

    The scalar whose gradients are taken is the sum of all outputs, each times a number drawn once;
    so no gradient can be right by accident. Of a cell and a network the gradients are those of
    backpropagation through time (`Trace.backward`), with respect to input, initial state and every
    parameter.

        gradient_check(cells.lstm)                          a cell, with everything drawn
        gradient_check(network, x=x)                        a network, on data of one's own
        gradient_check(f, df, {"x": x, "W": W})             f(x=…, W=…) → an array;
                                                            df(dy, x=…, W=…) → {"dx": …, "dW": …}
        gradient_check(cells.lstm).check()                  raises if a gradient is wrong

    Args:
        what: a cell, a network, or a function of arrays, given by name, that returns one array.
        derivative: of a function, its gradients: called with the gradient of its output and with
            the same arrays, it returns array → gradient, by the array's name with or without a d.
        arrays: of a function, its arrays.
        x: of a network, (T, B, I); drawn if None, with T = 5 and B = 2.
        state: of a network, the initial state, as in `Network.trace`; drawn if None.
        lengths: of a network, (B,) the length of each row.
        seed: of all that is drawn.
        tolerance: the relative error that is let pass. Errors are relative to the entry, or, for
            small ones, to a thousandth of the largest in the array.
        entries: how many entries of a large array are tried, drawn at random.

    Returns:
        The result, which prints as a table; it passes or not, and `check()` raises if not.

    Raises:
        InputError: if arguments are missing or do not fit.
    """
    rng = np.random.default_rng(seed)
    if isinstance(what, Cell | Network):
        if derivative is not None or arrays is not None:
            raise InputError("a derivative and its arrays go with a function, not with a cell.")
        subject: _Subject = _of_network(what, x, state, lengths, rng)
    elif derivative is None or arrays is None:
        raise InputError(
            "give a cell, a network, or a function with its derivative and its arrays: "
            'gradient_check(f, df, {"x": x}).'
        )
    else:
        subject = _of_function(what, derivative, arrays, rng)
    found = tuple(_compared(array, subject, rng, entries) for array in subject.arrays)
    result = GradientCheck(subject.title, found, tolerance)
    print(result)
    return result


@dataclass(frozen=True)
class _Array:
    """An array whose gradient is checked; entries are changed in place."""

    name: str
    array: Array
    gradient: Array
    entry: Callable[[tuple[int, ...]], str]  # index from zero → the entry's name


@dataclass(frozen=True)
class _Subject:
    """A function of arrays, the weights that make its outputs a scalar, and its gradients."""

    title: str
    outputs: Callable[[], tuple[Array, ...]]
    weights: tuple[Array, ...]
    arrays: tuple[_Array, ...]
    sizes: Mapping[str, int]  # in words → number, for guesses


def _of_network(
    what: Cell | Network,
    x: npt.ArrayLike | None,
    state: State | None,
    lengths: npt.ArrayLike | None,
    rng: np.random.Generator,
) -> _Subject:
    network = _copied(what if isinstance(what, Network) else _small_network(what, rng))
    cell = network.cell
    sequence = (
        rng.standard_normal((5, 2, network.sizes[0]["I"])) if x is None else np.array(x, np.float64)
    )
    sequence = sequence[:, None] if sequence.ndim == 2 else sequence
    shapes = [last.shape for last in _several(network.run(sequence, state, lengths)[1])]
    initial = (
        [rng.standard_normal(shape) for shape in shapes]
        if state is None
        else [np.array(array, np.float64) for array in _several(state)]
    )

    def trace() -> Any:
        given = initial[0] if len(initial) == 1 else tuple(initial)
        return network.trace(sequence, given, lengths, names=())

    def outputs() -> tuple[Array, ...]:
        run = trace()
        return (run.y, *_several(run.state))

    weights = tuple(rng.standard_normal(output.shape) for output in outputs())
    dstate = weights[1:]
    gradients = trace().backward(weights[0], dstate[0] if len(dstate) == 1 else dstate)
    arrays = [_Array(f"d{cell.equations.inputs[0]}", sequence, gradients.x, _in_input(cell))]
    for name, array, gradient in zip(cell.states, initial, _several(gradients.state), strict=True):
        arrays.append(_Array(f"d{name}<0>", array, gradient, _in_state(network, name)))
    arrays += _parameters(network, gradients.params)
    title = f"cell '{cell.name}'" if isinstance(what, Cell) else f"a network of '{cell.name}'"
    sizes = {"T, the steps": len(sequence), "B, the examples": sequence.shape[1]}
    return _Subject(title, outputs, weights, tuple(arrays), sizes)


def _small_network(cell: Cell, rng: np.random.Generator) -> Network:
    try:
        return Network.init(cell, 3, 4, rng=rng)
    except SizeError:  # a cell whose input and state are of one size
        return Network.init(cell, 4, 4, rng=rng)


def _copied(network: Network) -> Network:
    """The same in float64, in arrays of its own, which can be changed."""
    params = tuple(
        tuple({name: np.array(block, np.float64) for name, block in one.items()} for one in layer)
        for layer in network.params
    )
    return Network(network.cell, params, network.initial)


def _parameters(network: Network, gradients: Any) -> Iterator[_Array]:
    several = network.num_layers > 1
    for layer, directions in enumerate(network.params):
        for direction, blocks in enumerate(directions):
            way = direction if network.directions == 2 else None
            for name, block in blocks.items():
                gradient = gradients[layer][direction][name]
                arrow = "" if way is None else "→←"[way]
                label = f"d{arrow}{name}" + (f"[{layer + 1}]" if several else "")

                def entry(
                    index: tuple[int, ...], name: str = name, layer: int = layer,
                    way: int | None = way,
                ) -> str:  # fmt: skip
                    one = tuple(number + 1 for number in index)
                    return str(Place(name, one, None, layer + 1, None, way, True, several))

                yield _Array(label, np.asarray(block), gradient, entry)


def _in_input(cell: Cell) -> Callable[[tuple[int, ...]], str]:
    def entry(index: tuple[int, ...]) -> str:
        step, example, unit = (number + 1 for number in index)
        return str(Place(cell.equations.inputs[0], (unit,), example, None, step, gradient=True))

    return entry


def _in_state(network: Network, name: str) -> Callable[[tuple[int, ...]], str]:
    def entry(index: tuple[int, ...]) -> str:
        layer, direction = divmod(index[0], network.directions)
        way = direction if network.directions == 2 else None
        return str(Place(name, (index[2] + 1,), index[1] + 1, layer + 1, 0, way, gradient=True))

    return entry


def _several(state: State) -> tuple[Array, ...]:
    return tuple(state) if isinstance(state, list | tuple) else (state,)


def _of_function(
    function: Function,
    derivative: Derivative,
    arrays: Mapping[str, npt.ArrayLike],
    rng: np.random.Generator,
) -> _Subject:
    mine = {name: np.array(array, np.float64) for name, array in arrays.items()}

    def outputs() -> tuple[Array, ...]:
        return (np.array(function(**mine), np.float64),)

    try:
        output = outputs()[0]
    except (TypeError, ValueError) as error:
        raise InputError(
            "a function to be checked takes the arrays by their names "
            f"({', '.join(mine)}) and returns one array of numbers; it raised: {error}"
        ) from error
    weights = rng.standard_normal(output.shape)
    found = derivative(weights, **mine)
    if not isinstance(found, Mapping):
        raise InputError(
            "a derivative returns a dictionary, array → gradient, such as "
            f'{{"d{next(iter(mine))}": …}}; found {type(found).__name__}.'
        )
    gradients = {}
    for name in mine:
        key = f"d{name}" if f"d{name}" in found else name
        if key not in found:
            given = ", ".join(map(str, found)) or "nothing"
            raise InputError(f"the derivative gives no d{name}; it gives {given}.")
        gradients[name] = np.asarray(found[key], np.float64)
    checked = [_Array(f"d{n}", mine[n], gradients[n], _in_array(f"d{n}")) for n in mine]
    sizes: dict[str, int] = {}
    for name, array in {**mine, "the output": output}.items():
        sizes |= {f"axis {axis} of {name}": size for axis, size in enumerate(array.shape, 1)}
    title = getattr(function, "__name__", "a function").replace("<lambda>", "a function")
    return _Subject(title, outputs, (weights,), tuple(checked), sizes)


def _in_array(name: str) -> Callable[[tuple[int, ...]], str]:
    def entry(index: tuple[int, ...]) -> str:
        return f"{name}[{','.join(str(number + 1) for number in index)}]" if index else name

    return entry


def _compared(
    checked: _Array, subject: _Subject, rng: np.random.Generator, entries: int
) -> CheckedArray:
    """Try the entries of an array."""
    name, shape = checked.name, checked.array.shape
    if checked.gradient.shape != shape:
        guess = f"the shape is {checked.gradient.shape}, that of the array {shape}"
        guess += ": transposed" if checked.gradient.shape == shape[::-1] else ""
        return CheckedArray(name, shape, np.inf, name, np.nan, np.nan, guess)
    size = checked.array.size
    tried = np.arange(size) if size <= entries else np.sort(rng.choice(size, entries, False))
    numeric = np.array([_slope(checked.array, int(place), subject) for place in tried])
    exact = checked.gradient.reshape(-1)[tried]
    if not size:
        return CheckedArray(name, shape, 0.0, name, 0.0, 0.0, "")
    largest = max(np.abs(exact).max(), np.abs(numeric).max())
    scale = np.maximum(np.maximum(np.abs(exact), np.abs(numeric)), _SMALL * largest)
    errors = np.abs(exact - numeric) / np.maximum(scale, _STEP**2)
    errors = np.where(np.isnan(errors), np.inf, errors)
    worst = int(errors.argmax())
    place = tuple(int(i) for i in np.unravel_index(tried[worst], shape))
    whole = (exact.reshape(shape), numeric.reshape(shape)) if size == len(tried) else None
    return CheckedArray(
        name, shape, float(errors[worst]), checked.entry(place), float(exact[worst]),
        float(numeric[worst]), _guess(exact, numeric, whole, subject.sizes),
    )  # fmt: skip


def _slope(array: Array, place: int, subject: _Subject) -> float:
    """The central difference of the scalar with respect to one entry."""
    flat = array.reshape(-1)
    value = flat[place]
    step = _STEP * max(1.0, abs(value))
    above, below = value + step, value - step
    flat[place] = above
    high = subject.outputs()
    flat[place] = below
    low = subject.outputs()
    flat[place] = value
    change = sum(
        np.sum((a - b) * weight) for a, b, weight in zip(high, low, subject.weights, strict=True)
    )
    return float(change / (above - below))


def _guess(
    exact: Array, numeric: Array, whole: tuple[Array, Array] | None, sizes: Mapping[str, int]
) -> str:
    """What the numbers tell of a mistake, in a sentence; "" if nothing."""
    largest = np.abs(numeric).max()
    telling = np.abs(numeric) > _SMALL * largest
    if not telling.any() or np.allclose(exact, numeric, rtol=_ALIKE, atol=_SMALL * largest):
        return ""
    if not exact.any():
        return "all is zero: nothing is handed on to it"
    ratios = exact[telling] / numeric[telling]
    ratio = float(np.median(ratios))
    if np.all(np.abs(ratios - ratio) <= _ALIKE * abs(ratio)):
        return _guess_of_ratio(ratio, sizes)
    return "" if whole is None else _guess_of_order(*whole)


def _guess_of_order(exact: Array, numeric: Array) -> str:
    """What whole arrays tell: entries in the wrong places, or right in one place only."""
    small = _SMALL * np.abs(numeric).max()

    def alike(a: Array, b: Array) -> bool:
        return a.shape == b.shape and np.allclose(a, b, rtol=_ALIKE, atol=small)

    if exact.ndim == 2 and alike(exact.T, numeric):
        return "every entry stands where its mirror image belongs: transposed"
    for axis, size in enumerate(exact.shape):
        if alike(np.flip(exact, axis), numeric):
            return f"the order along axis {axis + 1} is reversed"
        pairs = zip(np.moveaxis(exact, axis, 0), np.moveaxis(numeric, axis, 0), strict=True)
        right = [alike(a, b) for a, b in pairs]
        if exact.ndim > 2 and size > 1 and right == [False] * (size - 1) + [True]:
            return (
                f"only the last of axis {axis + 1} is right: the gradient is not carried from "
                "step to step"
            )
    return ""


def _guess_of_ratio(ratio: float, sizes: Mapping[str, int]) -> str:
    if abs(ratio + 1) <= _ALIKE:
        return "every entry has the wrong sign"
    for times, what, mistake, other in (
        (ratio, "large", "a sum for a mean", "a term counted twice"),
        (1 / ratio, "small", "a mean for a sum", "a term left out"),
    ):
        sources = [name for name, size in sizes.items() if size > 1 and abs(times - size) < _ALIKE]
        meaning = [f"{mistake} over {' or '.join(sources)}"] if sources else []
        meaning += [other] if abs(times - 2) < _ALIKE else []
        if meaning:
            return f"every entry is {times:.0f} times too {what}: {', or '.join(meaning)}"
    return f"every entry is {ratio:.4g} times what is right"

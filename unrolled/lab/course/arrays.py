"""Arrays as the course has them: columns are examples, shapes are checked by their letters."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from ...backends.steps import Array
from ...errors import InputError

Parameters = Mapping[str, npt.ArrayLike]


class Sizes:
    """The numbers behind the letters n_x, n_a, n_y, m and T_x, found in the order of reading."""

    def __init__(self, where: str = "") -> None:
        """Begin with nothing known; `where` stands behind the names in messages."""
        self._where = where
        self._known: dict[str, int] = {}

    def __getitem__(self, letter: str) -> int:
        return self._known[letter]

    def array(self, name: str, given: npt.ArrayLike, *letters: str) -> Array:
        """An array in float64, whose shape fits what is known; it makes the other letters known.

        Args:
            name: what messages call it.
            given: the array.
            letters: its shape: letters, numbers, or a sum of known letters such as `n_a + n_x`.

        Raises:
            InputError: if it holds no real numbers, or its shape does not fit.
        """
        found = self._numbers(name, given)
        known = dict(self._known)
        if len(found.shape) != len(letters) or any(
            _number(known, letter, number) != number
            for letter, number in zip(letters, found.shape, strict=True)
        ):
            raise InputError(
                f"{name}{self._where} has shape {found.shape}; expected {self._expected(letters)}."
            )
        self._known = known
        return found

    def parameter(self, parameters: Parameters, key: str, *letters: str) -> Array:
        """One of the parameters, as `array` gives it."""
        if not isinstance(parameters, Mapping):
            raise InputError(
                "parameters are a dictionary of arrays by name; "
                f"found a {type(parameters).__name__}."
            )
        if key not in parameters:
            raise InputError(
                f"the parameters{self._where} need {key}, of shape ({', '.join(letters)}); "
                f"found {', '.join(map(str, parameters)) or 'none'}."
            )
        return self.array(key, parameters[key], *letters)

    def _numbers(self, name: str, given: npt.ArrayLike) -> Array:
        try:
            found = np.asarray(given)
        except ValueError:  # rows of different lengths
            found = np.asarray(None)
        if found.dtype.kind not in "fiub":
            raise InputError(
                f"{name}{self._where} is an array of real numbers; found a {type(given).__name__}"
                + (f" of {found.dtype}." if isinstance(given, np.ndarray) else ".")
            )
        return found.astype(np.float64)

    def _expected(self, letters: tuple[str, ...]) -> str:
        parts = dict.fromkeys(part for letter in letters for part in letter.split(" + "))
        known = [f"{part} = {self._known[part]}" for part in parts if part in self._known]
        shape = f"({', '.join(letters)})"
        return f"{shape} with {', '.join(known)}" if known else shape


def _number(known: dict[str, int], letter: str, found: int) -> int:
    """What a letter stands for; one that is not known yet stands for what was found."""
    if letter.isdigit():
        return int(letter)
    if " + " in letter:
        return sum(known[part] for part in letter.split(" + "))
    return known.setdefault(letter, found)


def softmax(z: Array) -> Array:
    """exp(z) / Σ exp(z) over the first axis, so that every column sums to 1."""
    powers = np.exp(z - z.max(axis=0))
    return np.asarray(powers / powers.sum(axis=0))


def predictions(parameters: Parameters, weights: str, a: Array, rows: str = "n_a") -> Array:
    """The course's output layer: y = softmax(W a + by), for one step or for all of them.

    Args:
        parameters: holds `weights` (n_y, rows of a) and `by` (n_y, 1).
        weights: the key of W.
        a: (n_a, m) or (n_a, m, T_x).
        rows: what messages call the rows of a.

    Returns:
        (n_y, m) or (n_y, m, T_x); over n_y the numbers sum to 1.
    """
    sizes = Sizes()
    sizes.array("a", a, *(rows, "m", "T_x")[: a.ndim])
    W = sizes.parameter(parameters, weights, "n_y", rows)
    b = sizes.parameter(parameters, "by", "n_y", "1")
    return softmax(np.tensordot(W, a, 1) + b.reshape(-1, *[1] * (a.ndim - 1)))

"""The character-level language model of the course ("Dinosaur island"), in its names and protocols.

Its parameters are Waa Wax Wya b by. Numbers are drawn as the course draws them, from the legacy
generator with its seeds, but from one of our own: NumPy's global generator is left as it was.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ...backends import reference
from ...backends.steps import Array
from ...errors import InputError
from ...network import Network
from .arrays import Parameters, Sizes, softmax
from .layout import RNN_CHARACTERS

LONGEST = 50  # characters of a name that does not end
CLIP = 5
REPORT_EVERY = 2000

Run = Callable[..., Any]
Gradients = dict[str, Array]


def clip(gradients: Mapping[str, npt.ArrayLike], maxValue: float) -> Gradients:
    """Bring every number of the gradients between −maxValue and maxValue.

    Args:
        gradients: name → array; they stay as they are.
        maxValue: the bound, not negative.

    Returns:
        Name → clipped array.

    Raises:
        InputError: if maxValue is negative, or gradients are no dictionary.
    """
    if not isinstance(gradients, Mapping):
        raise InputError(
            f"gradients are a dictionary of arrays by name; found a {type(gradients).__name__}."
        )
    if not maxValue >= 0:
        raise InputError(f"maxValue is a number that is not negative; found {maxValue}.")
    return {name: np.clip(array, -maxValue, maxValue) for name, array in gradients.items()}


def sample(parameters: Parameters, char_to_ix: Mapping[str, int], seed: int) -> list[int]:
    """Draw a name, character after character, each fed back as the next input.

    The input and the state begin with zeros. Character k is drawn with a generator seeded with
    seed + 2 k, as the course's counts come to.

    Args:
        parameters: Waa (n_a, n_a), Wax (n_a, vocab_size), Wya (vocab_size, n_a), b (n_a, 1),
            by (vocab_size, 1).
        char_to_ix: character → its number; it has the newline, which ends a name.
        seed: of the first character.

    Returns:
        The numbers of the characters, the newline's last. After 50 characters it is appended.

    Raises:
        InputError: if a parameter is missing or does not fit, or there is no newline.
    """
    newline = _newline(char_to_ix)
    network, Wya, by = _model(parameters, Sizes())
    x = np.zeros((1, 1, Wya.shape[0]))
    a = np.zeros((1, 1, Wya.shape[1]))
    drawn: list[int] = []
    while len(drawn) < LONGEST and newline not in drawn[-1:]:
        output, state = network.run(x, a)
        y = softmax(Wya @ output[0].T + by)[:, 0]
        random = np.random.RandomState(seed + 2 * len(drawn))
        drawn.append(int(random.choice(len(y), p=y)))
        x = np.eye(len(y))[None, drawn[-1:]]
        a = np.asarray(state)
    return [*drawn, newline] if len(drawn) == LONGEST else drawn


def optimize(
    X: Sequence[int | None],
    Y: Sequence[int],
    a_prev: npt.ArrayLike,
    parameters: dict[str, Array],
    learning_rate: float = 0.01,
) -> tuple[float, Gradients, Array]:
    """One step of training on one name: forward, backward, clip at 5, and gradient descent.

    Args:
        X: the characters that are read, by number; None is no character, a vector of zeros.
        Y: the characters to predict: X shifted by one, the newline last.
        a_prev: (n_a, 1) the hidden state to begin with.
        parameters: as in `sample`; the arrays are changed in place.
        learning_rate: how far to go against the gradient.

    Returns:
        The cross-entropy summed over the name, in nats; the clipped gradients dWax, dWaa, db, dWya
        and dby; and the last hidden state (n_a, 1), to begin the next name with.

    Raises:
        InputError: if an argument does not fit.
    """
    return _optimize(X, Y, a_prev, parameters, learning_rate, reference.run)


def model(
    data_x: Iterable[str],
    ix_to_char: Mapping[int, str],
    char_to_ix: Mapping[str, int],
    num_iterations: int = 35000,
    n_a: int = 50,
    dino_names: int = 7,
    vocab_size: int = 27,
    verbose: bool = False,
) -> tuple[dict[str, Array], str]:
    """Train a model of names, one name at a step, and print what it invents on the way.

    Every 2000 steps it prints the smoothed loss and some new names. The hidden state is carried
    from name to name, and backpropagation stays within one.

    Args:
        data_x: the names, in any case; blank ones are left out, and the others shuffled with
            seed 0.
        ix_to_char: number → character.
        char_to_ix: character → number, the newline's included.
        num_iterations: how many steps.
        n_a: the size of the hidden state.
        dino_names: how many names to invent at a time.
        vocab_size: how many characters there are.
        verbose: whether to print also the name that the model is at.

    Returns:
        The parameters, and the last name invented, with its newline.

    Raises:
        InputError: if there are no names, or a name has a character without a number.
    """
    from ...backends.cpu import run  # Numba is worth its second here, and only here

    examples = _examples(data_x, char_to_ix)
    parameters = _initialized(n_a, vocab_size)
    newline = _newline(char_to_ix)
    loss = -np.log(1 / vocab_size) * dino_names
    a_prev = np.zeros((n_a, 1))
    name = ""
    for iteration in range(num_iterations):
        example = examples[iteration % len(examples)]
        characters = [char_to_ix[character] for character in example]
        X, Y = [None, *characters], [*characters, newline]
        now, _, a_prev = _optimize(X, Y, a_prev, parameters, 0.01, run)
        loss = 0.999 * loss + 0.001 * now
        if iteration % REPORT_EVERY == 0:
            print(f"Iteration: {iteration}, Loss: {loss:f}")
            if verbose:
                print(f"at the name {example!r}, X = {X}, Y = {Y}")
            for seed in range(dino_names):
                name = "".join(ix_to_char[ix] for ix in sample(parameters, char_to_ix, seed))
                name = name[:1].upper() + name[1:]
                print(name, end="")
            print()
    return parameters, name


def _optimize(
    X: Sequence[int | None],
    Y: Sequence[int],
    a_prev: npt.ArrayLike,
    parameters: dict[str, Array],
    learning_rate: float,
    run: Run,
) -> tuple[float, Gradients, Array]:
    sizes = Sizes()
    network, Wya, by = _model(parameters, sizes)
    x, targets = _one_hot(X, Y, len(by))
    first = sizes.array("a_prev", a_prev, "n_a", "1").T[None]
    trace = network.trace(x, first, names=(), run=run)
    a = trace.y[:, 0]  # (T, n_a)
    y = softmax((a @ Wya.T + by[:, 0]).T).T
    here = np.arange(len(targets)), targets
    loss = -float(np.log(y[here]).sum())
    y[here] -= 1  # the gradient with respect to what softmax was given
    back = trace.backward((y @ Wya)[:, None], run=run).params[0][0]
    gradients = {
        **RNN_CHARACTERS.gradients(back), "dWya": y.T @ a, "dby": y.sum(0)[:, None]
    }  # fmt: skip
    gradients = clip(gradients, CLIP)
    for name, gradient in gradients.items():
        parameters[name[1:]] -= learning_rate * gradient
    return loss, gradients, a[-1][:, None]


def _model(parameters: Parameters, sizes: Sizes) -> tuple[Network, Array, Array]:
    """The network, and the output layer Wya (n_y, n_a) and by (n_y, 1)."""
    Wya = sizes.parameter(parameters, "Wya", "n_y", "n_a")
    sizes.parameter(parameters, "Wax", "n_a", "n_y")  # it reads what it predicts
    by = sizes.parameter(parameters, "by", "n_y", "1")
    return Network(RNN_CHARACTERS.cell, ((RNN_CHARACTERS.blocks(parameters, sizes),),)), Wya, by


def _one_hot(X: Sequence[int | None], Y: Sequence[int], size: int) -> tuple[Array, Array]:
    """The input (T, 1, size) and the targets (T,)."""
    if len(X) != len(Y) or not len(X):
        raise InputError(
            f"X and Y have as many characters as each other, 1 or more; found {len(X)} and "
            f"{len(Y)}."
        )
    if wrong := [ix for ix in (*X, *Y) if ix is not None and not 0 <= ix < size]:
        raise InputError(f"characters are numbers from 0 to {size - 1}; found {wrong[0]}.")
    x = np.zeros((len(X), 1, size))
    for step, ix in enumerate(X):
        if ix is not None:
            x[step, 0, ix] = 1
    return x, np.asarray(Y)


def _newline(char_to_ix: Mapping[str, int]) -> int:
    if "\n" not in char_to_ix:
        raise InputError("char_to_ix has a number for the newline, which ends every name.")
    return char_to_ix["\n"]


def _examples(data_x: Iterable[str], char_to_ix: Mapping[str, int]) -> list[str]:
    if isinstance(data_x, str):
        raise InputError("data_x is a list of names; found one text: give its splitlines().")
    examples = [name for line in data_x if (name := line.lower().strip())]
    if not examples:
        raise InputError("data_x is a list of names to learn from; found none.")
    if unknown := sorted({*"".join(examples)} - {*char_to_ix}):
        raise InputError(f"char_to_ix has no number for {', '.join(map(repr, unknown))}.")
    np.random.RandomState(0).shuffle(examples)
    return examples


def _initialized(n_a: int, vocab_size: int) -> dict[str, Array]:
    draw = np.random.RandomState(1).randn
    Wax, Waa, Wya = (
        draw(*shape) * 0.01 for shape in ((n_a, vocab_size), (n_a, n_a), (vocab_size, n_a))
    )
    return {
        "Wax": Wax,
        "Waa": Waa,
        "Wya": Wya,
        "b": np.zeros((n_a, 1)),
        "by": np.zeros((vocab_size, 1)),
    }

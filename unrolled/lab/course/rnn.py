"""The simple recurrent network in the course's names, shapes and order of results."""

import numpy as np
import numpy.typing as npt

from ...backends.steps import Array
from .arrays import Parameters, predictions
from .layout import RNN, Cache, Caches
from .passes import sequence, sequence_back, step, step_back


def rnn_cell_forward(
    xt: npt.ArrayLike, a_prev: npt.ArrayLike, parameters: Parameters
) -> tuple[Array, Array, Cache]:
    """One step: a = tanh(Wax x + Waa a_prev + ba), y = softmax(Wya a + by).

    Args:
        xt: (n_x, m) the input at this step.
        a_prev: (n_a, m) the hidden state of the step before.
        parameters: Waa (n_a, n_a), Wax (n_a, n_x), Wya (n_y, n_a), ba (n_a, 1), by (n_y, 1).

    Returns:
        a_next (n_a, m), yt_pred (n_y, m), and the cache (a_next, a_prev, xt, parameters).

    Raises:
        InputError: if a parameter is missing, or an array does not fit.
    """
    cache = step(RNN, xt, [a_prev], parameters)
    return cache[0], predictions(parameters, "Wya", cache[0]), cache


def rnn_forward(
    x: npt.ArrayLike, a0: npt.ArrayLike, parameters: Parameters
) -> tuple[Array, Array, Caches]:
    """All steps of a sequence.

    Args:
        x: (n_x, m, T_x) the input.
        a0: (n_a, m) the initial hidden state.
        parameters: as in `rnn_cell_forward`.

    Returns:
        a (n_a, m, T_x), y_pred (n_y, m, T_x), and (list of each step's cache, x).

    Raises:
        InputError: if a parameter is missing, or an array does not fit.
    """
    steps = sequence(RNN, x, a0, parameters)
    a = np.stack([cache[0] for cache in steps], axis=2)
    return a, predictions(parameters, "Wya", a), (steps, np.asarray(x))


def rnn_cell_backward(da_next: npt.ArrayLike, cache: Cache) -> dict[str, Array]:
    """One step of backpropagation through time.

    Args:
        da_next: (n_a, m) the gradient with respect to a_next.
        cache: that of `rnn_cell_forward`, or of your own function in the same layout.

    Returns:
        dxt (n_x, m), da_prev (n_a, m), dWax, dWaa and dba, of the parameters' shapes.

    Raises:
        InputError: if an array or the cache does not fit.
    """
    back = step_back(RNN, [da_next], cache)
    return {"dxt": back.x[:, :, 0], "da_prev": back.states[0], **back.parameters}


def rnn_backward(da: npt.ArrayLike, caches: Caches) -> dict[str, Array]:
    """Backpropagation through time over all steps (Werbos 1990).

    Args:
        da: (n_a, m, T) the gradient with respect to a, without what comes through later steps. If
            it has fewer steps than the caches, the first T of these count.
        caches: those of `rnn_forward`, or of your own function in the same layout.

    Returns:
        dx (n_x, m, T), da0 (n_a, m), dWax, dWaa and dba, of the parameters' shapes.

    Raises:
        InputError: if an array or the caches do not fit.
    """
    back = sequence_back(RNN, "da", da, caches)
    return {"dx": back.x, "da0": back.states[0], **back.parameters}

"""The LSTM in the course's names, shapes and order of results.

The course calls the input gate Γi the update gate, and its weights Wi and bi.
"""

import numpy as np
import numpy.typing as npt

from ...backends.steps import Array
from .arrays import Parameters, predictions
from .layout import LSTM, Cache, Caches
from .passes import sequence, sequence_back, step, step_back


def lstm_cell_forward(
    xt: npt.ArrayLike, a_prev: npt.ArrayLike, c_prev: npt.ArrayLike, parameters: Parameters
) -> tuple[Array, Array, Array, Cache]:
    """One step of an LSTM, then y = softmax(Wy a + by).

    Args:
        xt: (n_x, m) the input at this step.
        a_prev: (n_a, m) the hidden state of the step before.
        c_prev: (n_a, m) the cell state of the step before.
        parameters: Wf, Wi, Wc, Wo (n_a, n_a + n_x), each for [a_prev; x_t]; bf, bi, bc, bo
            (n_a, 1); Wy (n_y, n_a), by (n_y, 1).

    Returns:
        a_next (n_a, m), c_next (n_a, m), yt_pred (n_y, m), and the cache
        (a_next, c_next, a_prev, c_prev, ft, it, cct, ot, xt, parameters).

    Raises:
        InputError: if a parameter is missing, or an array does not fit.
    """
    cache = step(LSTM, xt, [a_prev, c_prev], parameters)
    return cache[0], cache[1], predictions(parameters, "Wy", cache[0]), cache


def lstm_forward(
    x: npt.ArrayLike, a0: npt.ArrayLike, parameters: Parameters
) -> tuple[Array, Array, Array, Caches]:
    """All steps of a sequence; the cell state begins with zeros.

    Args:
        x: (n_x, m, T_x) the input.
        a0: (n_a, m) the initial hidden state.
        parameters: as in `lstm_cell_forward`.

    Returns:
        a (n_a, m, T_x), y (n_y, m, T_x), c (n_a, m, T_x), and (list of each step's cache, x).

    Raises:
        InputError: if a parameter is missing, or an array does not fit.
    """
    steps = sequence(LSTM, x, a0, parameters)
    a = np.stack([cache[0] for cache in steps], axis=2)
    c = np.stack([cache[1] for cache in steps], axis=2)
    return a, predictions(parameters, "Wy", a), c, (steps, np.asarray(x))


def lstm_cell_backward(
    da_next: npt.ArrayLike, dc_next: npt.ArrayLike, cache: Cache
) -> dict[str, Array]:
    """One step of backpropagation through time.

    Args:
        da_next: (n_a, m) the gradient with respect to a_next.
        dc_next: (n_a, m) the gradient with respect to c_next, without what comes through a_next.
        cache: that of `lstm_cell_forward`, or of your own function in the same layout.

    Returns:
        dxt (n_x, m), da_prev, dc_prev (n_a, m), dWf, dbf, dWi, dbi, dWc, dbc, dWo and dbo, of the
        parameters' shapes.

    Raises:
        InputError: if an array or the cache does not fit.
    """
    back = step_back(LSTM, [da_next, dc_next], cache)
    da_prev, dc_prev = back.states
    return {"dxt": back.x[:, :, 0], "da_prev": da_prev, "dc_prev": dc_prev, **back.parameters}


def lstm_backward(da: npt.ArrayLike, caches: Caches) -> dict[str, Array]:
    """Backpropagation through time over all steps; nothing reaches the last cell state but a.

    Args:
        da: (n_a, m, T) the gradient with respect to a, without what comes through later steps. If
            it has fewer steps than the caches, the first T of these count.
        caches: those of `lstm_forward`, or of your own function in the same layout.

    Returns:
        dx (n_x, m, T), da0 (n_a, m), dWf, dbf, dWi, dbi, dWc, dbc, dWo and dbo, of the parameters'
        shapes.

    Raises:
        InputError: if an array or the caches do not fit.
    """
    back = sequence_back(LSTM, "da", da, caches)
    return {"dx": back.x, "da0": back.states[0], **back.parameters}

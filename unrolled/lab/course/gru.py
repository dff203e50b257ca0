"""The GRU in the course's notation: full (gates Γu and Γr), and simplified (Γu only).

The course never wrote these functions; they are alike to those of the LSTM. The state is called c.
Γu *replaces*: c = Γu ∗ c̃ + (1 − Γu) ∗ c_prev, where the z of the catalogue keeps: Γu = 1 − z.
"""

import numpy as np
import numpy.typing as npt

from ...backends.steps import Array
from .arrays import Parameters, predictions
from .layout import GRU, GRU_SIMPLIFIED, Cache, Caches, CourseCell
from .passes import sequence, sequence_back, step, step_back


def gru_cell_forward(
    xt: npt.ArrayLike, c_prev: npt.ArrayLike, parameters: Parameters
) -> tuple[Array, Array, Cache]:
    """One step of a full GRU, with the reset before the product, then y = softmax(Wy c + by).

    Args:
        xt: (n_x, m) the input at this step.
        c_prev: (n_a, m) the state of the step before.
        parameters: Wu, Wr (n_a, n_a + n_x), each for [c_prev; x_t]; Wc (n_a, n_a + n_x) for
            [Γr ∗ c_prev; x_t]; bu, br, bc (n_a, 1); Wy (n_y, n_a), by (n_y, 1).

    Returns:
        c_next (n_a, m), yt_pred (n_y, m), and the cache
        (c_next, c_prev, ut, rt, cct, xt, parameters).

    Raises:
        InputError: if a parameter is missing, or an array does not fit.
    """
    return _step(GRU, xt, c_prev, parameters)


def gru_forward(
    x: npt.ArrayLike, c0: npt.ArrayLike, parameters: Parameters
) -> tuple[Array, Array, Caches]:
    """All steps of a sequence.

    Args:
        x: (n_x, m, T_x) the input.
        c0: (n_a, m) the initial state.
        parameters: as in `gru_cell_forward`.

    Returns:
        c (n_a, m, T_x), y_pred (n_y, m, T_x), and (list of each step's cache, x).

    Raises:
        InputError: if a parameter is missing, or an array does not fit.
    """
    return _sequence(GRU, x, c0, parameters)


def gru_cell_backward(dc_next: npt.ArrayLike, cache: Cache) -> dict[str, Array]:
    """One step of backpropagation through time.

    Args:
        dc_next: (n_a, m) the gradient with respect to c_next.
        cache: that of `gru_cell_forward`, or of your own function in the same layout.

    Returns:
        dxt (n_x, m), dc_prev (n_a, m), dWu, dbu, dWr, dbr, dWc and dbc, of the parameters' shapes.

    Raises:
        InputError: if an array or the cache does not fit.
    """
    return _step_back(GRU, dc_next, cache)


def gru_backward(dc: npt.ArrayLike, caches: Caches) -> dict[str, Array]:
    """Backpropagation through time over all steps.

    Args:
        dc: (n_a, m, T) the gradient with respect to c, without what comes through later steps. If
            it has fewer steps than the caches, the first T of these count.
        caches: those of `gru_forward`, or of your own function in the same layout.

    Returns:
        dx (n_x, m, T), dc0 (n_a, m), dWu, dbu, dWr, dbr, dWc and dbc, of the parameters' shapes.

    Raises:
        InputError: if an array or the caches do not fit.
    """
    return _sequence_back(GRU, dc, caches)


def gru_simplified_cell_forward(
    xt: npt.ArrayLike, c_prev: npt.ArrayLike, parameters: Parameters
) -> tuple[Array, Array, Cache]:
    """One step of a GRU without a reset gate, then y = softmax(Wy c + by).

    Args:
        xt: (n_x, m) the input at this step.
        c_prev: (n_a, m) the state of the step before.
        parameters: Wu, Wc (n_a, n_a + n_x), each for [c_prev; x_t]; bu, bc (n_a, 1);
            Wy (n_y, n_a), by (n_y, 1).

    Returns:
        c_next (n_a, m), yt_pred (n_y, m), and the cache (c_next, c_prev, ut, cct, xt, parameters).

    Raises:
        InputError: if a parameter is missing, or an array does not fit.
    """
    return _step(GRU_SIMPLIFIED, xt, c_prev, parameters)


def gru_simplified_forward(
    x: npt.ArrayLike, c0: npt.ArrayLike, parameters: Parameters
) -> tuple[Array, Array, Caches]:
    """All steps of a sequence; arguments and results as in `gru_forward`, without Wr and br.

    Raises:
        InputError: if a parameter is missing, or an array does not fit.
    """
    return _sequence(GRU_SIMPLIFIED, x, c0, parameters)


def gru_simplified_cell_backward(dc_next: npt.ArrayLike, cache: Cache) -> dict[str, Array]:
    """One step back; arguments and results as in `gru_cell_backward`, without dWr and dbr.

    Raises:
        InputError: if an array or the cache does not fit.
    """
    return _step_back(GRU_SIMPLIFIED, dc_next, cache)


def gru_simplified_backward(dc: npt.ArrayLike, caches: Caches) -> dict[str, Array]:
    """All steps back; arguments and results as in `gru_backward`, without dWr and dbr.

    Raises:
        InputError: if an array or the caches do not fit.
    """
    return _sequence_back(GRU_SIMPLIFIED, dc, caches)


def _step(
    course: CourseCell, xt: npt.ArrayLike, c_prev: npt.ArrayLike, parameters: Parameters
) -> tuple[Array, Array, Cache]:
    cache = step(course, xt, [c_prev], parameters)
    return cache[0], predictions(parameters, "Wy", cache[0]), cache


def _sequence(
    course: CourseCell, x: npt.ArrayLike, c0: npt.ArrayLike, parameters: Parameters
) -> tuple[Array, Array, Caches]:
    steps = sequence(course, x, c0, parameters)
    c = np.stack([cache[0] for cache in steps], axis=2)
    return c, predictions(parameters, "Wy", c), (steps, np.asarray(x))


def _step_back(course: CourseCell, dc_next: npt.ArrayLike, cache: Cache) -> dict[str, Array]:
    back = step_back(course, [dc_next], cache)
    return {"dxt": back.x[:, :, 0], "dc_prev": back.states[0], **back.parameters}


def _sequence_back(course: CourseCell, dc: npt.ArrayLike, caches: Caches) -> dict[str, Array]:
    back = sequence_back(course, "dc", dc, caches)
    return {"dx": back.x, "dc0": back.states[0], **back.parameters}

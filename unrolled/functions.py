"""The functions that equations may call, for numbers and NumPy arrays.

Equations are read and never run; these give their names a meaning outside of a cell, in editors
and in checks by hand. `abs` is Python's own.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from numpy import exp, log, maximum, minimum, sqrt, tanh, where


def sigmoid(a: npt.ArrayLike) -> npt.NDArray[Any]:
    """The logistic function 1 / (1 + exp(−a)), unit by unit."""
    a = np.asarray(a)
    small = np.exp(-np.abs(a))  # never overflows
    return np.asarray(np.where(a >= 0, 1 / (1 + small), small / (1 + small)))


def relu(a: npt.ArrayLike) -> npt.NDArray[Any]:
    """The positive part max(a, 0), unit by unit."""
    return np.asarray(np.maximum(a, 0))


def softplus(a: npt.ArrayLike) -> npt.NDArray[Any]:
    """log(1 + exp(a)), unit by unit."""
    a = np.asarray(a)
    return np.asarray(np.logaddexp(a, np.zeros((), a.dtype)))


__all__ = [
    "exp",
    "log",
    "maximum",
    "minimum",
    "relu",
    "sigmoid",
    "softplus",
    "sqrt",
    "tanh",
    "where",
]

"""The functions that equations may call, for numbers and NumPy arrays.

Equations are read and never run; these give their names a meaning outside of a cell, in editors
and in checks by hand. `abs` and `sum` are Python's own. What stands behind the `*` of a definition
is a name too: `gain=initial(1)`, `m=dropout(0.3)`.
"""

from typing import Any, Literal

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


def mean(a: npt.ArrayLike) -> npt.NDArray[Any]:
    """The mean over the units, the last axis, which stays with one entry."""
    return np.asarray(np.asarray(a).mean(axis=-1, keepdims=True))


def initial(number: float) -> float:
    """Where every parameter of a family begins: `gain=initial(1)`."""
    return number


def bernoulli(p: float, every: Literal["sequence", "step"] = "sequence") -> float:
    """A random value that is 1 with probability p and else 0; outside of a cell its mean, p."""
    return p


def dropout(p: float, every: Literal["sequence", "step"] = "sequence") -> float:
    """A random value, 0 with probability p and else 1 / (1 − p); outside of a cell its mean, 1."""
    return 1.0


__all__ = [
    "bernoulli",
    "dropout",
    "exp",
    "initial",
    "log",
    "maximum",
    "mean",
    "minimum",
    "relu",
    "sigmoid",
    "softplus",
    "sqrt",
    "tanh",
    "where",
]

"""Unrolled: recurrent sequence models in which a cell is its equations."""

from . import cells
from .cell import Cell, cell
from .derivative import differentiate
from .errors import BackendError, EquationError, InputError, SizeError, UnrolledError
from .functions import exp, log, maximum, minimum, relu, sigmoid, softplus, sqrt, tanh, where

__version__ = "0.1.0"

__all__ = [
    "BackendError",
    "Cell",
    "EquationError",
    "InputError",
    "SizeError",
    "UnrolledError",
    "cell",
    "cells",
    "differentiate",
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

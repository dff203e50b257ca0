"""Unrolled: recurrent sequence models in which a cell is its equations."""

from . import cells
from .cell import Cell, cell
from .derivative import differentiate
from .errors import BackendError, EquationError, InputError, SizeError, UnrolledError
from .functions import exp, log, maximum, minimum, relu, sigmoid, softplus, sqrt, tanh, where
from .transforms import candidate_dropout, clipped, recurrent_dropout, zoneout

__version__ = "0.1.0"

__all__ = [
    "BackendError",
    "Cell",
    "EquationError",
    "InputError",
    "SizeError",
    "UnrolledError",
    "candidate_dropout",
    "cell",
    "cells",
    "clipped",
    "differentiate",
    "exp",
    "log",
    "maximum",
    "minimum",
    "recurrent_dropout",
    "relu",
    "sigmoid",
    "softplus",
    "sqrt",
    "tanh",
    "where",
    "zoneout",
]

"""Unrolled: recurrent sequence models in which a cell is its equations."""

from . import cells
from .cell import Cell, cell
from .derivative import differentiate
from .errors import BackendError, EquationError, InputError, SizeError, UnrolledError
from .functions import (
    bernoulli,
    dropout,
    exp,
    initial,
    log,
    maximum,
    mean,
    minimum,
    relu,
    sigmoid,
    softplus,
    sqrt,
    tanh,
    where,
)
from .threads import num_threads, set_num_threads
from .transforms import candidate_dropout, clipped, layer_norm, recurrent_dropout, zoneout

__version__ = "0.1.0"

__all__ = [
    "BackendError",
    "Cell",
    "EquationError",
    "InputError",
    "SizeError",
    "UnrolledError",
    "bernoulli",
    "candidate_dropout",
    "cell",
    "cells",
    "clipped",
    "differentiate",
    "dropout",
    "exp",
    "initial",
    "layer_norm",
    "log",
    "maximum",
    "mean",
    "minimum",
    "num_threads",
    "recurrent_dropout",
    "relu",
    "set_num_threads",
    "sigmoid",
    "softplus",
    "sqrt",
    "tanh",
    "where",
    "zoneout",
]

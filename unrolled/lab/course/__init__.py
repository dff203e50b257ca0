"""The functions of the well-known course lab, as thin views of the catalogue's cells.

"Building a recurrent neural network, step by step" and "Dinosaur island" (Ng, Katanforoosh &
Mourri 2018), and alike for the cells and networks that the course describes beside.
"""

from .characters import clip, model, optimize, sample
from .gru import (
    gru_backward,
    gru_cell_backward,
    gru_cell_forward,
    gru_forward,
    gru_simplified_backward,
    gru_simplified_cell_backward,
    gru_simplified_cell_forward,
    gru_simplified_forward,
)
from .lstm import lstm_backward, lstm_cell_backward, lstm_cell_forward, lstm_forward
from .rnn import rnn_backward, rnn_cell_backward, rnn_cell_forward, rnn_forward
from .stacks import bidirectional_backward, bidirectional_forward, deep_backward, deep_forward

__all__ = [
    "bidirectional_backward",
    "bidirectional_forward",
    "clip",
    "deep_backward",
    "deep_forward",
    "gru_backward",
    "gru_cell_backward",
    "gru_cell_forward",
    "gru_forward",
    "gru_simplified_backward",
    "gru_simplified_cell_backward",
    "gru_simplified_cell_forward",
    "gru_simplified_forward",
    "lstm_backward",
    "lstm_cell_backward",
    "lstm_cell_forward",
    "lstm_forward",
    "model",
    "optimize",
    "rnn_backward",
    "rnn_cell_backward",
    "rnn_cell_forward",
    "rnn_forward",
    "sample",
]

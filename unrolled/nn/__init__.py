"""Recurrent layers for torch: any cell (`Recurrent`), and drop-ins for those of `torch.nn`."""

from .recurrent import Recurrent
from .torch_layers import GRU, LSTM, RNN

__all__ = ["GRU", "LSTM", "RNN", "Recurrent"]

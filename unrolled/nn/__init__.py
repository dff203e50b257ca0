"""Recurrent layers for torch: any cell (`Recurrent`), and drop-ins for those of `torch.nn`.

`tbptt` cuts a long stream into windows for truncated backpropagation through time.
"""

from .recurrent import Recurrent
from .tbptt import Window, tbptt
from .torch_layers import GRU, LSTM, RNN

__all__ = ["GRU", "LSTM", "RNN", "Recurrent", "Window", "tbptt"]

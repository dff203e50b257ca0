"""The chapters, in the order of the notes.

Each is a file with `controls()`, which makes its marimo elements, and `view(controls)`, which shows
the chapter for what they say now. It is loaded when it is opened.
"""

from importlib import import_module
from types import ModuleType

# Title → file.
CHAPTERS = {
    "Notation": "notation",
    "One cell forward": "one_cell",
    "Through time": "through_time",
    "The loss": "loss",
    "Backpropagation through time": "backpropagation",
    "Vanishing gradients": "vanishing",
    "GRU": "gru",
    "LSTM": "lstm",
    "Bidirectional": "bidirectional",
    "Deep": "deep",
    "Types of networks": "types",
    "A language model": "language_model",
    "Your own cell": "own_cell",
}


def chapter(title: str) -> ModuleType:
    """Open a chapter."""
    return import_module(f".{CHAPTERS[title]}", __name__)

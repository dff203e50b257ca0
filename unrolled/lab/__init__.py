"""The lab: a learner sees how a recurrent network works, number by number. It needs no torch.

The names below are found when they are first asked for, so that nothing is loaded before its time.
"""

from importlib import import_module
from typing import Any

_COURSE = (
    *("rnn_cell_forward", "rnn_forward", "rnn_cell_backward", "rnn_backward"),
    *("lstm_cell_forward", "lstm_forward", "lstm_cell_backward", "lstm_backward"),
    *("gru_cell_forward", "gru_forward", "gru_cell_backward", "gru_backward"),
    *("gru_simplified_cell_forward", "gru_simplified_forward"),
    *("gru_simplified_cell_backward", "gru_simplified_backward"),
    *("bidirectional_forward", "bidirectional_backward", "deep_forward", "deep_backward"),
    *("clip", "sample", "optimize", "model"),
)

# Module → what it gives to the lab.
_PLACES: dict[str, tuple[str, ...]] = {
    "..network": ("Gradients", "Network", "Trace"),
    "..views.graph": ("Unrolling", "cell_graph", "unrolled_graph"),
    "..views.latex": ("COURSE", "latex"),
    ".course": _COURSE,
    ".checking": ("check",),
    ".differences": ("gradient_check",),
    ".explanation": ("arrows", "at"),
    ".pictures.firing": ("firing",),
    ".pictures.gates": ("gates",),
    ".pictures.halves": ("halves",),
    ".pictures.memory": ("memory",),
    ".types.examples": (
        *("one_to_one", "one_to_many", "many_to_one", "many_to_many", "sequence_to_sequence"),
        "drawing",
    ),
    ".types.learning": ("Adam", "Model"),
    ".types.locales": ("dates_in_words", "languages_of_words", "names_of_countries"),
    ".types.tasks": ("kinds_of_characters", "next_characters", "past_tenses"),
}
_MODULES = {name: module for module, names in _PLACES.items() for name in names}

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"unrolled.lab has no {name}; it has {', '.join(__all__)}.")
    try:
        module = import_module(_MODULES[name], __name__)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"lab.{name} needs {error.name}, which is not installed; "
            'run: pip install "unrolled[lab]"',
            name=error.name,
        ) from error
    globals()[name] = found = getattr(module, name)
    return found


def __dir__() -> list[str]:
    return __all__

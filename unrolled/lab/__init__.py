"""The lab: a learner sees how a recurrent network works, number by number. It needs no torch.

Its names stand in `__init__.pyi`, each with the module that has it. They are found when they are
first asked for, so that nothing is loaded before its time.
"""

import ast
from importlib import import_module
from pathlib import Path
from typing import Any

_STUB = ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
_MODULES = {
    alias.name: "." * line.level + (line.module or "")
    for line in _STUB.body
    if isinstance(line, ast.ImportFrom)
    for alias in line.names
}

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

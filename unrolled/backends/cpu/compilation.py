"""Compiling a function of a kernel's file, once for all processes, and saying so."""

import gc
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numba import cfunc

from .. import files

_OPTIONS: dict[str, Any] = {"error_model": "numpy", "fastmath": {"contract"}, "cache": True}

log = logging.getLogger("unrolled")
_compiled: list[Any] = []  # machine code lives as long as what stands for it in Python


def compiled(
    path: Path, name: str, about: str, dtype: np.dtype[Any], signature: str = "void(int64)"
) -> int:
    """The address of the machine code of a function of a kernel's file.

    Args:
        path: of the file.
        name: of the function.
        about: what the kernel computes.
        dtype: float32 or float64.
        signature: what the function takes; the address of a table by default.
    """
    _announce(path, name, about, dtype)
    return machine_code(path, name, signature)


def machine_code(path: Path, name: str, signature: Any) -> int:
    """The address of the machine code of a function of a generated file, of whatever kind."""
    with _no_garbage_collected():
        function = cfunc(signature, **_OPTIONS)(getattr(files.load(path), name))
    _compiled.append(function)
    return int(function.address)


@contextmanager
def _no_garbage_collected() -> Iterator[None]:
    """Let what Numba makes pile up until it is done.

    It makes millions of objects that stay until then. Every time there are so many more, Python
    would look through all that a program has, torch among it: a tenth to a fifth of the time.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _announce(path: Path, name: str, about: str, dtype: np.dtype[Any]) -> None:
    """Say that a compilation is about to take a while, unless it has been done before."""
    cached = path.parent / "__pycache__"
    if not any(cached.glob(f"{path.stem}.{name}-*.nbi")):  # no process has done it yet
        log.warning(
            "Unrolled compiles the CPU kernel of %s (%s), once: some seconds.", about, dtype
        )

"""`unrolled lab`: the notebook, served on this machine and opened in the browser."""

import importlib.util
import runpy
import socket
import sys
from typing import Annotated

import typer

from ..errors import InputError

_NEEDED = ("marimo", "anywidget", "matplotlib", "babel", "threadpoolctl")


def lab(
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Where to listen; any free port if none.")
    ] = None,
    browser: Annotated[bool, typer.Option(help="Whether to open the browser.")] = True,
) -> None:
    """Open the lab: a notebook that shows how a recurrent network works, number by number."""
    from ..lab.notebook import PATH

    for package in _NEEDED:  # better now than in a chapter
        if importlib.util.find_spec(package) is None:
            raise ModuleNotFoundError(f"there is no {package}", name=package)
    where = ["--host", "127.0.0.1"]
    if port is not None:
        _check_free(port)
        where += ["--port", str(port)]
    # In this process, as `python -m marimo` would: Ctrl+C ends it, and its pages with it.
    sys.argv = ["marimo", "run", str(PATH), *where, *([] if browser else ["--headless"])]
    runpy.run_module("marimo", run_name="__main__", alter_sys=True)


def _check_free(port: int) -> None:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError as error:
        raise InputError(
            f"port {port} cannot be used ({error.strerror}); give another one, or none: "
            "unrolled lab takes any that is free."
        ) from error

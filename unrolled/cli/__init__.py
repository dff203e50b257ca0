"""The command line: `unrolled train lm`, `unrolled sample`, `unrolled lab` and their siblings.

Each command has a file of its own, whose imports of torch wait until the command runs.
"""

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer

# Package → the extra that brings it.
_EXTRAS = dict.fromkeys(("typer", "rich", "torch", "safetensors"), "train") | dict.fromkeys(
    ("marimo", "anywidget", "matplotlib", "babel", "threadpoolctl"), "lab"
)


def main() -> None:
    """The entry point of the `unrolled` command; a user's mistake ends it with status 2."""
    from ..errors import UnrolledError

    try:
        _app()()
    except UnrolledError as error:
        _fail(str(error))
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _EXTRAS:
            raise
        _fail(
            f"The command line needs {package}, which is not installed; "
            f'run: pip install "unrolled[{_EXTRAS[package]}]"'
        )


def _let_idle_threads_sleep() -> None:
    """Let threads that wait for each other give up their core after some microseconds.

    By default GNU OpenMP, which torch brings, has them spin for milliseconds. On a machine that
    is busy with something else as well, a step of training then takes ten times as long.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def _app() -> "typer.Typer":
    """The application with all its commands."""
    import typer

    from . import cells, lab, sample, show, train

    app = typer.Typer(
        help="Recurrent sequence models in which a cell is its equations.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    app.add_typer(train.app, name="train")
    app.command("sample")(sample.sample)
    app.command("cells")(cells.cells)
    app.command("show")(show.show)
    app.command("lab")(lab.lab)
    return app


def _fail(message: str) -> None:
    print(message, file=sys.stderr)
    raise SystemExit(2)

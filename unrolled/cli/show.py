"""`unrolled show`: a cell's equations, and what follows from them."""

from enum import StrEnum
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.syntax import Syntax

from unrolled.cell import Cell
from unrolled.cli.cell_argument import find_cell
from unrolled.derivative import differentiate, kept_values
from unrolled.schedule import schedule
from unrolled.views.latex import latex

Part = tuple[str, str, str]  # title, text, language


class Kernels(StrEnum):
    """What kernels can be shown."""

    CPU = "cpu"


def show(
    cell: Annotated[str, typer.Argument(help="A cell of the catalogue, or a file with equations.")],
    kernel: Annotated[
        Kernels | None, typer.Option(help="The generated code of its kernels instead.")
    ] = None,
) -> None:
    """Print a cell's equations, its derivative, its schedule and its formula."""
    found = find_cell(cell)
    console = Console()
    for title, text, language in _derived(found) if kernel is None else _kernels(found):
        console.print(f"\n[bold]{title}[/bold]\n")
        if console.is_terminal:
            console.print(
                Syntax(
                    text, language, theme="ansi_dark", background_color="default", word_wrap=True
                )
            )
        else:  # into a file or a pipe: the text as it is, for other programs to read
            print(text)


def _derived(cell: Cell) -> list[Part]:
    training = cell.forward.with_outputs((cell.states[0],), kept_values(cell.backward))
    return [
        ("The equations", cell.text, "python"),
        ("One step forward, with what it keeps", str(training), "python"),
        ("One step of backpropagation through time", str(cell.backward), "python"),
        ("When each part runs, forward", str(schedule(cell.forward)), "text"),
        ("When each part runs, backward", str(schedule(cell.backward)), "text"),
        ("LaTeX", latex(cell.equations), "latex"),
    ]


def _kernels(cell: Cell) -> list[Part]:
    """For inference, for training and backward, in single precision."""
    from unrolled.backends.cpu import kernel_for  # Numba takes half a second, so only here

    single = np.dtype("float32")
    backward = differentiate(cell.forward, recompute="near")
    training = cell.forward.with_outputs((cell.states[0],), kept_values(backward))
    return [
        (title, kernel_for(program, single).text, "python")
        for title, program in (
            ("The kernel for inference", cell.forward),
            ("The kernel for training: what the backward pass needs is kept", training),
            ("The kernel of the backward pass", backward),
        )
    ]

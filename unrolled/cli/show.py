"""`unrolled show`: a cell's equations, and what follows from them."""

from typing import Annotated

import typer
from rich.console import Console
from rich.syntax import Syntax

from unrolled.cli.cell_argument import find_cell
from unrolled.derivative import kept_values
from unrolled.schedule import schedule
from unrolled.views.latex import latex


def show(
    cell: Annotated[str, typer.Argument(help="A cell of the catalogue, or a file with equations.")],
) -> None:
    """Print a cell's equations, its derivative, its schedule and its formula."""
    found = find_cell(cell)
    training = found.forward.with_outputs((found.states[0],), kept_values(found.backward))
    console = Console()
    for title, text, language in (
        ("The equations", found.text, "python"),
        ("One step forward, with what it keeps", str(training), "python"),
        ("One step of backpropagation through time", str(found.backward), "python"),
        ("When each part runs, forward", str(schedule(found.forward)), "text"),
        ("When each part runs, backward", str(schedule(found.backward)), "text"),
        ("LaTeX", latex(found.equations), "latex"),
    ):
        console.print(f"\n[bold]{title}[/bold]\n")
        if console.is_terminal:
            console.print(
                Syntax(
                    text, language, theme="ansi_dark", background_color="default", word_wrap=True
                )
            )
        else:  # into a file or a pipe: the text as it is, for other programs to read
            print(text)

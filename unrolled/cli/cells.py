"""`unrolled cells`: the catalogue."""

from rich.console import Console
from rich.table import Table

from unrolled import cells as catalogue


def cells() -> None:
    """List the cells of the catalogue."""
    table = Table(box=None, pad_edge=False)
    for title in ("cell", "states", "what it is"):
        table.add_column(title, style="bold" if title == "cell" else None)
    for name, cell in catalogue.catalogue().items():
        first_line = cell.equations.doc.split("\n")[0]
        table.add_row(name, ", ".join(cell.states), first_line)
    Console().print(table)
    Console().print("\nunrolled show NAME prints the equations of one and what follows from them.")

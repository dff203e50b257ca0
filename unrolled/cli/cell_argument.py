"""A cell named on the command line: one of the catalogue, or a file with its equations."""

from pathlib import Path

from .. import Cell, cells
from ..errors import InputError


def find_cell(name: str) -> Cell:
    """The cell that a user means.

    Args:
        name: A name of the catalogue, or the path of a UTF-8 file that `Cell.parse` reads.

    Raises:
        InputError: There is neither such a cell nor such a file.
        EquationError: The file's equations cannot be read.
    """
    catalogue = cells.catalogue()
    if name in catalogue:
        return catalogue[name]
    try:
        return Cell.parse(Path(name).read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise InputError(f"The cell file {name} is not UTF-8 text.") from None
    except (OSError, ValueError) as error:
        if Path(name).exists():
            raise InputError(f"The cell file {name} cannot be read: {error}.") from None
    raise InputError(
        f"There is no cell {name!r} and no file of that name; the catalogue has "
        f"{', '.join(catalogue)}."
    )

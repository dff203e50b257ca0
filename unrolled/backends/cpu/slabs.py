"""What a layout is made of: arrays, and the work unit by unit that goes over them."""

from dataclasses import dataclass

from ...program import Instruction

BEFORE, LOOP, AFTER = range(3)
GRADIENTS = 3  # of parameters: what follows the sections


@dataclass(frozen=True)
class Slab:
    """An array that holds values side by side.

    Attributes:
        name: its name in the kernel.
        values: what its columns hold.
        steps: whether it has rows for all steps, or for one step of the batch.
        scratch: whether it is needed within a run only; then it has one row for each thread.
        tile: whether it holds a tile of a product only, one for each thread.
    """

    name: str
    values: tuple[str, ...]
    steps: bool
    scratch: bool = False
    tile: bool = False


@dataclass(frozen=True)
class Segment:
    """The work unit by unit of one stage on vectors of one size, and what is summed of it.

    `copies` are values that nothing computes here and that are only put into another array;
    `numbers` are scalars that are put into one.
    """

    size: str
    instructions: tuple[Instruction, ...]
    copies: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()

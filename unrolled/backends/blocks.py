"""Families of parameters as arrays: blocks stacked along their rows, in `cell.blocks` order."""

from collections.abc import Iterable, Mapping
from typing import TypeVar

import numpy as np

from ..program import Program
from .steps import Array

Stacked = TypeVar("Stacked")


def block_rows(program: Program, sizes: Mapping[str, int]) -> dict[str, tuple[str, slice]]:
    """Block → its family and its rows in the stacked array."""
    places = {}
    for family, blocks in program.families.items():
        end = 0
        for block in blocks:
            start, end = end, end + sizes[program.shapes[block][0]]
            places[block] = (family, slice(start, end))
    return places


def stretches(places: Iterable[tuple[str, slice]]) -> list[tuple[str, slice]]:
    """Places of blocks, those that follow each other in one family joined."""
    found: list[tuple[str, slice]] = []
    for family, rows in places:
        if found and found[-1][0] == family and found[-1][1].stop == rows.start:
            found[-1] = family, slice(found[-1][1].start, rows.stop)
        else:
            found.append((family, rows))
    return found


def lying_together(program: Program, blocks: Iterable[str]) -> list[tuple[str, ...]]:
    """Blocks in groups of those that follow each other in one family."""
    places = {
        block: (family, slice(number, number + 1))
        for family, members in program.families.items()
        for number, block in enumerate(members)
    }
    found = stretches(places[block] for block in blocks)
    return [program.families[family][numbers] for family, numbers in found]


def split_blocks(
    program: Program, sizes: Mapping[str, int], parameters: Mapping[str, Stacked]
) -> dict[str, Stacked]:
    """Block → its part of the stacked array (a view; any array that can be sliced)."""
    return {
        block: parameters[family][rows]  # type: ignore[index]
        for block, (family, rows) in block_rows(program, sizes).items()
    }


def stack_blocks(program: Program, blocks: Mapping[str, Array]) -> dict[str, Array]:
    """Family → its blocks stacked."""
    return {
        family: np.concatenate([blocks[name] for name in names])
        for family, names in program.families.items()
        if names
    }


def family_shapes(program: Program, sizes: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """Family → the shape of its stacked array."""
    shapes = {}
    for family, blocks in program.families.items():
        rows = sum(sizes[program.shapes[block][0]] for block in blocks)
        shapes[family] = (rows, *(sizes[letter] for letter in program.shapes[blocks[0]][1:]))
    return shapes

"""The five types of networks, as what goes in at each step and which outputs count.

That is all the difference between them. A batch of examples says it with two arrays; where an
output is fed back, training puts the true one in its place (teacher forcing, Williams & Zipser
1989).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...backends.steps import Array
from ...cell import Cell
from ...errors import InputError
from ...views.graph import Unrolling

Numbers = Sequence[Sequence[int]]  # for each example, the numbers of its symbols


@dataclass(frozen=True, eq=False)
class Examples:
    """A batch, laid out over the steps.

    Attributes:
        x: (T, B, I) what goes in.
        lengths: (B,) how many steps each example has.
        targets: (T, B) the number of the right output.
        counts: (T, B) whether that output counts.
        before: what an encoder reads first; None where there is none.
    """

    x: Array
    lengths: npt.NDArray[np.int64]
    targets: npt.NDArray[np.int64]
    counts: npt.NDArray[np.bool_]
    before: "Examples | None" = None


def one_to_one(inputs: Array, answers: Sequence[int]) -> Examples:
    """One step: an input (B, I), an output."""
    x = np.asarray(inputs)[None]
    return Examples(x, np.ones(len(answers), int), np.array([answers]), x[..., 0] == x[..., 0])


def one_to_many(first: Sequence[int], sequences: Numbers, firsts: int, symbols: int) -> Examples:
    """The first step reads what is given; each later one the output of the step before.

    Args:
        first: for each example the number of what is given.
        sequences: for each example its symbols; the last marks the end.
        firsts: how many things can be given.
        symbols: how many symbols there are.
    """
    examples = many_to_many([[0, *sequence[:-1]] for sequence in sequences], sequences, symbols)
    given = np.zeros((*examples.x.shape[:2], firsts))
    given[0, np.arange(len(first)), first] = 1
    x = np.concatenate([given, examples.x], axis=2)
    x[0, :, firsts:] = 0
    return Examples(x, examples.lengths, examples.targets, examples.counts)


def many_to_one(sequences: Numbers, answers: Sequence[int], symbols: int) -> Examples:
    """Every step reads a symbol; the last output alone counts."""
    examples = many_to_many(sequences, sequences, symbols)
    last = np.arange(len(examples.x))[:, None] == examples.lengths - 1
    targets = np.where(last, np.asarray(answers), 0)
    return Examples(examples.x, examples.lengths, targets, last)


def many_to_many(sequences: Numbers, answers: Numbers, symbols: int) -> Examples:
    """Every step reads a symbol, and every output counts."""
    lengths = np.array([len(sequence) for sequence in sequences], int)
    steps, batch = max(lengths, default=0), len(lengths)
    x, targets = np.zeros((steps, batch, symbols)), np.zeros((steps, batch), int)
    for row, (read, answer) in enumerate(zip(sequences, answers, strict=True)):
        x[np.arange(len(read)), row, read] = 1
        targets[: len(answer), row] = answer
    return Examples(x, lengths, targets, np.arange(steps)[:, None] < lengths)


def sequence_to_sequence(
    sources: Numbers, targets: Numbers, source_symbols: int, symbols: int
) -> Examples:
    """One network reads, and its last state is where another begins to write.

    The source is read from its end, which brings its first symbol and that of the target together
    (Sutskever, Vinyals & Le 2014).
    """
    backwards = [source[::-1] for source in sources]
    before = many_to_many(backwards, backwards, source_symbols)
    decoded = one_to_many([0] * len(targets), targets, 1, symbols)
    return Examples(decoded.x, decoded.lengths, decoded.targets, decoded.counts, before)


# How each is drawn, by name.
DRAWN = {
    "one to one": lambda cell: Unrolling(cell, ("",), ("",)),
    "one to many": lambda cell: Unrolling(
        cell, ("", None, None, None), ("",) * 4, feedback=(1, 2, 3)
    ),
    "many to one": lambda cell: Unrolling(cell, ("",) * 4, (None, None, None, "")),
    "many to many": lambda cell: Unrolling(cell, ("",) * 4, ("",) * 4),
    "sequence to sequence": lambda cell: Unrolling(
        cell,
        ("", "", "", None, None, None),
        (None, None, None, "", "", ""),
        feedback=(4, 5),
        parts=(("encoder", 3), ("decoder", 3)),
    ),
}


def drawing(kind: str, cell: Cell) -> Unrolling:
    """What `unrolled_graph` draws of a type of network.

    Args:
        kind: "one to one", "one to many", "many to one", "many to many", or, of unequal length,
            "sequence to sequence".
        cell: any cell.

    Raises:
        InputError: if there is no such type.
    """
    if kind not in DRAWN:
        raise InputError(f"there is no type {kind!r} of networks; there are {', '.join(DRAWN)}.")
    return DRAWN[kind](cell)

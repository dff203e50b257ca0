"""One direction of one layer in NumPy: both passes over a ragged batch, with all that they see."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from .backends.blocks import split_blocks, stack_blocks
from .backends.steps import Array, Ragged, Result
from .cell import Cell
from .derivative import differentiate, kept_values
from .language.sizes import ONE
from .program import Program

Params = Mapping[str, Array]  # block → array, as `Cell.init` gives
Run = Callable[..., Result]  # the `run` of a backend for arrays


@dataclass(frozen=True, eq=False)
class Recurrence:
    """One direction of one layer.

    Attributes:
        cell: its equations.
        sizes: letter → number.
        params: block → array.
        anew: for each state (size,), what a row that starts anew begins with.
        reverse: whether it reads from the end.
    """

    cell: Cell
    sizes: Mapping[str, int]
    params: Params
    anew: tuple[Array, ...]
    reverse: bool

    def forward(
        self,
        inputs: Sequence[Array],
        given: Sequence[Array],
        ragged: Ragged,
        names: tuple[str, ...],
        run: Run,
    ) -> "Pass":
        """Run forward.

        Args:
            inputs: (T, B, I), and the random values of the cell side by side if it has some.
            given: for each state (B, size), what the rows begin with.
            ragged: the pieces of the rows.
            names: the values to keep.
            run: the `run` of a backend.
        """
        forward, _ = _programs(self.cell, names)
        entering = ragged.entering(self.reverse)[:, None]
        x = inputs[0]
        packed = [array.reshape(-1, array.shape[2])[ragged.places] for array in inputs]
        result = run(
            forward,
            self.sizes,
            packed,
            [
                np.where(entering, state[ragged.rows], start.astype(x.dtype))
                for state, start in zip(given, self.anew, strict=True)
            ],
            self._stacked(forward, x.dtype),
            ragged.steps,
            self.reverse,
        )
        y, kept = result.outputs[:2]
        return Pass(
            recurrence=self,
            ragged=ragged,
            names=names,
            packed=packed,
            kept=kept,
            y=_padded(y, ragged, x.shape[:2]),
            last=tuple(state[ragged.leaving(self.reverse)] for state in result.states),
            values=self._named(result.outputs[2:], names, ragged, x.shape[:2]),
        )

    def _stacked(self, program: Program, dtype: npt.DTypeLike) -> dict[str, Array]:
        params = {block: np.asarray(array, dtype) for block, array in self.params.items()}
        return stack_blocks(program, params)

    def _named(
        self,
        outputs: Sequence[Array],
        names: tuple[str, ...],
        ragged: Ragged,
        shape: tuple[int, ...],
    ) -> dict[str, Array]:
        """Name → (T, B, size), from the one group of outputs that holds them side by side."""
        if not names:
            return {}
        sizes, letters = {**self.sizes, ONE: 1}, self.cell.program.sizes
        ends = np.cumsum([sizes[letters[name]] for name in names])[:-1]
        parts = np.split(_padded(outputs[0], ragged, shape), ends, axis=2)
        return dict(zip(names, parts, strict=True))


@dataclass(frozen=True, eq=False)
class Pass:
    """One direction of one layer, forward.

    Attributes:
        recurrence: what ran.
        ragged: the pieces of the rows.
        names: the values that were kept to look at.
        packed: (rows of all steps, I) what it read, and its random values if it has some.
        kept: what the backward pass needs.
        y: (T, B, size) its output.
        last: (B, size) for each state.
        values: name → (T, B, size).
    """

    recurrence: Recurrence
    ragged: Ragged
    names: tuple[str, ...]
    packed: list[Array]
    kept: Array
    y: Array
    last: tuple[Array, ...]
    values: dict[str, Array]

    @property
    def read(self) -> list[Array]:
        """(T, B, I) what it read, and its random values if it has some."""
        return [_padded(array, self.ragged, self.y.shape[:2]) for array in self.packed]

    def backward(self, dy: Array, dlast: Sequence[Array], run: Run) -> "Back":
        """Run backward.

        Args:
            dy: (T, B, size) the gradient of the output.
            dlast: for each state (B, size), the gradient of the last one.
            run: the `run` of a backend.
        """
        recurrence, ragged = self.recurrence, self.ragged
        reverse, pieces = recurrence.reverse, ragged.steps.batch
        _, adjoint = _programs(recurrence.cell, self.names)
        arriving = [np.zeros((pieces, gradient.shape[1]), dy.dtype) for gradient in dlast]
        for array, gradient in zip(arriving, dlast, strict=True):
            array[ragged.leaving(reverse)] = gradient
        result = run(
            adjoint,
            recurrence.sizes,
            [*self.packed, self.kept, dy.reshape(-1, dy.shape[2])[ragged.places]],
            arriving,
            recurrence._stacked(adjoint, dy.dtype),
            ragged.steps,
            reverse,
        )
        shape = dy.shape[:2]
        entering = ragged.entering(reverse)
        given = tuple(np.zeros((shape[1], state.shape[1]), dy.dtype) for state in result.states)
        for array, state in zip(given, result.states, strict=True):
            array[ragged.rows[entering]] = state[entering]
        return Back(
            y=dy,
            last=tuple(dlast),
            x=_padded(result.outputs[0], ragged, shape),
            params=dict(split_blocks(adjoint, {**recurrence.sizes, ONE: 1}, result.totals)),
            given=given,
            anew=tuple(state[~entering].sum(0) for state in result.states),
            values=recurrence._named(result.outputs[1:], self.names, ragged, shape),
        )


@dataclass(frozen=True, eq=False)
class Back:
    """The gradients of one direction of one layer.

    Attributes:
        y: (T, B, size) of its output, as it was given.
        last: for each state (B, size), of the last one, as it was given.
        x: (T, B, I) of what it read.
        params: block → array.
        given: for each state (B, size), of what the rows began with.
        anew: for each state (size,), of what rows that start anew begin with.
        values: name → (T, B, size).
    """

    y: Array
    last: tuple[Array, ...]
    x: Array
    params: dict[str, Array]
    given: tuple[Array, ...]
    anew: tuple[Array, ...]
    values: dict[str, Array]


@lru_cache(maxsize=256)
def _programs(cell: Cell, names: tuple[str, ...]) -> tuple[Program, Program]:
    """Forward and adjoint: with names to look at, as written; without, simplified."""
    program = cell.program if names else cell.forward
    adjoint = differentiate(program, traced=names)
    groups = [(cell.states[0],), kept_values(adjoint), *([names] if names else [])]
    return program.with_outputs(*groups), adjoint


def _padded(packed: Array, ragged: Ragged, shape: tuple[int, ...]) -> Array:
    padded = np.zeros((shape[0] * shape[1], packed.shape[1]), packed.dtype)
    padded[ragged.places] = packed
    return padded.reshape(*shape, packed.shape[1])

"""The ways through a stack of recurrent layers: a short one, and layer by layer."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..cell import Cell
from .checks import State
from .choice import watched
from .desk import Beside
from .direction import Direction, Given, direction_of
from .drawing import Drawing, Drawn
from .fresh import DTYPES
from .masks import Masks
from .operator import recurrence
from .rows import rows_of_all
from .short import Shortcut, shortcut_of


class _Call(NamedTuple):
    """What a stack of layers is given.

    Attributes:
        x: (T, B, I), or (rows of all steps, I) of a packed sequence.
        given: the initial states, (layers · directions, B, size) each; None if none are given.
        batch: B.
        counts: as `rows.rows_of` takes them.
        resets: as `rows.rows_of` takes them.
        drawn: what is random.
        return_all: whether all states are wanted.
    """

    x: Tensor
    given: list[Tensor] | None
    batch: int
    counts: Tensor | None
    resets: Tensor | None
    drawn: Drawn
    return_all: bool


class Ways(Drawing):
    """How a call goes through recurrent layers: see `Layers`, which sets what stands here."""

    num_layers: int
    recompute: bool
    _sizes: list[dict[str, int]]
    _suffixes: list[str]
    _served: bool  # whether kernels may run it
    _shortcuts: dict[tuple[torch.dtype, bool, bool], Shortcut]

    def _made(self, cell: Cell, backend: str) -> list[Direction]:
        """All directions of all layers, of one cell."""
        return [
            direction_of(
                cell.text,
                tuple(sizes[letter] for letter in cell.sizes.letters),
                suffix.endswith("reverse"),
                backend,
                recompute=self.recompute,
            )
            for sizes, suffix in zip(self._sizes, self._suffixes, strict=True)
        ]

    def _shortly(
        self, x: Tensor, state: State | None, one_step: bool = False
    ) -> tuple[Tensor, State] | None:
        """The short way; None if this call cannot go it, or something is amiss."""
        if not self._served or type(x) is not Tensor or self._drawing or watched():
            return None
        way = self._way(x.dtype)
        families = None if way is None else way.families_of(self)
        if way is None or families is None:
            return None
        if state is None and self._learned(0) is not None:
            state = self._learned_state(x, x.shape[:-1] if one_step else x.shape[1:-1])
        states = () if state is None else (state,) if isinstance(state, Tensor) else state
        found = way.run(x, one_step, states, families)
        if found is None:
            return None
        return found[0], found[1] if len(found) == 2 else tuple(found[1:])

    def _way(
        self, dtype: torch.dtype, noisy: bool = False, all_states: bool = False
    ) -> Shortcut | None:
        """The short way for a dtype; None if no kernel serves it."""
        key = dtype, noisy, all_states
        way = self._shortcuts.get(key)
        if way is None and dtype in DTYPES:
            cell, names = self._stored
            letters = cell.sizes.letters
            numbers = tuple(tuple(sizes[letter] for letter in letters) for sizes in self._sizes)
            way = self._shortcuts[key] = shortcut_of(
                self.cell.text if noisy else cell.text, numbers, names, self.bidirectional,
                self.backend, self.recompute, all_states, dtype,
            )  # fmt: skip
        return way

    def _learned_state(self, x: Tensor, batch: tuple[int, ...]) -> State:
        """What the first step receives where no state is given; `batch` is () for one sequence."""
        initial = self._apart(None, x, batch[0] if batch else 1)
        parts = [torch.stack(list(layers)) for layers in initial]
        return as_state(parts if batch else [part.squeeze(1) for part in parts])

    @property
    def _stored(self) -> tuple[Cell, tuple[tuple[str, ...], ...]]:
        """The cell with families as they are stored, and what they are called in each layer."""
        return self.cell.expected, tuple(tuple(names) for names in self._names)

    def _run(
        self,
        x: Tensor,
        given: list[Tensor] | None,
        batch: int,
        counts: Tensor | None,
        resets: Tensor | None = None,
        masks: Sequence[Masks] | None = None,
        return_all: bool = False,
    ) -> list[Any]:
        """Run all layers; `given` holds the initial states, None if none are given.

        Returns the outputs and the last states and, where they are wanted, all states.
        """
        call = _Call(x, given, batch, counts, resets, self._drawn(x, counts, masks), return_all)
        return self._all_at_once(call) or self._layer_by_layer(call)

    def _all_at_once(self, call: _Call) -> list[Any] | None:
        """The short way, with whatever is given beside the input; None if it cannot be gone."""
        x, given, batch, counts, resets, drawn, return_all = call
        if not self._served or type(x) is not Tensor or watched():
            return None
        if any(mask.requires_grad for mask in drawn.between):
            return None
        way = self._way(x.dtype, len(drawn.noises) > 0, return_all)
        families = None if way is None else way.families_of(self)
        if way is None or families is None:
            return None
        if drawn.families:
            families = [family.contiguous() for each in drawn.families for family in each]
        rows = rows_of_all(x, batch, counts, resets, self.bidirectional)
        if not way.is_short(rows.steps.rows):
            return None
        learned = [torch.stack(list(parts)).unsqueeze(1) for parts in self._learned_apart()]
        if given is not None:
            given = rows.entered(given, learned)
        elif learned:
            given = [part.expand(-1, rows.steps.batch, -1) for part in learned]
        beside = Beside(
            [rows.packed(noise) for noise in drawn.noises],
            [rows.packed(mask) for mask in drawn.between],
        )
        found = way.run(rows.packed(x), rows.how, given or (), families, beside)
        if found is None:
            return None
        if not return_all:
            y, *last = found
            return [rows.padded(y), rows.left(last)]
        count = len(self._state_sizes)
        every = [rows.all_padded(part) for part in found[:count]]
        top = every[0][-1 - self.bidirectional :]
        y = torch.cat([*top], -1) if self.bidirectional else top[0]
        return [y, rows.left(found[count:]), every]

    def _layer_by_layer(self, call: _Call) -> list[Any]:
        """The way of long sequences, and of whatever else is no matter of kernels alone."""
        x, given, batch, counts, resets, drawn, return_all = call
        initial = self._apart(given, x, batch)
        running = self._random if drawn.noises else self._directions
        emitted = len(initial) if return_all else 1
        found: list[list[Tensor]] = []
        directions = 1 + self.bidirectional
        for layer in range(self.num_layers):
            if layer and drawn.between:
                x = x * drawn.between[layer - 1].to(x.dtype)
            x = x.contiguous()
            here = range(layer * directions, (layer + 1) * directions)
            given_here = [
                Given(
                    [parts[number] for parts in initial],
                    drawn.families[number] if drawn.families else self._families(number),
                    drawn.noises[number].to(x.dtype) if drawn.noises else None,
                    self._learned(number) or (),
                )
                for number in here
            ]
            both = [running[number] for number in here]
            both = [one.with_all_states for one in both] if return_all else both
            found += recurrence(both, x, given_here, counts, resets)
            outputs = [found[number][0] for number in here]
            x = outputs[0] if directions == 1 else torch.cat(outputs, -1)
        last, every = [one[emitted:] for one in found], [one[:emitted] for one in found]
        return [x, _stacked(last), *([_stacked(every)] if return_all else [])]

    # what the first step receives

    def _apart(self, given: list[Tensor] | None, x: Tensor, batch: int) -> list[Sequence[Tensor]]:
        """For each state one tensor (B, size) for each direction of each layer."""
        learned = self._learned_apart()
        if given is None and learned:
            return [[part.expand(batch, -1) for part in parts] for parts in learned]
        if given is None:
            return [
                [x.new_zeros(batch, size)] * len(self._directions) for size in self._state_sizes
            ]
        return [part.unbind(0) for part in given]

    def _learned_apart(self) -> list[Sequence[Tensor]]:
        """For each state what each direction of each layer has learned; none if zeros."""
        if self._learned(0) is None:
            return []
        found = [self._learned(number) or () for number in range(len(self._directions))]
        return list(zip(*found, strict=True))

    def _learned(self, number: int) -> list[Tensor] | None:
        """The learned initial states (size,) of one direction of one layer; None if zeros."""
        return None


def _stacked(found: list[list[Tensor]]) -> list[Tensor]:
    """For each state, one tensor with the directions of all layers along its first axis."""
    if len(found) == 1:
        return [part.unsqueeze(0) for part in found[0]]
    return [torch.stack(parts) for parts in zip(*found, strict=True)]


def as_state(parts: list[Tensor]) -> State:
    """A tensor for each state; alone where there is one."""
    return parts[0] if len(parts) == 1 else tuple(parts)

"""A stack of recurrent layers: the door of a call, and the way through all of them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from ..cell import Cell
from ..errors import InputError
from ..language.equations import Every
from ..network import Network
from .checks import (
    State,
    begins_of,
    check_arguments,
    check_input,
    check_nothing_random,
    check_one_step,
    check_streams,
    counts_of,
    reads_step_number,
    states_of,
)
from .choice import check_name
from .desk import Beside
from .direction import Direction, Given, direction_of
from .drawing import Drawing, Drawn
from .fresh import DTYPES
from .masks import Masks
from .operator import recurrence
from .rows import rows_of_all
from .short import Shortcut, shortcut_of, watched
from .trace import LayerTrace, network_of, trace_of


class Layers(Drawing):
    """A stack of recurrent layers; how parameters are stored is left to its subclasses.

    Args:
        cell: the equations of every layer.
        input_size: I.
        hidden_size: one number, or a number for each size of the cell: see `Cell.bind`.
        num_layers: layers, one above the other.
        batch_first: whether input and output are (B, T, …) rather than (T, B, …).
        dropout: probability of dropping an output of a layer below the last, in training.
        bidirectional: whether each layer also reads the sequence from its end.
        backend: `"auto"`, `"cpu"`, `"eager"` or `"reference"`.
        dropout_every: whether it is drawn anew at every `"step"`, or once for a `"sequence"`.
        recompute: whether the forward pass keeps states only.

    Raises:
        InputError: if an argument does not fit.
        SizeError: if two sizes of the cell cannot agree.
    """

    def __init__(
        self,
        cell: Cell,
        input_size: int,
        hidden_size: int | Mapping[str, int],
        num_layers: int,
        batch_first: bool,
        dropout: float,
        bidirectional: bool,
        backend: str,
        dropout_every: Every = "step",
        recompute: bool = False,
    ) -> None:
        super().__init__()
        check_arguments(cell, num_layers, dropout, dropout_every)
        self.cell = cell
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.batch_first = batch_first
        self.dropout = float(dropout)
        self.dropout_every = dropout_every
        self.bidirectional = bidirectional
        self.recompute = recompute
        self._names: list[list[str]]  # of each direction's families, as its subclass stores them
        self._suffixes: list[str] = []
        self._sizes: list[dict[str, int]] = []
        self._state_sizes: list[int] = []
        width = input_size
        for layer in range(num_layers):
            sizes = cell.bind(width, hidden_size)
            for ending in ("", "_reverse")[: 1 + bidirectional]:
                self._suffixes.append(f"_l{layer}{ending}")
                self._sizes.append(sizes)
            found = [sizes[cell.sizes.values[state]] for state in cell.states]
            if layer and found != self._state_sizes:
                raise InputError(
                    f"the states of cell '{cell.name}' have the size of what a layer reads, and "
                    f"would be of {self._state_sizes} and {found} units in layers 1 and "
                    f"{layer + 1}; the states of all layers have one size."
                )
            self._state_sizes = found
            width = self._state_sizes[0] * (1 + bidirectional)
        self.backend = backend

    @property
    def backend(self) -> str:
        """What runs the layers: `"auto"`, `"cpu"`, `"eager"` or `"reference"`; may be changed."""
        return self._directions[0].backend

    @backend.setter
    def backend(self, name: str) -> None:
        check_name(name)
        self._directions = self._made(self.cell.expected, name)
        self._draws = len(self.cell.draws) > 0
        self._random = self._made(self.cell, name) if self._draws else []
        self._served = name in ("auto", "cpu")
        self._streams = not (self.bidirectional or reads_step_number(self.cell))
        self._shortcuts: dict[tuple[torch.dtype, bool, bool], Shortcut] = {}

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

    def reset_parameters(self) -> None:
        """Draw all parameters anew, uniformly from ±1/√H."""
        bound = 1 / math.sqrt(self._drawn_for)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)
        for held_at_zero in self.buffers(recurse=False):
            nn.init.zeros_(held_at_zero)

    @property
    def _drawn_for(self) -> int:
        """H, the size that `reset_parameters` goes by."""
        return self._state_sizes[0]

    def _learned(self, number: int) -> list[Tensor] | None:
        """The learned initial states (size,) of one direction of one layer; None if zeros."""
        return None

    def forward(
        self,
        x: Tensor | PackedSequence,
        state: State | None = None,
        lengths: Tensor | Sequence[int] | None = None,
        resets: Tensor | None = None,
        *,
        masks: Sequence[Masks] | None = None,
        return_all: bool = False,
    ) -> Any:
        """Run the layers over a sequence.

        Random values of the cell are drawn in training mode, anew at each call, and have their
        means in evaluation mode.

        Args:
            x: (T, B, I), or (B, T, I) with `batch_first`, or (T, I) for one sequence, or a
                `PackedSequence`.
            state: the initial state: a tensor (num_layers · directions, B, size), without B for
                one sequence, or a tuple of such tensors where the cell has several states. If
                None, zeros, or what was learned.
            lengths: (B,) how many steps of each row of a padded `x` count, in any order; 0 is a
                length. The direction that reads from the end begins at each row's own end. What
                is beyond a row's length is never read and costs nothing. All steps if None.
            resets: (T, B), or (B, T) with `batch_first`, or (T,) for one sequence; bool. Before
                step t the rows marked start anew: from zeros, or from what was learned, whatever
                `state` was given. No gradient crosses to the step before, in either direction.
                What lies between two resets is computed side by side, so resets save time.
            masks: all that is random in a call, as `draw_masks` gives it, which is then used in
                evaluation mode too.
            return_all: whether every state of every step is wanted, of all layers and directions.

        Returns:
            The outputs of the last layer, shaped as `x` with the sizes of the output in both
            directions side by side, zero beyond a row's length; and the last state of each row,
            as `state`. With `return_all` also all states: as `state`, with the steps of `x` in
            place of B: (num_layers · directions, T, B, size).

        Raises:
            InputError: if a shape, a dtype or a device does not fit.
            BackendError: if the backend named cannot serve.
        """
        if isinstance(x, PackedSequence):
            if lengths is not None or resets is not None or masks is not None or return_all:
                raise InputError(
                    "a PackedSequence has its lengths, and takes no resets, masks nor return_all; "
                    "give a padded tensor with lengths=… for that."
                )
            return self._packed(x, state)
        if lengths is None and resets is None and masks is None and not return_all:
            turned = self.batch_first and isinstance(x, Tensor) and x.dim() == 3
            found = self._shortly(x.transpose(0, 1) if turned else x, state)
            if found is not None:
                return (found[0].transpose(0, 1), found[1]) if turned else found
        check_input(x, self.input_size, self.batch_first)
        alone = x.dim() == 2
        if alone:
            x = x.unsqueeze(1)
        elif self.batch_first:
            x = x.transpose(0, 1)
        counts = None if lengths is None else counts_of(lengths, x.shape[1])
        begins = None if resets is None else begins_of(resets, x, alone, self.batch_first)
        batch = x.shape[1]
        given = self._states_given(state, batch, alone)
        y, last, *all_states = self._run(x, given, batch, counts, begins, masks, return_all)
        if alone:
            y, last = y.squeeze(1), [part.squeeze(1) for part in last]
            all_states = [[part.squeeze(2) for part in parts] for parts in all_states]
        elif self.batch_first:
            y = y.transpose(0, 1)
            all_states = [[part.transpose(1, 2) for part in parts] for parts in all_states]
        return y, _as_state(last), *map(_as_state, all_states)

    def step(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Run the layers over one step of a stream, in constant memory.

        Steps one after the other, each with the state that the last one gave, give what `forward`
        gives for the whole sequence, to rounding; states pass between both. Weights are read anew
        at each step; hooks of the module are not called. Where no gradient is wanted (under
        `torch.no_grad()`, say) a step of small layers takes microseconds; otherwise it is a
        differentiable sequence of one step, which takes longer.

        Args:
            x: the input of one step, (B, I), or (I,) for one sequence.
            state: as in `forward`, (num_layers, B, size), without B for one sequence, or a tuple
                of such tensors. If None, zeros, or what was learned.

        Returns:
            The output (B, size) of the last layer, without B for one sequence, and the new state;
            the one given stays as it is.

        Raises:
            InputError: if a shape, a dtype or a device does not fit; if the layer is bidirectional;
                if its cell reads the number of the step; if something is drawn at random, which
                it is in training mode only.
            BackendError: if the backend named cannot serve.
        """
        if self._drawing:
            between = self.dropout > 0 and self.num_layers > 1
            check_nothing_random(self.cell, self._draws, between, self.weight_dropout > 0)
        found = self._shortly(x, state, one_step=True) if self._streams else None
        if found is not None:
            return found
        check_streams(self.cell, self.bidirectional)
        check_one_step(x, self.input_size)
        alone = x.dim() == 1
        x = x.reshape(1, -1, self.input_size)
        batch = x.shape[1]
        y, last = self._run(x, self._states_given(state, batch, alone), batch, None)
        if alone:
            return y[0, 0], _as_state([part.squeeze(1) for part in last])
        return y[0], _as_state(last)

    @property
    def _drawing(self) -> bool:
        """Whether a call may draw something at random."""
        return self.training and self._random_in_training

    def _shortly(
        self, x: Tensor, state: State | None, one_step: bool = False
    ) -> tuple[Tensor, State] | None:
        """The short way; None if this call cannot go it, or something is amiss."""
        if not self._served or type(x) is not Tensor or self._drawing or watched():
            return None
        way = self._way(x.dtype)
        if way is None:
            return None
        if state is None and self._learned(0) is not None:
            state = self._learned_state(x, x.shape[:-1] if one_step else x.shape[1:-1])
        return way(self, x, state, one_step)

    def _way(
        self, dtype: torch.dtype, noisy: bool = False, all_states: bool = False
    ) -> Shortcut | None:
        """The short way for a dtype; None if no kernel serves it."""
        key = dtype, noisy, all_states
        if key not in self._shortcuts and dtype in DTYPES:
            cell, names = self._stored
            letters = cell.sizes.letters
            numbers = tuple(tuple(sizes[letter] for letter in letters) for sizes in self._sizes)
            self._shortcuts[key] = shortcut_of(
                self.cell.text if noisy else cell.text, numbers, names, self.bidirectional,
                self.backend, self.recompute, all_states, dtype,
            )  # fmt: skip
        return self._shortcuts.get(key)

    def _learned_state(self, x: Tensor, batch: tuple[int, ...]) -> State:
        """What the first step receives where no state is given; `batch` is () for one sequence."""
        initial = self._apart(None, x, batch[0] if batch else 1)
        parts = [torch.stack(list(layers)) for layers in initial]
        return _as_state(parts if batch else [part.squeeze(1) for part in parts])

    @property
    def _stored(self) -> tuple[Cell, tuple[tuple[str, ...], ...]]:
        """The cell with families as they are stored, and what they are called in each layer."""
        return self.cell.expected, tuple(tuple(names) for names in self._names)

    @torch.no_grad()
    def network(self) -> Network:
        """The same network in NumPy, with copies of the parameters, to look inside.

        `layer.network().trace(x)` gives every named value of every step. Dropout between layers is
        left out, as in evaluation mode.
        """
        numbers = range(len(self._directions))
        families = [self._families(number) for number in numbers]
        learned = None if self._learned(0) is None else [self._learned(n) or [] for n in numbers]
        return network_of(self.cell, self._directions, families, learned, 1 + self.bidirectional)

    def trace(
        self,
        x: Tensor,
        state: State | None = None,
        lengths: Tensor | Sequence[int] | None = None,
        resets: Tensor | None = None,
    ) -> LayerTrace:
        """Run the layers and keep every named value, and after `backward` every gradient.

        Nothing is random: as in evaluation mode, random values have their means, and nothing is
        dropped.

        Args:
            x: as in `forward`, as a tensor.
            state: as in `forward`.
            lengths: as in `forward`.
            resets: as in `forward`.

        Raises:
            InputError: if a shape does not fit.
        """
        check_input(x, self.input_size, self.batch_first)
        if not x.is_floating_point():
            raise InputError(f"the input of a trace has numbers with a point; found {x.dtype}.")
        alone = x.dim() == 2
        sequence = x.unsqueeze(1) if alone else x.transpose(0, 1) if self.batch_first else x
        batch, numbers = sequence.shape[1], range(len(self._directions))
        trace, y, last = trace_of(
            self.network(),
            sequence,
            self._apart(self._states_given(state, batch, alone), sequence, batch),
            self._learned_apart(),
            [self._families(number) for number in numbers],
            None if lengths is None else counts_of(lengths, batch),
            None if resets is None else begins_of(resets, sequence, alone, self.batch_first),
        )
        if alone:
            y, last = y.squeeze(1), [part.squeeze(1) for part in last]
        trace.y = y.transpose(0, 1) if self.batch_first and not alone else y
        trace.state = _as_state(last)
        return trace

    def _packed(self, x: PackedSequence, state: State | None) -> tuple[PackedSequence, State]:
        data, active, order, order_back = x
        if data.shape[-1] != self.input_size:
            raise InputError(
                f"this layer has input_size {self.input_size}; the packed sequence has "
                f"{data.shape[-1]} values at each step."
            )
        batch = int(active[0])
        given = self._states_given(state, batch, alone=False)
        if given is not None and order is not None:
            given = [part.index_select(1, order) for part in given]
        y, last = self._run(data, given, batch, active)
        if order_back is not None:
            last = [part.index_select(1, order_back) for part in last]
        return PackedSequence(y, active, order, order_back), _as_state(last)

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
        drawn = self._drawn(x, batch, counts, masks)
        arguments = x, given, batch, counts, resets, drawn, return_all
        return self._all_at_once(*arguments) or self._layer_by_layer(*arguments)

    def _all_at_once(
        self,
        x: Tensor,
        given: list[Tensor] | None,
        batch: int,
        counts: Tensor | None,
        resets: Tensor | None,
        drawn: Drawn,
        return_all: bool,
    ) -> list[Any] | None:
        """The short way, with whatever is given beside the input; None if it cannot be gone."""
        if not self._served or type(x) is not Tensor or watched():
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
        y = torch.cat([*every[0][-1 - self.bidirectional :]], -1)
        return [y, rows.left(found[count:]), every]

    def _layer_by_layer(
        self,
        x: Tensor,
        given: list[Tensor] | None,
        batch: int,
        counts: Tensor | None,
        resets: Tensor | None,
        drawn: Drawn,
        return_all: bool,
    ) -> list[Any]:
        """The way of long sequences, and of whatever else is no matter of kernels alone."""
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

    def _states_given(self, state: State | None, batch: int, alone: bool) -> list[Tensor] | None:
        count = len(self._directions)
        return (
            None
            if state is None
            else states_of(self.cell, self._state_sizes, count, state, batch, alone)
        )

    def extra_repr(self) -> str:
        """The arguments that differ from their defaults."""
        shown: dict[str, Any] = {"num_layers": (self.num_layers, 1)}
        shown["bias"] = (getattr(self, "bias", True), True)
        shown["batch_first"] = (self.batch_first, False)
        shown["dropout"] = (self.dropout, 0.0)
        shown["dropout_every"] = (self.dropout_every, "step")
        shown["bidirectional"] = (self.bidirectional, False)
        shown["weight_dropout"] = (self.weight_dropout, 0.0)
        shown["initial_state"] = (getattr(self, "initial_state", "zero"), "zero")
        shown["recompute"] = (self.recompute, False)
        shown["backend"] = (self.backend, "auto")
        changed = [f"{name}={value!r}" for name, (value, usual) in shown.items() if value != usual]
        return ", ".join([str(self.input_size), str(self.hidden_size), *changed])


def _stacked(found: list[list[Tensor]]) -> list[Tensor]:
    """For each state, one tensor with the directions of all layers along its first axis."""
    if len(found) == 1:
        return [part.unsqueeze(0) for part in found[0]]
    return [torch.stack(parts) for parts in zip(*found, strict=True)]


def _as_state(parts: list[Tensor]) -> State:
    return parts[0] if len(parts) == 1 else tuple(parts)

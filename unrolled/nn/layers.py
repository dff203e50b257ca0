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
from .masks import Masks
from .short import Shortcut
from .trace import LayerTrace, network_of, trace_of
from .ways import Ways, as_state


class Layers(Ways):
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
        return y, as_state(last), *map(as_state, all_states)

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
            return y[0, 0], as_state([part.squeeze(1) for part in last])
        return y[0], as_state(last)

    @torch.no_grad()
    def network(self) -> Network:
        """The same network in NumPy, with copies of the parameters, to look inside.

        `layer.network().trace(x)` gives every named value of every step. Dropout between layers is
        left out, as in evaluation mode.
        """
        return self._network([self._families(number) for number in range(len(self._names))])

    @torch.no_grad()
    def _network(self, families: Sequence[Sequence[Tensor]]) -> Network:
        numbers = range(len(self._directions))
        learned = None if self._learned(0) is None else [self._learned(n) or [] for n in numbers]
        return network_of(self.cell, self._directions, families, learned, 1 + self.bidirectional)

    def trace(
        self,
        x: Tensor,
        state: State | None = None,
        lengths: Tensor | Sequence[int] | None = None,
        resets: Tensor | None = None,
        *,
        masks: Sequence[Masks] | None = None,
    ) -> LayerTrace:
        """Run the layers and keep every named value, and after `backward` every gradient.

        Nothing is drawn: without masks it is as in evaluation mode, random values have their
        means, and nothing is dropped.

        Args:
            x: as in `forward`, as a tensor.
            state: as in `forward`.
            lengths: as in `forward`.
            resets: as in `forward`.
            masks: as in `forward`.

        Raises:
            InputError: if a shape does not fit.
        """
        check_input(x, self.input_size, self.batch_first)
        if not x.is_floating_point():
            raise InputError(f"the input of a trace has numbers with a point; found {x.dtype}.")
        alone = x.dim() == 2
        sequence = x.unsqueeze(1) if alone else x.transpose(0, 1) if self.batch_first else x
        batch, numbers = sequence.shape[1], range(len(self._directions))
        if masks is not None:
            self.check_masks(masks)
        families = [
            self._families(number) if masks is None else self._families_used(number, masks[number])
            for number in numbers
        ]
        trace, y, last = trace_of(
            self._network(families),
            sequence,
            self._apart(self._states_given(state, batch, alone), sequence, batch),
            self._learned_apart(),
            families,
            None if lengths is None else counts_of(lengths, batch),
            None if resets is None else begins_of(resets, sequence, alone, self.batch_first),
            masks,
        )
        if alone:
            y, last = y.squeeze(1), [part.squeeze(1) for part in last]
        trace.y = y.transpose(0, 1) if self.batch_first and not alone else y
        trace.state = as_state(last)
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
        return PackedSequence(y, active, order, order_back), as_state(last)

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

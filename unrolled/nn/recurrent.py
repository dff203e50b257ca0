"""`Recurrent`: layers of any cell, deep, in one direction or both."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ..cell import Cell
from ..errors import InputError
from ..language.equations import Every
from .checks import check_probability
from .layers import Layers


class Recurrent(Layers):
    """Recurrent layers of any cell.

    Each family of parameters is one tensor a layer and direction, its blocks stacked along the
    first axis in the order of `cell.blocks`: `W_l0`, `U_l0`, `b_l0`, `W_l1_reverse` …, drawn
    uniformly from ±1/√H, where H is the size of the output, if the cell does not say where a family
    begins.

    Args:
        cell: the equations of every layer, such as `unrolled.cells.lstm`.
        input_size: I.
        hidden_size: one number for every other size of the cell, or a number for each by the name
            of a state or other value: `{"h": 64, "c": 256}`.
        num_layers: layers, each reading the outputs of the one below, in both directions.
        bias: whether vectors of parameters that are added (`b.i`) exist; otherwise they are zero.
        batch_first: whether input and output are (B, T, …) rather than (T, B, …).
        dropout: probability of dropping an output of a layer below the last, in training.
        bidirectional: whether each layer also reads the sequence from its end.
        dropout_every: `"step"`: what is dropped between layers is drawn anew at every step; or
            `"sequence"`: once for each row, and held over its steps (Gal & Ghahramani 2016).
        weight_dropout: probability, in training, of dropping an entry of the matrices that read
            what comes from the step before; drawn once a call (Merity, Keskar & Socher 2018).
        initial_state: `"zero"`, or `"learned"`: then where no state is given, the first step
            receives the parameters `h_0_l0`, `h_0_l0_reverse` …, one (size,) for each state, layer
            and direction, which begin at zero.
        recompute: whether the forward pass keeps for the backward pass only the states that each
            step receives, and the backward pass computes the rest of the step again: the same
            numbers for less memory and more time. An LSTM then keeps 2 · H numbers for each step
            of a row in place of 6 · H, a GRU H in place of 5 · H.
            Compilers and transforms of torch.func, on the eager backend, keep what they will.
        backend: `"auto"`, or one by name: `"cpu"`, `"eager"`, `"reference"`.
        device: of the parameters.
        dtype: of the parameters.

    Raises:
        InputError: if an argument does not fit.
        SizeError: if two sizes of the cell cannot agree.
    """

    def __init__(
        self,
        cell: Cell,
        input_size: int,
        hidden_size: int | Mapping[str, int],
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        dropout_every: Every = "step",
        weight_dropout: float = 0.0,
        initial_state: Literal["zero", "learned"] = "zero",
        recompute: bool = False,
        backend: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            cell,
            input_size,
            hidden_size,
            num_layers,
            batch_first,
            dropout,
            bidirectional,
            backend,
            dropout_every,
            recompute,
        )
        if initial_state not in ("zero", "learned"):
            raise InputError(f"initial_state is 'zero' or 'learned'; found {initial_state!r}.")
        check_probability("weight_dropout", weight_dropout)
        self.bias = bias
        self.weight_dropout = float(weight_dropout)
        self.initial_state = initial_state
        kinds = cell.equations.kinds
        recurrent = {block.partition(".")[0] for block in cell.recurrent_blocks}
        self._recurrent_matrices = frozenset(f for f in recurrent if kinds[f] == "matrix")
        self._names = []
        for suffix, direction in zip(self._suffixes, self._directions, strict=True):
            shapes = cell.parameter_shapes(direction.sizes)
            self._names.append([f"{family}{suffix}" for family in shapes])
            for family, shape in shapes.items():
                empty = torch.empty(shape, device=device, dtype=dtype)
                if bias or kinds[family] != "vector":
                    self.register_parameter(f"{family}{suffix}", nn.Parameter(empty))
                else:
                    self.register_buffer(f"{family}{suffix}", empty, persistent=False)
            for state, size in zip(cell.states, self._state_sizes, strict=True):
                if initial_state == "learned":
                    empty = torch.empty(size, device=device, dtype=dtype)
                    self.register_parameter(f"{state}_0{suffix}", nn.Parameter(empty))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all parameters anew, uniformly from ±1/√H.

        Families that say where they begin, as `gain=initial(1)`, begin there, and learned initial
        states at zero.
        """
        super().reset_parameters()
        for number, direction in enumerate(self._directions):
            for family, stacked in zip(direction.families, self._families(number), strict=True):
                if family in self.cell.equations.initial:
                    nn.init.constant_(stacked, self.cell.equations.initial[family])
            for state in self._learned(number) or ():
                nn.init.zeros_(state)

    def _families(self, number: int) -> Sequence[Tensor]:
        return [getattr(self, name) for name in self._names[number]]

    @property
    def _families_dropped(self) -> frozenset[str]:
        return self._recurrent_matrices if self.weight_dropout else frozenset()

    def _learned(self, number: int) -> list[Tensor] | None:
        if self.initial_state == "zero":
            return None
        return [getattr(self, f"{state}_0{self._suffixes[number]}") for state in self.cell.states]

    def extra_repr(self) -> str:
        """The cell, the sizes, and the arguments that differ from their defaults."""
        return f"{self.cell.name}, {super().extra_repr()}"

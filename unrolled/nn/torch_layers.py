"""`RNN`, `GRU` and `LSTM` as `torch.nn` has them: same arguments, same parameters, same numbers."""

import re
from collections.abc import Mapping, Sequence
from functools import cache

import torch
from torch import Tensor, nn

from .. import cells
from ..cell import Cell
from ..errors import InputError
from .layers import Layers


class _TorchLayers(Layers):
    """What the three have in common: `torch.nn`'s names, layout and order of parameters.

    torch has two vectors of biases, of which only the GRU's candidate needs both; the others are
    added up here.
    """

    def __init__(
        self,
        cell: Cell,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        bias: bool,
        batch_first: bool,
        dropout: float,
        bidirectional: bool,
        proj_size: int,
        backend: str,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        sizes: int | Mapping[str, int] = hidden_size
        if proj_size:
            sizes = {"h": proj_size, "c": hidden_size}
        super().__init__(
            cell, input_size, sizes, num_layers, batch_first, dropout, bidirectional, backend
        )
        self.hidden_size: int = hidden_size
        self.bias = bias
        self.proj_size = proj_size
        self._names = []
        for number, suffix in enumerate(self._suffixes):
            shapes = self._shapes(number // (1 + bidirectional), suffix)
            self._names.append(list(shapes))
            for name, shape in shapes.items():
                empty = torch.empty(shape, device=device, dtype=dtype)
                self.register_parameter(name, nn.Parameter(empty))
            if not bias:
                for family, size in self._families_of_biases().items():
                    zero = torch.empty(size, device=device, dtype=dtype)
                    self.register_buffer(f"{family}{suffix}", zero, persistent=False)
        self.reset_parameters()

    def _shapes(self, layer: int, suffix: str) -> dict[str, tuple[int, ...]]:
        """Name → shape of the parameters of one direction of a layer, in torch's order."""
        output = self._state_sizes[0]
        rows = len(self.cell.blocks["U"]) * self.hidden_size
        width = output * (1 + self.bidirectional) if layer else self.input_size
        shapes: dict[str, tuple[int, ...]] = {"weight_ih": (rows, width)}
        shapes["weight_hh"] = (rows, output)
        if self.bias:
            shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
        if self.proj_size:
            shapes["weight_hr"] = (self.proj_size, self.hidden_size)
        return {f"{name}{suffix}": shape for name, shape in shapes.items()}

    def _families_of_biases(self) -> dict[str, int]:
        """Family of biases of the cell → its size."""
        return {
            family: len(blocks) * self.hidden_size
            for family, blocks in self.cell.blocks.items()
            if family.startswith("b")
        }

    @property
    def _drawn_for(self) -> int:
        return self.hidden_size  # torch takes this one, even where the output is projected

    @property
    def all_weights(self) -> list[list[nn.Parameter]]:
        """The parameters of each direction of each layer."""
        return [[getattr(self, name) for name in names] for names in self._names]

    def flatten_parameters(self) -> None:
        """Nothing to do; it is here because torch.nn's layers have it."""

    def _families(self, number: int) -> Sequence[Tensor]:
        suffix = self._suffixes[number]
        W, U = getattr(self, f"weight_ih{suffix}"), getattr(self, f"weight_hh{suffix}")
        if self.bias:
            biases = self._biases(
                getattr(self, f"bias_ih{suffix}"), getattr(self, f"bias_hh{suffix}")
            )
        else:
            biases = [getattr(self, f"{family}{suffix}") for family in self._families_of_biases()]
        if self.proj_size:
            return [W, U, getattr(self, f"weight_hr{suffix}"), *biases]
        return [W, U, *biases]

    def _biases(self, bias_ih: Tensor, bias_hh: Tensor) -> list[Tensor]:
        """The cell's families of biases, from torch's two vectors."""
        return [bias_ih + bias_hh]

    def _drawn_between(self, x: Tensor, width: int, counts: Tensor | None) -> Tensor:
        # As torch.nn's layers draw it: with the same seed the same is dropped.
        return nn.functional.dropout(x.new_ones(*x.shape[:-1], width), self.dropout, True)

    @property
    def _stored(self) -> tuple[Cell, tuple[tuple[str, ...], ...]]:
        matrices = ["weight_ih", "weight_hh", *(["weight_hr"] if self.proj_size else [])]
        biases = ["bias_ih", "bias_hh"] if self.bias else [*self._families_of_biases()]
        names = (tuple(f"{n}{suffix}" for n in (*matrices, *biases)) for suffix in self._suffixes)
        return _with_two_biases(self.cell) if self.bias else self.cell, tuple(names)

    def extra_repr(self) -> str:
        """The arguments that differ from their defaults."""
        text = super().extra_repr()
        return f"{text}, proj_size={self.proj_size}" if self.proj_size else text


class RNN(_TorchLayers):
    """Simple recurrent layers, as `torch.nn.RNN`.

    Args:
        input_size: I.
        hidden_size: H.
        num_layers: layers, one above the other.
        nonlinearity: `"tanh"` or `"relu"`.
        bias: whether there are biases.
        batch_first: whether input and output are (B, T, …) rather than (T, B, …).
        dropout: probability of dropping an output of a layer below the last, in training.
        bidirectional: whether each layer also reads the sequence from its end.
        device: of the parameters.
        dtype: of the parameters.
        backend: `"auto"`, or one by name: `"cpu"`, `"eager"`, `"reference"`.

    Raises:
        InputError: if an argument does not fit.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        backend: str = "auto",
    ) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise InputError(f"nonlinearity is {nonlinearity!r}; it is 'tanh' or 'relu'.")
        super().__init__(
            cells.simple if nonlinearity == "tanh" else cells.simple_relu, input_size, hidden_size,
            num_layers, bias, batch_first, dropout, bidirectional, 0, backend, device, dtype,
        )  # fmt: skip
        self.nonlinearity = nonlinearity

    def extra_repr(self) -> str:
        """The arguments that differ from their defaults."""
        text = super().extra_repr()
        return text if self.nonlinearity == "tanh" else f"{text}, nonlinearity='relu'"


class GRU(_TorchLayers):
    """Gated recurrent layers, as `torch.nn.GRU`: the reset comes after the product.

    Args:
        input_size: I.
        hidden_size: H.
        num_layers: layers, one above the other.
        bias: whether there are biases.
        batch_first: whether input and output are (B, T, …) rather than (T, B, …).
        dropout: probability of dropping an output of a layer below the last, in training.
        bidirectional: whether each layer also reads the sequence from its end.
        device: of the parameters.
        dtype: of the parameters.
        backend: `"auto"`, or one by name: `"cpu"`, `"eager"`, `"reference"`.

    Raises:
        InputError: if an argument does not fit.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        backend: str = "auto",
    ) -> None:
        super().__init__(
            cells.gru, input_size, hidden_size, num_layers, bias, batch_first, dropout,
            bidirectional, 0, backend, device, dtype,
        )  # fmt: skip

    def _biases(self, bias_ih: Tensor, bias_hh: Tensor) -> list[Tensor]:
        H = self.hidden_size
        outside, inside = bias_hh.tensor_split((2 * H,))
        return [bias_ih + nn.functional.pad(outside, (0, H)), inside]


class LSTM(_TorchLayers):
    """Long short-term memory layers, as `torch.nn.LSTM`.

    Args:
        input_size: I.
        hidden_size: H.
        num_layers: layers, one above the other.
        bias: whether there are biases.
        batch_first: whether input and output are (B, T, …) rather than (T, B, …).
        dropout: probability of dropping an output of a layer below the last, in training.
        bidirectional: whether each layer also reads the sequence from its end.
        proj_size: size of a projected output, smaller than `hidden_size`; 0 for none.
        device: of the parameters.
        dtype: of the parameters.
        backend: `"auto"`, or one by name: `"cpu"`, `"eager"`, `"reference"`.

    Raises:
        InputError: if an argument does not fit.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        backend: str = "auto",
    ) -> None:
        if not 0 <= proj_size < hidden_size:
            raise InputError(
                f"proj_size is {proj_size}; it is smaller than hidden_size ({hidden_size}), "
                "or 0 for none."
            )
        super().__init__(
            cells.projected_lstm if proj_size else cells.lstm, input_size, hidden_size, num_layers,
            bias, batch_first, dropout, bidirectional, proj_size, backend, device, dtype,
        )  # fmt: skip


@cache
def _with_two_biases(cell: Cell) -> Cell:
    """The same cell with torch's two vectors of biases: `b.i` becomes `b.i + b_U.i`."""
    text, inside = cell.text, cell.blocks.get("b_U", ())
    for block in cell.blocks["b"]:
        if block not in inside:
            text = re.sub(rf"\bb\.{block}\b", f"b.{block} + b_U.{block}", text)
    return Cell.parse(text if inside else text.replace(", b):", ", b, b_U):", 1))

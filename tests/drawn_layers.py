"""Layers that no one thought of, with all that a call can be given: hypothesis draws them."""

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from hypothesis import strategies as st
from own_cells import OWN_CELLS
from random_cells import different_sizes, random_cells
from torch import Tensor

import unrolled
from unrolled import Cell, InputError, SizeError, cells
from unrolled.nn import Recurrent

DOUBLE = torch.float64
CATALOGUE = list(cells.catalogue().values())
TRANSFORMS = {
    "recurrent dropout": lambda cell: unrolled.recurrent_dropout(cell, 0.4),
    "candidate dropout": lambda cell: unrolled.candidate_dropout(cell, 0.3),
    "zoneout": lambda cell: unrolled.zoneout(cell, 0.3),
    "clipped": lambda cell: unrolled.clipped(cell, 0.8),
    "layer norm": lambda cell: unrolled.layer_norm(cell, 0.1),
}


def several(state: Any) -> tuple[Tensor, ...]:
    return tuple(state) if isinstance(state, tuple | list) else (state,)


@dataclass
class Call:
    """A layer and what it is called with; every tensor is time-major, whatever the layer reads.

    Attributes:
        layer: in training or in evaluation.
        x: (T, B, I).
        state: (layers · directions, B, size) of each state; None: the layer's own.
        lengths: of the rows, or None.
        resets: (T, B), or None.
        masks: all that is random; None if nothing is.
        return_all: whether all states are asked for.
    """

    layer: Recurrent
    x: Tensor
    state: tuple[Tensor, ...] | None
    lengths: list[int] | None
    resets: Tensor | None
    masks: list[dict[str, Tensor]] | None
    return_all: bool

    def run(self) -> list[Tensor]:
        """Outputs, last states and perhaps all states."""
        layer, turn = self.layer, self.layer.batch_first
        state = self.state
        if state is not None and len(state) == 1:
            (state,) = state
        y, last, *every = layer(
            self.x.transpose(0, 1) if turn else self.x,
            state,
            self.lengths,
            self.resets.t() if turn and self.resets is not None else self.resets,
            masks=self.masks,
            return_all=self.return_all,
        )
        every = [part.transpose(1, 2) if turn else part for one in every for part in several(one)]
        return [y.transpose(0, 1) if turn else y, *several(last), *every]

    def leaves(self) -> list[Tensor]:
        """What has a gradient: the input, a given state, the parameters."""
        return [self.x, *(self.state or ()), *self.layer.parameters()]

    def gradients(self, outputs: list[Tensor] | None = None) -> list[Tensor]:
        """Of a weighted sum of all outputs."""
        outputs = self.run() if outputs is None else outputs
        return torch.autograd.grad(
            weighted_sum(outputs), self.leaves(), allow_unused=True, materialize_grads=True
        )

    def on(self, **options: Any) -> "Call":
        """The same with a layer that has the same parameters and other options."""
        other = replace_layer(self.layer, **options)
        return replace(self, layer=other)

    def rows(self, rows: list[int]) -> "Call":
        """The same for some rows of the batch, in their order."""
        return replace(
            self,
            x=self.x[:, rows],
            state=None if self.state is None else tuple(part[:, rows] for part in self.state),
            lengths=None if self.lengths is None else [self.lengths[row] for row in rows],
            resets=None if self.resets is None else self.resets[:, rows],
            masks=self.with_masks(lambda mask, every: mask[:, rows] if every else mask[rows]),
        )

    def steps(self, steps: slice) -> "Call":
        """The same for some steps; all rows have all of them."""
        return replace(
            self,
            x=self.x[steps],
            lengths=None,
            resets=None if self.resets is None else self.resets[steps],
            masks=self.with_masks(lambda mask, every: mask[steps] if every else mask),
        )

    def with_masks(self, change: Any) -> list[dict[str, Tensor]] | None:
        """The masks with those that have rows changed, given whether they have steps too."""
        if self.masks is None:
            return None
        families = self.layer.cell.program.families
        return [
            {
                name: mask if name in families else change(mask, mask.dim() == 3)
                for name, mask in one.items()
            }
            for one in self.masks
        ]


def replace_layer(layer: Recurrent, **options: Any) -> Recurrent:
    made = {
        "cell": layer.cell,
        "input_size": layer.input_size,
        "hidden_size": layer.hidden_size,
        "num_layers": layer.num_layers,
        "bias": layer.bias,
        "batch_first": layer.batch_first,
        "bidirectional": layer.bidirectional,
        "dropout": layer.dropout,
        "dropout_every": layer.dropout_every,
        "weight_dropout": layer.weight_dropout,
        "initial_state": layer.initial_state,
        "recompute": layer.recompute,
        "backend": layer.backend,
        **options,
    }
    other = Recurrent(**made, dtype=DOUBLE)
    other.load_state_dict(layer.state_dict(), strict=False)
    return other.train(layer.training)


def weighted_sum(outputs: list[Tensor]) -> Tensor:
    return sum(
        (output * torch.linspace(-1, 1, output.numel(), dtype=DOUBLE).view(output.shape)).sum()
        for output in outputs
    )


def any_cell() -> st.SearchStrategy[Cell]:
    return st.one_of(
        st.sampled_from(CATALOGUE), st.sampled_from([*OWN_CELLS.values()]), random_cells()
    )


@st.composite
def calls(
    draw: st.DrawFn,
    cell: st.SearchStrategy[Cell] | None = None,
    transforms: bool = True,
    backends: tuple[str, ...] = ("reference", "eager"),
    **options: Any,
) -> Call:
    """Any call of any layer.

    Args:
        draw: hypothesis'.
        cell: what the cell is drawn from.
        transforms: whether it may be regularised.
        backends: to choose from.
        options: of the layer or the call that are not drawn.
    """

    def pick(name: str, *choices: Any) -> Any:
        return options[name] if name in options else draw(st.sampled_from(choices), label=name)

    drawn = draw(any_cell() if cell is None else cell)
    if transforms:
        for name in draw(st.lists(st.sampled_from([*TRANSFORMS]), unique=True, max_size=3)):
            with suppress(InputError):  # there is nothing for it in this cell
                drawn = TRANSFORMS[name](drawn)
    chosen = {
        "bidirectional": pick("bidirectional", False, True),
        "bias": pick("bias", True, False),
        "batch_first": pick("batch_first", False, True),
        "dropout": pick("dropout", 0.0, 0.3),
        "dropout_every": pick("dropout_every", "step", "sequence"),
        "weight_dropout": pick("weight_dropout", 0.0, 0.3),
        "initial_state": pick("initial_state", "zero", "learned"),
        "recompute": pick("recompute", False, True),
        "backend": pick("backend", *backends),
    }
    seed = draw(st.integers(0, 2**20), label="seed")
    torch.manual_seed(seed)
    layer = _layer(drawn, pick("num_layers", 1, 2), chosen)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    layer.train(pick("training", True, False))
    T, B = draw(st.integers(1, 5), label="T"), draw(st.integers(1, 3), label="B")
    count = layer.num_layers * (1 + layer.bidirectional)
    state = None
    if pick("given", True, False):
        sizes = layer._state_sizes
        state = tuple(
            torch.randn(count, B, size, dtype=DOUBLE, requires_grad=True) for size in sizes
        )
    lengths = resets = masks = None
    if pick("ragged", True, False):
        lengths = draw(st.lists(st.integers(0, T), min_size=B, max_size=B), label="lengths")
    if pick("reset", True, False):
        marks = draw(st.lists(st.booleans(), min_size=T * B, max_size=T * B), label="resets")
        resets = torch.tensor(marks).view(T, B)
    if layer.training:
        masks = [dict(one) for one in layer.draw_masks(T, B)]
    x = torch.randn(T, B, layer.input_size, dtype=DOUBLE, requires_grad=True)
    return Call(layer, x, state, lengths, resets, masks, pick("return_all", True, False))


def _layer(cell: Cell, num_layers: int, chosen: dict[str, Any]) -> Recurrent:
    """The layer, or one that is less deep where the sizes of a deep one cannot agree."""
    try:
        return Recurrent(cell, 2, different_sizes(cell), num_layers, dtype=DOUBLE, **chosen)
    except (SizeError, InputError):
        return Recurrent(cell, 2, different_sizes(cell), 1, dtype=DOUBLE, **chosen)

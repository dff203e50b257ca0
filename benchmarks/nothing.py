"""What torch itself takes for a call of a layer, whatever the layer computes."""

from typing import Any

import torch
from torch import Tensor, nn


class Nothing(nn.Module):
    """A layer that makes the tensors of another one, and computes nothing.

    Args:
        layer: the other one; both have its parameters.
        x: its input, (T, B, I), or (rows of all steps, I) of a packed sequence.
        batch: B.
    """

    def __init__(self, layer: nn.LSTM | nn.GRU | nn.RNN, x: Tensor, batch: int) -> None:
        super().__init__()
        self.given = [*layer.parameters()]
        directions = 1 + layer.bidirectional
        width, count = layer.hidden_size, layer.num_layers * directions
        states = 2 if isinstance(layer, nn.LSTM) else 1
        self.made = [
            x.new_empty(*x.shape[:-1], width * directions),
            *(x.new_empty(count, batch, width) for _ in range(states)),
        ]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """The output and the last states, of whatever is in memory."""
        if torch.is_grad_enabled():
            made: tuple[Tensor, ...] = _Nothing.apply(self.made, x, *self.given)
            return made
        return tuple(map(torch.empty_like, self.made))


class _Nothing(torch.autograd.Function):
    """The same with a derivative: of the gradients, too, there is the memory."""

    @staticmethod
    def forward(ctx: Any, made: list[Tensor], *given: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*given)
        return tuple(map(torch.empty_like, made))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        return None, *map(torch.empty_like, ctx.saved_tensors)

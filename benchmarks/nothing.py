"""What torch itself takes for a call of a layer, whatever the layer computes."""

from itertools import starmap
from typing import Any

import torch
from torch import Tensor, nn

from unrolled.nn import fresh


class Nothing(nn.Module):
    """A layer that makes the tensors of another one, as quickly as can be, and computes nothing.

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
        shapes = [(*x.shape[:-1], width * directions), *[(count, batch, width)] * states]
        self.made = [fresh.form_of(shape, x.dtype) for shape in shapes]
        self.gradients = [fresh.form_of(one.shape, one.dtype) for one in (x, *self.given)]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """The output and the last states, of whatever is in memory."""
        if torch.is_grad_enabled():
            made: tuple[Tensor, ...] = _Nothing.apply(self.made, self.gradients, x, *self.given)
            return made
        return tuple(starmap(fresh.small_tensor, self.made))


class _Nothing(torch.autograd.Function):
    """The same with a derivative: of the gradients, too, there is the memory."""

    @staticmethod
    def forward(
        ctx: Any, made: list[fresh.Form], gradients: list[fresh.Form], *given: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*given)
        ctx.gradients = gradients
        return tuple(starmap(fresh.small_tensor, made))

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor | None) -> tuple[Tensor | None, ...]:
        _ = ctx.saved_tensors
        return None, None, *starmap(fresh.small_tensor, ctx.gradients)

"""Optimisers by name, and the running average of a model's weights."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from ..errors import InputError

OPTIMIZERS = ("adam", "sgd")
_MOMENTUM = 0.9
_BETAS = (0.9, 0.99)


def make_optimizer(name: str, model: nn.Module, weight_decay: float = 0.0) -> Optimizer:
    """An optimiser for all parameters of a model; its learning rate is set with `set_rate`.

    Args:
        name: `"adam"` (Kingma & Ba 2015, betas 0.9 and 0.99, with decoupled weight decay:
            Loshchilov & Hutter 2019) or `"sgd"` (momentum 0.9).
        model: The model.
        weight_decay: Share of each matrix that one step at learning rate 1 takes away; vectors
            (biases) do not decay.

    Raises:
        InputError: There is no optimiser of that name.
    """
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if name == "adam":
        return AdamW(groups, betas=_BETAS, fused=True)
    if name == "sgd":
        return SGD(groups, momentum=_MOMENTUM)
    raise InputError(f"There is no optimiser {name!r}; choose one of {', '.join(OPTIMIZERS)}.")


def set_rate(optimizer: Optimizer, rate: float) -> None:
    """Sets the learning rate of the next step."""
    for group in optimizer.param_groups:
        group["lr"] = rate


class WeightAverage:
    """The exponential average of a model's weights over its last steps (Polyak & Juditsky 1992).

    It usually predicts better than the weights themselves, which still jump from step to step.

    Args:
        model: The model; the average begins at its weights.
        decay: Share of the average that a step keeps, 0 ≤ decay < 1; near the start it is lower,
            so that the average forgets where training began. 0 is no averaging.

    Raises:
        InputError: The decay is outside its range.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0 <= decay < 1:
            raise InputError(f"The averaging must be at least 0 and below 1, not {decay}.")
        self._decay = decay
        self._own = dict(model.named_parameters())
        self.weights = {name: weight.detach().clone() for name, weight in self._own.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes the model's weights in after a step, counted from 0."""
        share = 1 - min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.weights.values()), list(self._own.values()), share)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Within the block, the model has the averaged weights."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, weight in self._own.items():
            held = weight.clone()
            weight.copy_(self.weights[name])
            self.weights[name].copy_(held)

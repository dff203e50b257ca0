"""What is timed: inference and training of a layer, and whether two of them agree."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from benchmarks.turns import Run

# Of the largest entry: sums over all steps in float32 differ by their order.
TOLERANCE = 1e-3


def trained(forward: Run, given: Sequence[Tensor], dy: Any) -> Callable[[], Sequence[Tensor]]:
    """Forward, and backward from `dy`, shaped as the outputs, to the tensors given."""

    def run() -> Sequence[Tensor]:
        y: Any = forward()
        return torch.autograd.grad(y.data if isinstance(y, PackedSequence) else y, given, dy)

    return run


def agreement(runs: Mapping[str, Run]) -> float:
    """The largest difference between what the first run gives and what the others do.

    As a part of the largest entry of each tensor.

    Raises:
        ArithmeticError: if it is more than rounding explains.
    """
    (first, run), *others = runs.items()
    expected, worst = _tensors(run()), 0.0
    for name, other in others:
        for ours, theirs in zip(expected, _tensors(other()), strict=True):
            difference = (ours - theirs).abs().max() / theirs.abs().max()
            if not difference <= TOLERANCE:
                raise ArithmeticError(f"{first} and {name} differ by {difference:.1e}")
            worst = max(worst, float(difference))
    return worst


def _tensors(found: Any) -> list[Tensor]:
    """Outputs or gradients of any run, padded."""
    if isinstance(found, PackedSequence):
        found = pad_packed_sequence(found)[0]
    parts = found if isinstance(found, tuple | list) else [found]
    return [
        part.detach() if isinstance(part, Tensor) else torch.from_numpy(np.array(part))
        for part in parts
    ]

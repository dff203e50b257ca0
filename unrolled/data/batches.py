"""Batches for truncated backpropagation through time: parallel streams cut into windows.

Stream b is the b-th of B equal stretches of the text. Window after window, each stream goes on
where it stopped, so the state at a window's end is the state at the next one's start.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .text import TextError
from .vocabulary import Tokens


@dataclass(frozen=True)
class Streams:
    """B parallel streams of tokens and, for each token, the one that follows it.

    Args:
        inputs: Shape (N, B), time-major, int64.
        targets: The tokens that follow, shape (N, B).
    """

    inputs: Tensor
    targets: Tensor

    @property
    def length(self) -> int:
        """Steps in each stream, N."""
        return self.inputs.shape[0]

    def window(self, start: int, steps: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets of the steps from `start` on, (T, B) each; the last is shorter."""
        return self.inputs[start : start + steps], self.targets[start : start + steps]

    def windows(self, steps: int) -> int:
        """How many windows of `steps` steps the streams have; the last may be shorter."""
        return -(-self.length // steps)


def parallel_streams(tokens: Tokens, batch_size: int) -> Streams:
    """The tokens as `batch_size` streams; what does not fill the last step is left out.

    Args:
        tokens: Shape (N,).
        batch_size: How many streams, B.

    Raises:
        TextError: There are too few tokens to give each stream one step.
    """
    steps = (len(tokens) - 1) // batch_size
    if steps < 1:
        raise TextError(
            f"The text is too short: the part to train on has {len(tokens)} tokens, and a batch "
            f"of {batch_size} streams needs at least {batch_size + 1}; choose a smaller --batch "
            "or give a longer text."
        )
    used = steps * batch_size
    sequence = torch.from_numpy(tokens[: used + 1].copy())
    return Streams(
        inputs=sequence[:-1].view(batch_size, steps).t().contiguous(),
        targets=sequence[1:].view(batch_size, steps).t().contiguous(),
    )

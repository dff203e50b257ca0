"""Data-parallel training: two processes of one machine find the gradients of the whole batch."""

import os
import sys

import pytest
import torch
from torch import nn

import unrolled
from unrolled import cells
from unrolled.nn import LSTM, Recurrent

DOUBLE = torch.float64
PROCESSES = 2

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (torch.distributed.is_available() and torch.distributed.is_gloo_available()),
        reason="this torch has no gloo",
    ),
]


class Model(nn.Module):
    """A layer among others, as in use."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.below = nn.Linear(3, 3, dtype=DOUBLE)
        if kind == "lstm":
            self.layer = LSTM(3, 4, num_layers=2, bidirectional=True, dtype=DOUBLE)
        else:
            cell = unrolled.clipped(cells.gru_original, 0.9)
            self.layer = Recurrent(cell, 3, 8, initial_state="learned", recompute=True,
                                   dtype=DOUBLE)  # fmt: skip
        self.head = nn.Linear(8, 2, dtype=DOUBLE)

    def forward(self, x, lengths):
        return self.head(self.layer(torch.tanh(self.below(x)), lengths=lengths)[0])


def batch(step: int):
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(6, 4, 3, generator=generator, dtype=DOUBLE)
    return x, torch.randint(1, 7, (4,), generator=generator)


def train(model: nn.Module, rows: slice) -> list[torch.Tensor]:
    """Two steps of gradient descent; the gradients of the last one."""
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for step in range(2):
        x, lengths = batch(step)
        optimizer.zero_grad()
        model(x[:, rows], lengths[rows]).square().mean().backward()
        optimizer.step()
    return [parameter.grad for parameter in model.parameters()]


def work(rank: int, folder: str, kind: str) -> None:
    if sys.platform == "linux":
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"  # a machine may have no other network
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=PROCESSES
    )
    # The model goes before its group: torch waits for ever, now and then, if it goes after it.
    gradients = train(
        nn.parallel.DistributedDataParallel(Model(kind)), slice(2 * rank, 2 * rank + 2)
    )
    torch.save(gradients, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("kind", ["lstm", "own"])
def test_gradients_are_those_of_the_whole_batch(kind, tmp_path) -> None:
    expected = train(Model(kind), slice(None))
    torch.multiprocessing.spawn(work, (str(tmp_path), kind), nprocs=PROCESSES)
    for rank in range(PROCESSES):
        found = torch.load(tmp_path / f"{rank}.pt")
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)

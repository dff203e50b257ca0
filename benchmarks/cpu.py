"""The CPU kernels beside torch.nn: `python -m benchmarks.cpu`.

Prints the microseconds of a step, the ratio to torch.nn, and the limit that a model of the machine
sets, after checking that both give the same numbers.
"""

import os
import platform

import torch

import unrolled.nn
from benchmarks.turns import median_times

# (T, B, I, H)
SHAPES = [
    (63, 1, 24, 32),
    (1000, 1, 64, 64),
    (150, 1, 256, 256),
    (25, 1, 512, 512),
    (150, 16, 256, 256),
    (1000, 16, 128, 128),
    (64, 32, 256, 256),
    (50, 64, 512, 512),
]
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}

# What the modelled machine does: a core's large products, and reading the recurrent matrix.
FLOPS = 85e9
BANDWIDTH = ((32 << 10, 142e9), (512 << 10, 90e9), (16 << 20, 66e9), (1 << 62, 22e9))


def limit(batch: int, hidden: int, gates: int, cores: int) -> float:
    """The least seconds of one forward step: its arithmetic, or reading U from its cache."""
    matrix = 4 * gates * hidden * hidden
    bandwidth = next(rate for size, rate in BANDWIDTH if matrix / cores <= size)
    return max(2 * batch * gates * hidden * hidden / (cores * FLOPS), matrix / (cores * bandwidth))


def compare(name: str, T: int, B: int, I: int, H: int) -> str:  # noqa: E741
    """One row: inference and training of one layer."""
    torch.manual_seed(0)
    peer = getattr(torch.nn, name)(I, H)
    ours = getattr(unrolled.nn, name)(I, H)
    ours.load_state_dict(peer.state_dict())
    x = torch.randn(T, B, I, requires_grad=True)
    dy = torch.randn(T, B, H)

    def infer(layer: torch.nn.Module) -> torch.Tensor:
        with torch.no_grad():
            return layer(x)[0]

    def train(layer: torch.nn.Module) -> None:
        layer(x)[0].backward(dy)

    torch.testing.assert_close(infer(ours), infer(peer), rtol=1e-4, atol=1e-5)
    row = f"{name:<4} {(T, B, I, H)!s:<22}"
    for run in (infer, train):
        times = median_times(
            {"ours": lambda run=run: run(ours), "torch": lambda run=run: run(peer)}
        )
        least = limit(B, H, GATES[name], os.cpu_count() or 1) * (3 if run is train else 1)
        row += (
            f" | {times['ours'] / T * 1e6:8.2f} {times['torch'] / T * 1e6:8.2f}"
            f" {times['torch'] / times['ours']:6.2f} {100 * least * T / times['ours']:5.0f} %"
        )
    return row


def main() -> None:
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, torch {torch.__version__}"
    )
    print("microseconds a step: ours, torch.nn; ratio; the part of the modelled limit reached")
    print(f"{'':27} | {'inference':>32} | {'training':>32}")
    for name in GATES:
        for shape in SHAPES:
            print(compare(name, *shape), flush=True)


if __name__ == "__main__":
    main()

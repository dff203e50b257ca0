"""Cells that no library has fused, beside the loop over their equations, and beside our LSTM."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

import unrolled
from benchmarks.passes import agreement, trained
from benchmarks.report import Settings, Table, microseconds, ratio
from benchmarks.turns import Run
from unrolled import cells
from unrolled.nn import Recurrent

KINDS: dict[str, Callable[[], unrolled.Cell]] = {
    "peephole_lstm": lambda: cells.peephole_lstm,
    "coupled_lstm": lambda: cells.coupled_lstm,
    "gru_original": lambda: cells.gru_original,
    "projected_lstm": lambda: cells.projected_lstm,
    "layer_norm(lstm)": lambda: unrolled.layer_norm(cells.lstm),
}

SHAPES = ((1000, 1, 64, 64), (150, 16, 256, 256))
TINY = ((7, 2, 3, 6),)
FLOORS = {(1000, 1, 64, 64): 20.0, (150, 16, 256, 256): 3.0}  # to the loop
CEILING = 1.3  # to the LSTM, for the same work
# Steps over which the numbers are compared: what float32 rounds grows from step to step in a cell
# with norms and random weights, until after hundreds of steps no state is left to compare.
COMPARED = 20


def run(settings: Settings) -> Iterator[dict[str, Any]]:
    """Measure training, a row for each cell and shape."""
    for shape in TINY if settings.quick else SHAPES:
        for kind in settings.chosen(KINDS):
            settings.say(f"{kind} {shape}")
            yield _compared(kind, shape, settings)


def _compared(kind: str, shape: tuple[int, ...], settings: Settings) -> dict[str, Any]:
    torch.manual_seed(0)
    T, B, I, H = shape  # noqa: E741
    cell = KINDS[kind]()
    sizes: Any = {"h": H // 2, "c": H} if cell.name == "projected_lstm" else H
    ours, plain = Recurrent(cell, I, sizes), Recurrent(cells.lstm, I, H)
    loop = Recurrent(cell, I, sizes, backend="eager")
    loop.load_state_dict(ours.state_dict())
    x = torch.randn(T, B, I, requires_grad=True)
    forwards: dict[str, tuple[Recurrent, Callable[[Tensor], Any]]] = {
        "ours": (ours, ours),
        "LSTM": (plain, plain),
        "loop": (loop, loop),
    }
    if "compiled" not in settings.without:
        torch.compiler.reset()
        forwards["compiled"] = loop, _stepped(loop, x)
    runs = {name: _training(*pair, x) for name, pair in forwards.items()}
    few = x[:COMPARED].detach().requires_grad_()
    difference = agreement(
        {name: _training(*pair, few) for name, pair in forwards.items() if name != "LSTM"}
    )
    times = settings.turns.time(runs)
    return {
        "cell": kind,
        "shape": shape,
        "times": {name: asdict(timing) for name, timing in times.items()},
        "work": _work(ours) / _work(plain),
        "difference": difference,
    }


def _training(layer: Recurrent, forward: Callable[[Tensor], Any], x: Tensor) -> Run:
    with torch.no_grad():
        dy = torch.ones_like(layer(x)[0])
    return trained(lambda: forward(x)[0], [x, *layer.parameters()], dy)


def _stepped(layer: Recurrent, x: Tensor) -> Callable[[Tensor], tuple[Tensor]]:
    """An open loop over a compiled step: compiling the whole loop would take minutes."""
    step = torch.compile(layer, dynamic=False, fullgraph=True)
    zeros = tree_map(torch.zeros_like, layer(x[:1])[1])

    def run(x: Tensor) -> tuple[Tensor]:
        state, found = zeros, []
        for x_t in x.split(1):
            y, state = step(x_t, state)
            found.append(y)
        return (torch.cat(found),)

    return run


def _work(layer: Recurrent) -> int:
    """Multiplications of a step."""
    return sum(stacked.numel() for stacked in layer.parameters() if stacked.dim() == 2)


def tables(rows: Sequence[dict[str, Any]]) -> list[Table]:
    """One table, of training."""
    runners = ["ours", "LSTM", "loop", *(["compiled"] if "compiled" in rows[0]["times"] else [])]
    columns = ["", "(T, B, I, H)", *runners, *(f"to the {name}" for name in runners[2:])]
    return [
        Table(
            "Training: microseconds a step",
            [*columns, "of the LSTM, same work"],
            [_line(row, runners) for row in rows],
        )
    ]


def _line(row: dict[str, Any], runners: Sequence[str]) -> list[str]:
    times = {name: found["median"] for name, found in row["times"].items()}
    mine = times["ours"]
    return [
        row["cell"],
        str(tuple(row["shape"])),
        *(microseconds(times[name] / row["shape"][0]) for name in runners),
        ratio(times["loop"] / mine, FLOORS.get(tuple(row["shape"]))),
        *([ratio(times["compiled"] / mine)] if "compiled" in times else []),
        ratio(mine / times["LSTM"] / row["work"], ceiling=CEILING),
    ]

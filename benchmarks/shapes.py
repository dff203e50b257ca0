"""LSTM, GRU and simple RNN beside their peers, over the shapes that people use."""

import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import unrolled.nn
from benchmarks import peers
from benchmarks.machine import Machine, Work
from benchmarks.nothing import Nothing
from benchmarks.passes import agreement, trained
from benchmarks.report import Settings, Table, microseconds, percent, ratio
from benchmarks.turns import Run

KINDS = {"LSTM": Work(4, 5, 2), "GRU": Work(3, 3, 2), "RNN": Work(1, 1, 1)}
PASSES = ("inference", "training")
LIBRARIES = ("torch.nn", "ONNX Runtime")
OTHERS = ("loop", "compiled", "JAX")  # peers that are no libraries of layers
RUNNERS = ("ours", *LIBRARIES, *OTHERS)
CALL = "a call"  # that computes nothing


@dataclass(frozen=True)
class Shape:
    """A shape of layers and their input.

    Attributes:
        T, B, I, H: length, batch, input size, hidden size.
        layers: how many.
        bidirectional: whether each has two directions.
        ragged: whether the lengths of the rows are uniform between 1 and T, as a packed sequence.
    """

    T: int
    B: int
    I: int  # noqa: E741
    H: int
    layers: int = 1
    bidirectional: bool = False
    ragged: bool = False

    def __str__(self) -> str:
        text = str((self.T, self.B, self.I, self.H))
        text += f", {self.layers} layers" if self.layers > 1 else ""
        text += ", both ways" if self.bidirectional else ""
        return text + (", packed" if self.ragged else "")

    @property
    def lengths(self) -> Tensor:
        """(B,) how many steps each row has, the longest first."""
        if not self.ragged:
            return torch.full((self.B,), self.T)
        return torch.linspace(self.T, 1, self.B).round().long()

    @property
    def batches(self) -> list[int]:
        """(T,) how many rows take part at each step."""
        return (self.lengths > torch.arange(self.T)[:, None]).sum(1).tolist()

    def directions(self) -> Iterator[tuple[int, int]]:
        """Input and hidden size of each direction of each layer."""
        for layer in range(self.layers):
            width = self.H * (1 + self.bidirectional) if layer else self.I
            yield from [(width, self.H)] * (1 + self.bidirectional)

    def limit(self, machine: Machine, work: Work, training: bool) -> float:
        """The least seconds of a sequence."""
        return sum(
            machine.layer(self.batches, work, inputs, hidden, training)
            for inputs, hidden in self.directions()
        )

    def operations(self, gates: int) -> float:
        """Operations of a forward pass, in its products."""
        products = sum(gates * hidden * (inputs + hidden) for inputs, hidden in self.directions())
        return 2.0 * sum(self.batches) * products

    def bytes_read(self, gates: int) -> int:
        """Bytes of U that the steps of a forward pass read."""
        return sum(4 * gates * hidden**2 for _, hidden in self.directions()) * self.T


SHAPES = (
    Shape(63, 1, 24, 32),
    Shape(1000, 1, 64, 64),
    Shape(150, 1, 256, 256),
    Shape(25, 1, 512, 512),
    Shape(150, 16, 256, 256),
    Shape(1000, 16, 128, 128),
    Shape(35, 20, 650, 650),
    Shape(50, 64, 512, 512),
    Shape(28, 128, 28, 128),
    Shape(100, 8, 128, 128, layers=2, bidirectional=True),
    Shape(1000, 32, 128, 128, ragged=True),
)
TINY = (
    Shape(7, 1, 3, 5),
    Shape(4, 2, 3, 5, layers=2, bidirectional=True),
    Shape(6, 3, 4, 5, ragged=True),
)

# The least ratios to the best library that count as reached: inference, training. Those of a packed
# sequence are to torch.nn, whose form of a batch it is.
FLOORS = {
    (63, 1, 24, 32): {"LSTM": (2.0, 8), "GRU": (2.0, 30), "RNN": (2.0, 15)},
    (1000, 1, 64, 64): {"LSTM": (1.4, 3), "GRU": (1.3, 40), "RNN": (2.5, 15)},
    (150, 1, 256, 256): {"LSTM": (1.4, 1.6), "GRU": (1.7, 8), "RNN": (1.5, 4)},
    (25, 1, 512, 512): {"LSTM": (1.3, 2), "GRU": (1.5, 6), "RNN": (1.3, 3)},
    (150, 16, 256, 256): {"LSTM": (1.15, 1.5), "GRU": (1.5, 2), "RNN": (2.0, 2.5)},
    (1000, 16, 128, 128): {"LSTM": (1.2, 1.5), "GRU": (1.5, 3), "RNN": (2.0, 5)},
    (50, 64, 512, 512): {"LSTM": (1.05, 1.2), "GRU": (1.15, 1.3), "RNN": (1.2, 1.3)},
    (1000, 32, 128, 128): {"LSTM": (4, 4), "GRU": (4, 4), "RNN": (4, 4)},
}


def run(settings: Settings) -> Iterator[dict[str, Any]]:
    """Measure, a row for each layer and pass."""
    for kind in settings.chosen(KINDS):
        for shape in TINY if settings.quick else SHAPES:
            settings.say(f"{kind} {shape}")
            yield from _compared(kind, shape, settings)


def _compared(kind: str, shape: Shape, settings: Settings) -> Iterator[dict[str, Any]]:
    torch.manual_seed(0)
    options = {"num_layers": shape.layers, "bidirectional": shape.bidirectional}
    peer = getattr(torch.nn, kind)(shape.I, shape.H, **options)
    ours = getattr(unrolled.nn, kind)(shape.I, shape.H, **options)
    ours.load_state_dict(peer.state_dict())
    x = torch.randn(shape.T, shape.B, shape.I)
    if shape.ragged:
        x = pack_padded_sequence(x, shape.lengths)
    runs = _runs(ours, peer, x, settings.without)
    nothing = _nothing(peer, x, shape.B)
    for name in PASSES:
        probes = {CALL: nothing[name], **settings.machine.probes()}
        with torch.set_grad_enabled(name == "training"):
            difference = agreement(runs[name])
            times = settings.turns.time({**runs[name], **probes})
        seconds = {who: times.pop(who).median for who in probes}
        call, machine = seconds.pop(CALL), settings.machine.at_the_time(seconds)
        limit = call + shape.limit(machine, KINDS[kind], name == "training")
        yield {
            "cell": kind,
            "shape": {"label": str(shape), **asdict(shape)},
            "pass": name,
            "times": {runner: asdict(timing) for runner, timing in times.items()},
            "difference": difference,
            "call": call,
            "limit": limit,
            "flops": machine.flops,
            "operations": shape.operations(KINDS[kind].blocks) * (1 if name == "inference" else 3),
            "bytes": shape.bytes_read(KINDS[kind].blocks),
        }


def _runs(
    ours: torch.nn.Module, peer: peers.Layer, x: Tensor | PackedSequence, without: frozenset[str]
) -> dict[str, dict[str, Run]]:
    """Pass → who → its run, which gives what is to be compared."""
    data = x.data if isinstance(x, PackedSequence) else x
    data.requires_grad_()
    torch.compiler.reset()
    forwards: dict[str, Run] = {"ours": lambda: ours(x)[0], "torch.nn": lambda: peer(x)[0]}
    if isinstance(x, Tensor):
        forwards["loop"] = lambda: peers.loop(peer, x)
        forwards["compiled"] = lambda: peers.compiled_loop(peer, x)
    width = peer.hidden_size * (1 + peer.bidirectional)
    dy = torch.randn(*data.shape[:-1], width)
    runs: dict[str, dict[str, Run]] = {name: {} for name in PASSES}
    for name, forward in forwards.items():
        if name in without:
            continue
        given = [data, *(ours if name == "ours" else peer).parameters()]
        runs["inference"][name] = forward
        runs["training"][name] = trained(forward, given, dy)
    if onnx := peers.onnx_runtime(peer, x):
        runs["inference"]["ONNX Runtime"] = onnx
    single = isinstance(x, Tensor) and len(peer.all_weights) == 1
    if single and "JAX" not in without and importlib.util.find_spec("jax"):
        runs["inference"]["JAX"], runs["training"]["JAX"] = peers.jax_scan(peer, x, dy)
    return runs


def _nothing(peer: peers.Layer, x: Tensor | PackedSequence, batch: int) -> dict[str, Run]:
    """Pass → what torch takes for it beside what a layer computes."""
    data = x.data if isinstance(x, PackedSequence) else x
    layer = Nothing(peer, data.detach(), batch)
    dy = torch.empty(layer.made[0][0])

    def forward() -> Tensor:
        y: Tensor = layer(data)[0]
        return y

    return {
        "inference": forward,
        "training": trained(forward, [data, *peer.parameters()], dy),
    }


def tables(rows: Sequence[dict[str, Any]]) -> list[Table]:
    """A table for each pass."""
    return [_table(name, [row for row in rows if row["pass"] == name]) for name in PASSES]


def _table(name: str, rows: Sequence[dict[str, Any]]) -> Table:
    found = {who for row in rows for who in row["times"]}
    runners = [who for who in RUNNERS if who in found]
    return Table(
        f"{name.capitalize()}: microseconds a step",
        [
            "",
            "(T, B, I, H)",
            *runners,
            "to the library",
            "to the best",
            "limit",
            "GF/s",
        ],
        [_line(row, runners) for row in rows],
    )


def _line(row: dict[str, Any], runners: Sequence[str]) -> list[str]:
    shape, times = row["shape"], {who: found["median"] for who, found in row["times"].items()}
    mine = times["ours"]
    compared = LIBRARIES[:1] if shape["ragged"] else LIBRARIES
    library = min(times[who] for who in compared if who in times)
    rivals = min(seconds for who, seconds in times.items() if who != "ours")
    return [
        row["cell"],
        shape["label"],
        *(microseconds(times[who] / shape["T"] if who in times else None) for who in runners),
        ratio(library / mine, floor(row)),
        ratio(rivals / mine),
        percent(row["limit"] / mine, _part_of_limit(shape)),
        f"{row['operations'] / mine / 1e9:.0f}",
    ]


def floor(row: dict[str, Any]) -> float | None:
    """The ratio to the library that counts as reached."""
    shape = row["shape"]
    if shape["layers"] > 1:
        return None
    floors = FLOORS.get(tuple(shape[letter] for letter in "TBIH"), {}).get(row["cell"])
    return floors[PASSES.index(row["pass"])] if floors else None


def _part_of_limit(shape: dict[str, Any]) -> float | None:
    """The part of the limit that counts as reached: reading U, or the machine's own product."""
    if shape["B"] == 1:
        return 0.6
    return 0.8 if shape["B"] >= 16 and shape["H"] >= 256 else None
